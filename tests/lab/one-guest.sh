#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The block backend on the real thing: dm-multipath, multipathd, LIO, NVMe.
#
# One QEMU guest holds the SAN and three hosts; tests/lab/inside/guest.sh draws
# it.  Each scenario is a script in there that tells its goal and timeline; its
# checks are repeated here.  No root, no network, nothing installed.
#
# A guest keeps one processor busy, and the scenarios need nothing of each other:
# two guests of the same image run side by side, each with every other scenario.
# They need 1.5 GiB.
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

# The first, third and fifth take about as long as the others.
LAB_SCENARIOS=${LAB_SCENARIOS:-paths fence nbd requests nvme queue}
LAB_MODE=guest # the addresses in the certificates
BOOT_LIMIT=300000
# A scenario that hangs is ended in there; the guest itself is given up when it
# does not answer for an hour of this machine's time, or by tests/run-one.
SCENARIO_SECONDS=200
SCENARIO_LIMIT=3600000

# The shell that has a guest, by its number, until its end was seen; all that
# it says is in a file.
declare -A GUEST_PID
said() {
    echo "$LAB_DIR/guest$1/said"
}

# at_work PID - by the table of jobs: the number may be another's by now.
at_work() {
    [[ " $(jobs -pr | paste -sd' ') " == *" $1 "* ]]
}

leave() {
    local n pid
    for pid in "${GUEST_PID[@]}"; do
        ! at_work "$pid" || kill -TERM "$pid"
    done
    # this was ended from outside, perhaps because something hangs: tell what
    for n in "${!GUEST_PID[@]}"; do
        wait "${GUEST_PID[$n]}"
        diag "---- guest $n was not waited for; the last that it said"
        tail -n 30 "$(said "$n")" | sed 's/^#* */# /'
    done
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

# ---- in the shell that has a guest -------------------------------------------

console() {
    diag "---- the guest's console"
    tail -n "${1:-150}" "$BOOT_DIR/console" | tr -d '\r' | sed 's/^/# /'
    sed 's/^/# qemu: /' "$BOOT_DIR/qemu"
}

# up DIR - a boot that fails may be tried once more; a scenario never.
up() {
    local try
    for try in 1 2; do
        mkdir "$1/$try"
        boot_start "$1/$try" "$LAB_DIR/initrd" &&
            boot_wait "$BOOT_LIMIT" && return 0
        console
        boot_end
    done
    return 1
}

# heard LINE - of the scenario's TAP.  The plan shows that it came to its end.
ended=
heard() {
    case $1 in
    "ok "*) pass "$scenario: ${1#*- }" ;;
    "not ok "*) fail "$scenario: ${1#*- }" ;;
    1..[1-9]*) ended=yes ;;
    "# "*) echo "$1" ;;
    ?*) echo "# $1" ;;
    esac
}

run_scenario() {
    local rc before=$TAP_FAILED
    ended=
    boot_run "$SCENARIO_LIMIT" heard \
        "sh /lab/tests/lab/inside/run.sh $1 $SCENARIO_SECONDS"
    rc=$?
    if ((rc == 255)); then
        if boot_alive; then
            fail "$1: ends within $((SCENARIO_LIMIT / 1000)) s"
        else
            fail "$1: the guest lives" "QEMU has ended"
        fi
        console
        return 1
    fi
    [[ $ended ]] || fail "$1: comes to its end" "exit status $rc"
    ((rc == 0 || TAP_FAILED > before)) ||
        fail "$1: ends well" "exit status $rc"
    ((TAP_FAILED == before)) || console 25
}

# guest N SCENARIO... - a guest from its start to its end.
guest() {
    local dir=$LAB_DIR/guest$1 n=$1 scenario="its boot" begin
    shift
    trap boot_end EXIT
    trap 'diag "ended in $scenario"; console 25; exit 143' TERM
    up "$dir" || { fail "guest $n boots" && return 1; }
    for scenario; do
        begin=$(now_ms)
        run_scenario "$scenario" || break
        diag "$scenario: $(($(now_ms) - begin)) ms," \
            "QEMU $n has had $(boot_seconds) s of processor time"
    done
    ((TAP_FAILED == 0))
}

# ---- all of them ---------------------------------------------------------------

guest_start() {
    # there before its shell is, for guest_repeat may be faster
    mkdir "$LAB_DIR/guest$1" && : >"$(said "$1")" || exit 1
    guest "$@" >>"$(said "$1")" 2>&1 </dev/null &
    GUEST_PID[$1]=$!
}

# repeat LINE - of what a guest's shell said: its check gets our number.
repeat() {
    case $1 in
    "ok "*) pass "${1#*- }" ;;
    "not ok "*) fail "${1#*- }" ;;
    "#"* | "") printf '%s\n' "$1" ;;
    *) printf '# %s\n' "$1" ;; # of the shell itself
    esac
}

# guest_repeat N - all that it says, as it says it, until its end.
guest_repeat() {
    local pid=${GUEST_PID[$1]} before=$TAP_FAILED ended=0 line part= from rc
    exec {from}<"$(said "$1")" || exit 1
    until ((ended)); do
        at_work "$pid" || ended=1 # then what is read now is all
        while IFS= read -r -u "$from" line; do
            repeat "$part$line"
            part=
        done
        part+=$line
        ((ended)) || nap 200
    done
    exec {from}<&-
    wait "$pid"
    rc=$?
    unset "GUEST_PID[$1]"
    ((rc == 0 || TAP_FAILED > before)) ||
        fail "guest $1 comes to its end" "its shell ended with $rc"
}

pki_up || lab_failed "no certificates"
image_make "$LAB_DIR/initrd" "$LAB_DIR/pki" || lab_failed "no initial ramdisk"
first=() second=()
for scenario in $LAB_SCENARIOS; do
    if ((${#first[@]} > ${#second[@]})); then
        second+=("$scenario")
    else
        first+=("$scenario")
    fi
done
guest_start 1 "${first[@]}"
((${#second[@]} == 0)) || guest_start 2 "${second[@]}"
guest_repeat 1
((${#second[@]} == 0)) || guest_repeat 2
tap_end
