#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A peer that serves another LUN under the same name.
#
# Goal: the identities are compared before anything is sent: such a peer is
# refused with a clear message, not one byte reaches its LUN.
# Timeline: 0 a loses its paths; b (another LUN) is refused, a waits; then c
# (the right LUN) starts: <= 5 s a is redirected to c.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
san_lun 2
LAB_DEVICE[b]=$(lun_device 2)
host_config b
start_proxy b
start_plugin a
check "a is local" within 10000 route_is a local
check "b serves its own LUN" within 10000 proxy_is b serving
before=$(sha256sum <"$LAB_DIR/lun2")
load_start a --rate 300

black_hole a
expect_route a queueing 5000
check "a says why not b" within 5000 peer_says a b "identi|other LUN|differ"
check "so does the log" logged plugin-a-vm "peer b serves .* ours is"
start_proxy c
expect_route a "redirected c" 8000
expect_io a 3000
heal_paths a
expect_route a local 8000
is "not one byte was written there" "$(sha256sum <"$LAB_DIR/lun2")" "$before"
expect_no_error a
lab_end
