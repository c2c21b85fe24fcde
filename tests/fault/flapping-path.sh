#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# One path of two that comes and goes, silently: a bad cable.
#
# Goal: no error, no mismatch; each time it goes costs one pause of what was
# under way there, and the other path carries the rest.
# Timeline: path 1 is cut at 0, 4, 8, 12 s and healed at 2, 6, 10, 14 s: four
# times <= 1 s it fails, and <= 2 s after it is healed it is used again.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts
peers_stand_by a b c
load_start a
blockcheck_start a
load_mark a flapping
for _ in 1 2 3 4; do
    cut_path a 1
    nap 2000
    heal_path a 1
    nap 2000
done
load_mark a calm
diag "four times lost in 16 s: $(load_value a flapping ops) requests in" \
    "$(load_value a flapping ms) ms"
expect_io a 3000
expect_stall a flapping 1500
expect_route a local 20000
check "both paths are good" within 10000 paths_are a "good good"
blockcheck_ok a
expect_no_error a
lab_end
