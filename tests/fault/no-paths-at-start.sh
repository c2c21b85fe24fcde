#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A host whose paths are gone when its plugin starts.
#
# Goal: its VMs run nevertheless, through a peer, when the LUN's identity is
# known from the configuration or from an earlier run; a host that knows nothing
# to compare with waits, and says so.  All of them come home later.
# Timeline: 0 start; <= 1 s no path answers; then a peer is asked: <= 5 s the
# first VM request is answered; paths healed: home within 8 s.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

# runs_through_a_peer NAME - a has just started without paths
runs_through_a_peer() {
    check "$1: the size is told" timeout 8 nbdinfo --size "$(uri a)"
    expect_route a "redirected *" 3000
    load_start a
    expect_io a 5000
    heal_paths a
    expect_route a local 8000
    expect_no_error a
}

lab_up
start_proxy b
start_proxy c
check "peers serve" within 10000 proxy_is b serving
plain=$LAB_LUN_CONFIG

black_hole a
start_plugin a
check "nothing to compare with: a says so" within 8000 peer_says a b "not known"
check "and waits" within 2000 route_is a queueing
heal_paths a
expect_route a local 8000
stop_plugin a

black_hole a
start_plugin a
runs_through_a_peer "known from an earlier run"
stop_plugin a

rm -rf "$LAB_DIR/a/state"
LAB_LUN_CONFIG="$plain
wwid = $(field proxy-b '.luns[0].lun_status.id')"
host_config a
black_hole a
start_plugin a
runs_through_a_peer "known from the configuration"
lab_end
