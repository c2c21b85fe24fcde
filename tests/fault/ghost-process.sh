#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The host that has to be fenced runs several processes, each with keys of its
# own.
#
# Goal: the write that hangs at b's proxy takes no effect, although it is b's
# plugin whose key is the newest; and b's VM, which did nothing wrong, sees
# neither an error nor a loss when its host is fenced.
# Timeline: a redirected to b; the write is held on the way of b's proxy; the
# proxy is frozen; <= 1.2 s a goes through c, which has fenced b, plugin and
# all; a newer write is acknowledged; the first one is let go.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

bystander() {
    redirect a b || return
    vm b write before 8192 N
    answered b before || return
    hold_write old request b
    vm a write old 0 O
    caught old || return
    freeze proxy-b
    overtake a old || return
    vm b write after 12288 N
    answered b after || return
    thaw proxy-b
    settle
    content b 0 8192 12288
}

ghost_up
GHOST_PLUGINS=(a b)
GHOST_WANT=NNN
ghost "the proxy of a host with a plugin" every-key bystander
lab_end
