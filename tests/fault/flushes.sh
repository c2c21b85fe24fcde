#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Flushes as the array sees them: every one.
#
# Goal: a SYNCHRONIZE CACHE arrives for each flush, on own paths and through a
# peer; also for one right after another.  That a host has written nothing since
# does not mean that nothing was written: what another host wrote to the LUN, and
# a file system of both has read here, a flush makes durable too.
# Timeline: no fault, but one planned move.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

# A command of ours is a packet of its own, with the CDB 32 bytes inside:
# SYNCHRONIZE CACHE (10) or (16).
watch_flushes() {
    nsenter --net=/run/netns/san nft -f - <<'NFT'
table ip flushes {
    chain in {
        type filter hook input priority 0;
        tcp dport 3260 @ih,256,8 { 0x35, 0x91 } counter
    }
}
NFT
}

flushes_seen() {
    nsenter --net=/run/netns/san nft -j list table ip flushes |
        jq '[.. | .counter? | select(.) | .packets] | add'
}

# flushes N QEMU-IO-COMMAND... - a check: a client that says this is N flushes
# to the array: the last one is QEMU's own, when it closes.
flushes() {
    local want=$1 command before seen arguments=()
    shift
    for command; do
        arguments+=(-c "$command")
    done
    before=$(flushes_seen)
    check "$(route_of a): $*" qemu-io -f raw -t writeback \
        "${arguments[@]}" "nbd+unix:///?socket=$(socket a)"
    seen=$(($(flushes_seen) - before))
    check "are $want to the array ($seen)" test "$seen" == "$want"
}

on_this_route() {
    flushes 2 flush
    flushes 4 flush flush flush
    flushes 3 "write 0 4k" flush flush
    flushes 3 flush "write -f 0 4k" flush
}

lab_up
start_hosts
watch_flushes || lab_failed "nft cannot look into TCP"
on_this_route
check "a is told to redirect" post plugin-a-vm /redirect
expect_route a "redirected *" 3000
on_this_route
lab_end
