# SPDX-License-Identifier: BSD-3-Clause
# A host of the lab: its configuration, certificates, plugin, proxy, status.
# shellcheck shell=bash

LAB_LUN=disk
# What a script may set before lab_up or before host_config:
declare -A LAB_DEVICE # by host, when it is not LUN 1 of the SAN
LAB_FENCE=            # pr, or drain; default by LAB_MODE
# Timers and limits of the LUN; short, for tests do not wait for the default,
# and break things more often than a route would put up with.
LAB_LUN_CONFIG=${LAB_LUN_CONFIG-"failback_after = 1s
failback_jitter = 100ms
switch_limit = 0"}

# ---- certificates --------------------------------------------------------------

# pki ARGUMENTS... - deploy/detour-pki on the lab's own certificates.
pki() {
    "$LAB_TOP/deploy/detour-pki" -d "$LAB_DIR/pki" "$@" \
        >>"$LAB_DIR/log/pki" 2>&1
}

pki_up() {
    local h
    pki init lab || return 1
    for h in "${LAB_HOSTS[@]}"; do
        pki issue "$h" "$(address "$h" net1)" "$(address "$h" net2)" || return 1
    done
}

# ---- configuration ---------------------------------------------------------------

# host_config HOST - write its detour.conf anew.
host_config() {
    local host=$1 dir=$LAB_DIR/$1 h fence=${LAB_FENCE:-pr}
    [[ $LAB_MODE != loopback ]] || fence=drain
    # shellcheck disable=SC2153 # two names that look alike
    mkdir -p "$dir/state" "$LAB_RUN/$host"
    {
        printf '[cluster]\nname = lab\nnumber = 77\n'
        for h in "${LAB_HOSTS[@]}"; do
            printf '\n[host %s]\nnumber = %s\naddress = %s, %s\nport = %s\n' \
                "$h" "$(host_number "$h")" "$(address "$h" net1)" \
                "$(address "$h" net2)" "$(lab_port)"
        done
        cat <<EOF

[self]
host = $host
rundir = $LAB_RUN/$host
statedir = $dir/state
ca = ${LAB_CA:-$LAB_DIR/pki/ca-cert.pem}
cert = ${LAB_CERT:-$LAB_DIR/pki/hosts/$host-cert.pem}
key = ${LAB_KEY:-$LAB_DIR/pki/hosts/$host-key.pem}
crl = ${LAB_CRL:-$LAB_DIR/pki/ca-crl.pem}

[lun $LAB_LUN]
device = ${LAB_DEVICE[$host]-$(lun_device 1)}
fence = $fence
$LAB_LUN_CONFIG
EOF
    } >"$dir/detour.conf"
}

# lab_port - where proxies listen: in the namespaces all ports are ours; on the
# machine's own loopback one that depends on the process.
lab_port() {
    if [[ $LAB_MODE == namespaces ]]; then
        echo 10810
    else
        echo $((20000 + $$ % 10000))
    fi
}

# ---- programs ----------------------------------------------------------------------

# launch_proxy HOST - in the background, nobody waits for it.
launch_proxy() {
    lab_start "proxy-$1" "$1" "$BUILD/detour-proxy" \
        --config "$LAB_DIR/$1/detour.conf"
}

# start_proxy HOST - and wait until it answers on its control socket.
start_proxy() {
    launch_proxy "$1"
    within 5000 status "proxy-$1" || lab_failed "proxy of $1 does not start"
}

# launch_plugin HOST [CLIENT [NBDKIT-OPTION...]] - nobody waits for it.
launch_plugin() {
    local host=$1 client=${2-vm} sock
    sock=$(socket "$host" "$client")
    shift $(($# < 2 ? $# : 2))
    rm -f "$sock"
    lab_start "plugin-$host-$client" "$host" "${LAB_WRAP[@]}" \
        nbdkit -f -U "$sock" "$@" "$BUILD/nbdkit-detour-plugin.so" \
        lun="$LAB_LUN" config="$LAB_DIR/$host/detour.conf" client="$client"
}

# start_plugin HOST [CLIENT [NBDKIT-OPTION...]] - and wait until it listens.
start_plugin() {
    launch_plugin "$@"
    { within 5000 test -S "$(socket "$@")" &&
        within 5000 status "plugin-$1-${2-vm}"; } ||
        lab_failed "plugin of $1 does not start"
}

# A sanitizer's runtime must come first in a program that loads the plugin.
LAB_WRAP=()
sanitizer_wrap() {
    [[ ${SANITIZE-} ]] || return 0
    # Under a sanitizer glibc's locale lock is out of balance at exit, and
    # p11-kit's destructor waits for it for ever (nbdkit's own nbd plugin does
    # too).
    gcc -shared -fPIC -x c -o "$LAB_DIR/locale.so" - <<'EOF'
void freelocale(void *l) { (void)l; }
EOF
    case $SANITIZE in
    *address*)
        LAB_WRAP=(env
            "LD_PRELOAD=$(gcc -print-file-name=libasan.so) $LAB_DIR/locale.so"
            ASAN_OPTIONS=detect_leaks=0)
        ;;
    *thread*)
        # its shadow memory does not go with much address randomisation
        LAB_WRAP=(setarch -R env
            "LD_PRELOAD=$(gcc -print-file-name=libtsan.so) $LAB_DIR/locale.so")
        ;;
    esac
}

# socket HOST [CLIENT], uri HOST [CLIENT] - where the host's VMs find the LUN.
socket() {
    echo "$LAB_RUN/$1/${2-vm}.nbd"
}

uri() {
    echo "nbd+unix:///?socket=$(socket "$@")"
}

# proxy_uri FROM TO [NETWORK] - TO's proxy as a plain NBD client on FROM sees it.
proxy_uri() {
    printf 'nbds://%s:%s/%s?tls-certificates=%s\n' \
        "$(address "$2" "${3-net1}")" "$(lab_port)" "$LAB_LUN" \
        "$(tls_dir "$1")"
}

# tls_dir NAME [PKI] - a folder with the file names that GnuTLS clients want:
# the certificate of NAME from that folder of detour-pki, our own authority.
tls_dir() {
    local dir=$LAB_DIR/tls-$1 from=${2-$LAB_DIR/pki}
    mkdir -p "$dir"
    ln -sf "$LAB_DIR/pki/ca-cert.pem" "$dir/ca-cert.pem"
    ln -sf "$from/hosts/$1-cert.pem" "$dir/client-cert.pem"
    ln -sf "$from/hosts/$1-key.pem" "$dir/client-key.pem"
    echo "$dir"
}

# nbd_python SCRIPT [ARGUMENTS...] - Python with libnbd's module, as nbdsh has.
nbd_python() {
    local p
    for p in python3 /usr/bin/python3; do
        if "$p" -c 'import nbd' 2>/dev/null; then
            "$p" -c "$@"
            return
        fi
    done
    echo "no Python with the nbd module" >&2
    return 1
}

# stop NAME - SIGTERM, and SIGKILL when it has not ended after 5 s (a failure).
stop() {
    local pid=${LAB_PID[$1]-} rc
    [[ -n $pid ]] || return 0
    kill -TERM "$pid" 2>/dev/null
    if ! within 5000 gone "$1"; then
        fail "$1 ends on SIGTERM" "still there after 5 s"
        lab_kill "$1" KILL
        return 1
    fi
    wait "$pid" 2>/dev/null
    rc=$?
    unset "LAB_PID[$1]"
    ((rc == 0)) || fail "$1 ends well" "exit status $rc"
}

stop_proxy() {
    stop "proxy-$1"
}

stop_plugin() {
    stop "plugin-$1-${2-vm}"
}

kill_proxy() {
    lab_kill "proxy-$1" KILL
}

kill_plugin() {
    lab_kill "plugin-$1-${2-vm}" KILL
}

# ---- status ------------------------------------------------------------------------

# control_socket NAME - of proxy-HOST or plugin-HOST-CLIENT.
control_socket() {
    local rest=${1#*-}
    case $1 in
    proxy-*) echo "$LAB_RUN/$rest/proxy.sock" ;;
    plugin-*) echo "$LAB_RUN/${rest%%-*}/plugin-$LAB_LUN-${rest#*-}.sock" ;;
    esac
}

