#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Paths that answer with TCP resets.
#
# Goal: no error, no mismatch; I/O goes on within 200 ms of the reset, over the
# other path or through a peer; coming home stalls nothing for over 100 ms.
# Timeline: 0 path 1 resets; <= 200 ms path 2 carries it all; path 2 resets as
# well; <= 200 ms a peer carries it; healed; <= 2.5 s paths log in again,
# + 1 s hold-down + 0.1 s jitter home.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts
load_start a
load_start b --rate 100 --depth 4

load_mark a one-reset
reset_path a 1
check "path 1 is seen as failed" within 2000 paths_are a "failed good"
is "one path is enough" "$(route_of a)" local
expect_stall a one-reset 200

load_mark a both-reset
reset_path a 2
expect_route a "redirected *" 2000
expect_io a 3000
expect_stall a both-reset 200

load_mark a home
heal_paths a
expect_route a local 6000
check "both paths are good" within 5000 paths_are a "good good"
expect_stall a home 100
expect_no_error a
expect_no_error b
lab_end
