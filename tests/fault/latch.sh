#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Paths that come and go until the route has had enough.
#
# Goal: after switch_limit switches it stays with the peer although its own
# paths are good; it leaves a peer that fails, be it for home; an order brings
# it home.
# Timeline, switch_limit 3, hold-down 1 s and then 2 s: cut, healed, home, cut,
# healed, and away for good.  Its own paths are good for 2 s more than the
# hold-down, and it is still there.  Then the peers' proxies end: home within
# 2 s.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

LAB_LUN_CONFIG="failback_after = 1s
failback_jitter = 100ms
switch_limit = 3"

latched() {
    [[ $(field plugin-a-vm .route.latched) == "$1" ]]
}

# has_been_good - longer than the hold-down asks for.
has_been_good() {
    field plugin-a-vm '.lun_status.verdict.state == "good" and
        .lun_status.verdict.since_s > .route.hold_down_s + 2' | grep -qx true
}

lab_up
start_hosts
within 5000 peer_serves a b || lab_failed "b does not stand by"
load_start a --rate 200
black_hole a
expect_route a "redirected *" 3000
check "one switch is nothing" latched false
heal_paths a
expect_route a local 10000
black_hole a
expect_route a "redirected *" 3000
check "the third one latches it" latched true
is "they are counted" "$(field plugin-a-vm .route.hour_switches)" 3
check "it is logged, with what to do" within 2000 logged plugin-a-vm \
    '3 switches within an hour.*detourctl return'
heal_paths a
check "its own paths are good for longer than the hold-down" \
    within 20000 has_been_good
check "it stays" route_is a "redirected *"
check "people are told" grep -q 'stays until return (3 switches' \
    <(ctl a status "$LAB_LUN")
expect_io a 2000

stop_proxy b
check "it goes to the other peer" within 5000 route_is a "redirected c"
check "and stays latched" latched true
stop_proxy c
expect_route a local 4000
check "at home it is not latched" latched false
start_proxy b
within 10000 peer_serves a b || lab_failed "b does not serve again"

black_hole a
expect_route a "redirected b" 5000
check "paths that fail again find it latched" latched true
heal_paths a
check "an order" ctl a return "$LAB_LUN"
expect_route a local 10000
# that it came home once more is perhaps counted: the order may have been early
at_most "and it is trusted again" "$(field plugin-a-vm .route.hour_switches)" \
    1 "switches"
expect_no_error a
lab_end
