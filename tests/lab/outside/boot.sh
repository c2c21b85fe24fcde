# SPDX-License-Identifier: BSD-3-Clause
# A guest from its power-on to its end, and commands to it through two FIFOs.
# shellcheck shell=bash
#
# QEMU's virtio-serial port is connected to a pair of FIFOs: a line in is a
# command, what it prints comes out (tests/lab/inside/init).  The console, with
# the kernel's messages, is a file.

# DIR/guest.in and .out, DIR/console, DIR/qemu: of the one guest this
# shell has; who wants several has a shell for each.
BOOT_DIR=
BOOT_PID=
BOOT_TO=
BOOT_FROM=
BOOT_MEMORY=${BOOT_MEMORY:-768} # MiB

# 5 s with the kernel uncompressed (PVH) instead of 10; without address
# randomisation user space costs half as much under TCG.
BOOT_APPEND="console=ttyS0 quiet panic=-1 mitigations=off nokaslr norandmaps
    net.ifnames=0 tsc=reliable no_timer_check cryptomgr.notests
    random.trust_cpu=on hung_task_panic=0 clearcpuid=rep_good"

# REP MOVS and STOS, which a processor does a line at a time, are emulated item
# by item: neither the kernel nor the C library is to think them fast.  Boot and
# scenarios take three quarters of the time.
BOOT_CPU=max,la57=off,-erms,-fsrm

# The guest's clock counts its instructions, 4 ns each, and jumps over the time
# in which it has nothing to do.  However busy this machine is, nothing in there
# comes too late, and waiting for a second costs next to nothing.
BOOT_CLOCK="-icount shift=2,sleep=off"

# boot_start DIR INITRD - switch it on; nobody waits.
boot_start() {
    BOOT_DIR=$1
    rm -f "$1/guest.in" "$1/guest.out"
    mkfifo "$1/guest.in" "$1/guest.out" || return 1
    # open at both ends, so that neither side waits for the other
    exec {BOOT_TO}<>"$1/guest.in" {BOOT_FROM}<>"$1/guest.out"
    # KVM may be there and not be able to run this kernel: never by itself.
    # shellcheck disable=SC2086,SC2116 # words; a line
    "$GUEST_QEMU" -accel tcg $BOOT_CLOCK -M pc -cpu "$BOOT_CPU" \
        -m "$BOOT_MEMORY" -nodefaults -display none -no-reboot \
        -serial "file:$1/console" -kernel "$GUEST_VMLINUX" -initrd "$2" \
        -append "$(echo $BOOT_APPEND)" -device virtio-serial \
        -chardev "pipe,id=port,path=$1/guest" \
        -device virtserialport,chardev=port,name=lab \
        >"$1/qemu" 2>&1 </dev/null &
    BOOT_PID=$!
}

boot_alive() {
    [[ $BOOT_PID ]] && kill -0 "$BOOT_PID" 2>/dev/null
}

# boot_wait MS - until it obeys.
boot_wait() {
    local end=$(($(now_ms) + $1))
    until grep -qs '^lab: ready' "$BOOT_DIR/console"; do
        boot_alive && (($(now_ms) < end)) || return 1
        nap 50
    done
}

# boot_run MS SINK COMMAND - run one line there; each line that it prints is
# given to SINK as its argument.
#
# returns: its exit status; 255: no end within MS, or the guest has died
boot_run() {
    local end=$(($(now_ms) + $1)) sink=$2 line part=
    printf '%s\n' "$3" >&"$BOOT_TO"
    while boot_alive && (($(now_ms) < end)); do
        # what came before a timeout is kept: it is the line's beginning
        if ! IFS= read -r -t 0.5 -u "$BOOT_FROM" line; then
            part+=$line
            continue
        fi
        line=$part$line part=
        if [[ $line == $'\001'* ]]; then
            return "${line#?}"
        fi
        "$sink" "$line"
    done
    return 255
}

# boot_end - switch it off.
boot_end() {
    [[ $BOOT_PID ]] || return 0
    kill -KILL "$BOOT_PID" 2>/dev/null
    wait "$BOOT_PID" 2>/dev/null
    BOOT_PID=
    exec {BOOT_TO}>&- {BOOT_FROM}>&-
}

# boot_seconds - processor time that it took until now.
boot_seconds() {
    awk -v hz="$(getconf CLK_TCK)" '{
        sub(/.*\) /, "")
        printf "%.1f\n", ($12 + $13) / hz
    }' "/proc/$BOOT_PID/stat"
}
