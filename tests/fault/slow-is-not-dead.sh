#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Paths that are slow, or hang for a moment.
#
# Goal: slow is not dead: a path that takes all the time it has is not given up,
# and no route moves; a path that hangs and comes back by itself costs a stall
# and no more; a SAN that hangs for all is waited for.
# Timeline: both paths at 8 Mbit/s under a load of more: requests take hundreds
# of ms, a stays local; the array stops for 0.4 s (less than probe_timeout):
# nothing moves; for 2 s: all wait, <= 3 s after it goes on so do they.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/faults.sh
. "$(dirname "$0")/../lib/faults.sh"
lab_enter "$@"

lab_up
start_hosts
peers_stand_by a b c
blockcheck_start a --rate 0 --depth 8
changes() {
    field plugin-a-vm .route.changes
}

before=$(changes)
for n in 1 2; do
    slow a "san$n" 8mbit || lab_failed "no tbf"
done
nap 4000
is "slow paths are no reason to leave" "$(route_of a)" local
is "and the route never moved" "$(changes)" "$before"
check "both paths are good" within 1000 paths_are a "good good"
for n in 1 2; do
    slow_off a "san$n"
done

load_start a
before=$(changes)
for _ in 1 2 3; do
    freeze_san
    nap 400
    thaw_san
    nap 600
done
is "three short stops of the array move nothing" "$(changes)" "$before"
expect_io a 3000

freeze_san
nap 2000
begin=$(now_ms)
thaw_san
expect_io a 5000
expect_route a local 15000
diag "I/O again and home $(($(now_ms) - begin)) ms after the array goes on"
blockcheck_ok a
expect_no_error a
lab_end
