# SPDX-License-Identifier: BSD-3-Clause
# NVMe over TCP with the kernel's own multipath: ANA states, a lost controller.
# shellcheck shell=bash
#
# Goal: a path that ANA takes away is seen as such; one is enough; when none is
# usable the route is redirected, though the kernel queues and reports nothing;
# no error, and home again.  Linux's NVMe target has no reservations before
# 6.13: fence = drain, so that what the kernel holds is waited for.
# Timeline: port 1 inaccessible, back; its controller deleted, connected anew;
# both inaccessible, back.
#
# a has the namespace through both ports, b the disk behind it under the
# namespace's name.

# shellcheck source=tests/lab/inside/guest.sh
. "$(dirname "$0")/guest.sh"
lab_enter "$@"
load_modules nvme

NVMET=/sys/kernel/config/nvmet
NQN=nqn.2026-11.test.lab:ns
NVME_UUID=5a5a0002-0000-4000-8000-000000000001
declare -A NVME_PORT=([1]=4420 [2]=4421) # loopback of a guest without a network

nvme_target() {
    local s=$NVMET/subsystems/$NQN n p
    truncate -s 64M /san/ns1 && losetup /dev/loop1 /san/ns1 || return 1
    mkdir "$s" && echo 1 >"$s/attr_allow_any_host" &&
        mkdir "$s/namespaces/1" &&
        echo /dev/loop1 >"$s/namespaces/1/device_path" &&
        echo $NVME_UUID >"$s/namespaces/1/device_uuid" &&
        echo 1 >"$s/namespaces/1/enable" || return 1
    for n in 1 2; do
        p=$NVMET/ports/$n
        mkdir "$p" && echo tcp >"$p/addr_trtype" &&
            echo ipv4 >"$p/addr_adrfam" && echo 127.0.0.1 >"$p/addr_traddr" &&
            echo "${NVME_PORT[$n]}" >"$p/addr_trsvcid" &&
            ln -s "$s" "$p/subsystems/$NQN" || return 1
    done
}

nvme_connect() {
    printf 'transport=tcp,traddr=127.0.0.1,trsvcid=%s,nqn=%s,reconnect_delay=1' \
        "${NVME_PORT[$1]}" $NQN >/dev/nvme-fabrics
}

# controller N - that is connected to port N: nvme0.
controller() {
    local c
    c=$(grep -l "trsvcid=${NVME_PORT[$1]}" /sys/class/nvme/*/address) &&
        basename "$(dirname "$c")"
}

ana() {
    echo "$2" >"$NVMET/ports/$1/ana_groups/1/ana_state"
}

# live N - a condition: so many controllers are.
live() {
    (($(cat /sys/class/nvme/*/state | grep -c live) == $1))
}

# usable N - a condition: a's plugin sees so many good paths.
usable() {
    [[ $(value plugin-a-vm 'lun_status.paths.*.state' | grep -o good | wc -l) \
        == "$1" ]]
}

san_up || lab_failed "the SAN does not come up"
check "the NVMe target comes up" nvme_target
check "connected to port 1" nvme_connect 1
check "connected to port 2" nvme_connect 2
check "both controllers are live" within 10000 live 2
check "one namespace over both" within 5000 test -b /dev/nvme0n1
dmsetup create ns1 --uuid "mpath-uuid.$NVME_UUID" \
    --table "0 $((64 << 11)) linear /dev/loop1 0"
within 5000 test -b /dev/mapper/ns1 || lab_failed "no map for b"

LAB_FENCE=drain
LAB_DEVICE["a"]=/dev/nvme0n1
LAB_DEVICE["b"]=/dev/mapper/ns1
for h in a b; do
    host_config $h
done
start_hosts
is "a and b see one LUN" "$(value plugin-a-vm lun_status.id)" \
    "$(value plugin-b-vm lun_status.id)"
check "a has two paths" within 5000 usable 2
load_start a --rate 25 --depth 4

ana 1 inaccessible
check "a path without access is not good" within 5000 usable 1
expect_io a 5000
is "the other is enough" "$(route_of a)" local
ana 1 optimized
check "it is good again" within 5000 usable 2

lost=$(controller 1)
echo 1 >"/sys/class/nvme/$lost/delete_controller"
check "a lost controller takes its path along" within 5000 usable 1
expect_io a 5000
is "one is enough again" "$(route_of a)" local
check "connected to port 1 again" nvme_connect 1
check "and its path is there" within 10000 usable 2

ana 1 inaccessible
ana 2 inaccessible
expect_route a "redirected *" 10000
ana 1 optimized
ana 2 optimized
expect_route a local 20000
check "both paths are good" within 5000 usable 2
expect_io a 5000
expect_no_error a
lab_end
