#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Paths that swallow everything, without a word.
#
# Goal: no error, no mismatch; I/O goes on within 1.5 s of the cut.
# Timeline: 0 path 1 cut; <= 1 s its probe is overdue, its writes are fenced and
# sent again on path 2; both cut: <= 1 s no path left, <= 1.1 s a peer answers
# GO; healed: <= 2.5 s logged in again, + 1.1 s home without a stall.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts
load_start a
load_start b --rate 100 --depth 4

load_mark a one-cut
cut_path a 1
check "path 1 is seen as failed" within 3000 paths_are a "failed good"
expect_io a 3000
is "one path is enough" "$(route_of a)" local
expect_stall a one-cut 1500

load_mark a both-cut
cut_path a 2
expect_route a "redirected *" 3000
expect_io a 3000
expect_stall a both-cut 1500

load_mark a home
heal_paths a
expect_route a local 8000
expect_stall a home 100

load_mark a both-at-once
black_hole a
expect_route a "redirected *" 3000
expect_io a 3000
expect_stall a both-at-once 1500
heal_paths a
expect_route a local 15000
is "b never noticed" "$(route_of b)" local
expect_no_error a
expect_no_error b
lab_end
