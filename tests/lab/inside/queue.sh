# SPDX-License-Identifier: BSD-3-Clause
# A map that queues I/O when it has no path: no_path_retry queue.
# shellcheck shell=bash
#
# Goal: the plugin has the map's queueing disabled, through multipathd so that
# it stays, as soon as it goes through a peer: what the map held comes back,
# nothing stays in D state, and SIGTERM ends every process in 2 s.
# Timeline: both paths of a are cut under load; the route is redirected when a
# probe is overdue; orphans are gone soon after; SIGTERM while there is no path.

# shellcheck source=tests/lab/inside/guest.sh
. "$(dirname "$0")/guest.sh"
lab_enter "$@"

# queueing on|off - what multipathd keeps the maps at.
queueing() {
    local want=queue
    [[ $1 == on ]] || want=fail
    sed -i "s/no_path_retry .*/no_path_retry $want/" /etc/multipath.conf &&
        multipathd reconfigure && within 10000 queues "$1"
}

# queues on|off - a condition: what dm says of a's map.
queues() {
    local feature=0
    dmsetup table "$(map a)" | grep -q queue_if_no_path && feature=1
    [[ $1 == on && $feature == 1 || $1 == off && $feature == 0 ]]
}

# Whatever happens here, the next scenario finds maps that do not queue.
leave_queueing() {
    heal_everything
    queueing off >/dev/null
    multipathd restorequeueing maps >/dev/null
    lab_leave
}

orphans_are() {
    [[ $(value "plugin-$1-vm" lun_status.orphans lun_status.orphan_reads |
        paste -sd' ') == "$2" ]]
}

# in_d_state - threads of our programs that wait in the kernel for a device.
in_d_state() {
    local pid task
    for pid in "${LAB_PID[@]}"; do
        for task in /proc/"$pid"/task/*; do
            grep -Hs '^State:.*D ' "$task/status"
        done
    done
}

none_in_d_state() {
    [[ ! $(in_d_state) ]]
}

lab_up
trap leave_queueing EXIT
check "the map of a queues without a path" queueing on
start_hosts
load_start a --rate 25 --depth 4
cut_paths a
expect_route a "redirected *" 10000
expect_io a 5000
check "the map queues no longer" within 10000 queues off
check "no orphan is left" within 10000 orphans_are a "0 0"
check "no thread of ours is stuck in the kernel" within 10000 none_in_d_state
nap 3000 # three looks of multipathd, which would put it back
check "multipathd leaves it so" queues off

load_stop a || fail "the load ends without an error" "$(load_errors a) errors"
begin=$(now_ms)
stop_plugin a
stop_proxy a
at_most "plugin and proxy end on SIGTERM without a path" \
    $(($(now_ms) - begin)) 2000
lab_end
