#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# tests/tools/slowclock.c: all that a program knows of time runs slower, and
# what it waits for takes as much longer.
#
# A busy machine makes a wait longer, never shorter: lower limits are exact.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"

[[ ! ${SANITIZE-} ]] || skip_all "a sanitizer's runtime wants to come first"
FACTOR=8
SINCE=$EPOCHSECONDS

# slowly COMMAND... - with clocks at an eighth of their speed.
slowly() {
    SLOW_CLOCK="$FACTOR $SINCE" LD_PRELOAD=$BUILD/tests/tools/slowclock.so "$@"
}

# waits NAME COMMAND... - something that lasts 100 ms by its own clock.
waits() {
    local name=$1 begin took
    shift
    begin=$(now_ms)
    slowly "$@"
    took=$(($(now_ms) - begin))
    check "$name lasts ${FACTOR}00 ms (it took $took)" \
        test $took -ge $((FACTOR * 100))
}

waits "a sleep of 100 ms" sleep 0.1
# shellcheck disable=SC2016 # for that bash
waits "a wait of 100 ms for a descriptor" \
    bash -c 'exec {never}<> <(:); read -rt 0.1 -u $never; true'
waits "a condition with 100 ms to come true" python3 -c '
import threading
threading.Event().wait(0.1)'
waits "a poll of 100 ms" python3 -c '
import select
select.poll().poll(100)'

# Both ends of a stretch of real time, each in a process of its own.
# shellcheck disable=SC2016
stretch=(bash -c 'echo $((${EPOCHREALTIME/[.,]/} / 1000))')
first=$(slowly "${stretch[@]}")
begin=$(now_ms)
nap 800
took=$(($(now_ms) - begin))
slow=$(($(slowly "${stretch[@]}") - first))
check "the wall clock of two programs is one, and slow ($slow of $took ms)" \
    test "$slow" -ge 99 -a "$slow" -le $(((took + 4000) / FACTOR))
check "it starts where the real one is" \
    test $((first / 1000 - SINCE)) -ge 0 -a $((first / 1000 - SINCE)) -le 20
age_s() {
    cut -d. -f1 /proc/uptime
}
from=$(age_s)
monotonic=$(slowly python3 -c 'import time; print(int(time.monotonic()))')
check "the clock that nobody sets is at an eighth of the machine's age" test \
    $(((monotonic + 1) * FACTOR)) -ge "$from" -a \
    $((monotonic * FACTOR)) -le $(($(age_s) + 1))
tap_end
