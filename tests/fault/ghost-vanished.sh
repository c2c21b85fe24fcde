#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A VM is killed while its write has no route, and started on another host.
#
# Goal: what was held for a client that is gone is not sent when its host has a
# route again: the VM runs elsewhere, and has written newer data.
# Timeline, held: a has no paths and no networks; its VM writes, and is killed;
# one on c writes anew; a is whole again, and local <= 10 s.
# Timeline, sent before: the same, but the write is under way when the paths
# go, silently, and is held for its second try.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

held() {
    isolate a && black_hole a
    within 5000 route_is a queueing || not_so "a is not queueing" || return
    vm a write old 0 O
    moved
}

sent_before() {
    isolate a && black_hole a
    vm a write old 0 O
    within 5000 route_is a queueing || not_so "a is not queueing" || return
    moved
}

# moved - the VM of a, whose write is held, runs on c from now on.
moved() {
    within 5000 holds a 1 || not_so "a does not hold the write" || return
    vm_close a
    vm c write new 0 N && answered c new || return
    heal_network a 1 && heal_network a 2 && heal_paths a
    within 10000 route_is a local || not_so "a does not come home" || return
    within 5000 holds a 0 || not_so "a still holds the write" || return
    settle && content c 0
}

# holds HOST N - so many requests wait for a route there.
holds() {
    [[ $(field "plugin-$1-vm" .queue.held) == "$2" ]]
}

ghost_up
GHOST_PROXIES=(b)
GHOST_PLUGINS=(a c)
ghost "a write that was held" vanished held
ghost "a write that was to be sent again" vanished sent_before
check "it is told" logged plugin-a-vm "not sent: it was held, and its client"
lab_end
