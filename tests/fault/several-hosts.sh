#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two hosts lose the SAN at once, and lean on the one that has it; then the SAN
# is dead for everyone, and back for one host only.
#
# Goal: one peer carries them all; nothing fails while nobody has the SAN; one
# host that has it again is enough for all.
# Timeline: 0 a and c lose their paths: <= 1 s they know, <= 1 s more when the
# one has asked the other, which did not know yet: both are redirected to b.  b's
# too: <= 4 s all wait, for DEAD_MS (5000; 60000 is what Windows forgives); b's
# paths come back: <= 8 s b is local, then <= 3 s a and c go through it; the
# rest: <= 10 s all are local.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

DEAD_MS=${DEAD_MS:-5000}

lab_up
start_hosts
for h in a c; do
    check "b stands by for $h" within 10000 peer_serves "$h" b
done
for h in "${LAB_HOSTS[@]}"; do
    load_start "$h" --rate 200
    blockcheck_start "$h" --rate 150
done

# c asks a, whose paths have just gone and who does not know it yet.
for h in a c; do
    load_mark "$h" both
done
black_hole c
nap 700
black_hole a
for h in a c; do
    expect_route "$h" "redirected b" 5000
    expect_io "$h" 3000
    # nominally 2 s; with the slack less than a GO may take (open_timeout)
    expect_stall "$h" both 1100
done
check "a refused c rather than let it wait for paths" \
    logged plugin-c-vm "route to a refused .*(cannot fence|not serving)"
is "b carries two sessions" \
    "$(field proxy-b '[.luns[0].sessions[].host] | sort | join(" ")')" "a c"
is "b is local" "$(route_of b)" local

black_hole b
for h in "${LAB_HOSTS[@]}"; do
    expect_route "$h" queueing 8000
done
nap "$DEAD_MS"
for h in "${LAB_HOSTS[@]}"; do
    is "$h still waits" "$(route_of "$h")" queueing
    is "nothing failed on $h" "$(load_errors "$h")" 0
done

begin=$(now_ms)
heal_paths b
expect_route b local 10000
for h in a c; do
    expect_route "$h" "redirected b" 10000
done
for h in "${LAB_HOSTS[@]}"; do
    expect_io "$h" 5000
done
diag "all go on $(($(now_ms) - begin)) ms after the SAN is back for b"
for h in a c; do
    heal_paths "$h"
done
for h in "${LAB_HOSTS[@]}"; do
    expect_route "$h" local 15000
done
for h in "${LAB_HOSTS[@]}"; do
    blockcheck_ok "$h"
    expect_no_error "$h"
done
lab_end
