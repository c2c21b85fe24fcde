#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Networks that are up and drop what is long: jumbo frames over a switch that
# has none, a tunnel without the ICMP that would tell.
#
# Goal: connecting, logging in and every short probe work there, so that only a
# long probe tells.  It costs one stall, not one with each attempt: the
# path, or the network, is not used again before long packets come through.
# Timeline: 0 path 1 drops packets over 1500 bytes; <= 1 s it fails, and its
# logins fail from then on; path 2 too: <= 1 s a is redirected; one network
# between hosts too: <= 1.2 s all goes over the other one, and stays there; both:
# a waits; <= 5 s after all is healed its I/O flows.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/faults.sh
. "$(dirname "$0")/../lib/faults.sh"
lab_enter "$@"

lab_up
for n in san1 san2 net1 net2; do
    jumbo "$n" || lab_failed "no jumbo frames on $n"
done
start_hosts
peers_stand_by a b c
load_start a --rate 200
blockcheck_start a --rate 100

# stays_calm WINDOW MS - a check: no stall in that time, once the first is over.
stays_calm() {
    load_mark a "$1"
    nap "$2"
    expect_stall a "$1" 150
}

load_mark a path
lose_big a san1 1500
check "path 1 fails its long probe" within 8000 logged plugin-a-vm \
    "path $(address san san1).*large packets.*MTU"
expect_io a 3000
expect_stall a path 1500
expect_route a local 8000
stays_calm path-stays-out 4000
is "one path is enough" "$(route_of a)" local

load_mark a paths
lose_big a san2 1500
expect_route a "redirected *" 3000
expect_io a 3000
expect_stall a paths 1500

load_mark a network
lose_big a net1 1500
check "network 1 fails its long probe" within 8000 logged plugin-a-vm \
    "link . 10\.77\.11\..*large packets.*MTU"
expect_io a 3000
expect_stall a network 1500
stays_calm network-stays-out 3000
check "a is redirected" route_is a "redirected *"

lose_big a net2 1500
expect_route a queueing 8000
check "and told why" peer_says a b "large packets|not answered|INFO"
filter_off a
expect_io a 8000
expect_route a local 15000
check "both paths are good" within 10000 paths_are a "good good"
peers_stand_by a b c
blockcheck_ok a
expect_no_error a
lab_end
