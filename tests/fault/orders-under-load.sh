#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Redirect, return and drain by hand, again and again, under load.
#
# Goal: an order costs a pause of a few milliseconds, and nothing else: no error,
# nothing unanswered, nobody fenced, whatever is under way.
# Timeline: ten rounds: a to b, to c, home; each <= 0.2 s.  Then a with
# c, which is drained while a is under load, and b and c drained both: a is home.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

# fences - how many hosts were fenced until now, by anybody.
fences() {
    cat "$LAB_DIR"/log/{plugin,proxy}-* | grep -c "is fenced, in"
}

lab_up
start_hosts
peers_stand_by a b c
load_start a
blockcheck_start a
fenced=$(fences)

# no_guest HOST - a condition: its proxy serves nobody.
no_guest() {
    [[ $(field "proxy-$1" '.luns[0].sessions | length') == 0 ]]
}

# goes WHERE ORDER... - the order, and its effect.
goes() {
    local where=$1
    shift
    ctl a "$@" && within 5000 route_is a "$where"
}
load_mark a orders
failed=0
for _ in {1..10}; do
    goes "redirected b" redirect disk b >>"$LAB_DIR/log/orders" 2>&1 &&
        goes "redirected c" redirect disk c >>"$LAB_DIR/log/orders" 2>&1 &&
        goes local return disk >>"$LAB_DIR/log/orders" 2>&1 ||
        failed=$((failed + 1))
    # what an order used up stands by again
    within 5000 peer_serves a b && within 5000 peer_serves a c
done
is "ten rounds of orders were carried out" "$failed" 0
expect_stall a orders 200

check "a goes to c" goes "redirected c" redirect disk c
load_mark a drained
check "c is drained" ctl c drain disk
expect_route a "redirected b" 5000
check "c's proxy has no guest" within 5000 no_guest c
check "b is drained" ctl b drain disk
expect_route a local 5000
expect_io a 3000
expect_stall a drained 200
is "nobody was fenced" "$(fences)" "$fenced"
for h in b c; do
    check "$h serves again" ctl "$h" undrain disk
    is "$h is local" "$(route_of "$h")" local
done
blockcheck_ok a
expect_no_error a
lab_end
