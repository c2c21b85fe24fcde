#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A write hangs at the peer that serves, and the host goes home.
#
# Goal: the copy that hangs takes no effect after a newer write over the host's
# own paths: the host fences the peer itself before it writes.
# Timeline: a redirected to b by order, c drained; the write is held on b's way
# to the target; b is frozen; <= 1.2 s a is home; a newer write is acknowledged;
# the first one is let go, and b goes on.
# Likewise when the write hangs on a's own paths, nobody else serves, and a is
# home again before it lands.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

home() {
    redirect a b || return
    post proxy-c /drain >/dev/null
    hold_write old request b
    vm a write old 0 O
    caught old || return
    freeze proxy-b
    overtake a old || return
    route_is a local || not_so "a is not home" || return
    thaw proxy-b
    settle
    content a 0
}

own_orphan() {
    hold_write old request "" max=1
    vm a write old 0 O
    caught old || return
    black_hole a
    within 5000 paths_are a "failed failed" || not_so "a path is good" || return
    heal_paths a
    overtake a old && content a 0
}

ghost_up
ghost "from a peer" home-fence home
GHOST_PROXIES=()
ghost "from nowhere" graves own_orphan
lab_end
