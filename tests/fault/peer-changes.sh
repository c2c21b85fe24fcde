#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The serving peer is upgraded, and loses its own paths; and a chain is asked for.
#
# Goal: whoever serves may be restarted at any time, and whoever loses the SAN
# hands its guests on at once; nobody is ever redirected to a host without
# paths, not even by order.
# Timeline: a is redirected; its peer's proxy is stopped and started anew, as an
# upgrade does: <= 200 ms the other one serves; that one loses its own paths:
# <= 2.2 s the first serves again, both of them.  b has lost its paths: an order
# to a to go to b does nothing, or brings it elsewhere.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

peer_of() {
    route_of "$1" | sed 's/.* //'
}
# other_peer THAN - a condition: a is redirected, to somebody else
other_peer() {
    route_is a "redirected *" && [[ $(peer_of a) != "$1" ]]
}

lab_up
start_hosts
peers_stand_by a b c
load_start a
blockcheck_start a
load_start b --rate 100
load_start c --rate 100
black_hole a
expect_route a "redirected *" 3000

p=$(peer_of a)
load_mark a upgraded
stop_proxy "$p"
start_proxy "$p"
check "the other one than $p serves" within 4000 other_peer "$p"
expect_io a 3000
expect_stall a upgraded 200
check "$p serves again" within 10000 proxy_is "$p" serving
check "and stands by" within 10000 peer_serves a "$p"

q=$(peer_of a)
load_mark a lost
black_hole "$q"
expect_route a "redirected $p" 5000
expect_route "$q" "redirected $p" 5000
expect_io a 3000
expect_stall a lost 2500
heal_paths "$q"
expect_route "$q" local 15000
for h in b c; do
    within 10000 proxy_is "$h" serving
done

# ---- a chain -------------------------------------------------------------------

heal_paths a
expect_route a local 15000
peers_stand_by a b c
black_hole b
expect_route b "redirected *" 5000
check "b's proxy does not serve" within 3000 proxy_is b "[!s]*"
check "a knows" within 3000 peer_says a b "path|lost|serv"
load_mark a chain
# not_with_b - for a second, a is never redirected to b.
not_with_b() {
    local end=$(($(now_ms) + 1000))
    while (($(now_ms) < end)); do
        ! route_is a "*ed b" || return 1
        nap 20
    done
}
check_fails "an order to go there is refused" "b is not ready" \
    ctl a redirect disk b
check "an order does not bring a to b" not_with_b
expect_io a 3000
is "b has no guest" "$(field proxy-b '.luns[0].sessions | length')" 0
expect_stall a chain 200
check "a returns" ctl a return disk
expect_route a local 5000
heal_paths b
expect_route b local 15000

# By order b leaves its paths, which its proxy goes on to serve: still one hop.
check "b is sent to c" ctl b redirect disk c
expect_route b "redirected c" 5000
check "a is sent to b" ctl a redirect disk b
expect_route a "redirected b" 5000
expect_io a 3000
expect_io b 3000
for h in a b; do
    check "$h returns" ctl "$h" return disk
    expect_route "$h" local 5000
done
blockcheck_ok a
for h in "${LAB_HOSTS[@]}"; do
    expect_no_error "$h"
done
lab_end
