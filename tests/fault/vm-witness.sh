#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# What the scripts with virtual machines trust finds what it must find.
#
# Goal: a task that hangs, data that are not the VM's, and an I/O error are each
# reported, by the guest's kernel, its load, and the check of its file system.
# Timeline: a VM on a plain file; its server stands still for 9 s: the guest's kernel
# looks each 2 s, and calls a task hung once three looks found it so; other data
# are written behind its back; every request fails.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/vm.sh
. "$LAB_LIB/vm.sh"
[[ -n ${LAB_DIR-} ]] || vm_needed
lab_enter "$@"

VM_HUNG=2
VM_SOCKET[1-a]=$LAB_RUN/server.nbd
console=$LAB_DIR/log/console-1
truncate -s "$LAB_LUN_SIZE" "$LAB_DIR/image"
net_up || lab_failed "no networks"
lab_start server a nbdkit -f -U "${VM_SOCKET[1-a]}" --filter=error \
    file "$LAB_DIR/image" error-rate=100% error-file="$LAB_DIR/fail" error=EIO
within 5000 test -S "${VM_SOCKET[1-a]}" || lab_failed "nbdkit does not start"
vm_format 1 a
vm_start 1 a
vm_expect_io 1 5000
check "nothing is found while nothing is wrong" vm_log_clean 1

vm_mark 1 still
kill -STOP "${LAB_PID[server]}"
nap 9000
kill -CONT "${LAB_PID[server]}"
vm_expect_io 1 20000
vm_mark 1 other-data
stall=$(vm_stall 1 still)
check "a standstill of 9 s is measured ($stall ms)" test "$stall" -ge 8000
at_most "and not exaggerated" "$stall" 12000
check "a task that hangs is told" within 10000 \
    grep -q 'blocked for more than' "$console"

dd if=/dev/urandom of="$LAB_DIR/image" bs=1M seek=16 count=32 conv=notrunc \
    status=none
mismatch() {
    grep -q '^guestload: .*: mismatch at ' "$console"
}
check "other data are told" within 20000 mismatch

touch "$LAB_DIR/fail"
check "an I/O error is told" within 20000 grep -q 'I/O error' "$console"
rm "$LAB_DIR/fail"
check_fails "the kernel's log is not clean" 'I/O error' vm_log_clean 1
vm_order 1 end
check "the guest ends" within 60000 gone qemu-1-a
check_fails "its load ended with errors" 'load ended with 1' vm_ended 1
# its first inodes and the maps of what is free
dd if=/dev/urandom of="$LAB_DIR/image" bs=4K seek=2 count=64 conv=notrunc \
    status=none
check_fails "its file system is not clean" 'still has errors' vm_fsck 1 a
lab_kill server KILL
tap_end
