#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The whole SAN is gone for every host, and comes back.
#
# Goal: I/O waits, nothing fails, all of it goes on without anybody's help.
# Timeline: 0 all paths cut; <= 3 s every plugin is queueing; 6 s healed;
# <= 6 s later every load flows again.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts
for h in "${LAB_HOSTS[@]}"; do
    load_start "$h" --rate 300
done
for h in "${LAB_HOSTS[@]}"; do
    load_mark "$h" outage
    black_hole "$h"
done
for h in "${LAB_HOSTS[@]}"; do
    expect_route "$h" queueing 5000
done
nap 3000 # the outage itself
for h in "${LAB_HOSTS[@]}"; do
    check "$h still waits, and says so" within 2000 route_is "$h" queueing
    is "nothing failed on $h" "$(load_errors "$h")" 0
done
for h in "${LAB_HOSTS[@]}"; do
    heal_paths "$h"
done
for h in "${LAB_HOSTS[@]}"; do
    expect_io "$h" 8000
done
for h in "${LAB_HOSTS[@]}"; do
    expect_route "$h" local 15000
done

for h in "${LAB_HOSTS[@]}"; do
    load_mark "$h" frozen
done
freeze_san
for h in "${LAB_HOSTS[@]}"; do
    expect_route "$h" queueing 8000
done
thaw_san
for h in "${LAB_HOSTS[@]}"; do
    expect_io "$h" 10000
done
for h in "${LAB_HOSTS[@]}"; do
    expect_no_error "$h"
done
lab_end