# status NAME - the program's /status, JSON.
status() {
    curl -sf --max-time 2 --unix-socket "$(control_socket "$1")" \
        http://localhost/status
}

# field NAME JQ - one value of it.
field() {
    status "$1" | jq -r "$2"
}

# post NAME PATH [JSON] - an order to it.
post() {
    curl -sf --max-time 5 --unix-socket "$(control_socket "$1")" -X POST \
        -H 'Content-Type: application/json' -d "${3-{\}}" "http://localhost$2"
}

# ctl HOST ARGUMENTS... - detourctl on that host.
ctl() {
    local host=$1
    shift
    "$BUILD/detourctl" --rundir "$LAB_RUN/$host" "$@"
}

# route_of HOST [CLIENT] - local, opening, redirected, returning or queueing,
# and the peer behind a redirected one.
route_of() {
    field "plugin-$1-${2-vm}" \
        '.route | .phase + (if .phase == "redirected" then " " + .peer
                            else "" end)'
}

# route_is HOST PATTERN [CLIENT] - a condition for within.
route_is() {
    # shellcheck disable=SC2053 # it is a pattern
    [[ $(route_of "$1" "${3-vm}") == $2 ]]
}

# expect_route HOST PATTERN MS - a check that tells how long it took.
expect_route() {
    local begin
    begin=$(now_ms)
    if within "$3" route_is "$1" "$2"; then
        pass "$1 is $2 (after $(($(now_ms) - begin)) of $3 ms)"
    else
        fail "$1 is $2 within $3 ms" "it is $(route_of "$1")"$'\n'"$(
            field "plugin-$1-vm" '.route.reason, .peers'
        )"
    fi
}

