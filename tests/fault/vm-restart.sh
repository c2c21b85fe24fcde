#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The plugin beneath a virtual machine is killed, or stopped for an upgrade, and
# started again.
#
# Goal: the guest sees a pause and nothing else, since QEMU reconnects and asks
# again what had no answer (reconnect-delay); no older write comes back.
# Timeline, on a's own paths and redirected: SIGKILL, or SIGTERM, under load; the
# successor starts at once; QEMU tries again after 1, 3, 7, ... s, so that the
# pause is 1 to 4 s.  Then every host loses its paths and SIGTERM comes while
# requests wait; the paths come back after the successor has started.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/vm.sh
. "$LAB_LIB/vm.sh"
[[ -n ${LAB_DIR-} ]] || vm_needed
lab_enter "$@"

# restart SIGNAL WINDOW - of the plugin on a; stopped, it has 2 s to end well.
restart() {
    local pid=${LAB_PID[plugin-a-vm]} rc
    vm_mark 1 "$2"
    kill "-$1" "$pid"
    within 10000 gone plugin-a-vm || kill -KILL "$pid"
    wait "$pid" 2>/dev/null
    rc=$?
    [[ $1 == KILL ]] || is "the plugin ends well on $1, $2" "$rc" 0
    unset "LAB_PID[plugin-a-vm]"
    start_plugin a
}

# goes_on WINDOW LIMIT_MS
goes_on() {
    vm_expect_io 1 20000
    vm_expect_stall 1 "$1" "$2"
}

lab_up
start_hosts
vm_format 1 a
vm_start 1 a

for round in 1 2; do
    restart KILL "kill-$round"
    goes_on "kill-$round" 4000
    restart TERM "upgrade-$round"
    goes_on "upgrade-$round" 4000
done

black_hole a
expect_route a "redirected *" 5000
restart TERM upgrade-redirected
goes_on upgrade-redirected 4000
restart KILL kill-redirected
goes_on kill-redirected 4000
heal_paths a
expect_route a local 15000

vm_mark 1 queueing
for h in "${LAB_HOSTS[@]}"; do
    black_hole "$h"
done
expect_route a queueing 10000
held() {
    [[ $(field plugin-a-vm .queue.held) -gt 0 ]]
}
check "the VM's requests wait" within 5000 held
restart TERM upgrade-queueing
for h in "${LAB_HOSTS[@]}"; do
    heal_paths "$h"
done
expect_route a local 20000
goes_on upgrade-queueing 9000

vm_end 1 a b
lab_end
