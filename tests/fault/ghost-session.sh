#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A write crawls through the network to a peer that is fenced meanwhile, with
# nothing of it under way, and registers anew.
#
# Goal: the peer's new registration does not let the write in: its session has
# ended with the old one.
# Timeline: a redirected to b; the network to b crawls; a write; a's plugin is
# killed and started again: home, after it has fenced b; b notices, registers
# anew and serves; a newer write; the network delivers.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

crawling() {
    local before
    redirect a b || return
    before=$(field proxy-b '.luns[0].lun_status.registration.number')
    lose_resets a
    delay_network b 1 2
    vm a write old 0 O
    nap 300 # the write may be anywhere on its way; none of that can be seen
    kill_plugin a
    vm_close a
    start_plugin a
    vm_open a && vm a write new 0 N && answered a new || return
    within 10000 registered_since b "$before" ||
        not_so "b has not registered anew" || return
    hurry_network b 1 2 || return
    settle
    content a 0
}

# registered_since HOST NUMBER - and serves
registered_since() {
    proxy_is "$1" serving &&
        (($(field "proxy-$1" '.luns[0].lun_status.registration.number') > $2))
}

ghost_up
ghost "from before the fence" close crawling
lab_end
