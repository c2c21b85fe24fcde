# SPDX-License-Identifier: BSD-3-Clause
# A write that hangs in a host's paths, or in a peer that stands still, comes out
# after newer data was written another way.
# shellcheck shell=bash disable=SC2034 # what the lab reads
#
# Goal: without detour's fencing the old data is on top, so that the trials do
# show what they should (half of LATE times); with reservations (fence = pr),
# and without (fence = drain), never, LATE times each.
#
# Timeline of a trial "paths": both paths of a go silent; t=0 its VM writes O,
# which hangs in the kernel; the route is redirected, O is written again through
# a peer and acknowledged; the VM writes N to the same block; t=1.5 to 9 s the
# paths are back, before and after the kernel gives the session up; 3 s later,
# and again when a is home, the block must hold N, read on every host.
# With fence = drain N waits for what hangs in the kernel, so the paths are back
# before it is acknowledged.
#
# "peer": a is redirected; its peer stands still; O is sent to it, then again
# through the other one and acknowledged; N follows; the peer goes on; 3 s later,
# and when it serves again, the block must hold N.

LATE=${LATE:-6}
LATE_BASE=$((64 << 20)) # bytes; each trial has a block of its own
# When the paths come back, ms after the cut: before the next retransmission,
# before and after the session's end.
BACK=(1500 2500 3500 5500 7000 9000)
SETTLE=3000 # ms; what comes late has come by then
declare -A LATE_VM
late_no=0 # of the trial; makes tags and blocks unique

# late_open HOST - a VM by hand: tests/tools/vmio.c.
late_open() {
    local fd fifo=$LAB_DIR/load-vmio-$1.in out=$LAB_DIR/load-vmio-$1.out
    rm -f "$fifo"
    mkfifo "$fifo"
    exec {fd}<>"$fifo"
    "$BUILD/tests/tools/vmio" "$(uri "$1")" <"$fifo" >"$out" \
        2>>"$LAB_DIR/log/vmio-$1" &
    LAB_PID["vmio-$1"]=$!
    LATE_VM[$1]=$fd
    within 20000 grep -q '^ready' "$out" || lab_failed "no VM on $1"
}

# late_say HOST VERB TAG [CHAR] - an order about this trial's block.
late_say() {
    echo "$2 $3.$late_no $((LATE_BASE + late_no * 65536)) ${4-}" \
        >&"${LATE_VM[$1]}"
}

late_answer() {
    grep "^$2.$late_no " "$LAB_DIR/load-vmio-$1.out"
}

# late_done HOST TAG - it is answered, and well.
late_done() {
    { within 60000 late_answer "$1" "$2" &&
        [[ $(late_answer "$1" "$2") == *" ok"* ]]; } || lab_failed \
        "$2 of trial $late_no: $(tail -n 3 "$LAB_DIR/load-vmio-$1.out")"
}

# found TAG - what each host reads there now: "NNN".
found() {
    local h
    for h in "${LAB_HOSTS[@]}"; do
        late_say "$h" read "$1"
        late_done "$h" "$1"
        late_answer "$h" "$1"
    done | sed 's/.* //' | tr -d '\n'
}

# calm - a is home, on two paths, and would find a peer.
calm() {
    within 60000 paths_active a 2 && within 60000 route_is a local &&
        within 60000 proxy_is a serving && within 60000 peers_serve a
}

# overwrite - O has been said: it is acknowledged, and so is N.
overwrite() {
    late_done a old
    late_say a write new N
    late_done a new
}

# trial_paths FENCE BACK-MS - leaves in "seen" what was found, twice.
trial_paths() {
    local t0
    t0=$(now_ms)
    black_hole a
    late_say a write old O
    [[ $1 == drain ]] || overwrite
    (($(now_ms) - t0 >= $2)) || nap $(($2 - ($(now_ms) - t0)))
    heal_path a 1
    heal_path a 2
    [[ $1 == pr ]] || overwrite
    nap $SETTLE
    seen=$(found settled)
    calm || lab_failed "a does not come home"
    seen+=" $(found home)"
}

# trial_peer - the same; a is away all the time.
trial_peer() {
    local peer
    { within 60000 route_is a "redirected *" &&
        within 60000 peers_serve a; } || lab_failed "a has no way"
    peer=$(route_of a)
    peer=${peer#redirected }
    machine_freeze "$peer"
    late_say a write old O
    overwrite
    machine_thaw "$peer"
    nap $SETTLE
    within 60000 proxy_is "$peer" serving || lab_failed "$peer does not serve"
    seen=$(found settled)
    nap $SETTLE
    seen+=" $(found later)"
}

# trials N KIND FENCE - how many ended well, and those that did not.
trials() {
    local n=$1 i back
    shift
    good=0 bad=
    for ((i = 0; i < n; i++)); do
        back=${BACK[i % ${#BACK[@]}]}
        late_no=$((late_no + 1))
        late_say a write zero Z
        late_done a zero
        "trial_$1" "$2" "$back"
        if [[ $seen == "NNN NNN" ]]; then
            good=$((good + 1))
        else
            bad+="trial $late_no, $back ms: $seen"$'\n'
        fi
    done
}

# programs FENCE [LEFT-OUT] - on all hosts, with a VM on each.
programs() {
    local h
    LAB_FENCE=$1
    story_up
    real=$BUILD
    if [[ ${2-} ]]; then
        BUILD=$real/rules
        SAN_WRAP=(env "DETOUR_LEAVE_OUT=$2")
    fi
    start_hosts
    BUILD=$real
    for h in "${LAB_HOSTS[@]}"; do
        late_open "$h"
    done
    calm || lab_failed "a is not ready"
}

programs_end() {
    local h
    for h in "${LAB_HOSTS[@]}"; do
        lab_kill "vmio-$h" KILL
    done
    story_stop
    SAN_WRAP=()
}

# away - a is without paths, for the trials with a peer.
away() {
    black_hole a
    within 60000 route_is a "redirected *" || lab_failed "a has no way"
}

back() {
    heal_path a 1
    heal_path a 2
    calm || lab_failed "a does not come home"
}

# expect_old KIND, expect_new KIND FENCE - what the trials must end with.
expect_old() {
    local n=$(((LATE + 1) / 2))
    trials $n "$1" pr
    rows+=("$1|reservations, the fence left out (a test build)|$n|$((n - good))")
    if ((good < n)); then
        pass "$1: without the fence old data is on top, $((n - good)) of $n"
    else
        fail "$1: without the fence old data is on top at least once in $n"
    fi
}

expect_new() {
    trials "$LATE" "$1" "$2"
    rows+=("$1|fence = $2|$LATE|$((LATE - good))")
    if [[ ! $bad ]]; then
        pass "$1, fence = $2: the new data stays, $LATE of $LATE"
    else
        fail "$1, fence = $2: the new data stays" "$bad"
    fi
}

rows=()
programs pr fence
expect_old paths
away
expect_old peer
back
programs_end
programs pr
expect_new paths pr
away
expect_new peer pr
back
programs_end
programs drain
expect_new paths drain
programs_end

print_rows() {
    local row
    echo "| where it hangs | | trials | old data on top |"
    echo "|---|---|---|---|"
    for row in "${rows[@]}"; do
        echo "| ${row//|/ | } |"
    done
}
print_rows | sed 's/^/# /'
story_table late-writes print_rows
story_end
