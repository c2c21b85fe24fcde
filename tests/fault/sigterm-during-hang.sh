#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# SIGTERM while every request hangs.
#
# Goal: the plugin and the proxy end within 2 s whatever the array does, and
# what starts after them finds every acknowledged write.
# Timeline: 0 the array freezes with requests under way; when some have waited
# for 0.4 s, SIGTERM; <= 2 s later both are gone; the array thaws; both start again and serve.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

# ends_within MS NAME - SIGTERM to the program; a check of the time it takes.
ends_within() {
    local begin pid=${LAB_PID[$2]}
    begin=$(now_ms)
    kill -TERM "$pid"
    within $(($1 + 3000)) gone "$2"
    at_most "$2 ends" $(($(now_ms) - begin)) "$1"
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    is "$2 ends with status" $? 0
    unset "LAB_PID[$2]"
}

# hangs HOST MS - a condition: a request of its VM has waited for so long.
hangs() {
    (($(field "plugin-$1-vm" \
        '.queue | [.oldest_inflight_ms, .oldest_held_ms] | max') >= $2))
}

# One host less has to end: a writes locally, b through c.
lab_up
start_hosts
black_hole b
expect_route b "redirected *" 5000
peer=$(route_of b)
peer=${peer#redirected }
load_start a --keep-on-loss
load_start b --keep-on-loss
expect_io a 3000
expect_io b 3000

freeze_san
for h in a b; do
    check "requests of $h hang" within 5000 hangs "$h" 400
done
ends_within 2000 plugin-a-vm
ends_within 2000 "proxy-$peer"
ends_within 2000 plugin-b-vm
load_stop a
load_stop b
thaw_san
heal_paths b
for h in a b; do
    start_plugin "$h"
done
start_proxy "$peer"
expect_route a local 10000
expect_route b local 10000
check "the proxy serves again" within 10000 proxy_is "$peer" serving
for h in a b; do
    load_start "$h"
    expect_io "$h" 5000
    expect_no_error "$h"
done
lab_end
