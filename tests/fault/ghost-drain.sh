#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Without reservations (fence = drain), an iscsi LUN over two paths.
#
# Goal: a trim that hangs before the medium takes no effect after a newer
# write: a's writes wait for the LUN RESET, which tgtd answers after the trim.
# Timeline: held; both paths cut; given up after 0.6 s; healed; a newer write
# waits; the trim is let go after 2 s.
# What drain cannot do is in drain-limit.sh.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

late_trim() {
    vm a write first 0 F
    answered a first || return
    hold_write old medium "" max=1
    vm a trim old 0
    caught old || return
    black_hole a
    within 5000 paths_are a "failed failed" || not_so "a path is good" || return
    heal_paths a
    overtake a old && content a 0
}

# shellcheck disable=SC2034 # for hosts.sh
LAB_FENCE=drain
ghost_up
# shellcheck disable=SC2034 # for ghost.sh
GHOST_OLD=.
ghost "trim, before the medium" graves late_trim
lab_end
