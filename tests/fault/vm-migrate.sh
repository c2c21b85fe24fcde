#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A running virtual machine moves from host to host and back, in every state of
# their routes, and while these change.
#
# Goal: the guest sees a pause and nothing else.  On healthy routes its downtime
# (QMP's query-migrate) is at most 1.5 times that of a second VM, on plain
# qemu-nbds of the same SAN: medians, of moves that take turns, give or take
# 5 ms, since those of one server differ from run to run (2 to 6 ms for qemu-nbd
# on a machine that did nothing else).  Redirected, its last requests take one
# hop more over TLS: docs/performance.md.
# Timeline: there and back, VM_ROUNDS times, with both hosts local, with a
# redirected, with b redirected; then, right before it is told to go, the host
# that it leaves loses the SAN, the host that it goes to does, and the proxy that
# serves the host that it leaves is killed: <= 1.5 s more.  The table at the end
# is in ms; stall is the longest wait of a request, by the guest's clock, which
# rests during the downtime.
#
# Without FAULT_ALL=1 (make fault): one round on healthy routes, and one fault,
# and the plain ones are left out.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/vm.sh
. "$LAB_LIB/vm.sh"
[[ -n ${LAB_DIR-} ]] || vm_needed
lab_enter "$@"

VM_ROUNDS=${VM_ROUNDS:-${FAULT_ALL:+5}}
VM_ROUNDS=${VM_ROUNDS:-1}
VM_FAULTS=${FAULT_ALL:+${VM_FAULTS-}}
VM_FAULTS=${VM_FAULTS:-1} # times each fault; only with FAULT_ALL more than once

NOISE_MS=5

# ---- the plain one ---------------------------------------------------------------

# plain_start HOST - a qemu-nbd for VMs there, on a LUN of its own of the same
# SAN.  It has the paths of host c, which no fault of this script takes away.
plain_start() {
    local iscsi
    iscsi=driver=iscsi,transport=tcp,portal=$(address san san1):3260
    VM_SOCKET[2-$1]=$LAB_RUN/$1/plain.nbd
    lab_start "plain-$1" c qemu-nbd -t -k "${VM_SOCKET[2-$1]}" -e 4 \
        --cache=none --image-opts "$iscsi,target=$LAB_IQN,lun=2"
    within 5000 test -S "${VM_SOCKET[2-$1]}" ||
        lab_failed "qemu-nbd does not start"
}

# ---- moves and what they took ------------------------------------------------------

table=()          # "CASE VM DOWNTIME STALL TOTAL"
move_number=0

# move CASE VM TO [COMMAND...] - with a line for the table.
move() {
    local case=$1 vm=$2 window=move-$((++move_number))
    shift
    vm_mark "$vm" "$window"
    vm_migrate "$@" || return 1
    vm_goes_on "$vm"
    vm_mark "$vm" "after-$window"
    table+=("$case $vm $VM_DOWNTIME $(vm_stall "$vm" "$window") $VM_MIGRATION")
}

# A condition to wait for, not a check: there are many moves.
vm_goes_on() {
    within 10000 vm_ops_above "$1" "$(($(vm_ops "$1") + 20))" ||
        vm_expect_io "$1" 10000
}

# turns CASE - VM 1 and the plain one, to b and back, while the other one rests.
turns() {
    local round to vm
    for ((round = 0; round < VM_ROUNDS; round++)); do
        for to in b a; do
            for vm in "${!VM_HOST[@]}"; do
                others stop "$vm"
                move "$1" "$vm" "$to"
                others cont "$vm"
            done
        done
    done
}

others() {
    local vm
    for vm in "${!VM_HOST[@]}"; do
        [[ $vm == "$2" ]] || qmp "$vm" "${VM_HOST[$vm]}" "$1" >/dev/null
    done
}

# median CASE VM COLUMN
median() {
    printf '%s\n' "${table[@]}" | awk -v c="$1" -v v="$2" -v n="$3" \
        '$1 == c && $2 == v { print $n }' | sort -n |
        awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'
}

print_table() {
    local case vm
    diag "$(printf '%-22s %-9s %5s %9s %6s %6s' case server moves downtime \
        stall total)"
    for case in $(printf '%s\n' "${table[@]}" | awk '!seen[$1]++ { print $1 }'); do
        for vm in 1 2; do
            [[ -n $(median "$case" "$vm" 3) ]] || continue
            diag "$(printf '%-22s %-9s %5s %9s %6s %6s' "$case" \
                "$([[ $vm == 1 ]] && echo detour || echo qemu-nbd)" \
                "$(printf '%s\n' "${table[@]}" | grep -c "^$case $vm ")" \
                "$(median "$case" "$vm" 3)" "$(median "$case" "$vm" 4)" \
                "$(median "$case" "$vm" 5)")"
        done
    done
}

# ---- the run -------------------------------------------------------------------------

# fault CASE TO COMMAND... - a move of VM 1 with the fault in the middle; both
# waits are bounded by what the change of a route takes.
fault() {
    local window
    move "$1" 1 "${@:2}" || return
    window=move-$move_number
    vm_expect_stall 1 "$window" 2000
    at_most "downtime during $window, $1" "$VM_DOWNTIME" \
        "$((2000 * ${LAB_SLACK:-4}))"
}

all_home() {
    heal_paths a
    heal_paths b
    expect_route a local 15000
    expect_route b local 15000
}

# disturbed - moves of VM 1 amid faults, beginning and (FAULT_ALL) ending on a.
disturbed() {
    fault source-loses-san b black_hole a
    all_home
    [[ ${FAULT_ALL-} ]] || return 0
    fault target-loses-san a black_hole a
    all_home
    ctl a redirect "$LAB_LUN" c >/dev/null
    expect_route a "redirected c" 5000
    fault peer-killed b kill_proxy c
    start_proxy c
    ctl a return "$LAB_LUN" >/dev/null
    all_home
    fault back-again a :
}

lab_up
start_hosts
vm_format 1 a
vm_start 1 a
if [[ ${FAULT_ALL-} ]]; then
    san_lun 2 || lab_failed "no second LUN"
    plain_start a
    plain_start b
    vm_format 2 a
    vm_start 2 a
fi

turns both-local
if [[ ${FAULT_ALL-} ]]; then
    black_hole a
    expect_route a "redirected *" 5000
    turns a-redirected
    all_home
    black_hole b
    expect_route b "redirected *" 5000
    turns b-redirected
    all_home
fi
if [[ -n ${VM_HOST[2]-} ]]; then
    at_most "downtime, against that of qemu-nbd" "$(median both-local 1 3)" \
        "$(($(median both-local 2 3) * 3 / 2 + NOISE_MS))"
    vm_end 2 a
fi

for ((round = 0; round < VM_FAULTS; round++)); do
    disturbed
done
print_table
vm_end 1 a b
lab_end
