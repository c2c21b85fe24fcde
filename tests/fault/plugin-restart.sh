#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin is killed with writes under way, and started again.
#
# Goal: what its predecessor left at a peer is fenced: no older write takes
# effect after the new plugin has acknowledged a newer one.
# Timeline: a redirected under load; kill -9 of the plugin; started again at
# once: <= 3 s it serves (redirected again); after that all blocks are right.
# The same on a host's own paths.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts
for where in local redirected redirected; do
    if [[ $where == redirected ]]; then
        check "peers stand by" within 10000 peers_serve a
        black_hole a
        expect_route a "redirected *" 5000
    fi
    load_start a --keep-on-loss --writes 80
    expect_io a 5000
    kill_plugin a
    load_stop a
    begin=$(now_ms)
    start_plugin a
    load_start a --writes 80
    expect_io a 5000
    diag "served again after $(($(now_ms) - begin)) ms"
    expect_no_error a
    heal_paths a
    expect_route a local 15000
done
lab_end
