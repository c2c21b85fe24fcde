#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A plugin and a proxy that get no file descriptor any more.
#
# Goal: what runs goes on; a lost route is moved to the connections that stand
# by; nobody spins or floods the log; all is as before once there are
# descriptors again.
# Timeline: a's plugin has none left; both paths reset; <= 2 s a is redirected;
# descriptors: <= 10 s home.  b's proxy has none left: a, that it serves, sees
# nothing; c, that must go elsewhere, does.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/faults.sh
. "$(dirname "$0")/../lib/faults.sh"
lab_enter "$@"

lab_up
start_hosts
peers_stand_by a b c
load_start a
blockcheck_start a

load_mark a plugin
no_descriptors plugin-a-vm
reset_path a 1
reset_path a 2
# its status cannot be asked: accept() has no descriptor either
expect_io a 3000
idle plugin-a-vm 700
heal_paths a
nap 1000
expect_io a 3000
descriptors_back plugin-a-vm
check "it answers again" within 5000 status plugin-a-vm
check "it was redirected" logged plugin-a-vm "-> redirected via"
expect_route a local 15000
check "paths log in again" within 10000 paths_are a "good good"
expect_stall a plugin 500
peers_stand_by a b c

load_mark a proxy
check "a is sent to b" ctl a redirect disk b
expect_route a "redirected b" 5000
no_descriptors proxy-b
before=$(wc -l <"$LAB_DIR/log/proxy-b")
expect_io a 3000
black_hole c # its parked connections to b are used: what replaces them waits
expect_route c "redirected *" 8000
check_fails "b takes no new connection" "" in_host c timeout 2 \
    nbdinfo --size "$(proxy_uri c b)"
idle proxy-b 700
told=$(($(wc -l <"$LAB_DIR/log/proxy-b") - before))
check "it says why" logged proxy-b "Too many open files"
at_most "and does not flood its log" "$told" 12 lines
expect_io a 3000
is "a stays" "$(route_of a)" "redirected b"
descriptors_back proxy-b
check "b answers again" within 5000 status proxy-b
check "b would serve c" within 10000 peer_serves c b
heal_paths c
expect_route c local 15000
check "a comes home" ctl a return disk
expect_route a local 5000
expect_stall a proxy 500
blockcheck_ok a
expect_no_error a
lab_end
