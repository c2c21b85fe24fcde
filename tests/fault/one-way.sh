#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Packets that are lost one way only, or now and then.
#
# Goal: half a path is no path and half a network no network; a command whose
# answer is lost may have been carried out, and is not carried out again after
# a newer one.  A path that loses some packets is slow, and slow is not dead.
# Timeline: 0 answers of the SAN are lost on path 1, then on both: <= 1 s they
# fail, <= 1.1 s a is redirected; the same with what a sends; then between the
# hosts, each way, on one network: <= 1.2 s the other one carries it; on both:
# <= 2 s a is home.  5 % are lost, both ways, on all networks: I/O goes on.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/faults.sh
. "$(dirname "$0")/../lib/faults.sh"
lab_enter "$@"

lab_up
start_hosts
peers_stand_by a b c
load_start a
blockcheck_start a

for way in in out; do
    load_mark a "path-$way"
    lose_all a "$way" san1
    check "path 1, $way: it fails" within 4000 paths_are a "failed good"
    expect_io a 3000
    expect_stall a "path-$way" 1500
    load_mark a "paths-$way"
    lose_all a "$way" san2
    expect_route a "redirected *" 3000
    expect_io a 3000
    expect_stall a "paths-$way" 1500
    filter_off a
    expect_route a local 15000
done

check "a is sent to b" ctl a redirect disk b
expect_route a "redirected b" 5000
# net1_is STATE - a condition: all of a's parked connections over network 1.
net1_is() {
    [[ $(field plugin-a-vm '.peers[].links[] |
        select(.address | startswith("10.77.11.")) | .state' |
        sort -u) == "$1" ]]
}
for way in in out; do
    load_mark a "net-$way"
    lose_all a "$way" net1
    check "network 1, $way: its connections fail" within 4000 net1_is connecting
    expect_io a 4000
    expect_stall a "net-$way" 1500
    filter_off a
    check "network 1 again" within 8000 net1_is parked
done

# The VMs go before an order: it is home where nobody else answers.
load_mark a nets
lose_all a out net1
lose_all a in net2
expect_route a local 6000
expect_io a 3000
expect_stall a nets 1500
filter_off a

load_mark a lossy
for n in san1 san2 net1 net2; do
    lose_some a "$n" 5
done
expect_io a 5000
nap 2000
expect_io a 5000
filter_off a
expect_route a local 30000
check "both paths are good" within 10000 paths_are a "good good"
blockcheck_ok a
expect_no_error a
lab_end
