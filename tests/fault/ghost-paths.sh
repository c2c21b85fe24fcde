#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A write hangs on one of the host's own two paths and is sent again on the
# other one.
#
# Goal: the first copy takes no effect after a newer write.
# Timeline: the write is held on its path; <= 0.6 s the path is silent and
# given up, its nexus is fenced over the other path, the write is sent again; a
# newer write is acknowledged; the first copy is let go.  The same with four
# writes, two of which the target has received and not looked at.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

# What is held in the socket silences its path by itself.
other_path() {
    hold_write old request "" max=1
    vm a write old 0 O
    caught old || return
    overtake a old && content a 0
}

ghost_up
# nobody to be redirected to: it is the other path or none
GHOST_PROXIES=()
ghost "the other path" graves other_path
# shellcheck disable=SC2034 # for ghost.sh
GHOST_WANT=NNNN
ghost "several, not yet looked at" graves late_writes
lab_end
