#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A write hangs at the peer that serves, and another peer takes over.
#
# Goal: the copy that hangs at the first peer takes no effect after a newer
# write through the second one, however the first peer was lost.
# Timeline: a redirected to b; the write is held on b's way to the target; b is
# frozen, or cut off from everyone but the SAN; <= 1.2 s a goes through c, or
# home if that takes too long, and b has been fenced; a newer write is
# acknowledged; the first one is let go, and b goes on.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

# lost HOW POINT - how b is lost, where the write hangs
lost() {
    local max=()
    # b's own retry over its other path is another copy: hold that as well
    [[ $2 == request ]] || max=(max=1)
    redirect a b || return
    hold_write old "$2" b "${max[@]}"
    vm a write old 0 O
    caught old || return
    "$1" b
    overtake a old || return
    [[ $(route_of a) != "redirected b" ]] || not_so "a is still at b" || return
    thaw proxy-b
    settle
    content a 0
}

frozen() {
    freeze "proxy-$1"
}

ghost_up
ghost "a frozen peer, not yet looked at" "fence suspect-peer" lost frozen request
ghost "a frozen peer, before the medium" abort lost frozen medium
ghost "an isolated peer" fence lost isolate request
lab_end
