#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A host whose paths are gone when its plugin starts.
#
# Goal: its VMs run nevertheless, through a peer, and come home later.  The
# plugin knows the LUN's identity from its last run; without that (or wwid= in
# the configuration) it could not tell that the peer serves the same LUN.
# Timeline: 0 start; <= 1 s no path answers; then a peer is asked: <= 5 s the
# first VM request is answered; paths healed: home within 6 s.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_proxy b
start_proxy c
check "peers serve" within 10000 proxy_is b serving
start_plugin a
expect_route a local 5000
stop_plugin a
black_hole a
start_plugin a
check "the size is known from a peer" \
    timeout 8 nbdinfo --size "$(uri a)"
expect_route a "redirected *" 3000
load_start a
expect_io a 5000
heal_paths a
expect_route a local 8000
expect_no_error a
lab_end
