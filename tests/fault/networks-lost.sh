#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Both networks between the hosts are gone while I/O takes a detour.
#
# Goal: the I/O waits, nothing fails, and goes on by whichever way comes back
# first: a network, or the host's own paths.
# Timeline: a is redirected; 0 both of its networks cut: <= 2 s queueing; one
# healed: <= 5 s redirected; both cut again, then a's paths healed: <= 5 s local,
# with whoever served it fenced first.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

cut_networks() {
    cut_network "$1" 1 && cut_network "$1" 2
}

# nobody_ready - a condition: a could not be redirected.
nobody_ready() {
    [[ $(field plugin-a-vm \
        '[.peers[] | select(.state == "ready")] | length') == 0 ]]
}

lab_up
start_hosts
peers_stand_by a b c
load_start a
blockcheck_start a
load_start b --rate 100

black_hole a
expect_route a "redirected *" 3000
cut_networks a
expect_route a queueing 5000
is "nothing failed" "$(load_errors a)" 0
heal_network a 2
expect_route a "redirected *" 8000
expect_io a 3000

cut_networks a
expect_route a queueing 5000
load_mark a home
heal_paths a
expect_route a local 8000
expect_io a 3000
heal_network a 1
heal_network a 2
for h in b c; do
    check "$h stands by for a again" within 10000 peer_serves a "$h"
done
expect_route b local 8000

# Hosts on their own paths do not care.
for h in "${LAB_HOSTS[@]}"; do
    cut_networks "$h"
done
load_mark a islands-seen
check "a knows that nobody stands by" within 5000 nobody_ready
expect_io a 2000
expect_stall a islands-seen 150
for h in "${LAB_HOSTS[@]}"; do
    is "$h is local" "$(route_of "$h")" local
done
blockcheck_ok a
expect_no_error a
expect_no_error b
lab_end
