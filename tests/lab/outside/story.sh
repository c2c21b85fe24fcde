# SPDX-License-Identifier: BSD-3-Clause
# A scenario's begin and end on the whole SAN, in a shell of its own.
# shellcheck shell=bash disable=SC2034 # what tests/lib reads

TAP_DONE=0
TAP_FAILED=0
# shellcheck disable=SC2004,SC2153 # it has names; two that look alike
for h in "${LAB_HOSTS[@]}"; do
    LAB_DEVICE[$h]=${SAN_DEVICE}0
done

# within MS COMMAND... - fewer looks than in lab.sh: each costs a guest's time.
within() {
    local end=$(($(now_ms) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        (($(now_ms) < end)) || return 1
        nap 100
    done
    return 0
}

# story_leave - whatever happened: paths up, nothing of ours runs.
story_leave() {
    local h name rc=$?
    trap - EXIT
    for name in "${!LAB_PID[@]}"; do
        lab_kill "$name" KILL
    done
    for h in "${LAB_HOSTS[@]}"; do
        machine_alive "$h" || continue
        machine_thaw "$h"
        machine_sh "$h" "cd $LAB_RUN; for p in *.pid; do
            kill -KILL \$(cat \$p); done; rm -rf $LAB_RUN/* $LAB_DIR/*" \
            >/dev/null 2>&1
    done
    heal_everything >/dev/null
    rm -f "$LAB_DIR"/load-* "$LAB_DIR"/blockcheck-*
    exit "$rc"
}
trap story_leave EXIT
# Ended from outside everything ends with the namespaces: nothing to leave tidy.
trap 'trap - EXIT; exit 130' INT
trap 'trap - EXIT; exit 143' TERM HUP

# story_up - every host has its configuration; nothing of ours runs yet.
story_up() {
    local h
    for h in "${LAB_HOSTS[@]}"; do
        { host_settle "$h" && host_config_put "$h"; } ||
            lab_failed "host $h takes no configuration"
    done
}

# must NAME COMMAND... - a check without which the rest makes no sense.
must() {
    local before=$TAP_FAILED
    check "$@"
    ((TAP_FAILED == before)) || lab_failed "$1"
}

# story_stop - ends what runs on the hosts.
story_stop() {
    local name
    for name in "${!SAN_ON[@]}"; do
        stop "$name"
    done
}

# story_table NAME COMMAND... - what it prints goes between the markers of that
# name in docs/multipath.md, when make lab asks for it and nothing has failed.
story_table() {
    local name=$1 docs=$LAB_TOP/docs/multipath.md out=$BUILD/lab/$1.md
    shift
    mkdir -p "$BUILD/lab"
    {
        printf 'Measured %(%Y-%m-%d)T: %s CPUs, ' -1 "$(nproc)"
        printf 'load %s, ' "$(cut -d' ' -f1 /proc/loadavg)"
        printf 'time slowed %s times.\n\n' "$LAB_SLOW"
        "$@"
    } >"$out"
    [[ ${LAB_DOCS-} && $TAP_FAILED == 0 ]] || return 0
    awk -v begin="<!-- begin: make lab, $name -->" \
        -v end="<!-- end: make lab, $name -->" -v table="$out" '
        $0 == begin { print; while ((getline line <table) > 0) print line
                      inside = 1 }
        $0 == end { inside = 0 }
        !inside && $0 != begin { print }' "$docs" >"$docs.new" &&
        cat "$docs.new" >"$docs" && rm "$docs.new"
}

# story_end - the last command of a scenario: as lab_end.
story_end() {
    story_stop
    check "no program crashed" lab_logs_clean
    ((TAP_FAILED == 0)) || lab_dump
    tap_end
    exit
}

lab_logs_clean() {
    local h
    for h in "${LAB_HOSTS[@]}"; do
        ! machine_sh "$h" "grep -EH '[Aa]ssertion|runtime error:' \
            $LAB_DIR/log/*; dmesg |
            grep -E 'segfault|traps:|general protection'" | grep . || return 1
    done
}

# lab_dump - the end of every log, here and on every host.
lab_dump() {
    local h log
    for log in "$LAB_DIR"/log/*; do
        diag "---- ${log##*/}"
        tail -n 30 "$log" | tr -d '\r' | sed 's/^/# /'
    done
    for h in "${LAB_HOSTS[@]}"; do
        machine_alive "$h" || continue
        diag "---- host $h"
        machine_sh "$h" "tail -n 40 $LAB_DIR/log/*; dmesg | tail -n 12;
            dmsetup status" | sed 's/^/# /'
    done
}
