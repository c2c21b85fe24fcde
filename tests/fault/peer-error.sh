#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The serving peer's device gives EIO for a write, and works otherwise.
#
# Goal: the VM sees no error, since the peer is asked once more; the others'
# I/O goes on there meanwhile; and on the way home the peer is a suspect, since
# its kernel may have given up what is still on its way.
# Timeline: the device keeps one write, then fails it: answered <= 1 s later,
# and no change of route; an order to return: home <= 3 s later.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"
[[ -w /dev/fuse ]] || skip_all "no /dev/fuse here"
# shellcheck source=tests/lib/hang.sh
. "$(dirname "$0")/../lib/hang.sh"

LAB_FENCE=drain
LAB_LUN_CONFIG="failback_after = 30m
failback_max = 30m"

# writes OFFSET BYTE; reads OFFSET BYTE - 4 KiB of it, through a's plugin.
writes() {
    nbd_python '
import sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pwrite(bytes([int(sys.argv[3])]) * 4096, int(sys.argv[2]))' \
        "$(uri a)" "$@"
}

reads() {
    nbd_python '
import sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
assert h.pread(4096, int(sys.argv[2])) == bytes([int(sys.argv[3])]) * 4096' \
        "$(uri a)" "$@"
}

hang_start
lab_up
start_hosts
expect_route a local 5000
check "b stands by" within 10000 peer_serves a b
check "a is told to redirect" ctl a redirect disk b
expect_route a "redirected b" 4000
generation=$(field plugin-a-vm .route.generation)

hang catch >/dev/null
writes 1048576 1 &
writer=$!
check "a write hangs in b's device" within 3000 held 1
check "others go on" writes 2097152 2
hang fail 5 >/dev/null # and does not carry it out
if wait "$writer"; then
    pass "it is answered well in the end"
else
    fail "it is answered well in the end"
fi
check "and is there" reads 1048576 1
is "the route has not changed" \
    "$(field plugin-a-vm .route.generation)" "$generation"
is "no error counts as one of b's paths" \
    "$(field proxy-b '.luns[0].lun_status.verdict.state')" good
check "a is told to return" ctl a return disk
expect_route a local 3000
check "b was suspected, and asked" within 3000 \
    logged plugin-a-vm "all writes of ours at b have come back"
check "nothing was lost" reads 1048576 1
lab_end
