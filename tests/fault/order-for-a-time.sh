#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A redirection by hand for a time, ended by the plugin itself.
#
# Goal: nobody has to be there at its end; status tells how much is left; a
# return by hand, or a restart of the plugin, ends it before.
# Timeline: redirect --for 3s at 0: redirected within 1 s, local again between
# 3 s and 5 s.  The rest at once.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

left_s() {
    field plugin-a-vm '.route.manual_left_s'
}

lab_up
start_hosts
load_start a --rate 200
within 5000 peer_serves a b || lab_failed "b does not stand by"

begin=$(now_ms)
check "an order for 3 s" ctl a --for 3s redirect "$LAB_LUN" b
expect_route a "redirected b" 1000
check "the time left is told" \
    jq -en "$(left_s) > 0 and $(left_s) <= 3"
check "to people, too" grep -Eq 'by hand for another [0-2]\.[0-9]s' \
    <(ctl a status "$LAB_LUN")
expect_route a local 5000
check "it was not ended too early" test $(($(now_ms) - begin)) -ge 3000
is "why" "$(field plugin-a-vm .route.reason)" "the time of the order is over"
is "nothing is left" "$(left_s)" null

check "an order for an hour" ctl a --for 1h redirect "$LAB_LUN"
expect_route a "redirected *" 1000
check "return ends it" ctl a return "$LAB_LUN"
expect_route a local 5000
expect_no_error a

check "an order for an hour again" ctl a --for 1h redirect "$LAB_LUN"
expect_route a "redirected *" 1000
kill_plugin a
start_plugin a
expect_route a local 10000
is "a restart has forgotten it" "$(left_s)" null
check_fails "an order for no time is refused" 'for_s.*1 to 86400' \
    curl -s --unix-socket "$(control_socket plugin-a-vm)" \
    -d '{"for_s": 0}' --fail-with-body http://localhost/redirect
lab_end
