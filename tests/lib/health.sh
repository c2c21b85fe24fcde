# SPDX-License-Identifier: BSD-3-Clause
# Hosts with made-up processes and a real detour-health each.
# shellcheck shell=bash

# shellcheck source=tests/lib/tap.sh
. "$(dirname "${BASH_SOURCE[0]}")/tap.sh"

# Not in $TMPDIR, which an unprivileged detour-health may not enter.
dir=$(mktemp -d /tmp/detour-health.XXXXXX) || exit 1
chmod 755 "$dir"
# An address of our own, of the millions that loopback has.
net=127.$((1 + $$ % 250)).$((1 + $$ / 250 % 250))
port=10811
declare -A PIDS

finish() {
    local pid
    for pid in "${PIDS[@]}"; do
        kill -CONT "$pid"
        kill "$pid"
        wait "$pid"
    done 2>/dev/null
    rm -rf "$dir"
}
trap finish EXIT

# ---- processes that say what they are told to --------------------------------

lun_status() { # VERDICT
    cat <<END
{"id": "naa.1", "size": 1048576, "block_size": 512,
 "verdict": {"state": "$1", "reason": "because", "since_s": 12.0},
 "map": {"name": "vmstore", "queueing": false, "age_s": 0.5},
 "paths": [{"name": "sdb", "state": "good", "since_s": 75.2, "error": null},
           {"name": "sdc", "state": "good", "since_s": 8000, "error": null}],
 "probe": {"age_s": 0.1, "us": 300, "stuck": 0, "recent_us": 310,
           "usual_us": 290},
 "registration": {"state": "registered", "number": 1, "key": "de70"},
 "inflight": 3, "orphans": 0, "orphan_reads": 0}
END
}

# says HOST NAME JSON - what a process answers from now on.
says() {
    mkdir -p "$dir/$1/$2"
    printf '%s' "$3" >"$dir/$1/$2/status.json.new"
    mv "$dir/$1/$2/status.json.new" "$dir/$1/$2/status.json"
}

# PEER_STATE, VERDICT and FENCES_FAILED change what plugin and proxy say.
# plugin HOST LUN CLIENT PHASE [SINCE [HELD_MS [REASON [PEER]]]]
plugin() {
    says "$1" "plugin-$2-$3" "$(
        cat <<END
{"process": "plugin", "pid": 1, "version": "x", "host": "$1", "lun": "$2",
 "client": "$3", "uptime_s": 90000.5,
 "route": {"phase": "$4", "since_s": ${5:-3.2}, "reason": "${7:-a reason}",
           "peer": ${8:-null}, "generation": 5, "manual": false,
           "latched": false, "hour_switches": 2,
           "suspects": [], "changes": 4, "redirected_s": 60.5,
           "entered": [{"phase": "local", "cause": "home", "count": 4}],
           "hold_down_s": 10},
 "latency": [{"route": "local", "operation": "write", "bytes": 4096,
              "sum_us": 700, "count": 3, "buckets": [[100, 1], [250, 3]]}],
 "queue": {"held": 2, "oldest_held_ms": ${6:-0}, "inflight": 3,
           "oldest_inflight_ms": 4, "longest_stall_ms": 20, "answered": 7},
 "peers": [{"host": "h2", "state": "${PEER_STATE:-ready}", "reason": "",
            "load": 1, "serving": false,
            "failed": {"certificate": 4, "refused": 0, "unreachable": 9,
                       "files": 0},
            "links": [{"address": "10.0.0.2", "state": "parked", "error": "",
                       "rtt_us": 250}]}],
 "lun_status": $(lun_status "${VERDICT:-good}")}
END
    )"
}

proxy() { # HOST [STATE]
    says "$1" proxy "$(
        cat <<END
{"process": "proxy", "pid": 2, "version": "x", "host": "$1", "uptime_s": 5,
 "draining": false, "connections": 3, "refused": 0, "tls_errors": 0,
 "luns": [{"lun": "vm1", "state": "${2:-serving}", "reason": "as it is",
           "since_s": 4, "draining": false, "fences": 1,
           "fences_failed": ${FENCES_FAILED:-0},
           "lun_status": $(lun_status good),
           "sessions":
             [{"host": "h2", "client": "a", "generation": 4, "age_s": 60,
               "unfinished_writes": 0, "connections":
                 [{"address": "10.0.0.2", "age_s": 59, "inflight": 2,
                   "requests": 77, "bytes_read": 4096, "bytes_written": 512},
                  {"address": "10.0.1.2", "age_s": 59, "inflight": 0,
                   "requests": 3, "bytes_read": 4096, "bytes_written": 0}]},
              {"host": "h2", "client": null, "generation": null, "age_s": 1,
               "unfinished_writes": 0, "connections": []},
              {"host": "h2", "client": null, "generation": null, "age_s": 1,
               "unfinished_writes": 0, "connections": []}],
           "clients":
             [{"host": "h2", "client": "a", "requests": 80,
               "bytes_read": 8192, "bytes_written": 512},
              {"host": "h2", "client": null, "requests": 0,
               "bytes_read": 0, "bytes_written": 0}]}]}
END
    )"
}

