# SPDX-License-Identifier: BSD-3-Clause
# The verifying loads on a host's plugin: witness, which times every answer, and
# blockcheck, which judges by history.
# shellcheck shell=bash

# Each host has a region of its own, so that any of them can be checked through
# any other host afterwards.
LAB_REGION=64 # MiB
declare -A LAB_LOAD LAB_PID

load_region() {
    local n
    n=$(host_number "$1")
    echo --offset "$(((n - 1) * LAB_REGION))m" --size "${LAB_REGION}m" \
        --seed "$n" --state "$LAB_DIR/load-$1.state"
}

# load_start HOST [WITNESS-OPTION...] - and wait until it is connected.
load_start() {
    local host=$1 name=load-$1 fd
    local out=$LAB_DIR/$name.out fifo=$LAB_DIR/$name.in
    shift
    rm -f "$fifo"
    mkfifo "$fifo"
    exec {fd}<>"$fifo"
    # shellcheck disable=SC2046 # words
    "$BUILD/tests/tools/witness" $(load_region "$host") --interval 250 "$@" \
        "$(uri "$host")" <"$fifo" >"$out" 2>>"$LAB_DIR/log/$name" &
    LAB_PID[$name]=$!
    LAB_LOAD[$host]=$fd
    within 10000 grep -q '^ready' "$out" ||
        lab_failed "the load on $host does not start"
}

# load_mark HOST NAME - a new event window begins; the one before is closed.
load_mark() {
    local out=$LAB_DIR/load-$1.out before
    before=$(grep -c '^window' "$out")
    echo "mark $2" >&"${LAB_LOAD[$1]}"
    within 5000 load_windows "$out" $((before + 1))
}

load_windows() {
    (($(grep -c '^window' "$1") >= $2))
}

# load_value HOST WINDOW KEY - of a closed window; "total" is the whole run.
load_value() {
    load_value_in "$LAB_DIR/load-$1.out" "$2" "$3"
}

# load_value_in FILE WINDOW KEY
load_value_in() {
    awk -v window="$2" -v key="$3" '
        $1 == "window" && $2 == window || $1 == "total" && window == "total" {
            for (i = 3; i < NF; i += 2)
                if ($i == key)
                    value = $(i + 1)
        }
        END { print value }' "$1"
}

# load_stall HOST WINDOW - the longest time in ms without an answer while some
# were due, less what the machine itself stood still.
load_stall() {
    local stall machine
    stall=$(load_value "$1" "$2" stall_ms)
    machine=$(load_value "$1" "$2" machine_ms)
    echo $((stall > machine ? stall - machine : 0))
}

# expect_stall HOST WINDOW LIMIT_MS - closes the window; a check of its stall.
# Times are judged in the demo and the benchmarks; on a loaded machine a script
# forgives LAB_SLACK (4) times the limit, which still tells a stall from a hang.
expect_stall() {
    local begun
    begun=$(load_value "$1" "$2" ms)
    [[ -n $begun ]] || load_mark "$1" "after-$2"
    at_most "longest stall of $1 during $2" "$(load_stall "$1" "$2")" \
        "$(($3 * ${LAB_SLACK:-4}))"
}

# expect_io HOST MS - a check: something is answered that was not before.
expect_io() {
    local ticks begin
    ticks=$(grep -c '^tick' "$LAB_DIR/load-$1.out")
    begin=$(now_ms)
    # the tick that is under way now may have its answers from before
    if within "$2" load_flows "$1" $((ticks + 1)); then
        pass "I/O of $1 goes on (seen after $(($(now_ms) - begin)) ms)"
    else
        fail "I/O of $1 goes on within $2 ms" \
            "$(tail -n 5 "$LAB_DIR/load-$1.out")"
    fi
}

load_flows() {
    awk -v from="$2" '
        $1 == "tick" && ++n > from && $6 > 0 { found = 1 }
        END { exit !found }' "$LAB_DIR/load-$1.out"
}

# load_errors HOST - errors and mismatches until now.
load_errors() {
    awk '$1 == "tick" { n += $(NF - 2) + $NF } END { print n + 0 }' \
        "$LAB_DIR/load-$1.out"
}

# load_ended NAME MS - the program was told to end: its exit status, or 1 when
# it had to be killed.
load_ended() {
    local pid=${LAB_PID[$1]} rc
    if ! within "$2" gone "$1"; then
        lab_kill "$1" KILL
        return 1
    fi
    wait "$pid"
    rc=$?
    unset "LAB_PID[$1]"
    return "$rc"
}

# load_stop HOST [MS] - no new requests; waits for those under way.
load_stop() {
    local name=load-$1
    running "$name" || return 1
    echo end >&"${LAB_LOAD[$1]}"
    load_ended "$name" "${2-30000}"
}

