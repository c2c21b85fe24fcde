# SPDX-License-Identifier: BSD-3-Clause
# The whole SAN: an array and three hosts, machines all four, in the lab's words.
# shellcheck shell=bash disable=SC2034 # what the driver reads
#
#          san: LIO, LUN 0 for detour, LUN 1 for plain multipath
#           |san1        |san2             10.77.1.0/24   10.77.2.0/24
#      +----+---+    +---+----+            san = .1; a, b, c = .11, .12, .13
#      a    b   c    a   b    c            iscsid, multipathd, plugin, proxy
#      +----+---+    +---+----+
#         net1          net2               10.77.11.0/24  10.77.12.0/24
#
# Each cable ends at a tap device in namespaces of the lab, which need no root;
# what the words of tests/lib/lab.sh do to a cable they do to these.  One cable
# more, "vms", leads to this machine (10.77.30.254): over it come the NBD
# clients, which in a real host would be on a Unix socket.  Nothing cuts it.
#
# What a scenario runs on a host runs in its machine; its loads and VMs run here.

SAN_CLOUD=10.77.30 # of the vms network
SAN_NETS=(san1 san2 net1 net2 vms)
SAN_MEMORY=${SAN_MEMORY:-448}  # MiB, of each machine
SAN_LUN_MIB=256
SAN_BOOT=${SAN_BOOT:-180000}   # ms
SAN_DEVICE=/dev/mapper/360014055a5a00010000000000000000
SAN_PORTALS="10.77.1.1:3260 10.77.2.1:3260"

# ---- cables ----------------------------------------------------------------

machine_number() {
    if [[ $1 == san ]]; then
        echo 9
    else
        host_number "$1"
    fi
}

# vms_address HOST
vms_address() {
    echo "$SAN_CLOUD.$((10 + $(machine_number "$1")))"
}

cables_of() {
    if [[ $1 == san ]]; then
        echo san1 san2
    else
        echo "${SAN_NETS[@]}"
    fi
}

net_up() {
    local n m
    {
        echo "link set lo up"
        for n in "${SAN_NETS[@]}"; do
            echo "link add $n type bridge"
            echo "link set $n up"
        done
        echo "addr add $SAN_CLOUD.254/24 dev vms"
    } | ip -batch - || return 1
    for m in san "${LAB_HOSTS[@]}"; do
        for n in $(cables_of "$m"); do
            { ip tuntap add dev "$m-$n" mode tap &&
                ip link set "$m-$n" master "$n" up; } || return 1
        done
    done
}

# san_possible - can this caller make tap devices in a namespace of its own?
san_possible() {
    unshare "${LAB_UNSHARE[@]}" ip tuntap add dev lab0 mode tap >/dev/null 2>&1
}

# unplug_path HOST N - the cable is out, and the host sees that; plug_path.
unplug_path() {
    machine_qmp "$1" set_link "{\"name\": \"san$2\", \"up\": false}" >/dev/null
}

plug_path() {
    machine_qmp "$1" set_link "{\"name\": \"san$2\", \"up\": true}" >/dev/null
}

# reset_paths HOST - the array answers both with TCP resets from now on.
reset_paths() {
    machine_sh san "array reset $(address "$1" san1)" &&
        machine_sh san "array reset $(address "$1" san2)"
}

# heal_path HOST N - whatever was done to it is undone.
heal_path() {
    ip link set "$1-san$2" master "san$2" || return 1
    machine_dead "$1" || plug_path "$1" "$2"
}

heal_everything() {
    local h n
    machine_sh san "array answer"
    for h in "${LAB_HOSTS[@]}"; do
        heal_path "$h" 1
        heal_path "$h" 2
        for n in 1 2; do
            heal_network "$h" "$n"
        done
    done
}

# ---- power -----------------------------------------------------------------

# power_on NAME - with its cables, whatever was done to them in a life before
# this one, and its disks; nobody waits.
power_on() {
    local name=$1 n options=() words="lab.name=$1 lab.kind=host" cables=
    local disk=driver=raw,discard=unmap,file.driver=file,file.filename
    [[ $name != san ]] || words="lab.name=san lab.kind=array"
    for n in $(cables_of "$name"); do
        ip link set "$name-$n" master "$n"
        options+=(-netdev "tap,id=$n,ifname=$name-$n,script=no,downscript=no"
            -device "virtio-net-pci,netdev=$n,romfile=,mac=$(card "$name" "$n")")
        if [[ $n == vms ]]; then
            cables+=,$n:$(vms_address "$name")
        else
            cables+=,$n:$(address "$name" "$n")
        fi
    done
    if [[ $name == san ]]; then
        for n in 0 1; do
            options+=(-blockdev "node-name=lun$n,$disk=$LAB_DIR/lun$n"
                -device "virtio-blk-pci,drive=lun$n")
        done
    fi
    machine_on "$name" "$SAN_MEMORY" "$words lab.cables=${cables#,}" \
        "${options[@]}"
}

# card NAME NETWORK - the address of its network card.
card() {
    local n=0 net
    for net in "${SAN_NETS[@]}"; do
        [[ $net == "$2" ]] && break
        n=$((n + 1))
    done
    printf '52:54:00:77:%02x:%02x\n' $n "$(machine_number "$1")"
}

