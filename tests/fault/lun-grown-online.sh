#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The LUN is made larger while a host takes a detour by order, and sees it.
#
# Goal: a session carries what it was opened with: a VM that connects now is
# told that size, and sees no error up to its end; it is told the new one as
# soon as the route is another.
# Timeline: a goes to b; the LUN (a file, which every host opens) grows from 64
# to 128 MiB: <= 2 s a's own paths know; a VM connects: 64 MiB; a returns: 128.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

LAB_FENCE=drain
truncate -s 64M "$LAB_DIR/file"
for h in "${LAB_HOSTS[@]}"; do
    LAB_DEVICE[$h]=$LAB_DIR/file
done

# last_block HOST - what a VM that connects now meets at the end of the LUN;
# prints how large it is.
last_block() {
    nbd_python '
import sys, nbd
h = nbd.NBD()
h.connect_uri(sys.argv[1])
size = h.get_size()
h.pwrite(b"e" * 4096, size - 4096)
assert h.pread(4096, size - 4096) == b"e" * 4096
print(size >> 20)' "$(uri "$1")"
}

sees() {
    [[ $(field plugin-a-vm .lun_status.size) == $(($1 << 20)) ]]
}

lab_up
start_hosts
check "b stands by for a" within 10000 peer_serves a b
check "a is sent to b" ctl a redirect disk b
expect_route a "redirected b" 5000
is "a VM connects, and writes to the end" "$(last_block a)" 64
truncate -s 128M "$LAB_DIR/file"
check "a's own paths know" within 5000 sees 128
is "a VM that connects now is served up to the end" "$(last_block a)" 64
check "a returns" ctl a return disk
expect_route a local 5000
is "a VM that connects at home sees the new size" "$(last_block a)" 128
check "b stands by for a" within 10000 peer_serves a b
check "a is sent to b" ctl a redirect disk b
expect_route a "redirected b" 5000
is "and through b, which has seen it too" "$(last_block a)" 128
lab_end
