# SPDX-License-Identifier: BSD-3-Clause
# What is no throughput: TLS by itself, switches, memory, idleness.
# shellcheck shell=bash

# shellcheck disable=SC2034,SC2086,SC2153,SC2154 # names shared between these files; words
TIMES=${BENCH_TIMES:-20}
IDLE_S=${BENCH_IDLE_S:-20}

# note BENCH JSON - one result.
note() {
    jq -c --arg bench "$1" '{bench: $bench} + .' <<<"$2" >>"$RAW" ||
        lab_failed "no result of $1: $2"
}

# ---- TLS ---------------------------------------------------------------------------

# The jobs whose cost TLS bounds, each beside what TLS alone takes.
measure_tls() {
    local key=$LAB_DIR/pki/hosts/b round
    server_up detour
    server_up detour-peer
    for ((round = 1; round <= ROUNDS; round++)); do
        cell tls 1m-read-4x8 read:1m:8:4 detour-peer "$round"
        note tls "$(tls_alone stream "$round" 4 0 65536)"
        cell tls 4k-read-qd1 randread:4k:1:1 detour-peer "$round"
        cell tls 4k-read-qd1 randread:4k:1:1 detour "$round"
        note tls "$(tls_alone ping "$round" 1 28 4128)"
    done
    servers_down
}

tls_alone() { # JOB ROUND CONNECTIONS REQUEST ANSWER
    "$BUILD/tests/bench/tls-stream" "$key-cert.pem" "$key-key.pem" "$RUN_MS" \
        "$3" "$4" "$5" |
        jq -c --arg job "$1" --argjson round "$2" '{job: $job, round: $round} + .'
}

# ---- switches ----------------------------------------------------------------------

# gap EVENT DEPTH HOST WINDOW - close the window and note its longest stall.
gap() {
    load_mark "$3" "after-$4"
    note switch "$(printf '{"event": "%s", "depth": %d, "gap_ms": %d, "machine_ms": %d}' \
        "$1" "$2" "$(load_stall "$3" "$4")" "$(load_value "$3" "$4" machine_ms)")"
}

become() { # HOST ROUTE
    within 15000 route_is "$1" "$2" || lab_failed "$1 does not become $2"
}

# A switch is over for the client when it got answers again.
answered_again() { # HOST
    local ticks
    ticks=$(grep -c '^tick' "$LAB_DIR/load-$1.out")
    within 5000 load_flows "$1" $((ticks + 1)) || lab_failed "no I/O after it"
}

# What the machine and the SAN do to the client by themselves, in as long a
# window as a switch has: what a gap is to be compared with.
undisturbed() { # DEPTH N
    load_mark a "nothing-$1-$2"
    nap 300
    answered_again a
    gap nothing "$1" a "nothing-$1-$2"
}

planned() { # DEPTH N
    load_mark a "redirect-$1-$2"
    post plugin-a-vm /redirect >/dev/null || lab_failed "cannot redirect"
    become a "redirected *"
    answered_again a
    gap "planned redirect" "$1" a "redirect-$1-$2"
    load_mark a "return-$1-$2"
    post plugin-a-vm /return >/dev/null || lab_failed "cannot return"
    become a local
    answered_again a
    gap "planned return" "$1" a "return-$1-$2"
}

