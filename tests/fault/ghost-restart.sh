#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A plugin, or the proxy that serves, is killed with writes under way and
# started again.
#
# Goal: what the dead process had sent takes no effect after a newer write that
# its successor acknowledged.
# Timeline: the write is held on its way to the target; kill -9; started again,
# <= 3 s it serves; a newer write is acknowledged; the first one is let go.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

# reborn - the plugin of a, with a VM that does not send the old write again
reborn() {
    kill_plugin a
    vm_close a
    start_plugin a
    vm_open a && vm a write new 0 N && answered a new && release old && settle
}

plugin_local() {
    hold_write old request a max=1
    vm a write old 0 O
    caught old && reborn && content a 0
}

# b is frozen, so that nobody can go there and find out
plugin_redirected() {
    redirect a b || return
    hold_write old request b max=1
    vm a write old 0 O
    caught old || return
    freeze proxy-b
    reborn || return
    thaw proxy-b
    settle
    content a 0
}

# One write was sent on and hangs, another one lies unread in b's socket.
# Nobody else serves, so that a comes back to b, which knows of nothing.
proxy() {
    post proxy-c /drain >/dev/null
    black_hole a
    within 5000 route_is a "redirected b" || not_so "a is not at b" || return
    hold_write old request b max=1
    vm a write old 0 O
    caught old || return
    freeze proxy-b
    vm a write unread 4096 O
    kill_proxy b
    start_proxy b
    overtake a old || return
    answered a unread && vm a write more 4096 N && answered a more || return
    content a 0 4096
}

ghost_up
ghost "plugin, own paths" predecessor plugin_local
ghost "plugin, redirected" disk-suspects plugin_redirected
GHOST_WANT=NN
ghost "proxy" predecessor proxy
lab_end
