#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Two hosts lose the SAN in turn and serve each other.
#
# Goal: neither the write that hung at b while it served a, nor the one that
# hung on b's own paths, takes effect after newer ones.
# Timeline: c does not take part.  a loses its paths, b serves it; a write of a
# and one of b's own VM are held on b's way; a's paths come back and b's go;
# a goes home and fences b, b is redirected to a and has a fence it; newer
# writes of both; the old ones are let go.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

# The second block is b's.
turns() {
    black_hole a
    within 5000 route_is a "redirected b" || not_so "a is not at b" || return
    hold old at=request op=write "from=$(addresses b)" "offset=$GHOST_AT" \
        count=8192
    vm a write old 0 O
    vm b write old 4096 O
    within 5000 held_both || not_so "not both are held" || return
    heal_paths a
    black_hole b
    answered a old && vm a write new 0 N && answered a new || return
    answered b old && vm b write new 4096 N && answered b new || return
    release old && settle && content a 0 4096
}

held_both() {
    grep -q "^held old.$GHOST_NO write $GHOST_AT " "$LAB_DIR/hold/events" &&
        grep -q "^held old.$GHOST_NO write $((GHOST_AT + 4096)) " \
            "$LAB_DIR/hold/events"
}

ghost_up
GHOST_PROXIES=(a b)
GHOST_PLUGINS=(a b)
GHOST_WANT=NN
ghost "serving each other" home-fence,fence turns
lab_end
