#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin is stopped, as for an upgrade, under VMs that stay.
#
# Goal: SIGTERM is never an error to a VM.  What has no answer gets none, so that
# QEMU, with reconnect-delay, asks the successor; and the process is gone within
# 2 s, under idle connections, under load, and while requests wait for a route.
# Timeline: a VM that asks nothing, SIGTERM; a load, SIGTERM; every host loses its
# paths, a write waits, SIGTERM; the paths come back: what was not answered is
# written by hand on the successor and read on another host.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

# The runtime of tsan itself waits for a second as a process ends.
LIMIT_MS=2000
[[ ${SANITIZE-} != *thread* ]] || LIMIT_MS=3500

# stops NAME - SIGTERM; a check of the time that it takes, and its exit status.
stops() {
    local begin pid=${LAB_PID[plugin-a-vm]}
    begin=$(now_ms)
    kill -TERM "$pid"
    within 5000 gone plugin-a-vm
    at_most "it ends $1" $(($(now_ms) - begin)) "$LIMIT_MS"
    kill -KILL "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    is "it ends well $1" $? 0
    unset "LAB_PID[plugin-a-vm]"
}

# vm_begin - a VM by hand: orders to fd VM, answers in $LAB_DIR/vm.
vm_begin() {
    rm -f "$LAB_DIR/orders"
    mkfifo "$LAB_DIR/orders"
    exec {VM}<>"$LAB_DIR/orders"
    "$BUILD/tests/tools/vmio" "$(uri a)" <"$LAB_DIR/orders" >"$LAB_DIR/vm" &
    LAB_PID[vmio]=$!
    within 5000 grep -q ready "$LAB_DIR/vm" || lab_failed "no VM"
}

vm_over() {
    lab_kill vmio KILL
    exec {VM}>&-
}

lab_up
start_hosts

vm_begin
echo "write one 4096 A" >&"$VM"
check "a VM writes" within 5000 grep -q "one ok" "$LAB_DIR/vm"
stops "under a VM that asks nothing"
check "its connection ends" within 2000 grep -q lost "$LAB_DIR/vm"
vm_over

start_plugin a
coproc CALLER {
    exec python3 -c 'import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
s.recv(1)
print("greeted", flush=True)
sys.stdin.read()' "$(socket a)"
}
read -r -t 10 -u "${CALLER[0]}" line
is "somebody calls and says nothing" "$line" greeted
stops "under a caller who says nothing"
kill -KILL "$CALLER_PID"

start_plugin a
load_start a --keep-on-loss --depth 16
expect_io a 5000
stops "under load"
load_stop a
is "the load saw no error" "$(grep -c 'error' "$LAB_DIR/log/load-a")" 0
start_plugin a
load_start a
expect_io a 5000
expect_no_error a

for h in "${LAB_HOSTS[@]}"; do
    black_hole "$h"
done
expect_route a queueing 10000
vm_begin
for i in 1 2 3 4 5 6 7 8; do
    echo "write w$i $((i * 8192)) B" >&"$VM"
done
held() {
    [[ $(field plugin-a-vm .queue.held) == 8 ]]
}
check "its writes wait for a route" within 5000 held
stops "while requests wait"
check "its connection ends" within 2000 grep -q lost "$LAB_DIR/vm"
is "none of them was answered" "$(grep -c '^w' "$LAB_DIR/vm")" 0
vm_over

start_plugin a
for h in "${LAB_HOSTS[@]}"; do
    heal_paths "$h"
done
expect_route a local 20000
vm_begin
echo "write again 8192 C" >&"$VM"
check "the successor carries it out" within 5000 grep -q "again ok" "$LAB_DIR/vm"
vm_over
check "another host reads it" in_host b qemu-io -r --image-opts \
    "driver=nbd,path=$(socket b)" -c "read -P 0x43 8192 4096"
lab_end
