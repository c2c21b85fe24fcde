# SPDX-License-Identifier: BSD-3-Clause
# A cluster file system (OCFS2) on /dev/nbd0 of two hosts, one of which loses the
# SAN.
# shellcheck shell=bash disable=SC2034 # what the lab reads
#
# Goal: both hosts write files all the time, no I/O error, no host fences itself
# for a missed heartbeat, every file holds what was written whichever host reads
# it, fsck finds nothing.
#
# Timeline: a and b mount; both write; both paths of a go silent (a is
# redirected, and its heartbeat with it), both go on; the paths come back, a is
# home, both go on; both unmount.
#
# The heartbeat is written every 2 s to the disk itself: it goes where the file
# system's I/O goes.  O2CB_HEARTBEAT_THRESHOLD = 31 (60 s) is the default; after
# that without a heartbeat written a host resets itself.

LAB_HOSTS=(a b c)
NODES=(a b)
MNT=/mnt

# attach HOST - its plugin becomes /dev/nbd0 there.
attach() {
    machine_sh "$1" "nbd-client $(vms_address "$1") 10809 /dev/nbd0 -b 4096 &&
        until [ \$(cat /sys/block/nbd0/size) -gt 0 ]; do usleep 100000; done"
}

# cluster_up HOST - modules, and both nodes of it.
cluster_up() {
    local h words=
    for h in "${NODES[@]}"; do
        words+=" $(host_number "$h"):$h:$(address "$h" net1)"
    done
    machine_sh "$1" "ocfs2 up $words"
}

format() {
    machine_sh a "echo y | mkfs.ocfs2 -F -N 2 -b 4K -C 4K -J size=4M -L lab
        --cluster-stack=o2cb --cluster-name=lab /dev/nbd0"
}

# written HOST - how many files so far; written_more HOST N, a condition.
written() {
    machine_sh "$1" "wc -l </run/lab/sums"
}

written_more() {
    (($(written "$1") >= $2))
}

# expect_files WHEN - a check for each node: it goes on writing.
expect_files() {
    local h
    for h in "${NODES[@]}"; do
        check "$h goes on writing files: $1" \
            within 60000 written_more "$h" $(($(written "$h") + 3))
    done
}

# trouble HOST - what the kernel says of the disk, the heartbeat, the files.
trouble() {
    machine_sh "$1" "dmesg | grep -E 'nbd0.*rror|rror.*nbd0|ocfs2.*ERROR|OCFS2: ERROR|o2hb.*(ERROR|timeout)|o2quo|fenc'"
}

# checked WRITER READER - READER finds each of WRITER's files right.
checked() {
    machine_sh "$1" "cat /run/lab/sums" >"$LAB_DIR/sums"
    machine_put "$2" "$LAB_DIR/sums" /run/lab/sums-of-"$1" &&
        machine_sh "$2" "ocfs2 check $MNT/$1 /run/lab/sums-of-$1"
}

# leave - nothing may keep the disk: what is mounted goes first.
leave() {
    local h
    heal_everything >/dev/null
    for h in "${NODES[@]}"; do
        machine_sh "$h" "touch /run/lab/files-stop; umount $MNT;
            nbd-client -d /dev/nbd0" >/dev/null 2>&1
    done
    story_leave
}

story_up
trap leave EXIT
start_hosts
for h in "${NODES[@]}"; do
    must "$h: /dev/nbd0" attach "$h"
    must "$h: a node of the cluster" cluster_up "$h"
done
must "a makes the file system" format
for h in "${NODES[@]}"; do
    must "$h mounts it" machine_sh "$h" \
        "dmesg -c >/dev/null; mkdir -p $MNT; mount.ocfs2 /dev/nbd0 $MNT"
done
for h in "${NODES[@]}"; do
    machine_sh "$h" "mkdir -p $MNT/$h; rm -f /run/lab/files-stop"
    lab_start "files-$h" "$h" /lab/machine/ocfs2 write "$MNT/$h"
done
expect_files "both have the SAN"

black_hole a
expect_route a "redirected *" 15000
expect_files "a takes a detour"
nap 10000
expect_files "still"
heal_path a 1
heal_path a 2
expect_route a local 60000
expect_files "a is home"

for h in "${NODES[@]}"; do
    machine_sh "$h" "touch /run/lab/files-stop"
    check "$h: the writer ends" within 30000 gone "files-$h"
    is "$h: the writer saw no error" \
        "$(machine_sh "$h" "cat /run/lab/files-$h.exit")" 0
    unset "SAN_ON[files-$h]"
done
check "b finds every file of a right" checked a b
check "a finds every file of b right" checked b a
for h in "${NODES[@]}"; do
    check "$h unmounts" machine_sh "$h" "umount $MNT"
    is "$h: nothing in its kernel's log" "$(trouble "$h")" ""
done
check "fsck finds nothing" machine_sh a "fsck.ocfs2 -fn /dev/nbd0"
diag "heartbeat: dead_threshold $(machine_sh a \
    "cat /sys/kernel/config/cluster/lab/heartbeat/dead_threshold")"
for h in "${NODES[@]}"; do
    check "$h: detached" machine_sh "$h" "nbd-client -d /dev/nbd0"
done
story_end
