#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A write is late at a peer or on the way to it, the connection is lost, and
# the same peer is asked again.
#
# Goal: the peer lets the new session in only when the old one can read nothing
# any more and all that it had submitted has come back; nobody is fenced for
# that.
# Timeline, slow: a redirected to b, c drained; the write is held before the
# medium; a's connections to b are reset; a asks b again; the write is let go
# after 2 s; b serves; a newer write.
# Timeline, crawling: of the two networks one crawls, with a write on it;
# <= 0.6 s a, or its plugin that was killed and started again, asks b over the
# other one; newer writes; the network delivers.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

at_b() {
    post proxy-c /drain >/dev/null
    black_hole a
    within 5000 route_is a "redirected b" || not_so "a is not at b" || return
    within 5000 both_used || not_so "a's second connection does not join"
}

# both_used - each of a's two connections has carried a request.
both_used() {
    vm a read joined 0 &&
        [[ $(field proxy-b '[.luns[].sessions[].connections[] |
            select(.requests > 0)] | length') == 2 ]]
}

slow() {
    at_b || return
    hold_write old medium "" max=1
    vm a write old 0 O
    caught old || return
    in_host a ss -K dport = "$(lab_port)" >/dev/null
    overtake a old && content a 0
}

# crawl - of two writes, on two connections, one is on the first network
crawl() {
    lose_resets a
    delay_network b 1 && vm a write old0 0 O && vm a write old1 4096 O
}

arrive() {
    vm a write new0 0 N && vm a write new1 4096 N &&
        answered a new0 && answered a new1 && hurry_network b 1 &&
        settle && content a 0 4096
}

crawling() {
    at_b && crawl && answered a old0 && answered a old1 && arrive
}

# The first route ever is generation 1: a successor that knows of none takes
# the same one.
crawling_killed() {
    kill_plugin a
    kill_proxy b
    rm -f "$LAB_DIR/a/state/$LAB_LUN.vm"
    calm || not_so "not ready again" || return
    vm_open a && at_b && crawl || return
    within 5000 one_answered || not_so "neither of two writes is answered" ||
        return
    kill_plugin a
    vm_close a
    start_plugin a
    vm_open a && arrive
}

one_answered() {
    vm_answer a old0 || vm_answer a old1
}

ghost_up
ghost "a slow write" wait slow
GHOST_WANT=NN
ghost "an unread write" older crawling
ghost "an unread write of a killed plugin" disk-generation crawling_killed
lab_end
