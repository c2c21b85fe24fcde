# SPDX-License-Identifier: BSD-3-Clause
# Every kind of request as the target gets it; a LUN that grows, and one that
# is taken away for good.
# shellcheck shell=bash
#
# Goal: flush, FUA, trim and zero reach LIO as the commands they should be; a
# LUN that grows is seen on the next connection; paths whose devices are gone
# are a lost LUN, and new ones bring it home.

# shellcheck source=tests/lab/inside/guest.sh
. "$(dirname "$0")/guest.sh"
lab_enter "$@"

TRACE=/sys/kernel/tracing

# target_saw - the commands that LIO has begun since target_watch, one a line.
target_watch() {
    echo 0 >$TRACE/tracing_on && echo >$TRACE/trace &&
        echo 1 >$TRACE/events/target/target_sequencer_start/enable &&
        echo 1 >$TRACE/tracing_on
}

target_saw() {
    echo 0 >$TRACE/tracing_on
    sed -n 's/.*target_sequencer_start: //p' $TRACE/trace
}

# request PATTERN QEMU-IO-COMMAND... - and LIO saw a command of that kind.
request() {
    local pattern=$1 c arguments=()
    shift
    for c; do
        arguments+=(-c "$c")
    done
    target_watch
    qemu-io -f raw "${arguments[@]}" "nbd+unix:///?socket=$(socket a)" ||
        return 1
    target_saw >"$LAB_DIR/saw"
    grep -Eq "$pattern" "$LAB_DIR/saw" ||
        { echo "LIO saw no $pattern:" && cut -c1-120 "$LAB_DIR/saw" && false; }
}

lab_up
start_hosts
check "a flush is SYNCHRONIZE CACHE" \
    request SYNCHRONIZE_CACHE "write -P 1 0 64k" flush
# byte 1 of the CDB: bit 3
check "a write with FUA has the bit, or is followed by SYNCHRONIZE CACHE" \
    request 'WRITE.*CDB (2a|8a|aa) 08|SYNCHRONIZE_CACHE' "write -f -P 2 0 64k"
check "a trim is UNMAP or WRITE SAME with UNMAP" \
    request 'UNMAP|WRITE_SAME.*CDB (41|93) 08' "discard 1m 1m"
check "zeroes without a hole are no data on the wire" \
    request 'WRITE_SAME' "write -P 3 2m 1m" "write -z 2m 1m" \
    "read -P 0 2m 1m"
check "zeroes that may be a hole read back as zeroes" \
    request 'WRITE_SAME|UNMAP' "write -P 4 4m 1m" "write -z -u 4m 1m" \
    "read -P 0 4m 1m" "read -P 2 0 64k"

# ---- the LUN grows -----------------------------------------------------------

size_is() {
    [[ $(value "plugin-$1-vm" lun_status.size) == "$2" ]]
}

grow() {
    local h n
    truncate -s $(((LUN_MIB + 64) << 20)) $LUN_FILE &&
        losetup --set-capacity /dev/loop0 || return 1
    for h in a b; do
        for n in 1 2; do
            echo 1 >"/sys/block/$(path_name "$h" "$n")/device/rescan"
        done
        multipathd resize map "$(map "$h")" || return 1
    done
}

check "the LUN and both maps grow" grow
for h in a b; do
    check "$h sees its new size" \
        within 5000 size_is $h $(((LUN_MIB + 64) << 20))
done
check "a new connection writes behind the old end" \
    request 'WRITE' "write -P 5 ${LUN_MIB}m 64k" "read -P 5 ${LUN_MIB}m 64k"
is "growing moved no route" "$(route_of a) $(route_of b)" "local local"

# ---- the devices are removed ---------------------------------------------------

load_start a --rate 25 --depth 4
for n in 1 2; do
    check "the device of path $n is removed" path_withdraw a $n
done
is "a is registered on no path" "$(registrations a)" 0
expect_route a "redirected *" 10000
expect_io a 5000
# the same LUN on new devices, whose nexuses are not registered
for n in 1 2; do
    check "the LUN is there again on path $n" path_export a $n
done
check "multipathd takes the new devices into the map" \
    within 20000 dm_active a 2
expect_route a local 20000
check "a is registered on both" within 5000 registrations_are a 2
expect_no_error a
lab_end
