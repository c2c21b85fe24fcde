#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Paths that come and go every two seconds.
#
# Goal: no error, no mismatch; the route does not flap along: each return that
# did not last doubles the hold-down, so that it stays with the peer.
# Timeline: cut at 0, 4, 8, 12, 16 s, healed at 2, 6, 10, 14, 18 s.  Hold-down
# 1 s, 2 s, 4 s, ...: at most one or two returns while it lasts; home for good
# at the latest 8 s + 2.5 s after the end.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts
load_start a
generation=$(field plugin-a-vm .route.generation)
load_mark a flapping
for _ in 1 2 3 4 5; do
    black_hole a
    nap 2000 # how long they are gone, and are back, is what is tested
    heal_paths a
    nap 2000
done
opened=$(($(field plugin-a-vm .route.generation) - generation))
check "it was redirected at all" test "$opened" -ge 1
at_most "routes opened during five flaps" "$opened" 4 "routes"
expect_route a local 20000
expect_io a 3000
expect_stall a flapping 1500
expect_no_error a
lab_end
