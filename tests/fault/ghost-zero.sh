#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What hangs is a zero.
#
# Goal, timeline: as in ghost-redirect.sh.  tgtd's reservations guard no UNMAP,
# so that there is no trim with fence = pr; see ghost-drain.sh for that.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

late_zero() {
    hold_write old "$1" "" max=1
    vm a zero old 0
    caught old || return
    black_hole a
    overtake a old && content a 0
}

ghost_up
# shellcheck disable=SC2034 # for ghost.sh
GHOST_OLD=.
ghost "zero, not yet looked at" fence late_zero request
ghost "zero, before the medium" abort late_zero medium
lab_end
