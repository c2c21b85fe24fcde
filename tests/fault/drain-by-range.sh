#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Without reservations: what overlaps a write that hangs waits, and no more.
#
# Goal: with fence = drain a write that hangs in the host's own device, or in a
# peer that is lost, holds the writes that overlap it, and nothing else, until
# it has come back, or until somebody says that the peer is dead.
# Timeline: the device keeps one write; an order to redirect; <= 2 s (io_timeout)
# + 1 s others flow through a peer; the device lets go: <= 1 s later all do.
# A peer stops with a write: <= 3 s (link_timeout and opening) others flow.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"
[[ -w /dev/fuse ]] || skip_all "no /dev/fuse here"

LAB_FENCE=drain
LAB_LUN_CONFIG="io_timeout = 2s
failback_after = 30m
failback_max = 30m"
# shellcheck source=tests/lib/hang.sh
. "$(dirname "$0")/../lib/hang.sh"

# writes OFFSET BYTE - 64 KiB of it, through a's plugin.
writes() {
    nbd_python '
import os, signal, sys, nbd
signal.alarm(int(os.environ.get("LIMIT_S", "0")))
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(bytes([int(sys.argv[3])]) * 65536, int(sys.argv[2]))' \
        "$(uri a)" "$@"
}

# reads OFFSET BYTE - 32 KiB of it
reads() {
    nbd_python '
import os, signal, sys, nbd
signal.alarm(int(os.environ.get("LIMIT_S", "0")))
h = nbd.NBD()
h.connect_uri(sys.argv[1])
assert h.pread(32768, int(sys.argv[2])) == bytes([int(sys.argv[3])]) * 32768' \
        "$(uri a)" "$@"
}

# start_write NAME OFFSET BYTE - in the background; its pid in ${job[NAME]}.
declare -A job
start_write() {
    writes "$2" "$3" &
    job[$1]=$!
}

# holds N - a condition: so many requests wait in a's plugin, whose route is
# open: for writes that hang.
holds() {
    [[ $(field plugin-a-vm .queue.held) == "$1" ]]
}

# generation_is N - a condition: or a higher one.
generation_is() {
    (($(field plugin-a-vm .route.generation) >= $1))
}

waits() {
    kill -0 "${job[$1]}" 2>/dev/null
}

# ends NAME - a check: it is answered well, within a second.
answered() {
    ! waits "$1"
}

ends() {
    if within 1000 answered "$1" && wait "${job[$1]}"; then
        pass "$1 is answered"
    else
        fail "$1 is answered well within 1000 ms"
    fi
}

# at_once COMMAND... - one of the functions above, in 2 s or never; how long
# Python takes to start is not the plugin's.
at_once() {
    LIMIT_S=2 "$@"
}

# flows NAME BYTE - checks: all but writes to the range are served at once; there
# BYTE is what was acknowledged last.
flows() {
    check "$1: a write elsewhere" at_once writes 2097152 7
    check "$1: a read elsewhere" at_once reads 2097152 7
    check "$1: a read of the very range" at_once reads 1048576 "$2"
}

# suspects_are HOSTS - a condition.
suspects_are() {
    [[ $(field plugin-a-vm '.route.suspects | join(" ")') == "$1" ]]
}

hang_start
lab_up
start_hosts
expect_route a local 5000
check "a writes" writes 1048576 1

# ---- a write of our own paths --------------------------------------------------

hang catch >/dev/null
start_write hung 1048576 2
check "a write hangs in a's device" within 3000 held 1
check "a is told to redirect" ctl a redirect disk b
expect_route a "redirected b" 4000
is "a itself is the suspect" "$(field plugin-a-vm '.route.suspects[]')" a
is "one range is waited for" "$(field plugin-a-vm .queue.orphans)" 1
start_write newer 1081344 3 # its second half, and beyond
check "two writes are held" within 3000 holds 2
flows "own write hangs" 1
check "the hung write waits for itself" waits hung
check "a newer one that overlaps it waits" waits newer
hang go >/dev/null
ends hung
ends newer
check "nobody is suspected any more" within 1000 suspects_are ""
check "the newer one stands" reads 1081344 3

# ---- a write of a peer that is lost, and answers again --------------------------

hang catch >/dev/null
start_write hung 1048576 4
check "a write hangs in b's device" within 3000 held 1
kill -STOP "${LAB_PID[proxy-b]}"
expect_route a "redirected c" 5000
start_write newer 1048576 5
check "two writes are held" within 3000 holds 2
flows "a lost peer's write hangs" 2
check "b is the suspect" suspects_are b
generation=$(field plugin-a-vm .route.generation)
kill -CONT "${LAB_PID[proxy-b]}"
check "b stands by again" within 10000 peer_serves a b
# Each time it is asked that takes a generation; the second time, it has not
# answered well the first time.
check "b is asked" within 20000 generation_is $((generation + 2))
check "b does not vouch for what hangs" suspects_are b
check "the hung write waits for itself" waits hung
check "a newer one that overlaps it waits" waits newer
check_fails "b is not dead" "b is not dead: its proxy answers" \
    ctl a confirm-dead b
hang go >/dev/null
within 5000 suspects_are ""
ends hung
ends newer
check "the newer one stands" reads 1048576 5
is "the route stayed with c" "$(route_of a)" "redirected c"

# ---- and one that never does -----------------------------------------------------

hang catch >/dev/null
start_write hung 1048576 6
check "a write hangs in c's device" within 3000 held 1
kill -STOP "${LAB_PID[proxy-c]}"
expect_route a "redirected b" 5000
check "a write is held" within 3000 holds 1
flows "another lost peer's write hangs" 5
check "the hung write waits for itself" waits hung
check "c is told to be dead" ctl a confirm-dead c
ends hung
check "it is there" reads 1048576 6
check "nobody is suspected any more" within 1000 suspects_are ""
check "that is logged, with who said so" \
    logged plugin-a-vm 'host c is dead, says uid 0 \(pid [0-9]+\)'
hang go >/dev/null
kill -CONT "${LAB_PID[proxy-c]}"
expect_route a "redirected b" 1000

lab_end
