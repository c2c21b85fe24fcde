#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# No room in the state directory, and a run directory that is read-only.
#
# Goal: a full disk takes no host from the SAN and stops no detour: a route that
# is lost is still moved, and writes are fenced.  What cannot be done without
# room (a new key after a login) is told, and is done once there is room.  A
# plugin that cannot keep its state does not start, and says why.
# Timeline: a's state directory is full; 0 both paths reset; <= 2 s a is
# redirected; healed: a stays redirected; room: <= 5 s a is home.  The same with
# the run directory read-only, where nothing at all is missed.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

# fill_up DIR - until not one byte more goes in.
fill_up() {
    dd if=/dev/zero of="$1/ballast" bs=4k status=none 2>/dev/null
    ! echo x >"$1/more" 2>/dev/null || lab_failed "$1 is not full"
    rm -f "$1/more"
}

state=$LAB_DIR/a/state
mkdir -p "$state"
mount -t tmpfs -o size=256k tmpfs "$state" || lab_failed "no tmpfs"
lab_up
start_hosts
check "peers stand by" within 10000 peer_serves a b
load_start a
blockcheck_start a

load_mark a full
fill_up "$state"
reset_path a 1
reset_path a 2
expect_route a "redirected *" 3000
expect_io a 3000
expect_stall a full 500
load_mark a wait
heal_paths a
check "paths log in again" within 10000 paths_are a "good good"
check "why it does not come home is logged" within 5000 \
    logged plugin-a-vm "No space left on device"
nap 1500
check "without room for a key it stays with the peer" route_is a "redirected *"
expect_io a 3000
rm "$state/ballast"
expect_route a local 10000
expect_stall a wait 500

# told NAME REGEX - how many lines of its log say that
told() {
    grep -Ec -- "$2" "$LAB_DIR/log/$1"
}

fill_up "$state"
before=$(told plugin-a-vm "cannot save keys")
check "local with a full disk: a path that fails" reset_path a 1
check "is told" within 3000 paths_are a "failed good"
expect_io a 3000
is "one path is enough" "$(route_of a)" local
heal_path a 1
nap 1500
expect_io a 3000
at_most "it is told once, not with each try" \
    $(($(told plugin-a-vm "cannot save keys") - before)) 1 lines
rm "$state/ballast"
check "both paths are good" within 10000 paths_are a "good good"
expect_route a local 10000

# A name that has no file yet needs room for one.
fill_up "$state"
launch_plugin a other
check "a new plugin without room ends" within 10000 gone plugin-a-other
lab_kill plugin-a-other KILL
check "and names the directory and the cause" \
    logged plugin-a-other "$state.*No space left"
rm "$state/ballast"

# The run directory: locks, certificates' folder and sockets are there already.
mkdir "$LAB_RUN/elsewhere" # for a socket
{ mount --bind "$LAB_RUN/a" "$LAB_RUN/a" &&
    mount -o remount,bind,ro "$LAB_RUN/a"; } || lab_failed "no bind mount"
load_mark a readonly
reset_path a 1
reset_path a 2
expect_route a "redirected *" 3000
expect_io a 3000
heal_paths a
expect_route a local 10000
expect_stall a readonly 500
: >"$LAB_DIR/log/plugin-a-other"
lab_start plugin-a-other a "${LAB_WRAP[@]}" \
    nbdkit -f -U "$LAB_RUN/elsewhere/other.nbd" \
    "$BUILD/nbdkit-detour-plugin.so" \
    lun="$LAB_LUN" config="$LAB_DIR/a/detour.conf" client=other
check "a new plugin ends" within 10000 gone plugin-a-other
lab_kill plugin-a-other KILL
check "and names the run directory and the cause" \
    logged plugin-a-other "$LAB_RUN/a.*Read-only"
umount "$LAB_RUN/a"
blockcheck_ok a
expect_no_error a
trap 'umount "$state"; rm -rf "$LAB_DIR"' EXIT # lab_end stops who uses it
lab_end
