#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A plugin and a proxy that get no memory any more.
#
# Goal: neither dies nor spins; the VMs wait or go on; all is as before once
# there is memory again.  What has no memory may be refused: that costs a
# connection, never the program.
# Timeline: b's proxy, which serves a, may have no more address space; a goes
# on, through b or through c; memory: <= 10 s b would serve again.  a's plugin
# has none: its paths reset; memory: <= 15 s its I/O goes on.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/faults.sh
. "$(dirname "$0")/../lib/faults.sh"
lab_enter "$@"
[[ ! ${SANITIZE-} ]] || skip_all "a sanitizer ends what has no memory"

lab_up
start_hosts
peers_stand_by a b c
load_start a
blockcheck_start a

check "a is sent to b" ctl a redirect disk b
expect_route a "redirected b" 5000
asked=()
no_memory proxy-b
black_hole c
# More than what it has put aside is enough for.
for i in {1..12}; do
    in_host c timeout 3 nbdinfo --size "$(proxy_uri c b)" >/dev/null \
        2>"$LAB_DIR/asked-$i" &
    asked+=($!)
done
refused=0
for pid in "${asked[@]}"; do
    wait "$pid" || refused=$((refused + 1))
done
check "b had no memory for some of twelve connections ($refused)" \
    test "$refused" -ge 1
check "and says so" logged proxy-b "memory|no thread|Resource temporarily"
expect_io a 5000
idle proxy-b 700
memory_back proxy-b
check "b lives and answers" within 5000 status proxy-b
check "b would serve a" within 15000 proxy_is b serving
expect_route c "redirected *" 15000
heal_paths c
expect_route c local 15000
check "a comes home" ctl a return disk
expect_route a local 5000

no_memory plugin-a-vm
reset_path a 1
reset_path a 2
nap 3000
check "the plugin lives" running plugin-a-vm
idle plugin-a-vm 700
heal_paths a
memory_back plugin-a-vm
check "it answers" within 5000 status plugin-a-vm
expect_io a 15000
expect_route a local 30000
check "both paths are good" within 10000 paths_are a "good good"
blockcheck_ok a
expect_no_error a
lab_end
