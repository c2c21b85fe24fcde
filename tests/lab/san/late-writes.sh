# SPDX-License-Identifier: BSD-3-Clause
# A write that hangs in a host's paths comes out when the paths are back, after
# newer data was written through a peer.
# shellcheck shell=bash disable=SC2034 # what the lab reads
#
# Goal: without detour's fencing the old data is on top, so that the trial does
# show what it should; with reservations (fence = pr), and without (fence =
# drain), never, LATE times each.
#
# Timeline of a trial: both paths of a go silent; t=0 its VM writes O, which
# hangs in the kernel; the route is redirected, O is written again through b and
# acknowledged; the VM writes N to the same block; t=1 to 4 s the paths are back,
# before and after the kernel gives the session up; 3 s later, and again when a
# is home, the block must hold N, read on both hosts.
# With fence = drain N waits for what hangs in the kernel, so the paths are back
# before it is acknowledged.

LATE=${LATE:-10}
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

# trial BACK-MS ORDER - prints what was found: after it settled, and at home.
# ORDER: whether N is waited for before the paths are back.
trial() {
    local t0
    late_no=$((late_no + 1))
    late_say a write zero Z
    late_done a zero
    t0=$(now_ms)
    black_hole a
    late_say a write old O
    if [[ $2 == before ]]; then
        within 30000 route_is a "redirected *" || lab_failed "no way for a"
        late_done a old
        late_say a write new N
        late_done a new
    fi
    (($(now_ms) - t0 >= $1)) || nap $(($1 - ($(now_ms) - t0)))
    heal_path a 1
    heal_path a 2
    if [[ $2 == after ]]; then
        late_done a old
        late_say a write new N
        late_done a new
    fi
    nap $SETTLE
    trial_found=$(found settled)
    calm || lab_failed "a does not come home"
    trial_found+=" $(found home)"
}

# trials ORDER - LATE of them; how many ended well, and those that did not.
trials() {
    local i
    good=0 bad=
    for ((i = 0; i < LATE; i++)); do
        trial "${BACK[i % ${#BACK[@]}]}" "$1"
        if [[ $trial_found == "NNN NNN" ]]; then
            good=$((good + 1))
        else
            bad+="paths back at ${BACK[i % ${#BACK[@]}]} ms: $trial_found"$'\n'
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

programs pr fence
trials before
programs_end
rows=("reservations, but no fence (a test build)|$LATE|$((LATE - good))")
if ((good < LATE)); then
    pass "without the fence old data is on top in $((LATE - good)) of $LATE"
else
    fail "without the fence old data is on top at least once in $LATE"
fi
for fence in pr drain; do
    programs $fence
    order=before
    [[ $fence == pr ]] || order=after
    trials $order
    programs_end
    rows+=("fence = $fence|$LATE|$((LATE - good))")
    if [[ ! $bad ]]; then
        pass "fence = $fence: the new data stays in $LATE of $LATE"
    else
        fail "fence = $fence: the new data stays" "$bad"
    fi
done

print_rows() {
    local row
    echo "| | trials | old data on top |"
    echo "|---|---|---|"
    for row in "${rows[@]}"; do
        echo "| ${row//|/ | } |"
    done
}
print_rows | sed 's/^/# /'
story_table late-writes print_rows
story_end
