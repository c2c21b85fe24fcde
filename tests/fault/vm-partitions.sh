#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Virtual machines of two hosts on one LUN, each in a part of its own.
#
# Goal: nbdkit's partition and offset filters give each VM its part and nothing
# else, on every route; nobody's data show up in the other's part.
# Timeline: VM 1 on a, in GPT partition 1 (filter partition); VM 2 on b, in
# partition 2 (filter offset).  What lies beyond the end of either is refused.  a
# loses the SAN: <= 1.5 s; VM 2 is not disturbed for longer than a LUN RESET takes,
# <= 1.5 s; b, which may serve a, loses it as well; both come back.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/vm.sh
. "$LAB_LIB/vm.sh"
[[ -n ${LAB_DIR-} ]] || vm_needed
lab_enter "$@"

PART_MIB=64
VM_PART[1]=offset=0,size=$((PART_MIB << 20))
VM_PART[2]=${VM_PART[1]}

# part_start HOST CLIENT FILTERS [PARAMETER...] - one more plugin on the LUN there.
part_start() {
    local host=$1 client=$2 f filters=()
    for f in $3; do
        filters+=("--filter=$f")
    done
    shift 3
    lab_start "plugin-$host-$client" "$host" "${LAB_WRAP[@]}" \
        nbdkit -f -U "$(socket "$host" "$client")" "${filters[@]}" \
        "$BUILD/nbdkit-detour-plugin.so" lun="$LAB_LUN" client="$client" \
        config="$LAB_DIR/$host/detour.conf" "$@"
    within 5000 test -S "$(socket "$host" "$client")" ||
        lab_failed "the plugin of $client does not start"
}

# The first MiB, and what lies behind both parts, are nobody's.
others_untouched() {
    nbdcopy "$(uri c)" "$LAB_DIR/after" &&
        cmp -n $((1 << 20)) "$LAB_DIR/image" "$LAB_DIR/after" &&
        cmp -i $(((1 + 2 * PART_MIB) << 20)) "$LAB_DIR/image" "$LAB_DIR/after"
}

lab_up
start_hosts
printf 'label: gpt\nstart=2048,size=%s\nsize=%s\n' "$((PART_MIB * 2048))" \
    "$((PART_MIB * 2048))" >"$LAB_DIR/table"
truncate -s "$LAB_LUN_SIZE" "$LAB_DIR/image"
{ sfdisk -q "$LAB_DIR/image" <"$LAB_DIR/table" >>"$LAB_DIR/log/sfdisk" 2>&1 &&
    nbdcopy "$LAB_DIR/image" "$(uri c)"; } || lab_failed "no partition table"
start2=$(((1 + PART_MIB) << 20))
# reads less than a block at a time itself, which the plugin does not take
part_start a one "partition blocksize" partition=1 minblock=512
part_start b two offset offset="$start2" range="$((PART_MIB << 20))"
VM_SOCKET[1-a]=$(socket a one)
VM_SOCKET[2-b]=$(socket b two)

for at in "a one" "b two"; do
    # shellcheck disable=SC2086 # words
    set -- $at
    is "what $2 is given ends with its part" \
        "$(nbdinfo --size "$(uri "$1" "$2")")" $((PART_MIB << 20))
    check_fails "$2 cannot write beyond it" "Input/output error|past EOF|beyond" \
        qemu-io --image-opts "driver=nbd,path=$(socket "$1" "$2")" \
        -c "write ${PART_MIB}M 4k"
done

vm_format 1 a
vm_format 2 b
vm_boot 1 a
vm_start 2 b
within 120000 grep -q '^ready' "$LAB_DIR/log/vm-1" ||
    lab_failed "VM 1 does not come up"

marks() {
    vm_mark 1 "$1"
    vm_mark 2 "$1"
}

expect_both() {
    vm_expect_io 1 5000
    vm_expect_io 2 5000
    vm_expect_stall 1 "$1" 1500
    vm_expect_stall 2 "$1" 1500
}

one_is() {
    route_is a "$1" one
}

two_is() {
    route_is b "$1" two
}

marks a-lost
black_hole a
check "VM 1's plugin takes a detour" within 8000 one_is "redirected *"
expect_both a-lost
marks both-lost
black_hole b
check "VM 2's plugin takes one as well" within 8000 two_is "redirected *"
check "and VM 1's finds another peer" within 8000 one_is "redirected c"
expect_both both-lost
marks home
heal_paths a
heal_paths b
check "VM 1's plugin comes home" within 15000 one_is local
check "VM 2's plugin comes home" within 15000 two_is local
expect_both home

vm_end 1 a
vm_end 2 b
check "nothing else on the LUN has changed" others_untouched
lab_end
