# SPDX-License-Identifier: BSD-3-Clause
# A VM migrates between hosts with kernel multipath while their routes change,
# and hosts die, or stand still and go on, under it.
# shellcheck shell=bash disable=SC2034 # what the lab reads
#
# Goal: the guest sees a pause and nothing else; what a host still holds that
# stood still while others went on without it never reaches the LUN.
#
# Timeline: a loses its paths; the VM moves to b and back while a takes a detour;
# a is home; the VM moves while a loses its paths at that moment, and back.  Then
# a takes a detour again, under a second load whose requests overlap: the peer
# stands still for 8 s, a goes on through the other one, the peer goes on.  The
# peer it goes through now is switched off: a goes back to the first.  Last, a
# itself is switched off with the VM on it, which is started on that peer.
#
# The VM is a QEMU of the lab itself, on the plugin of "its" host over TCP: it
# dies with its host because the scenario kills it.

LAB_REGION=64 # MiB: the VM's disk
STILL=8000    # ms
PAUSE=2000    # of a change of routes, at most, beside what LAB_SLACK forgives

vm_server() {
    echo "$1server.type=inet,$1server.host=$(vms_address "$3"),$1server.port=10809"
}

vm_listens() {
    echo 127.0.0.1
}

# moves CASE TO [COMMAND...] - the VM moves, and its pause is within bounds.
moves() {
    local case=$1
    vm_mark 1 "$case"
    if vm_migrate 1 "${@:2}"; then
        pass "$case: the VM is on $2 (downtime $VM_DOWNTIME ms)"
    fi
    vm_expect_io 1 20000
    vm_expect_stall 1 "$case" $PAUSE
}

# a is without paths, and on the way through some peer.
away() {
    black_hole a
    expect_route a "redirected *" 10000
    peer=$(route_of a)
    peer=${peer#redirected }
}

home() {
    heal_path a 1
    heal_path a 2
    expect_route a local 60000
    check "both paths of a are back" within 30000 paths_active a 2
}

other_than() {
    [[ $1 == b ]] && echo c || echo b
}

story_up
start_hosts
vm_format 1 a
vm_start 1 a

away
moves from-a-redirected-host b
moves to-a-redirected-host a
home
moves while-a-switches b black_hole a
expect_route a "redirected *" 10000
home
moves back-home a

# ---- the peer stands still -----------------------------------------------------

blockcheck_start a --rate 40
away
vm_expect_io 1 20000
other=$(other_than "$peer")
vm_mark 1 still
machine_freeze "$peer"
expect_route a "redirected $other" 15000
vm_expect_io 1 20000
nap $STILL
machine_thaw "$peer"
check "$peer has noticed that it was cut off, and serves again" \
    within 60000 proxy_is "$peer" serving
check "so $peer is a way for a again" within 60000 peers_serve a
vm_expect_stall 1 still $PAUSE
blockcheck_ok a

# ---- the peer dies ---------------------------------------------------------------

vm_mark 1 dead
power_off "$other"
expect_route a "redirected $peer" 15000
vm_expect_io 1 20000
vm_expect_stall 1 dead $PAUSE

# ---- the VM's own host dies --------------------------------------------------------

power_off a
lab_kill qemu-1-a KILL
: >"$LAB_DIR/log/vm-1"
vm_start 1 "$peer"
pass "the VM is started on $peer"
vm_expect_io 1 20000
LAB_HOSTS=("$peer")
vm_end 1 "$peer"
story_end
