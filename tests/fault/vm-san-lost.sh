#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The host of a virtual machine loses the SAN, and gets it back.
#
# Goal: the guest sees a pause and nothing else: no I/O error, no hung task, a
# clean file system, every byte right.
# Timeline: both paths of a answer with resets: <= 200 ms pause; they come back:
# <= 200 ms when the route returns by itself; both swallow everything: <= 1 s until
# a probe is overdue, <= 1.5 s pause; they come back.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/vm.sh
. "$LAB_LIB/vm.sh"
[[ -n ${LAB_DIR-} ]] || vm_needed
lab_enter "$@"

lab_up
start_hosts
vm_format 1 a
vm_start 1 a
load_start b --rate 100
load_start c --rate 100

vm_mark 1 resets
reset_path a 1
reset_path a 2
expect_route a "redirected *" 5000
vm_expect_io 1 5000
vm_expect_stall 1 resets 500

vm_mark 1 return
heal_paths a
expect_route a local 15000
vm_expect_io 1 5000
vm_expect_stall 1 return 500

vm_mark 1 silence
black_hole a
expect_route a "redirected *" 5000
vm_expect_io 1 5000
vm_expect_stall 1 silence 1500

vm_mark 1 return-again
heal_paths a
expect_route a local 15000
vm_expect_io 1 5000
vm_expect_stall 1 return-again 500

vm_end 1 a b
expect_no_error b
expect_no_error c
lab_end
