# SPDX-License-Identifier: BSD-3-Clause
# The lab's words inside the guest: three hosts whose paths the kernel has.
# shellcheck shell=bash
#
#   LIO: one LUN, a file on tmpfs, with real persistent reservations
#     |a1 |a2     |b1 |b2     |c1      SCSI hosts of tcm_loop, a nexus each
#    sda  sdb    sdc  sdd    sde
#     +-+-+       +-+-+       |
#      map         map        |        dm-multipath, kept by multipathd
#       a           b         c        plugin and proxy, on addresses of lo
#
# udev gives the paths of each host another name (57-lab.rules), so that
# multipathd makes a map for each.  What is the same word in tests/lib/ means
# the same here; a path that is cut answers with transport errors.

export PATH=/lab/bin:/usr/sbin:/usr/bin:/sbin:/bin:/lab/build/tests/tools
export BUILD=/lab/build
# shellcheck source=tests/lib/lab.sh
. /lab/tests/lib/lab.sh
# shellcheck source=tests/lib/ask.sh
. "$LAB_LIB/ask.sh"

LAB_MODE=guest
LAB_HOSTS=(a b) # c costs as much as each of them: only where it is needed
LAB_REGION=8
LAB_DUMP_LINES=${LAB_DUMP_LINES-25}
TARGET=/sys/kernel/config/target
LUN_FILE=/san/lun1
LUN_MIB=256
LUN_SERIAL=5a5a000100000000000000001 # 25 digits are all of it in the name
LUN_WWID=36001405$LUN_SERIAL
declare -A LUN_PATHS=([a]="1 2" [b]="1 2" [c]=1)

# within MS COMMAND... - fewer looks than outside: each costs the one processor
# a few ms, and naps cost nothing (tests/lab/outside/boot.sh).
within() {
    local end=$(($(now_ms) + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        (($(now_ms) < end)) || return 1
        nap 250
    done
    return 0
}

# lab_enter - in place of the namespaces.
lab_enter() {
    LAB_DIR=$(mktemp -d /tmp/lab.XXXXXX) || exit 1
    LAB_RUN=/run/lab
    mkdir -p "$LAB_RUN" "$LAB_DIR/log"
    ln -sfn /lab/pki "$LAB_DIR/pki"
    trap lab_leave EXIT
}

# The next scenario begins with every path up and nothing of ours.
lab_leave() {
    trap - EXIT
    heal_everything
    lab_kill_all
    rm -rf "${LAB_RUN:?}"
}

lab_up() {
    local h
    san_up || lab_failed "the SAN does not come up"
    within 5000 keys_clear || lab_failed "the LUN keeps old keys"
    for h in "${LAB_HOSTS[@]}"; do
        LAB_DEVICE[$h]=$(host_device "$h")
        host_config "$h"
    done
}

# load_modules GROUP - of /modules/order.GROUP; those that are there are fine.
load_modules() {
    local module
    while read -r module; do
        insmod "/modules/$module" 2>/dev/null
    done <"/modules/order.$1"
}

# ---- the SAN ---------------------------------------------------------------

# tpg HOST N - the folder of a path's target portal group.
tpg() {
    echo "$TARGET/loopback/naa.600140500000$(host_number "$1")00$2/tpgt_1"
}

# san_up - once in the life of the guest; the scenarios share it.
san_up() {
    [[ ! -e $TARGET/core/fileio_0/lun1/enable ]] || {
        san_ready
        return
    }
    mkdir -p /san /var/target/pr /etc/target /etc/multipath &&
        mount -t tmpfs -o size=$((2 * LUN_MIB))m san /san &&
        lun_make && multipathd >/dev/null || return 1
    within 5000 multipathd show daemon || return 1
    local h n
    for h in a b c; do
        for n in ${LUN_PATHS[$h]}; do
            path_make "$h" "$n" || return 1
        done
    done
    san_ready
}

# Buffered, so that there is a cache to flush; a loop device, since LIO asks
# that for its size each time; UNMAP and WRITE SAME are carried out.
lun_make() {
    local b=$TARGET/core/fileio_0/lun1
    truncate -s "${LUN_MIB}M" $LUN_FILE && losetup /dev/loop0 $LUN_FILE &&
        mkdir -p $b &&
        echo "fd_dev_name=/dev/loop0,fd_buffered_io=1" >$b/control &&
        echo $LUN_SERIAL >$b/wwn/vpd_unit_serial &&
        echo 1 >$b/enable &&
        echo 1 >$b/attrib/emulate_tpu && echo 1 >$b/attrib/emulate_tpws
}

# path_make HOST N - a SCSI host with a nexus of its own, and the LUN.
path_make() {
    local t
    t=$(tpg "$1" "$2")
    mkdir -p "$TARGET/loopback" "$t" &&
        echo "naa.600140510000$(host_number "$1")00$2" >"$t/nexus" &&
        path_export "$1" "$2"
}

# path_export HOST N, path_withdraw HOST N - the LUN's device appears; it is
# gone, and with it what its nexus had registered.
path_export() {
    local t
    t=$(tpg "$1" "$2")
    mkdir -p "$t/lun/lun_0" &&
        ln -s "$TARGET/core/fileio_0/lun1" "$t/lun/lun_0/lun1"
}

path_withdraw() {
    rm "$(tpg "$1" "$2")/lun/lun_0/lun1"
}

san_ready() {
    within 20000 host_ready a && within 20000 host_ready b &&
        within 20000 host_ready c
}

host_ready() {
    if [[ $1 == c ]]; then
        test -b "$(host_device c)"
    else
        test -b "$(host_device "$1")" && dm_active "$1" 2
    fi
}

# ---- paths -----------------------------------------------------------------

# map HOST - its multipath map's name.
map() {
    case $1 in
    a) echo "$LUN_WWID" ;;
    b) echo "b-$LUN_WWID" ;;
    esac
}

