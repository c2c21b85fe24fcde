#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A write hangs in a host's dead path while the host is redirected.
#
# Goal: the copy that hangs takes no effect after a newer write.
# Timeline: a's write is held at the target; both paths cut; <= 0.6 s a is
# redirected, the write is acknowledged through the peer, a newer one too; the
# first copy is let go.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

# late POINT - where it hangs
late() {
    hold_write old "$1" "" max=1
    vm a write old 0 O
    caught old || return
    black_hole a
    overtake a old && content a 0
}

no_seam() {
    ! grep -l DETOUR_LEAVE_OUT "$GHOST_REAL"/detour-proxy \
        "$GHOST_REAL"/nbdkit-detour-plugin.so
}

ghost_up
check "no rule can be left out of the real programs" no_seam
ghost "not yet looked at" "fence suspect-self" late request
ghost "before the medium" abort late medium
lab_end
