# SPDX-License-Identifier: BSD-3-Clause
# The words for status of hosts.sh, for guests: with tests/tools/ask.c alone.
# shellcheck shell=bash
#
# curl and jq take a second to start where every instruction is translated.

status() {
    ask "$(control_socket "$1")" GET /status
}

post() {
    ask "$(control_socket "$1")" POST "$2" "${3-{\}}"
}

# value NAME FIELD... - of its status, each on a line, as tests/tools/ask.c has
# them.
value() {
    local name=$1
    shift
    ask "$(control_socket "$name")" GET /status "$@"
}

route_of() {
    local phase peer
    { read -r phase && read -r peer; } < <(
        value "plugin-$1-${2-vm}" route.phase route.peer
    )
    [[ $phase != redirected ]] || phase="$phase $peer"
    echo "$phase"
}

expect_route() {
    local begin
    begin=$(now_ms)
    if within "$3" route_is "$1" "$2"; then
        pass "$1 is $2 (after $(($(now_ms) - begin)) of $3 ms)"
    else
        fail "$1 is $2 within $3 ms" "it is $(route_of "$1")"$'\n'"$(
            value "plugin-$1-vm" route.reason peers
        )"
    fi
}

paths_are() {
    [[ $(value "plugin-$1-vm" 'lun_status.paths.*.state') == "$2" ]]
}

peers_serve() {
    [[ $(value "plugin-$1-vm" 'peers.*.state') =~ ^ready(\ ready)*$ ]]
}

proxy_is() {
    # shellcheck disable=SC2053 # it is a pattern
    [[ $(value "proxy-$1" luns.0.state) == $2 ]]
}