# start HOST NAME - the process begins to listen.
start() {
    local line
    rm -f "$dir/ready"
    mkfifo "$dir/ready"
    "$BUILD/tests/tools/fake-control" "$dir/$1/run/$2.sock" "$dir/$1/$2" \
        ${GROUP:+"$GROUP"} >"$dir/ready" &
    PIDS[$1/$2]=$!
    read -r -t 10 line <"$dir/ready" && [[ $line == ready ]]
}

# stop HOST NAME - as a service manager does; kill_it: as the kernel does.
stop() {
    local rc
    kill "${PIDS[$1/$2]}"
    wait "${PIDS[$1/$2]}" 2>/dev/null
    rc=$?
    unset "PIDS[$1/$2]"
    # a sanitizer's complaint ends in one
    ((rc == 0)) || fail "$2 of $1 ends well" "exit status $rc
$(tail -40 "$dir/$1/log")"
}

kill_it() {
    kill -KILL "${PIDS[$1/$2]}"
    wait "${PIDS[$1/$2]}" 2>/dev/null
    unset "PIDS[$1/$2]"
}

# ---- hosts -------------------------------------------------------------------

# host HOST [LINE] - its configuration; LINE is added to [health].
host() {
    mkdir -p "$dir/$1/run"
    cat >"$dir/$1/detour.conf" <<END
[cluster]
name = lab
number = 7
[host h1]
number = 1
address = $net.1
[host h2]
number = 2
address = $net.2
[self]
host = $1
rundir = $dir/$1/run
ca = $dir/pki/ca-cert.pem
cert = $dir/pki/hosts/$1-cert.pem
key = $dir/pki/hosts/$1-key.pem
crl = $dir/pki/ca-crl.pem
[health]
port = $port
$2
[lun vm1]
device = /dev/mapper/vm1
[lun vm2]
device = /dev/mapper/vm2
hosts = h2
END
}

pki_up() {
    local h
    "$TOP/deploy/detour-pki" -d "$dir/pki" init lab || return 1
    for h in h1 h2; do
        "$TOP/deploy/detour-pki" -d "$dir/pki" issue "$h" \
            "$net.${h#h}" || return 1
    done
    chmod 755 "$dir/pki" "$dir/pki/hosts"
}

# start_health HOST [COMMAND...] - started by COMMAND; waits for its answer.
start_health() {
    local host=$1
    shift
    "$@" "$dir/detour-health" --config "$dir/$host/detour.conf" \
        >>"$dir/$host/log" 2>&1 &
    PIDS[$host/health]=$!
}

# url HOST PATH
url() {
    echo "${SCHEME:-http}://$net.${1#h}:$port$2"
}

# get HOST PATH [CURL-OPTION...] - status in $status, the body in $dir/body,
# the head in $dir/head.
get() {
    local host=$1 path=$2
    shift 2
    status=$(curl --silent --max-time 15 --dump-header "$dir/head" \
        --output "$dir/body" --write-out '%{http_code}' "$@" \
        "$(url "$host" "$path")")
    [[ $status != 000 ]]
}

# within MS COMMAND... - waits until it succeeds; what it took is in $took.
within() {
    local limit=$1 begin now
    shift
    begin=$(date +%s%3N)
    until "$@"; do
        now=$(date +%s%3N)
        took=$((now - begin))
        ((took < limit)) || return 1
        sleep 0.02
    done
    took=$(($(date +%s%3N) - begin))
}

# holds JQ-FILTER - of the last body.
holds() {
    jq -e "$1" "$dir/body" >/dev/null
}

# in_time NAME MS HOST PATH JQ-FILTER - one line of TAP.
in_time() {
    local name=$1 limit=$2 host=$3 path=$4 filter=$5
    # shellcheck disable=SC2317 # called by within
    get_holds() { get "$host" "$path" && holds "$filter"; }
    if within "$limit" get_holds; then
        pass "$name ($took of $limit ms)"
    else
        fail "$name" "not within $limit ms: $filter"$'\n'"$(head -c 2000 "$dir/body")"
    fi
}
