# SPDX-License-Identifier: BSD-3-Clause
# Virtual machines on the lab's hosts: QEMU, on the socket of the host's plugin.
# shellcheck shell=bash
#
# A VM is a number.  Its disk is that host's part of the LUN which has the same
# number (LAB_REGION), with an ext4 on it; what it runs is tests/lib/vm-init.  It
# is on one host, VM_HOST; while it migrates, on two.  Without KVM: QEMU
# translates, so its times are those of a slow machine, but its requests are any
# VM's.
#
#   console, kernel log   log/console-VM     judged by vm_end
#   answers of guestload  log/vm-VM          tests/tools/guestload.c
#   QEMU's own words      log/qemu-VM-HOST   the name of the process, too

# shellcheck source=tests/lib/guest.sh
. "$LAB_LIB/guest.sh"

declare -A VM_HOST   # by VM
declare -A VM_SOCKET # by VM-HOST, when it is not the plugin's
declare -A VM_PART   # by VM, when it is not its number's
VM_MEMORY=${VM_MEMORY:-96}         # MiB
VM_RECONNECT=${VM_RECONNECT:-60}   # s that QEMU waits for a server that is gone
VM_HUNG=${VM_HUNG:-10}             # s until the kernel calls a task hung
# The TSC would be calibrated while QEMU is kept waiting for the processor, and
# the guest's clock then run up to ten times too fast.
VM_KERNEL_LINE="console=ttyS0 loglevel=5 mitigations=off nokaslr norandmaps \
net.ifnames=0 tsc=unstable clocksource=acpi_pm no_timer_check \
cryptomgr.notests random.trust_cpu=on panic=-1"
# On a machine with much to do paths fail that are fine, and a host that comes
# home is kept waiting for longer each time: not the matter here.
LAB_LUN_CONFIG+="
failback_max = 3s"
# What must not be in the kernel's log.
VM_TROUBLE='I/O error|blocked for more than|EXT4-fs (error|warning)|JBD2|read-only|BUG:|Oops|^guest: cannot'

# vm_needed - in a script's head, before lab_enter: skips without QEMU.
vm_needed() {
    local why
    why=$(guest_possible) || skip_all "$why"
}

# vm_part VM - the part of the LUN, as options of QEMU's raw driver.
vm_part() {
    local from=$((($1 - 1) * LAB_REGION << 20)) size=$((LAB_REGION << 20))
    echo "${VM_PART[$1]-offset=$from,size=$size}"
}

# vm_format VM HOST - an empty file system on its disk.
vm_format() {
    local image=$LAB_DIR/vm-$1.image
    rm -f "$image"
    { truncate -s "${LAB_REGION}M" "$image" &&
        mke2fs -q -t ext4 -E nodiscard "$image" &&
        qemu-img convert -n -f raw "$image" --target-image-opts \
            "driver=raw,$(vm_part "$1"),file.driver=nbd,$(
                vm_server file. "$@"
            )"; } >>"$LAB_DIR/log/format-$1" 2>&1 ||
        lab_failed "cannot make a file system for VM $1"
    rm -f "$image"
}

vm_socket() {
    echo "${VM_SOCKET[$1-$2]-$(socket "$2")}"
}

# vm_server PREFIX VM HOST - where its disk is, as options of QEMU's nbd driver.
vm_server() {
    echo "$1server.type=unix,$1server.path=$(vm_socket "$2" "$3")"
}

# vm_listens HOST - where a QEMU there takes a VM that migrates.
vm_listens() {
    address "$1" net1
}

# vm_start VM HOST - boots it, and waits until its load runs.
vm_start() {
    vm_boot "$@"
    within 120000 grep -q '^ready' "$LAB_DIR/log/vm-$1" ||
        lab_failed "VM $1 does not come up on $2"
}

# vm_boot VM HOST [QEMU-OPTION...] - nobody waits for it.
vm_boot() {
    [[ -e $LAB_DIR/vm.cpio ]] || vm_initramfs ||
        lab_failed "no initial ramdisk for VMs"
    VM_HOST[$1]=$2
    rm -f "$(vm_memory "$1")"
    vm_launch "$@"
}

# vm_memory VM - the file that is its memory: see vm_migrate.
vm_memory() {
    echo "$LAB_RUN/vm-$1.memory"
}

vm_initramfs() {
    guest_initramfs "$LAB_DIR/vm.cpio" "$LAB_LIB/vm-init" -m virtio_pci \
        -m virtio_blk -m crc32c_generic -m ext4 \
        -p "$BUILD/tests/tools/guestload:/bin/guestload"
}

