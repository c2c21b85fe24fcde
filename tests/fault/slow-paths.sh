#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Paths that answer, but take far longer than they did.
#
# Goal: the host tells that they are slow; with redirect_when_slow it takes a
# detour through a peer that is not, comes home when they are quick again, and
# stays where it is while the peers are slow as well.
# Timeline, windows of 1 s: 30 of them make a past that outlasts the test; then
# each command takes 600 ms more: slow 1.5 s to 2.5 s later, redirected at once;
# quick again: 2.5 s to 3.5 s and the hold-down of 1 s later home.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

LAB_HOSTS=(a b c)
LAB_LUN_CONFIG="failback_after = 1s
failback_jitter = 100ms
switch_limit = 0
probe_interval = 100ms
probe_timeout = 5s
io_timeout = 5s
slow_window = 1s
slow_factor = 3
slow_least = 200ms
redirect_when_slow = on"

# Every host reaches the SAN through a relay of its own, on its loopback.
for h in "${LAB_HOSTS[@]}"; do
    LAB_DEVICE[$h]="iscsi://127.0.0.1:3261,127.0.0.1:3262/$LAB_IQN/1"
done
declare -A RELAY

relay_up() {
    local in=$LAB_DIR/relay-$1.in fd
    mkfifo "$in"
    exec {fd}<>"$in"
    RELAY[$1]=$fd
    nsenter "--net=/run/netns/$1" -- python3 "$LAB_LIB/delay.py" \
        127.0.0.1:3261 "$(address san san1):3260" \
        127.0.0.1:3262 "$(address san san2):3260" \
        <"$in" >"$LAB_DIR/log/relay-$1" 2>&1 &
    LAB_PID[relay-$1]=$!
    within 5000 logged "relay-$1" '^ready' ||
        lab_failed "the relay of $1 does not start"
}

# delay HOST MS
delay() {
    echo "$2" >&"${RELAY[$1]}"
}

verdict_is() { # PROCESS VERDICT
    [[ $(field "$1" '(.lun_status // .luns[0].lun_status).verdict.state') == \
        "$2" ]]
}

# has_past PROCESS - a condition
has_past() {
    field "$1" '.uptime_s > 30 and
        (.lun_status // .luns[0].lun_status).probe.usual_us != null' |
        grep -qx true
}

lab_up
for h in "${LAB_HOSTS[@]}"; do relay_up "$h"; done
start_hosts
for h in "${LAB_HOSTS[@]}"; do
    within 60000 has_past "plugin-$h-vm" || lab_failed "no past on $h"
    within 60000 has_past "proxy-$h" || lab_failed "no past at the proxy of $h"
done
load_start a --rate 50

delay a 600
expect_route a "redirected *" 15000
is "why" "$(field plugin-a-vm .route.reason | grep -cE '^probes take [0-9]{3,} ms')" 1
check "it is slow, not lost" verdict_is plugin-a-vm slow
check "so says its proxy" within 10000 verdict_is proxy-a slow
slow_peer() {
    [[ $(field "plugin-$1-vm" ".peers[] | select(.host == \"$2\") | .slow") == \
        true ]]
}
check "and the peers know" within 5000 slow_peer b a
check "people are told" grep -q 'verdict  *slow for' \
    <(ctl a status "$LAB_LUN")
expect_io a 2000

delay a 0
expect_route a local 20000
check "its verdict is good again" verdict_is plugin-a-vm good

# All of them: there is nowhere to go that would be better.
for h in "${LAB_HOSTS[@]}"; do delay "$h" 600; done
for h in b c; do
    check "$h is slow" within 15000 verdict_is "proxy-$h" slow
    check "and a knows" within 5000 slow_peer a "$h"
done
# a may have left before it knew, through one that was not slow yet, or is just
# about to
settled() {
    [[ $(route_of a) == local || $(route_of a) == redirected* ]]
}
check "a is on a route" within 10000 settled
changes=$(field plugin-a-vm .route.changes)
was_slow_for() {
    field plugin-a-vm '.lun_status.verdict | .state == "slow" and
        .since_s > 4' | grep -qx true
}
check "a has been slow for much longer than its hold-down" \
    within 30000 was_slow_for
is "and its route has not moved" "$(field plugin-a-vm .route.changes)" "$changes"
expect_io a 2000

for h in "${LAB_HOSTS[@]}"; do delay "$h" 0; done
expect_route a local 30000
expect_no_error a
lab_end
