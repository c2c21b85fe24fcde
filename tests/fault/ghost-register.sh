#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A REGISTER hangs on its way to the target.
#
# Goal: nothing was sent behind it, so that it does no harm when it arrives
# after the key it carries has been looked for and not been found.
# Timeline: a's path 2 is reset and comes back; its REGISTER is held; writes;
# <= 0.6 s the path is given up; newer writes over path 1; the REGISTER is let
# go, and all that its path had sent behind it.
#
# The fence is made without a LUN RESET in the first two halves, as on a target
# with PREEMPT AND ABORT: tgtd tells every nexus of a reset by a unit attention,
# which the late REGISTER meets and is not carried out.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

# Two writes: the paths take turns.
late_register() {
    local i
    reset_path a 2
    within 5000 paths_are a "good failed" || not_so "path 2 is good" || return
    hold register at=request op=register "from=$(addresses a)" max=1
    heal_path a 2
    caught register || return
    for i in 0 4096; do
        vm a write "old$i" $i O
    done
    for i in 0 4096; do
        answered a "old$i" && vm a write "new$i" $i N && answered a "new$i" ||
            return
    done
    release register && settle && content a 0 4096
}

ghost_up
GHOST_WANT=NN
# shellcheck disable=SC2034 # for ghost.sh
GHOST_ALSO=abort
ghost "behind a REGISTER" answer late_register
lab_end
