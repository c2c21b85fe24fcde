#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What hangs is a zero or a trim.
#
# Goal: it takes no effect after a newer write.
# Timeline: zero: as in ghost-redirect.sh.  Trim, with fence = drain, since
# tgtd's reservations do not guard UNMAP and it is not offered with fence = pr:
# held before the medium; both paths cut; given up after 0.6 s; healed; a's
# writes wait for the LUN RESET, which tgtd answers after the trim.

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

ghost_up
# shellcheck disable=SC2034 # for ghost.sh
GHOST_OLD=.
ghost "zero, not yet looked at" fence late_zero request
ghost "zero, before the medium" abort late_zero medium

# a LUN without a reservation
san_lun 2 || lab_failed "no second LUN"
# shellcheck disable=SC2034 # for hosts.sh
LAB_FENCE=drain
for h in "${LAB_HOSTS[@]}"; do
    rm -rf "${LAB_DIR:?}/$h/state"
    LAB_DEVICE[$h]=$(lun_device 2)
    host_config "$h"
done
ghost "trim, before the medium" own-nexus late_trim
lab_end