# paths_are HOST STATES - a condition: of both paths in order, "good failed".
paths_are() {
    [[ $(field "plugin-$1-vm" '[.lun_status.paths[].state] | join(" ")') == \
        "$2" ]]
}

# peer_says HOST PEER REGEX - a condition: why the peer would not serve.
peer_says() {
    field "plugin-$1-vm" ".peers[] | select(.host == \"$2\") |
        .reason, .links[].error" | grep -Eqi -- "$3"
}

# peer_serves HOST PEER - a condition: HOST could be redirected there.
peer_serves() {
    [[ $(field "plugin-$1-vm" \
        ".peers[] | select(.host == \"$2\") | .state") == ready ]]
}

# peers_stand_by HOST PEER... - checks: HOST could be redirected to each.
peers_stand_by() {
    local host=$1 peer
    shift
    for peer; do
        check "$peer stands by for $host" within 10000 peer_serves "$host" "$peer"
    done
}

# peers_serve HOST - a condition: HOST could be redirected to any other one.
peers_serve() {
    [[ $(field "plugin-$1-vm" '.peers | length > 0 and
        all(.[]; .state == "ready")') == true ]]
}

# proxy_is HOST STATE - a condition for within: the LUN's state at its proxy.
proxy_is() {
    # shellcheck disable=SC2053 # it is a pattern
    [[ $(field "proxy-$1" '.luns[0].state') == $2 ]]
}

# logged NAME REGEX - did it say that?
logged() {
    grep -Eq -- "$2" "$LAB_DIR/log/$1"
}

# start_hosts - a proxy and a plugin on every host, all of them local, serving,
# and known as such to all others: whoever loses its paths now, or is ordered to
# redirect, has somebody to go to.
start_hosts() {
    local h
    for h in "${LAB_HOSTS[@]}"; do
        start_proxy "$h"
        start_plugin "$h"
    done
    for h in "${LAB_HOSTS[@]}"; do
        { within 10000 route_is "$h" local &&
            within 10000 proxy_is "$h" serving; } ||
            lab_failed "host $h does not become ready"
    done
    for h in "${LAB_HOSTS[@]}"; do
        within 10000 peers_serve "$h" ||
            lab_failed "not all peers of $h stand by"
    done
}
