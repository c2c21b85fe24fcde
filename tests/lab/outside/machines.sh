# SPDX-License-Identifier: BSD-3-Clause
# Several guests at once: power, commands, QMP.
# shellcheck shell=bash
#
# Each has four FIFOs that live as long as the lab, with both ends open: a line
# in is a command, what it prints comes out (tests/lab/machine/init); the same
# for QMP.  The console, with the kernel's messages, is a file, and goes on when
# the machine is switched on again.  Who runs it is told by a file, so that a
# subshell can switch it on or off as well.
#
# Guests talk to each other, so their clocks are this machine's.

declare -A MACHINE_FD     # NAME-sh.in and so on
MACHINE_IMAGE=            # the initial ramdisk of all
MACHINE_LIMIT=60000       # ms that a command may take

# The TSC would be calibrated while QEMU is kept waiting for the processor, and
# the guest's clock then run up to ten times too fast.
MACHINE_APPEND="console=ttyS0 quiet panic=-1 mitigations=off nokaslr \
norandmaps net.ifnames=0 tsc=unstable clocksource=acpi_pm no_timer_check \
cryptomgr.notests random.trust_cpu=on hung_task_panic=0"

# machine_new NAME - its FIFOs; once, in the shell that is the parent of all.
machine_new() {
    local end fd dir=$LAB_RUN/machine-$1
    mkdir -p "$dir" || return 1
    for end in {sh,qmp}.{in,out}; do
        mkfifo "$dir/$end" || return 1
        exec {fd}<>"$dir/$end"
        MACHINE_FD[$1-$end]=$fd
    done
}

# machine_on NAME MEMORY-MIB KERNEL-WORDS [QEMU-OPTION...] - nobody waits.
machine_on() {
    local name=$1 memory=$2 words=$3 dir=$LAB_RUN/machine-$1 end
    shift 3
    for end in {sh,qmp}.{in,out}; do
        machine_drain "$name" "$end"
    done
    echo "lab: switched on" >>"$LAB_DIR/log/console-$name"
    # KVM may be there and not be able to run this kernel: never by itself.
    "$GUEST_QEMU" -name "$name" -accel tcg -M pc -cpu max,la57=off \
        -m "$memory" -nodefaults -display none -no-reboot \
        -chardev "file,id=console,path=$LAB_DIR/log/console-$name,append=on" \
        -serial chardev:console -kernel "$GUEST_VMLINUX" \
        -initrd "$MACHINE_IMAGE" -append "$MACHINE_APPEND $words" \
        -device virtio-serial -chardev "pipe,id=sh,path=$dir/sh" \
        -device virtserialport,chardev=sh,name=lab \
        -chardev "pipe,id=qmp,path=$dir/qmp" -mon chardev=qmp,mode=control \
        "$@" >>"$LAB_DIR/log/qemu-$name" 2>&1 </dev/null &
    echo $! >"$dir/pid"
    disown $! # how it ends is nobody's news
}

# machine_drain NAME END - what nobody has read of a life before this one.
machine_drain() {
    local rest
    while IFS= read -r -t 0.05 -d '' -N 65536 \
        -u "${MACHINE_FD[$1-$2]}" rest || [[ $rest ]]; do
        rest=
    done
}

# machine_alive NAME - a dead child that nobody has waited for has no words.
machine_alive() {
    local pid
    pid=$(cat "$LAB_RUN/machine-$1/pid" 2>/dev/null) &&
        grep -qs . "/proc/$pid/cmdline"
}

machine_dead() {
    ! machine_alive "$1"
}

# machine_booted NAME - a condition: it obeys; not in a life before this one.
machine_booted() {
    awk '/^lab: switched on/ { ready = 0 } /^lab: ready/ { ready = 1 }
        END { exit !ready }' "$LAB_DIR/log/console-$1"
}

# machine_wait NAME MS
machine_wait() {
    local end=$(($(now_ms) + $2))
    until machine_booted "$1"; do
        machine_alive "$1" && (($(now_ms) < end)) || return 1
        nap 100
    done
    machine_qmp "$1" qmp_capabilities >/dev/null
}

# machine_off NAME - without a word to anybody.
machine_off() {
    local pid
    pid=$(cat "$LAB_RUN/machine-$1/pid" 2>/dev/null) || return 0
    kill -KILL "$pid" 2>/dev/null
    within 10000 machine_dead "$1"
    rm -f "$LAB_RUN/machine-$1/pid"
}

# machine_sh NAME COMMAND - run it there, as one line; prints what it prints.
#
# It prints when the command has ended, for its reader may leave before: the
# lines that are still to come would be taken for those of the next command, or
# two commands wait at the same FIFO, and take each other's.
#
# returns: its exit status; 255: no answer within MACHINE_LIMIT ms
machine_sh() {
    local line part= output= rc=255 number=${EPOCHREALTIME/[.,]/} end
    local out=${MACHINE_FD[$1-sh.out]}
    end=$(($(now_ms) + MACHINE_LIMIT))
    printf '%s %s\n' "$number" "${2//$'\n'/ }" >&"${MACHINE_FD[$1-sh.in]}"
    while machine_alive "$1" && (($(now_ms) < end)); do
        # what came before a timeout is kept: it is the line's beginning
        if ! IFS= read -r -t 0.5 -u "$out" line; then
            part+=$line
            continue
        fi
        line=$part$line part=
        case $line in
        $'\001'"$number "*) rc=${line##* } && break ;;
        $'\001'*) output= ;; # of a command that nobody waited for
        ?*) output+=$line$'\n' ;;
        esac
    done
    printf '%s' "$output"
    return "$rc"
}

# machine_put NAME FILE PATH - copies a small file there.
machine_put() {
    machine_sh "$1" "echo $(base64 --wrap=0 "$2") | base64 -d >$3"
}

# machine_qmp NAME COMMAND [ARGUMENTS] - ARGUMENTS and what it prints are JSON.
machine_qmp() {
    local line id=${EPOCHREALTIME/[.,]/}
    printf '{"execute": "%s", "arguments": %s, "id": %s}\n' "$2" \
        "${3-{\}}" "$id" >&"${MACHINE_FD[$1-qmp.in]}"
    while IFS= read -r -t 30 -u "${MACHINE_FD[$1-qmp.out]}" line; do
        [[ $line == *"\"id\": $id"* ]] || continue # events, the greeting
        [[ $line == *'"return"'* ]] || break
        printf '%s\n' "$line"
        return 0
    done
    echo "qmp: $2 to $1: ${line:-no answer}" >&2
    return 1
}

# machine_freeze NAME, machine_thaw NAME - it stands still, and its clock with
# it; then it goes on as if nothing had been.
machine_freeze() {
    machine_qmp "$1" stop >/dev/null
}

machine_thaw() {
    machine_qmp "$1" cont >/dev/null
}
