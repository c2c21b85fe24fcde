#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Programs that stand still for a while and go on, as on a host that was
# suspended, or whose scheduler had other plans.
#
# Goal: what went on meanwhile is noticed, and nothing that was half done takes
# effect late; nobody dies of it, and nobody waits for longer than he slept.
# Timeline: a's plugin stops for 3 s, local and redirected: <= 2 s after it goes
# on its I/O does; the host that serves a stops as a whole, its VM's plugin
# too: <= 1.5 s a goes on with the other one; 3 s later the first goes on:
# <= 8 s it is on its own paths again; all programs of all hosts stop for 2 s.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

# send SIGNAL NAME...
send() {
    local signal=$1 name
    shift
    for name; do
        kill "-$signal" "${LAB_PID[$name]}"
    done
}

lab_up
start_hosts
peers_stand_by a b c
load_start a
blockcheck_start a
blockcheck_start b --rate 100
blockcheck_start c --rate 100

send STOP plugin-a-vm
nap 3000
send CONT plugin-a-vm
expect_io a 4000
expect_route a local 15000

black_hole a
expect_route a "redirected *" 3000
send STOP plugin-a-vm
nap 3000
send CONT plugin-a-vm
expect_io a 4000
check "a is redirected" within 5000 route_is a "redirected *"
for h in b c; do
    check "$h stands by for a, or serves it" within 10000 peer_serves a "$h"
done

load_mark a host
p=$(route_of a)
p=${p#redirected }
other=b
[[ $p != b ]] || other=c
send STOP "plugin-$p-vm" "proxy-$p"
expect_route a "redirected $other" 4000
expect_io a 3000
expect_stall a host 1500
nap 2000
send CONT "plugin-$p-vm" "proxy-$p"
expect_route "$p" local 15000
check "$p serves again" within 10000 proxy_is "$p" serving

all=()
for h in "${LAB_HOSTS[@]}"; do
    all+=("plugin-$h-vm" "proxy-$h")
done
send STOP "${all[@]}"
nap 2000
send CONT "${all[@]}"
expect_io a 8000
heal_paths a
for h in "${LAB_HOSTS[@]}"; do
    expect_route "$h" local 15000
done
for h in "${LAB_HOSTS[@]}"; do
    blockcheck_ok "$h"
done
expect_no_error a
lab_end