# expect_no_error HOST - stops the load: not one error, not one mismatch, and
# every block holds what it must, read back through every host that runs.
expect_no_error() {
    local h name="no error and no mismatch on $1"
    if load_stop "$1"; then
        pass "$name ($(load_value "$1" total ops) requests)"
    else
        fail "$name" "$(cat "$LAB_DIR/log/load-$1" "$LAB_DIR/load-$1.out")"
    fi
    for h in "${LAB_HOSTS[@]}"; do
        running "plugin-$h-vm" || continue
        check "what $1 wrote is right when read on $h" load_check "$1" "$h"
    done
}

# load_check WRITER READER - reads the writer's region on the reader's host.
load_check() {
    # shellcheck disable=SC2046 # words
    timeout "${LAB_CHECK_SECONDS:-30}" "$BUILD/tests/tools/witness" $(load_region "$1") --check \
        "$(uri "$2")"
}

# ---- blockcheck ------------------------------------------------------------------

# A second load, behind all regions and in a part of its own for each host.  Its
# requests overlap and are judged by history: build/tests/tools/blockcheck.
# LOAD is a HOST, or HOST-NAME when several of them run there.
BLOCKCHECK_AT=240 # MiB
BLOCKCHECK_SIZE=5

blockcheck_range() {
    local at=$((BLOCKCHECK_AT + ($(host_number "$1") - 1) * BLOCKCHECK_SIZE))
    echo --range "${at}m+${BLOCKCHECK_SIZE}m"
}

# blockcheck_start LOAD [OPTION...] - and wait until it has begun; it ends only
# when it is told to.
blockcheck_start() {
    local host=${1%%-*} name=blockcheck-$1
    shift
    # shellcheck disable=SC2046 # words
    "$BUILD/tests/tools/blockcheck" $(blockcheck_range "$host") --time 0 \
        --seed "$(host_number "$host")" --rate 400 --depth 8 --max-errors 0 \
        --history "$LAB_DIR/$name.history" "$@" "$(uri "$host")" \
        >"$LAB_DIR/log/$name" 2>&1 </dev/null &
    LAB_PID[$name]=$!
    within 10000 grep -q '^blockcheck: ready' "$LAB_DIR/log/$name" ||
        lab_failed "blockcheck on $host does not start"
}

# blockcheck_stop LOAD [MS] - ends it; succeeds when its verdict is ok.
blockcheck_stop() {
    local name=blockcheck-$1
    running "$name" || return 1
    kill -TERM "${LAB_PID[$name]}"
    load_ended "$name" "${2-90000}"
}

# blockcheck_ok LOAD [MS] - stops it: all that it saw is possible, and so is
# what its part holds, read through every host that runs.
blockcheck_ok() {
    local name="what blockcheck on $1 saw is possible"
    if blockcheck_stop "$@"; then
        pass "$name ($(tail -n 1 "$LAB_DIR/log/blockcheck-$1"))"
    else
        fail "$name" "$(tail -n 60 "$LAB_DIR/log/blockcheck-$1")"
        return
    fi
    blockcheck_read "$1"
}

# blockcheck_together LOAD... - stops those that were started with the same
# --range: all of it was answered without an error, and what they saw, taken
# together, is possible, and so is what the range holds.
blockcheck_together() {
    local l files=() out=$LAB_DIR/log/blockcheck-together
    local name="what blockcheck on $* saw is possible together"
    for l; do
        blockcheck_stop "$l" # knows only a part: no verdict
        check "blockcheck on $l: no request is without an answer" \
            grep -q ', never answered 0$' "$LAB_DIR/log/blockcheck-$l"
        files+=("$LAB_DIR/blockcheck-$l.history")
    done
    if "$BUILD/tests/tools/blockcheck" --max-errors 0 --judge "${files[@]}" \
        >"$out" 2>&1; then
        pass "$name ($(tail -n 1 "$out"))"
    else
        fail "$name" "$(tail -n 60 "$out")"
        return
    fi
    blockcheck_read "$@"
}

# blockcheck_read LOAD... - a check for every host that runs: what is read there
# now is possible after all that these loads saw together.
blockcheck_read() {
    local h l files=()
    for l; do
        files+=(--judge "$LAB_DIR/blockcheck-$l.history")
    done
    for h in "${LAB_HOSTS[@]}"; do
        running "plugin-$h-vm" || continue
        check "so is what the part of $* holds when read on $h" timeout 60 \
            "$BUILD/tests/tools/blockcheck" --verify-only "${files[@]}" \
            "$(uri "$h")"
    done
}
