# SPDX-License-Identifier: BSD-3-Clause
# The plugin as /dev/nbd0 of the kernel, with a file system on it.
# shellcheck shell=bash
#
# Goal: paths go and come back under a file system that is being written; no
# I/O error in the kernel's log, every file holds what was written, fsck finds
# nothing.  Over one connection and over four.

# shellcheck source=tests/lab/inside/guest.sh
. "$(dirname "$0")/guest.sh"
lab_enter "$@"
load_modules nbd
MNT=$LAB_DIR/mnt
mkdir -p "$MNT"

# What goes wrong on the way out must not hold the next scenario up.
leave_nbd() {
    heal_everything
    umount "$MNT" 2>/dev/null
    nbd-client -d /dev/nbd0 >/dev/null 2>&1
    lab_leave
}

attach() {
    nbd-client -unix "$(socket a)" /dev/nbd0 -C "$1" -b 4096 &&
        within 5000 nbd_size_known
}

nbd_size_known() {
    (($(cat /sys/block/nbd0/size) > 0))
}

# files_write - one file after the other, synced, its checksum noted, until the
# file "stop" is there.  The pause is for the processor, which has to emulate
# every byte: what the route does takes seconds, and a few files in each will do.
files_write() {
    local i=0
    while [[ ! -e $LAB_DIR/stop ]]; do
        i=$((i % 20 + 1))
        dd if=/dev/urandom of="$MNT/$i" bs=16k count=8 conv=fsync \
            2>>"$LAB_DIR/log/files" || return 1
        sed -i "/ $i\$/d" "$LAB_DIR/sums"
        (cd "$MNT" && md5sum "$i") >>"$LAB_DIR/sums"
        echo "$i" >>"$LAB_DIR/written"
        nap 50
    done
}

# written_more - a condition: three more files than count.
written_more() {
    (($(wc -l <"$LAB_DIR/written") >= count + 3))
}

expect_files() {
    count=$(wc -l <"$LAB_DIR/written")
    check "files go on being written: $1" within 20000 written_more
}

lab_up
trap leave_nbd EXIT
start_hosts
for connections in 1 4; do
    rm -f "$LAB_DIR/stop" && : >"$LAB_DIR/sums" && : >"$LAB_DIR/written"
    dmesg -c >/dev/null
    check "nbd-client attaches with $connections connections" \
        attach $connections
    check "ext4" mkfs.ext4 -q -F /dev/nbd0 32M
    check "mounted" mount -t ext4 /dev/nbd0 "$MNT"
    files_write &
    writer=$!
    expect_files "local"
    cut_paths a
    expect_route a "redirected *" 10000
    expect_files "redirected"
    heal_paths a
    expect_route a local 20000
    expect_files "home again"
    touch "$LAB_DIR/stop"
    wait $writer
    is "the writer saw no error" "$?" 0
    check "unmounted" umount "$MNT"
    check "mounted again" mount -t ext4 /dev/nbd0 "$MNT"
    (cd "$MNT" && md5sum -c "$LAB_DIR/sums") >"$LAB_DIR/log/sums" 2>&1
    is "every file holds what was written" "$?" 0
    check "unmounted at the end" umount "$MNT"
    check "fsck finds nothing" e2fsck -fn /dev/nbd0
    is "no I/O error on nbd0 in the kernel's log" \
        "$(dmesg | grep -E 'nbd0|EXT4-fs (error|warning)' |
            grep -E 'rror|warning')" ""
    check "detached" nbd-client -d /dev/nbd0
done
lab_end
