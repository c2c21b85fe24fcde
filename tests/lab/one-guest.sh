#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The block backend on the real thing: dm-multipath, multipathd, LIO, NVMe.
#
# One QEMU guest holds the SAN and three hosts; tests/lab/inside/guest.sh draws
# it.  Each scenario is a script in there that tells its goal and timeline; its
# checks are repeated here.  No root, no network, nothing installed.
#
# Time in the guest is counted in its own instructions (outside/boot.sh): a busy
# machine makes it slow, not late, so that no limit in a scenario is forgiving.
#
#   LAB_SCENARIOS="paths fence"   only these

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lab/outside/image.sh
. "$(dirname "$0")/outside/image.sh"
# shellcheck source=tests/lab/outside/boot.sh
. "$(dirname "$0")/outside/boot.sh"

LAB_SCENARIOS=${LAB_SCENARIOS:-paths fence queue requests nbd nvme}
LAB_MODE=guest # the addresses in the certificates
BOOT_LIMIT=300000
# A scenario that hangs is ended in there; the guest itself is given up when it
# does not answer for an hour of this machine's time, or by tests/run-one.
SCENARIO_SECONDS=200
SCENARIO_LIMIT=3600000

leave() {
    boot_end
    rm -rf "$LAB_DIR"
}

# A sanitizer's runtime and ten times the time: not in an emulated guest.
[[ ! ${SANITIZE-} ]] || skip_all "not under a sanitizer: too slow in a guest"
reason=$(image_possible) || skip_all "$reason"
LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/detour-lab.XXXXXX") || exit 1
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
mkdir "$LAB_DIR/log"

console() {
    diag "---- the guest's console"
    tail -n "${1:-150}" "$BOOT_DIR/console" | tr -d '\r' | sed 's/^/# /'
    sed 's/^/# qemu: /' "$BOOT_DIR/qemu"
}

# up - a boot that fails may be tried once more; a scenario never.
up() {
    local try
    for try in 1 2; do
        mkdir "$LAB_DIR/$try"
        boot_start "$LAB_DIR/$try" "$LAB_DIR/initrd" &&
            boot_wait "$BOOT_LIMIT" && return 0
        console
        boot_end
    done
    return 1
}

# Its checks get our numbers.  The plan shows that it came to its end.
ended=
repeat() {
    local name=${1#*- }
    case $1 in
    "ok "*) pass "$scenario: $name" ;;
    "not ok "*) fail "$scenario: $name" ;;
    1..[1-9]*) ended=yes ;;
    "# "*) echo "$1" ;;
    ?*) echo "# $1" ;;
    esac
}

run_scenario() {
    local rc before=$TAP_FAILED
    ended=
    boot_run "$SCENARIO_LIMIT" repeat \
        "sh /lab/tests/lab/inside/run.sh $1 $SCENARIO_SECONDS"
    rc=$?
    if ((rc == 255)); then
        fail "$1: ends within $((SCENARIO_LIMIT / 1000)) s"
        console
        return 1
    fi
    [[ $ended ]] || fail "$1: comes to its end" "exit status $rc"
    ((rc == 0 || TAP_FAILED > before)) ||
        fail "$1: ends well" "exit status $rc"
    ((TAP_FAILED == before)) || console 25
}

pki_up || lab_failed "no certificates"
image_make "$LAB_DIR/initrd" "$LAB_DIR/pki" || lab_failed "no initial ramdisk"
up || lab_failed "the guest does not boot"
for scenario in $LAB_SCENARIOS; do
    begin=$(now_ms)
    run_scenario "$scenario" || break
    diag "$scenario: $(($(now_ms) - begin)) ms," \
        "QEMU has had $(boot_seconds) s of processor time"
done
tap_end
