#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The proxy, and a plugin, start before the LUN exists.
#
# Goal: they wait and say so; when the LUN appears they serve, by themselves.
# Timeline: 0 started, not serving; the LUN appears; <= 5 s serving.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

lab_up
tgt --op delete --mode logicalunit --tid 1 --lun 1
start_proxy b
start_plugin a
check "the proxy does not serve" proxy_is b "[!s]*"
check_fails "a client is told so" "." \
    in_host a timeout 5 nbdinfo --size "$(proxy_uri a b)"
check "the plugin is not local" route_is a "[!l]*"
san_lun 1
check "the proxy serves by itself" within 8000 proxy_is b serving
check "a client is served" \
    in_host a timeout 5 nbdinfo --size "$(proxy_uri a b)"
expect_route a local 8000
load_start a
expect_io a 3000
expect_no_error a
lab_end
