#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The LUN is made larger while a host takes a detour and cannot see it.
#
# Goal: a host that knows the old size only goes on through peers that have the
# new one, and opens routes to them; it sees the new size when it is home, and
# VMs when they connect anew.
# Timeline: a is redirected; the array takes the LUN away and brings it back
# twice as large (tgtd knows no other way: all I/O waits meanwhile); <= 10 s b
# and c are local, a redirected; a's peer is drained: a goes to the other one;
# healed: <= 8 s home.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

# sees HOST MIB - a condition: the size that a VM is told which connects now.
sees() {
    [[ $(timeout 8 nbdinfo --size "$(uri "$1")") == $(($2 << 20)) ]]
}

lab_up
start_hosts
peers_stand_by a b c
load_start a --rate 300
blockcheck_start a --rate 150

black_hole a
expect_route a "redirected *" 3000
check "the LUN is taken away" within 10000 \
    tgt --op delete --mode logicalunit --tid 1 --lun 1
check "and comes back with 512 MiB" san_lun 1 512M
for h in b c; do
    expect_route "$h" local 15000
    check "$h sees the new size" within 10000 sees "$h" 512
done
expect_route a "redirected *" 15000
expect_io a 5000
check "a tells VMs the size that it knows" sees a 256

peer=$(route_of a)
peer=${peer#redirected }
post "proxy-$peer" /drain >/dev/null
other=b
[[ $peer != b ]] || other=c
expect_route a "redirected $other" 8000
expect_io a 5000
post "proxy-$peer" /undrain >/dev/null

heal_paths a
expect_route a local 15000
check "a sees the new size at home" within 10000 sees a 512
expect_io a 5000
check_fails "nobody is blamed for another LUN" "" \
    grep "correct its device" "$LAB_DIR"/log/plugin-*
blockcheck_ok a
expect_no_error a
lab_end
