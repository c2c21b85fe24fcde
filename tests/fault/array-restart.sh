#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The array restarts, and has forgotten all keys and reservations.
#
# Goal: everybody waits, registers anew and goes on; what was acknowledged is
# there (it was on the disk), and nothing comes late.
# Timeline: b is redirected; 0 tgtd is killed with writes under way; <= 3 s all
# wait; it starts again; <= 10 s all hosts but b are local, b redirected.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts
check "c stands by for b" within 10000 peer_serves b c
for h in "${LAB_HOSTS[@]}"; do
    load_start "$h" --rate 200
    blockcheck_start "$h" --rate 200
done
black_hole b
expect_route b "redirected *" 3000

lab_kill tgtd KILL
for h in "${LAB_HOSTS[@]}"; do
    expect_route "$h" queueing 8000
done
nap 1000
for h in "${LAB_HOSTS[@]}"; do
    is "nothing failed on $h" "$(load_errors "$h")" 0
done
begin=$(now_ms)
check "the array starts again" san_up
for h in a c; do
    expect_route "$h" local 15000
done
expect_route b "redirected *" 15000
for h in "${LAB_HOSTS[@]}"; do
    expect_io "$h" 8000
done
diag "all go on $(($(now_ms) - begin)) ms after the array was started"
heal_paths b
expect_route b local 15000
for h in "${LAB_HOSTS[@]}"; do
    blockcheck_ok "$h"
    expect_no_error "$h"
done
lab_end
