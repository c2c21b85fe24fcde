#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What fence = drain cannot do, shown: an iscsi target that keeps the old
# session carries out what lay unread in its socket during a LUN RESET.
#
# Goal: the limit is real, and no larger than docs/fencing.md says: old data on
# top, or new, and never anything else.  The same story with reservations is in
# ghost-paths.sh, and clean.
# Timeline: as there.  If this fails since only new data is found, the limit is
# gone: say so in docs/fencing.md and make it a case of ghost-drain.sh.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

# shellcheck disable=SC2034 # for hosts.sh
LAB_FENCE=drain
ghost_up
programs ""
check "without reservations some of several late writes are carried out" \
    corrupt late_writes
is "nothing but old and new data is found" "${GHOST_GOT//[NO]/}" ""
ghost_kill
lab_end
