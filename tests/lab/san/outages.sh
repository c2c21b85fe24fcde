# SPDX-License-Identifier: BSD-3-Clause
# How long a VM's I/O waits when paths or the array fail: plain multipath, detour.
# shellcheck shell=bash disable=SC2034 # what the lab reads
#
# Goal: with detour no error, no mismatch, and a pause of about 1 s whatever the
# kernel's timers are, as long as another host has paths; with plain multipath
# the same fault at the same moment on the same host shows what they cost alone.
# When the array itself stands still there is no detour, and both wait for it.
#
# Timeline, once with Debian's timers and once with those of docs/multipath.md:
# one path silent; both unplugged, silent, answering with resets, 18 s each; the
# array frozen for 8 s; switched off and on.  Each is healed, and a is home,
# before the next.
#
# Host a: LUN 0 behind the plugin, LUN 1 behind qemu-nbd on its map, a witness on
# each; b and c have their paths.  The table is made of the witnesses' longest
# waits.

# Which, by pattern: OUTAGES="silence resets".
OUTAGES=${OUTAGES:-*}
OUTAGE=18000 # ms; longer than what Debian's timers take to fail a path
FREEZE=8000
PAUSE=2000   # ms, with detour: docs/failures.md; LAB_SLACK is the machine's
rows=()

# The plain one is a load like a host's.
host_number() {
    case $1 in
    a | plain) echo 1 ;;
    b) echo 2 ;;
    c) echo 3 ;;
    *) return 1 ;;
    esac
}

uri() {
    if [[ $1 == plain ]]; then
        echo "nbd://$(vms_address a):10811"
    else
        echo "nbd://$(vms_address "$1"):10809"
    fi
}

start_plain() {
    lab_start plain a qemu-nbd -t -f raw --cache=none -e 4 \
        -b "$(vms_address a)" -p 10811 "${SAN_DEVICE}1"
    within 20000 plain_listens
    load_start plain --rate 20 --depth 4
}

plain_listens() {
    : <>"/dev/tcp/$(vms_address a)/10811"
}

# paths_restart TIMERS - all of a's sessions anew.
paths_restart() {
    machine_sh a "paths timers $1 $SAN_PORTALS" &&
        within 60000 paths_active a 2
}

# array_restart - power off and on; it has forgotten who was registered.
array_restart() {
    machine_off san
    power_on san
    array_ready
}

# cell WINDOW HOST - what the load saw: "1.2", or "EIO after 7.1".
cell() {
    awk -v ms="$(load_value "$2" "$1" stall_ms)" \
        -v errors="$(load_value "$2" "$1" errors)" 'BEGIN {
            printf "%s%.1f", errors ? "EIO after " : "", ms / 1000
        }'
}

# calm - healed: a has its paths, and both loads flow.
calm() {
    within 60000 paths_active a 2 && within 60000 route_is a local &&
        within 60000 flows a && within 60000 flows plain
}

flows() {
    tail -n 1 "$LAB_DIR/load-$1.out" |
        awk '$1 == "tick" && $6 > 0 { found = 1 } END { exit !found }'
}

wanted() {
    local pattern
    set -f # patterns of ours, not of files
    for pattern in $OUTAGES; do
        # shellcheck disable=SC2053 # it is a pattern
        [[ $1 != *$pattern* ]] || { set +f && return 0; }
    done
    set +f
    return 1
}

# answered_again - of both loads; an error is an answer.
answered_again() {
    within 60000 paths_active a 2 && within 60000 flows a &&
        within 60000 plain_answered
}

# A load whose connection is gone has had its error, and ends.
plain_answered() {
    ! running load-plain || flows plain ||
        (($(load_errors plain) > plain_errors))
}

# plain_anew - qemu-nbd drops a client whose read fails, so that it comes again.
plain_mismatches=0
plain_errors=0
plain_anew() {
    load_stop plain
    plain_mismatches=$((plain_mismatches + $(load_value plain total mismatches)))
    load_start plain --rate 20 --depth 4
}

# outage TIMERS NAME MS LIMIT COMMAND... - something breaks for MS.
outage() {
    local timers=$1 name=$2 ms=$3 limit=$4 l window
    window=$timers-${name// /-} # one word
    wanted "$name" || return 0
    shift 4
    for l in a plain; do
        load_mark $l "$window"
    done
    plain_errors=$(load_errors plain)
    "$@"
    nap "$ms"
    heal_everything
    check "$window: I/O is answered again" answered_again
    for l in a plain; do
        load_mark $l "after-$window"
    done
    rows+=("$name|$timers|$(cell "$window" plain)|$(cell "$window" a)")
    (($(load_value plain "$window" errors) == 0)) || plain_anew
    check "$window: all is as before" calm
    is "$window: no error with detour" "$(load_value a "$window" errors)" 0
    ((limit == 0)) || at_most "$window: the longest wait with detour" \
        "$(load_value a "$window" stall_ms)" "$((limit * ${LAB_SLACK:-4}))"
}

heal_everything() {
    machine_thaw san
    machine_sh san "array answer"
    heal_path a 1
    heal_path a 2
}

unplug() {
    unplug_path a 1
    unplug_path a 2
}

story_up
for timers in default recommended; do
    must "a logs in with $timers timers" paths_restart $timers
    start_hosts
    load_start a --rate 20 --depth 4
    start_plain
    outage $timers "one path silent" $OUTAGE $PAUSE cut_path a 1
    outage $timers "link down" $OUTAGE $PAUSE unplug
    outage $timers "silence" $OUTAGE $PAUSE black_hole a
    outage $timers "resets" $OUTAGE $PAUSE reset_paths a
    outage $timers "array frozen for $((FREEZE / 1000)) s" $FREEZE 0 \
        machine_freeze san
    outage $timers "array restarted" 0 0 array_restart
    expect_no_error a
    load_stop plain
    is "plain multipath: what it wrote is right" \
        $((plain_mismatches + $(load_value plain total mismatches))) 0
    story_stop
done

print_rows() {
    local row
    echo "Seconds until I/O goes on, of a 4 KiB to 64 KiB load at depth 4;" \
        "paths are out for $((OUTAGE / 1000)) s."
    echo
    echo "| fault | timers | plain multipath | detour |"
    echo "|---|---|---|---|"
    for row in "${rows[@]}"; do
        echo "| ${row//|/ | } |"
    done
}
print_rows | sed 's/^/# /'
[[ $OUTAGES != "*" ]] || story_table outages print_rows
story_end