# host_device HOST - what the plugin is given.
host_device() {
    if [[ $1 == c ]]; then
        echo /dev/disk/lab-c # by udev: sda may be sdb tomorrow
    else
        echo "/dev/mapper/$(map "$1")"
    fi
}

# path_name HOST N - sda and so on.
path_name() {
    local address
    address=$(cat "$(tpg "$1" "$2")/address") &&
        basename "/sys/class/scsi_device/$address:0/device/block/"*
}

# cut_path HOST N, heal_path HOST N - what the path answers.
cut_path() {
    echo offline >"$(tpg "$1" "$2")/transport_status"
}

heal_path() {
    echo online >"$(tpg "$1" "$2")/transport_status"
}

cut_paths() {
    local n
    for n in ${LUN_PATHS[$1]}; do
        cut_path "$1" "$n" || return 1
    done
}

heal_paths() {
    local n
    for n in ${LUN_PATHS[$1]}; do
        heal_path "$1" "$n" || return 1
    done
}

heal_everything() {
    local h
    for h in a b c; do
        heal_paths "$h"
    done 2>/dev/null
}

# dm_active HOST N - a condition: so many paths of its map are active in dm.
dm_active() {
    [[ $(dmsetup status "$(map "$1")" | 
        grep -Eo ' [0-9]+:[0-9]+ A ' | wc -l) == "$2" ]]
}

# ---- reservations ----------------------------------------------------------

# keys - on the LUN, one a line, each as often as it is registered; they are
# read from LIO itself, without a command that could end a unit attention.
keys() {
    sed -n 's/.* Key: \(0x[0-9a-f]*\) .*/\1/p' \
        "$TARGET/core/fileio_0/lun1/pr/res_pr_registered_i_pts"
}

# keys_clear - what the scenario before left: with a key of before a path that
# was not registered anew may write all the same.
keys_clear() {
    local disk
    disk=/dev/$(path_name c 1)
    [[ ! $(keys) ]] && return
    sg_persist --out --register-ignore --param-sark=0x1 "$disk" &&
        sg_persist --out --clear --param-rk=0x1 "$disk"
    [[ ! $(keys) ]]
}

# key_of HOST - that its plugin has, as keys prints it.
key_of() {
    printf '0x%s\n' "$(value "plugin-$1-${2-vm}" lun_status.registration.key)"
}

# registrations HOST - how many nexuses have its key.
registrations() {
    keys | grep -c "$(key_of "$1")"
}

registrations_are() {
    [[ $(registrations "$1") == "$2" ]]
}

# expect_registered HOST N MS - a check that it is on N nexuses.
expect_registered() {
    if within "$3" registrations_are "$1" "$2"; then
        pass "$1 is registered on $2 paths"
    else
        fail "$1 is registered on $2 paths within $3 ms" \
            "its key: $(key_of "$1")"$'\n'"$(
                cat "$TARGET/core/fileio_0/lun1/pr/res_pr_registered_i_pts"
                dmsetup status
            )"
    fi
}

# path_failures - how often dm has failed a path since the guest started.
path_failures() {
    dmesg | grep -c 'Failing path'
}

# A program that dies of a signal is told by the kernel only.
lab_logs_clean() {
    ! { grep -EH 'Sanitizer|runtime error:|[Aa]ssertion' "$LAB_DIR"/log/* ||
        dmesg | grep -E 'segfault|traps:|general protection'; }
}