# power_off HOST - gone without a word; what ran there is forgotten.
power_off() {
    local name
    machine_off "$1"
    for name in "${!SAN_ON[@]}"; do
        [[ ${SAN_ON[$name]} != "$1" ]] || unset "SAN_ON[$name]"
    done
}

# array_ready, host_ready HOST - after power_on: serves; has both maps.
array_ready() {
    machine_wait san "$SAN_BOOT" && machine_sh san "array up $SAN_PORTALS"
}

host_ready() {
    machine_wait "$1" "$SAN_BOOT" && host_settle "$1" &&
        machine_sh "$1" "paths up ${2-recommended} $SAN_PORTALS" &&
        within 60000 paths_active "$1" 2
}

# host_settle HOST - what its image does not have.
host_settle() {
    machine_sh "$1" "mkdir -p $LAB_DIR/log $LAB_RUN/$1 &&
        ln -sfn /lab/pki $LAB_DIR/pki" | tr -d '\n'
    [[ ${PIPESTATUS[0]} == 0 ]]
}

# paths_active HOST N - a condition: dm uses so many paths of both maps.
paths_active() {
    local n
    for n in 0 1; do
        [[ $(machine_sh "$1" "paths active ${SAN_DEVICE##*/}$n") == "$2" ]] ||
            return 1
    done
}

# ---- programs on hosts -------------------------------------------------------

declare -A SAN_ON # host on which a program runs, by its name
SAN_BUILD=$BUILD  # what is /lab/build there
SAN_WRAP=()       # before its arguments: env NAME=VALUE

in_host() {
    local host=$1
    shift
    machine_sh "$host" "$(printf '%q ' "$@")"
}

# lab_start NAME HOST COMMAND... - as in lab.sh; QEMU and other programs of the
# lab itself run here, as the host "-", and so do VMs.
lab_start() {
    local name=$1 host=$2
    shift 2
    if [[ $host == - || $1 == "$GUEST_QEMU" ]]; then
        "$@" >>"$LAB_DIR/log/$name" 2>&1 </dev/null &
        # shellcheck disable=SC2004 # it has names
        LAB_PID[$name]=$!
        return
    fi
    SAN_ON[$name]=$host
    in_host "$host" /lab/machine/start "$name" "$LAB_DIR/log/$name" \
        "${SAN_WRAP[@]}" "${@/#"$SAN_BUILD"/\/lab\/build}"
}

running() {
    local host=${SAN_ON[$1]-}
    if [[ $host ]]; then
        machine_sh "$host" "test ! -e /run/lab/$1.exit"
    else
        [[ -n ${LAB_PID[$1]-} ]] && kill -0 "${LAB_PID[$1]}" 2>/dev/null
    fi
}

lab_kill() {
    local host=${SAN_ON[$1]-} pid=${LAB_PID[$1]-}
    if [[ $host ]]; then
        machine_sh "$host" "kill -$2 \$(cat /run/lab/$1.pid)" >/dev/null
        within 10000 gone "$1"
        unset "SAN_ON[$1]"
    elif [[ $pid ]]; then
        kill "-$2" "$pid" 2>/dev/null
        wait "$pid" 2>/dev/null
        unset "LAB_PID[$1]"
    fi
}

# stop NAME - SIGTERM, and SIGKILL when it has not ended after 20 s (a failure).
stop() {
    local host=${SAN_ON[$1]-} rc
    [[ $host ]] || return 0
    machine_sh "$host" "kill -TERM \$(cat /run/lab/$1.pid)"
    if ! within 20000 gone "$1"; then
        fail "$1 ends on SIGTERM" "still there after 20 s"
        lab_kill "$1" KILL
        return 1
    fi
    rc=$(machine_sh "$host" "cat /run/lab/$1.exit")
    unset "SAN_ON[$1]"
    ((rc == 0)) || fail "$1 ends well" "exit status $rc"
}

logged() {
    machine_sh "${SAN_ON[$1]}" "grep -Eq -- '$2' $LAB_DIR/log/$1"
}

# The status of a program: over its own machine's tests/tools/ask.c.
ask() {
    local host=${1#"$LAB_RUN"/}
    in_host "${host%%/*}" ask "$@"
}

# host_config_put HOST - writes its detour.conf, there.
host_config_put() {
    host_config "$1" && machine_sh "$1" "mkdir -p $LAB_DIR/$1/state" &&
        machine_put "$1" "$LAB_DIR/$1/detour.conf" "$LAB_DIR/$1/detour.conf"
}

# launch_plugin HOST [CLIENT [NBDKIT-OPTION...]] - as in hosts.sh, on TCP, port
# 10809.
launch_plugin() {
    local host=$1 client=${2-vm}
    shift $(($# < 2 ? $# : 2))
    lab_start "plugin-$host-$client" "$host" nbdkit -f \
        --ipaddr "$(vms_address "$host")" --port 10809 "$@" \
        "$BUILD/nbdkit-detour-plugin.so" lun="$LAB_LUN" \
        config="$LAB_DIR/$host/detour.conf" client="$client"
}

start_plugin() {
    launch_plugin "$@"
    within 20000 status "plugin-$1-${2-vm}" ||
        lab_failed "plugin of $1 does not start"
}

start_proxy() {
    launch_proxy "$1"
    within 20000 status "proxy-$1" || lab_failed "proxy of $1 does not start"
}

uri() {
    echo "nbd://$(vms_address "$1"):10809"
}
