#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Without reservations (fence = drain), an iscsi LUN over two paths.
#
# Goal: a trim that hangs before the medium takes no effect after a newer
# write: a's writes wait for the LUN RESET, which tgtd answers after the trim.
# Timeline: held; both paths cut; given up after 0.6 s; healed; a newer write
# waits; the trim is let go after 2 s.
#
# Known limit: of several writes that the target's machine has received and the
# target has not looked at when it carries out the LUN RESET, the first one
# meets a unit attention, the others are carried out.  Only reservations would
# refuse them.

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

# Four writes: the paths take turns, so that there are two on each.
late_writes() {
    local tag offsets=(0 4096 8192 12288)
    hold old at=request op=write "from=$(addresses a)" "offset=$GHOST_AT" \
        count=16384 max=1
    for tag in "${offsets[@]}"; do
        vm a write "old$tag" "$tag" O
    done
    caught old || return
    for tag in "${offsets[@]}"; do
        answered a "old$tag" && vm a write "new$tag" "$tag" N &&
            answered a "new$tag" || return
    done
    release old && settle && content a "${offsets[@]}"
}

# known_limit NAME SCENARIO... - told as TAP tells it, and no failure.
known_limit() {
    TAP_DONE=$((TAP_DONE + 1))
    programs ""
    if clean "${@:2}" >"$LAB_DIR/why"; then
        echo "ok $TAP_DONE - $1 # TODO seems to be gone: drop this mark"
    elif [[ $GHOST_GOT == *O* ]]; then
        echo "not ok $TAP_DONE - $1 # TODO needs fence = pr"
    else
        TAP_FAILED=$((TAP_FAILED + 1))
        echo "not ok $TAP_DONE - $1: neither old nor new"
    fi
}

# shellcheck disable=SC2034 # for hosts.sh
LAB_FENCE=drain
ghost_up
# shellcheck disable=SC2034 # for ghost.sh
GHOST_OLD=.
ghost "trim, before the medium" graves late_trim
# shellcheck disable=SC2034 # for ghost.sh
GHOST_WANT=NNNN
known_limit "several writes, not yet looked at" late_writes
ghost_kill
lab_end