# vm_launch VM HOST [QEMU-OPTION...] - a QEMU for it on that host.
vm_launch() {
    local vm=$1 host=$2 name=qemu-$1-$2 pipe=$LAB_RUN/vm-$1-$2
    shift 2
    rm -f "$pipe".*
    mkfifo "$pipe".{qmp,load}.{in,out}
    vm_open "$vm" "$host"
    # what is read here goes on where the VM itself goes on
    cat "$pipe.load.out" >>"$LAB_DIR/log/vm-$vm" &
    lab_start "$name" "$host" "$GUEST_QEMU" -name "vm$vm" -accel tcg \
        -M pc,memory-backend=memory -m "$VM_MEMORY" -object \
        "memory-backend-file,id=memory,size=${VM_MEMORY}M,share=on,mem-path=$(
            vm_memory "$vm"
        )" -cpu max,la57=off -nodefaults -display none -no-reboot \
        -kernel "$GUEST_VMLINUX" -initrd "$LAB_DIR/vm.cpio" \
        -append "$VM_KERNEL_LINE hung=$VM_HUNG" \
        -chardev "file,id=console,path=$LAB_DIR/log/console-$vm,append=on" \
        -serial chardev:console \
        -chardev "pipe,id=load,path=$pipe.load" -serial chardev:load \
        -chardev "pipe,id=qmp,path=$pipe.qmp" -mon chardev=qmp,mode=control \
        -blockdev "driver=nbd,node-name=nbd,$(
            vm_server "" "$vm" "$host"
        ),reconnect-delay=$VM_RECONNECT" \
        -blockdev "driver=raw,node-name=disk,file=nbd,$(vm_part "$vm")" \
        -device virtio-blk-pci,drive=disk "$@"
    qmp "$vm" "$host" qmp_capabilities >/dev/null ||
        lab_failed "QEMU of VM $vm does not start on $host"
}

# ---- QMP -----------------------------------------------------------------------

# Both ends of each pipe are open for good, so that nobody waits in an open.
declare -A VM_PIPE
vm_open() {
    local fd end old
    for end in qmp.in qmp.out load.in; do
        old=${VM_PIPE[$1-$2-$end]-}
        [[ -z $old ]] || exec {old}>&-
        exec {fd}<>"$LAB_RUN/vm-$1-$2.$end"
        VM_PIPE[$1-$2-$end]=$fd
    done
}

# qmp VM HOST COMMAND [ARGUMENTS] - ARGUMENTS and what is returned are JSON.
qmp() {
    local line id=${EPOCHREALTIME/[.,]/}
    printf '{"execute": "%s", "arguments": %s, "id": %s}\n' "$3" \
        "${4-{\}}" "$id" >&"${VM_PIPE[$1-$2-qmp.in]}"
    # shellcheck disable=SC2031 # an index
    while read -rt 30 line <&"${VM_PIPE[$1-$2-qmp.out]}"; do
        [[ $line == *"\"id\": $id"* ]] || continue # events, the greeting
        jq -ce .return <<<"$line" && return
        echo "qmp: $3 of VM $1 on $2: $line" >&2
        return 1
    done
    echo "qmp: $3 of VM $1 on $2: no answer" >&2
    return 1
}

# ---- its load --------------------------------------------------------------------

# vm_order VM TEXT - to guestload.
vm_order() {
    echo "$2" >&"${VM_PIPE[$1-${VM_HOST[$1]}-load.in]}"
}

# vm_mark VM NAME - a new window begins; the one before is closed.
vm_mark() {
    local out=$LAB_DIR/log/vm-$1 before
    before=$(grep -c '^window' "$out")
    vm_order "$1" "mark $2"
    within 20000 load_windows "$out" $((before + 1)) ||
        fail "VM $1 answers" "$(tail -n 5 "$out")"
}

# vm_value VM WINDOW KEY - of a closed window; "total" is the whole run.
vm_value() {
    load_value_in "$LAB_DIR/log/vm-$1" "$2" "$3"
}

# vm_stall VM WINDOW - the longest in ms that a request waited, less what the
# machine itself stood still.
vm_stall() {
    local stall machine
    stall=$(vm_value "$1" "$2" stall_ms)
    machine=$(vm_value "$1" "$2" machine_ms)
    echo $((stall > machine ? stall - machine : 0))
}

# vm_expect_stall VM WINDOW LIMIT_MS - closes the window; as expect_stall.
vm_expect_stall() {
    [[ -n $(vm_value "$1" "$2" ms) ]] || vm_mark "$1" "after-$2"
    at_most "longest stall of VM $1 during $2" "$(vm_stall "$1" "$2")" \
        "$(($3 * ${LAB_SLACK:-4}))"
}

