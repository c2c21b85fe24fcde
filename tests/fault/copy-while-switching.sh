#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Whole images copied while the routes change.
#
# Goal: qemu-img convert and nbdcopy see no error and every bit arrives, through
# the plugin and through a proxy, while the host changes its route each second.
# Timeline: 256 MiB are copied at a limited rate while a is redirected and
# returned by hand, loses its paths and gets them back; then compared.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

LAB_LUN_SIZE=256M
image=$LAB_DIR/image
dd if=/dev/urandom of="$image" bs=1M count=256 status=none
# the second half compresses: holes and zeroes are copied as well
truncate -s 128M "$image"
truncate -s 256M "$image"
lab_up
start_hosts

# switch - changes the route until the file "stop" appears.  The pauses are the
# rhythm; nothing is expected after one of them.
switch() {
    while [[ ! -e $LAB_DIR/stop ]]; do
        post plugin-a-vm /redirect >/dev/null
        nap 1000
        post plugin-a-vm /return >/dev/null
        nap 1000
        black_hole a
        nap 2000
        heal_paths a
        nap 2500
    done
    post plugin-a-vm /return >/dev/null
}

# while_switching NAME COMMAND... - a check of the command, during all of it.
while_switching() {
    local before after
    rm -f "$LAB_DIR/stop"
    before=$(field plugin-a-vm .route.generation)
    switch &
    LAB_PID[switch]=$!
    check "$@"
    touch "$LAB_DIR/stop"
    within 10000 gone switch
    after=$(field plugin-a-vm .route.generation)
    check "the route changed meanwhile ($((after - before)) times)" \
        test "$after" -gt "$before"
}

# slow FILE - serves a file at 30 MB/s, so that a copy takes a while.
slow() {
    lab_kill slow KILL
    rm -f "$LAB_RUN/slow.nbd"
    lab_start slow a nbdkit -f -U "$LAB_RUN/slow.nbd" --filter=rate file "$1" \
        rate=240M
    within 5000 test -S "$LAB_RUN/slow.nbd" || lab_failed "nbdkit fails"
}

slow_uri="nbd+unix:///?socket=$LAB_RUN/slow.nbd"

# is_image HOST - reads all of the LUN there and compares.
is_image() {
    qemu-img compare -f raw -F raw "$image" "$(uri "$1")"
}

while_switching "qemu-img convert to the plugin" timeout 120 \
    qemu-img convert -n -W -r 30M -f raw -O raw "$image" "$(uri a)"
check "every bit is there, read on b" is_image b

dd if=/dev/urandom of="$image" bs=1M count=32 seek=160 conv=notrunc status=none
slow "$image"
while_switching "nbdcopy to the plugin" timeout 120 \
    nbdcopy "$slow_uri" "$(uri a)"
check "every bit is there, read on c" is_image c

truncate -s 256M "$LAB_DIR/copy"
slow "$LAB_DIR/copy"
while_switching "nbdcopy from the plugin" timeout 120 \
    nbdcopy "$(uri a)" "$slow_uri"
lab_kill slow KILL
check "every bit was read" cmp "$image" "$LAB_DIR/copy"
check "nbdcopy from a proxy" in_host b timeout 120 \
    nbdcopy "$(proxy_uri b c)" "$LAB_DIR/copy2"
check "every bit was read" cmp "$image" "$LAB_DIR/copy2"
check "nbdcopy to a proxy" in_host b timeout 120 \
    nbdcopy "$LAB_DIR/copy2" "$(proxy_uri b c)"
check "every bit is there, read on a" is_image a
lab_end