broken() { # EVENT DEPTH N COMMAND...
    local event=$1 window=${1// /-}-$2-$3 depth=$2
    shift 3
    load_mark a "$window"
    "$@"
    become a "redirected *"
    answered_again a
    gap "$event" "$depth" a "$window"
    load_mark a "home-$window"
    heal_paths a
    become a local
    answered_again a
    gap "home after $event" "$depth" a "home-$window"
    within 5000 paths_are a "good good" || lab_failed "a path stays away"
}

reset_both() {
    reset_path a 1
    reset_path a 2
}

switch_events() {
    local depth n
    LAB_MODE=namespaces
    LAB_DEVICE=()
    LAB_LUN_CONFIG=$'failback_after = 100ms\nfailback_max = 100ms\nfailback_jitter = 0ms\nswitch_limit = 0'
    rm -rf "$LAB_DIR/pki" # certificates hold addresses
    lab_up
    start_hosts
    for depth in 1 32; do
        load_start a --depth "$depth" --interval 100
        for ((n = 1; n <= TIMES; n++)); do
            undisturbed "$depth" "$n"
            planned "$depth" "$n"
            broken "path errors" "$depth" "$n" reset_both
            ((n % 4)) || broken "paths swallow all" "$depth" "$n" black_hole a
        done
        load_stop a || lab_failed "the load saw an error"
    done
    note switch "$(timeline)"
    servers_down
    rm -rf "$LAB_DIR/pki"
}

# What a switch consists of, as measured: detection, a round trip, the fence.
timeline() {
    field plugin-a-vm '{event: "round trip",
        rtt_us: ([.peers[].links[].rtt_us // empty] | min)}'
}

# What a user has without us: QEMU waits for its server to come back, and
# somebody starts it again on the other host; here at once.
switch_by_hand() {
    local n sock=$LAB_RUN/by-hand
    LAB_MODE=loopback
    lun_on_disk
    hand_server "$sock"
    mkdir -p "$LAB_RUN/c"
    rm -f "$(socket c)"
    lab_start hand-front - qemu-storage-daemon \
        --blockdev "driver=nbd,node-name=d,server.type=unix,server.path=$sock,reconnect-delay=30" \
        --nbd-server "addr.type=unix,addr.path=$(socket c)" \
        --export type=nbd,id=e,node-name=d,name=,writable=on
    within 5000 nbdinfo --size "$(uri c)" || lab_failed "QEMU does not serve"
    load_start c --depth 1 --interval 100
    for ((n = 1; n <= TIMES; n++)); do
        load_mark c "hand-$n"
        lab_kill hand KILL
        hand_server "$sock"
        answered_again c
        gap "by hand, QEMU" 1 c "hand-$n"
    done
    load_stop c
    servers_down
}

hand_server() {
    rm -f "$1"
    lab_start hand - qemu-nbd --persistent --shared=8 --format=raw \
        --cache=none --aio=native --socket="$1" "$DISK"
    within 5000 test -S "$1" || lab_failed "qemu-nbd does not start"
}

# ---- memory and idleness -------------------------------------------------------------

pss_kib() {
    awk '/^Pss:/ { print $2 }' "/proc/$1/smaps_rollup"
}

# process_ns PID... - CPU time of these processes, to the nanosecond: the clock
# that clock_getcpuclockid(3) would give.
process_ns() {
    python3 -c 'import sys, time
print(sum(time.clock_gettime_ns((~int(p)) << 3 | 2) for p in sys.argv[1:]))' "$@"
}

measure_cost() {
    memory_when_busy
    idle_with 1
    idle_with 16
    idle_with 64
}

memory_when_busy() {
    local proxy plugin idle busy=0 now conns pid
    server_up detour-peer
    proxy=${LAB_PID[proxy-b]}
    plugin=${LAB_PID[plugin-c-vm]}
    idle=$(pss_kib "$proxy")
    note cost "$(printf '{"what": "plugin idle", "kib": %d}' "$(pss_kib "$plugin")")"
    note cost "$(printf '{"what": "proxy idle", "kib": %d}' "$idle")"
    RUN_MS=3000 run_fio detour-peer randrw:4k:32:8 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        now=$(pss_kib "$proxy")
        ((now <= busy)) || busy=$now
        nap 200
    done
    wait "$pid" || lab_failed "fio fails"
    conns=$(field proxy-b '[.luns[].sessions[].connections[]] | length')
    note cost "$(printf '{"what": "proxy busy", "kib": %d, "connections": %d, "each_kib": %d}' \
        "$busy" "$conns" $(((busy - idle) / (conns > 0 ? conns : 1))))"
    note cost "$(printf '{"what": "plugin after 256 in flight", "kib": %d}' \
        "$(pss_kib "$plugin")")"
    servers_down
}

# idle_with N - one host of two: a proxy, and a plugin for each of N LUNs; the
# other host has only its proxy, which is not counted.
idle_with() {
    local n=$1 i h pids=() before after one=$LAB_LUN LAB_HOSTS=(a b)
    for h in a b; do
        host_config "$h"
        for ((i = 1; i < n; i++)); do
            truncate -s 16M "$LAB_DIR/idle$i"
            printf '\n[lun idle%d]\ndevice = %s\nfence = drain\n' "$i" \
                "$LAB_DIR/idle$i"
        done >>"$LAB_DIR/$h/detour.conf"
    done
    start_proxy b
    start_proxy a
    pids+=("${LAB_PID[proxy-a]}")
    for ((i = 0; i < n; i++)); do
        ((i == 0)) || LAB_LUN=idle$i
        start_plugin a "vm$i"
        pids+=("${LAB_PID[plugin-a-vm$i]}")
    done
    LAB_LUN=$one
    nap 3000 # the beginning is over
    before=$(process_ns "${pids[@]}")
    nap $((IDLE_S * 1000))
    after=$(process_ns "${pids[@]}")
    note cost "$(printf '{"what": "idle", "luns": %d, "percent_each": %s}' "$n" \
        "$(awk -v ns=$((after - before)) -v n="$n" -v s="$IDLE_S" \
            'BEGIN { printf "%.4f", ns / 1e9 / s / n * 100 }')")"
    servers_down
    host_config a
}
