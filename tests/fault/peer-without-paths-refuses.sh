#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A peer that has lost its own paths is no peer.
#
# Goal: never two hops, never a loop: a host is redirected only to one that is
# on its own paths, and waits when there is none.
# Timeline: 0 b loses its paths and goes to a or c; then a loses its paths:
# <= 2 s a is redirected to c, never b; then c loses its paths: all wait; b's
# paths come back: a and c go to b.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts
load_start a --rate 300

black_hole b
expect_route b "redirected *" 3000
check "b's proxy does not serve" within 3000 proxy_is b "[!s]*"
black_hole a
expect_route a "redirected c" 5000
expect_io a 3000
check "a knows why b refuses" within 3000 peer_says a b "path|lost|serv"
is "b's proxy has no guest" \
    "$(field proxy-b '.luns[0].sessions | length')" 0
expect_route b "redirected c" 5000

black_hole c
expect_route a queueing 5000
expect_route b queueing 5000
expect_route c queueing 5000
heal_paths b
expect_route b local 8000
expect_route a "redirected b" 5000
expect_route c "redirected b" 5000
expect_io a 3000
heal_paths a
heal_paths c
expect_route a local 15000
expect_no_error a
lab_end
