# SPDX-License-Identifier: BSD-3-Clause
# sanlock's leases on a host that loses the SAN: on the plugin's device, and on
# the multipath map itself.
# shellcheck shell=bash disable=SC2034 # what the lab reads
#
# Goal: the lease on /dev/nbd0 is renewed through the peer, its holder lives and
# nobody else gets it; the one on the map lapses, and its holder is killed, as a
# VM would be.
#
# Timeline: a holds a lease on each, for a process each; t=0 both paths go
# silent; t <= 16 s + 2 s (sanlock's times shortened five-fold: io_timeout 2
# instead of 10 s) the lease on the map has lapsed; t=30 s the paths come back.
# Without a watchdog, since nobody wants to see a reset: sanlock's kills do.

LOCK_NBD=/dev/nbd0
LOCK_MAP=${SAN_DEVICE}1
LOCK_LEASE=$((1 << 20)) # offset of the resource; the lockspace is before it
NODES=(a b)

locks_up() {
    machine_sh "$1" "nbd-client $(vms_address "$1") 10809 $LOCK_NBD -b 512 &&
        until [ \$(cat /sys/block/nbd0/size) -gt 0 ]; do usleep 100000; done" &&
        lab_start "sanlock-$1" "$1" sanlock daemon -D -w 0 -o 2 -U root -G root &&
        within 20000 machine_sh "$1" "sanlock client status"
}

# locks_init - both lockspaces, each with one resource.
locks_init() {
    machine_sh a "sanlock client init -s nbd:0:$LOCK_NBD:0 -o 2 &&
        sanlock client init -r nbd:vm:$LOCK_NBD:$LOCK_LEASE &&
        sanlock client init -s map:0:$LOCK_MAP:0 -o 2 &&
        sanlock client init -r map:vm:$LOCK_MAP:$LOCK_LEASE"
}

locks_join() {
    local n
    n=$(host_number "$1")
    machine_sh "$1" "sanlock client add_lockspace -s nbd:$n:$LOCK_NBD:0 -o 2 &&
        sanlock client add_lockspace -s map:$n:$LOCK_MAP:0 -o 2"
}

# lease HOST nbd|map - in the background: a process that lives with its lease.
lease() {
    local device=$LOCK_NBD
    [[ $2 == nbd ]] || device=$LOCK_MAP
    lab_start "lease-$2-$1" "$1" sanlock client command \
        -r "$2:vm:$device:$LOCK_LEASE" -c /bin/sleep 100000
}

# holds HOST nbd|map - a condition: sanlock has the lease there, and is not
# still about to get it (ADD) or to give it back (REM).
holds() {
    machine_sh "$1" "sanlock client status" |
        grep -Eq "^r $2:vm:[^ ]* p [0-9]+\$"
}

# lapsed HOST nbd|map - sanlock has answered, and has it no more.
lapsed() {
    local status
    status=$(machine_sh "$1" "sanlock client status") &&
        ! grep -q "^r $2:vm:" <<<"$status"
}

leave() {
    local h
    heal_everything >/dev/null
    for h in "${NODES[@]}"; do
        machine_sh "$h" "for p in /run/lab/lease-*.pid; do
            kill -KILL \$(cat \$p); done; sanlock client shutdown -f 1;
            nbd-client -d $LOCK_NBD" >/dev/null 2>&1
    done
    story_leave
}

story_up
trap leave EXIT
start_hosts
for h in "${NODES[@]}"; do
    must "$h: sanlock runs" locks_up "$h"
done
must "lockspaces and resources" locks_init
for h in "${NODES[@]}"; do
    must "$h joins both lockspaces" locks_join "$h"
done
for kind in nbd map; do
    lease a $kind
    must "a has the lease on the $kind" within 30000 holds a $kind
done

begin=$(now_ms)
black_hole a
expect_route a "redirected *" 15000
check "a still has the lease on the map" holds a map
check "the lease on the map lapses" within 40000 lapsed a map
diag "after $(($(now_ms) - begin)) ms"
check "its holder is killed" within 20000 gone lease-map-a
(($(now_ms) - begin >= 30000)) || nap $((30000 - ($(now_ms) - begin)))
check "the lease on the nbd is held after 30 s without a path" holds a nbd
check "its holder lives" running lease-nbd-a
lease b nbd
check "b does not get it" within 60000 gone lease-nbd-b
check "b has no lease on the nbd" lapsed b nbd
lease b map
check "b gets the one on the map" within 60000 holds b map

heal_path a 1
heal_path a 2
expect_route a local 60000
check "a still has the lease on the nbd" holds a nbd
check "its holder lives on" running lease-nbd-a
for n in lease-map-a lease-nbd-a lease-nbd-b lease-map-b sanlock-a sanlock-b; do
    lab_kill $n KILL
done
for h in "${NODES[@]}"; do
    check "$h: detached" machine_sh "$h" "nbd-client -d $LOCK_NBD"
done
story_end