# vm_expect_io VM MS - a check: it gets answers that it had not.
vm_expect_io() {
    local begin ops
    begin=$(now_ms)
    ops=$(vm_ops "$1")
    if within "$2" vm_ops_above "$1" $((ops + 20)); then
        pass "I/O of VM $1 goes on (seen after $(($(now_ms) - begin)) ms)"
    else
        fail "I/O of VM $1 goes on within $2 ms" \
            "$(tail -n 5 "$LAB_DIR/log/vm-$1")"
    fi
}

vm_ops() {
    awk '$1 == "tick" { n = $4 } END { print n + 0 }' "$LAB_DIR/log/vm-$1"
}

vm_ops_above() {
    (($(vm_ops "$1") > $2))
}

# vm_end VM READER... - ends its load and shuts it down; checks: every byte was
# right, the kernel saw nothing, and the file system is clean when it is read
# through each of the hosts.
vm_end() {
    local vm=$1 host name
    shift
    name=qemu-$vm-${VM_HOST[$vm]}
    vm_order "$vm" end
    within 120000 gone "$name"
    lab_kill "$name" KILL
    check "VM $vm: no error and no mismatch, a clean shutdown" vm_ended "$vm"
    check "VM $vm: nothing in its kernel's log" vm_log_clean "$vm"
    for host; do
        check "VM $vm: its file system is clean, read on $host" \
            vm_fsck "$vm" "$host"
    done
}

vm_ended() {
    tail -n 30 "$LAB_DIR/log/vm-$1" "$LAB_DIR/log/console-$1"
    grep -q '^guest: the load ended with 0' "$LAB_DIR/log/console-$1" &&
        grep -q '^guest: unmounting ended with 0' "$LAB_DIR/log/console-$1" &&
        [[ $(vm_value "$1" total ops) -gt 0 ]]
}

vm_log_clean() {
    ! grep -E "$VM_TROUBLE" "$LAB_DIR/log/console-$1"
}

vm_fsck() {
    local image=$LAB_DIR/vm-$1.image rc
    qemu-img convert -O raw --image-opts \
        "driver=raw,$(vm_part "$1"),file.driver=nbd,$(
            vm_server file. "$@"
        )" "$image" && e2fsck -fn "$image"
    rc=$?
    rm -f "$image"
    return "$rc"
}

# ---- live migration ----------------------------------------------------------------

VM_PORT=4444
VM_CAPABILITIES='{"capabilities": [
    {"capability": "x-ignore-shared", "state": true}]}'

# vm_migrate VM TO [COMMAND...] - moves it, over the hosts' first network; with a
# command, this is run when the QEMU that it goes to has opened the disk, right
# before the one that it is on is told to go.  Sets VM_DOWNTIME and VM_MIGRATION,
# both in ms; how long its requests waited is vm_stall's.
#
# Its memory is a file that both have, and is not copied: QEMU that translates
# (7.2) loses pages that change while they are copied, so that the guest's kernel
# crashes after a dozen moves, on whatever disk.  To the disk it makes no
# difference.
vm_migrate() {
    local vm=$1 from=${VM_HOST[$1]} to=$2 uri answer
    shift 2
    uri="{\"uri\": \"tcp:$(vm_listens "$to"):$VM_PORT\"}"
    vm_launch "$vm" "$to" -incoming defer
    qmp "$vm" "$to" migrate-set-capabilities "$VM_CAPABILITIES" >/dev/null
    qmp "$vm" "$to" migrate-incoming "$uri" >/dev/null
    qmp "$vm" "$from" migrate-set-capabilities "$VM_CAPABILITIES" >/dev/null
    (($# == 0)) || "$@"
    qmp "$vm" "$from" migrate "$uri" >/dev/null
    if ! within 60000 vm_migration_is "$vm" completed; then
        fail "VM $vm migrates from $from to $to" \
            "$(qmp "$vm" "$from" query-migrate)"
        return 1
    fi
    answer=$(qmp "$vm" "$from" query-migrate)
    # shellcheck disable=SC2034 # for the caller
    VM_DOWNTIME=$(jq .downtime <<<"$answer")
    # shellcheck disable=SC2034
    VM_MIGRATION=$(jq '."total-time"' <<<"$answer")
    VM_HOST[$vm]=$to
    vm_leave "$vm" "$from"
}

vm_migration_is() {
    [[ $(qmp "$1" "${VM_HOST[$1]}" query-migrate | jq -r .status) == "$2" ]]
}

# vm_leave VM HOST - the QEMU that it has left ends, as libvirt ends it.
vm_leave() {
    qmp "$1" "$2" quit >/dev/null
    within 30000 gone "qemu-$1-$2" || fail "QEMU of VM $1 on $2 ends" ""
    lab_kill "qemu-$1-$2" KILL
}
