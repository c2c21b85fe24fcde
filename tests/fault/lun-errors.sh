#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Errors that the LUN, or the request, really has.
#
# Goal: they are passed to the VM unchanged, local and redirected alike, and
# never make the route change.
# Timeline: none; nothing here waits for a timer.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
start_hosts

# try URI STATEMENT - the NBD error that the server gives, or "ok".
try() {
    nbd_python '
import errno, sys, nbd
h = nbd.NBD()
h.set_strict_mode(0)
h.connect_uri(sys.argv[1])
size = h.get_size()
try:
    exec(sys.argv[2])
    print("ok")
except nbd.Error as e:
    print(errno.errorcode[e.errnum])
' "$1" "$2"
}

# errors_of WHERE URI
errors_of() {
    local where=$1 uri=$2
    is "$where: read of the last block" "$(try "$uri" 'h.pread(512, size - 512)')" ok
    is "$where: read past the end" \
        "$(try "$uri" 'h.pread(512, size)')" EINVAL
    is "$where: read over the end" \
        "$(try "$uri" 'h.pread(1024, size - 512)')" EINVAL
    is "$where: write past the end" \
        "$(try "$uri" 'h.pwrite(bytes(512), size)')" ENOSPC
    is "$where: trim past the end" \
        "$(try "$uri" 'h.trim(512, size)')" EINVAL
    is "$where: the connection goes on afterwards" \
        "$(try "$uri" '
try:
    h.pread(512, size)
except nbd.Error:
    pass
h.pread(512, 0)')" ok
}

errors_of local "$(uri a)"
check "a is told to redirect" post plugin-a-vm /redirect
expect_route a "redirected *" 3000
generation=$(field plugin-a-vm .route.generation)
errors_of redirected "$(uri a)"
is "no error changed the route" \
    "$(field plugin-a-vm .route.generation)" "$generation"
is "b is still local" "$(route_of b)" local
tls_dir b >/dev/null
post plugin-a-vm /return >/dev/null
expect_route a local 5000

# The array turns the LUN read-only; programs that start now see that.
for h in a b; do
    stop_plugin "$h"
done
stop_proxy b
tgt --op update --mode logicalunit --tid 1 --lun 1 --params readonly=1
start_plugin a
expect_route a local 5000
check "a read-only LUN is served" timeout 8 nbdinfo --size "$(uri a)"
check "and is said to be read-only" \
    timeout 8 nbdinfo --is read-only "$(uri a)"
is "reads go through" "$(try "$(uri a)" 'h.pread(4096, 0)')" ok
is "writes do not" "$(try "$(uri a)" 'h.pwrite(bytes(4096), 0)')" EPERM
lab_end
