#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The wall clock jumps by an hour, forwards and backwards, everywhere.
#
# Goal: no timer of ours follows it: not a connection is lost, no route moves
# by itself, a detour begins and ends as fast as ever, probes go on.
# Timeline: 0 + 1 h while a is local: nothing; a loses its paths: <= 1 s
# redirected; - 1 h: nothing; healed: <= 3 s home.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"
[[ ! ${SANITIZE-} ]] || skip_all "a sanitizer must be preloaded alone"

step=$LAB_DIR/step
echo 0 >"$step"
lab_up
# for all that is started from here on
export STEPPED_CLOCK=$step
plain_start() {
    LD_PRELOAD=$BUILD/tests/tools/steppedclock.so "$@"
}
plain_start start_hosts
peers_stand_by a b c
load_start a
blockcheck_start a

# changes - of all routes, and connections that were lost, since the start.
changes() {
    local h
    for h in "${LAB_HOSTS[@]}"; do
        field "plugin-$h-vm" .route.changes
    done
    grep -hc 'link .*: lost' "$LAB_DIR"/log/plugin-*
}

# jump SECONDS NAME - checks: it is seen by them, and changes nothing.
jump() {
    local before
    before=$(changes)
    load_mark a "$2"
    echo "$1" >"$step"
    expect_io a 3000
    nap 1500
    expect_io a 3000
    expect_stall a "$2" 150
    is "$2: no route moved, no connection was lost" "$(changes)" "$before"
}

# The tool does what it says, and plugins and proxies have it.
stepped_now() {
    LD_PRELOAD=$BUILD/tests/tools/steppedclock.so date +%s
}
now=$(date +%s)
echo 3600 >"$step"
check "the tool steps a clock" test $(($(stepped_now) - now)) -ge 3600
echo 0 >"$step"
for name in plugin-a-vm proxy-b; do
    check "that of $name too" \
        grep -q steppedclock "/proc/${LAB_PID[$name]}/maps"
done

jump 3600 forwards
load_mark a cut
black_hole a
expect_route a "redirected *" 3000
expect_io a 3000
expect_stall a cut 1500
jump -3600 backwards
jump 3600 forwards-redirected
load_mark a home
heal_paths a
expect_route a local 8000
check "both paths are good" within 5000 paths_are a "good good"
expect_stall a home 100
blockcheck_ok a
expect_no_error a
lab_end
