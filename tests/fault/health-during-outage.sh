#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# detour-health on every host, while paths are lost, hang and come back.
#
# Goal: what it tells is true and in time, and it answers at once while every
# path of every host hangs; that it is down changes nothing.
# Timeline: a black-holed: <= 5 s a warns, and b knows; all black-holed: <= 5 s
# a fails, answers in < 100 ms; a's plugin killed: <= 3 s told; healed: all pass.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

# ask HOST PATH [CURL-OPTION...] - a host's endpoint, asked from there.
ask() {
    local host=$1 path=$2
    shift 2
    in_host "$host" curl --silent --max-time 5 "$@" \
        "http://$(address "$host" net1):10811$path"
}

# says HOST PATH JQ-FILTER
says() {
    ask "$1" "$2" | jq -e "$3"
}

# told NAME MS HOST PATH JQ-FILTER - one line of TAP.
told() {
    local begin
    begin=$(now_ms)
    if within "$2" says "$3" "$4" "$5"; then
        pass "$1 (after $(($(now_ms) - begin)) of $2 ms)"
    else
        fail "$1" "$(ask "$3" "$4" | jq -c "${6:-.luns, .output}")"
    fi
}

# answer_ms HOST PATH - the median of eleven.
answer_ms() {
    for _ in {1..11}; do
        ask "$1" "$2" --output /dev/null --write-out '%{time_total}\n'
    done | sort -n | awk 'NR == 6 { printf "%.0f\n", $1 * 1000 }'
}

# status_ms HOST - of detourctl, likewise; its own start included.
status_ms() {
    local begin
    for _ in {1..11}; do
        begin=$(now_ms)
        ctl "$1" status >/dev/null
        echo $(($(now_ms) - begin))
    done | sort -n | sed -n 6p
}

# metrics HOST - promtool's opinion.
metrics() {
    ask "$1" /metrics | promtool check metrics
}

lab_up
start_hosts
for h in "${LAB_HOSTS[@]}"; do
    lab_start "health-$h" "$h" "$BUILD/detour-health" \
        --config "$LAB_DIR/$h/detour.conf"
done
load_start a --rate 200
expect_io a 5000
for h in "${LAB_HOSTS[@]}"; do
    told "all is well on $h" 15000 "$h" /health '.status == "pass"' \
        '[.checks[][] | select(.status != "pass")]'
    told "$h sees everybody" 10000 "$h" /cluster \
        '[.luns[0].hosts[].state] == ["local", "local", "local"]'
done

black_hole a
told "a takes a detour, and warns" 5000 a /health '.status == "warn" and
    ([.checks["disk:route"][] | .observedValue] == ["redirected"])'
told "b knows" 5000 b /cluster '.luns[0].hosts.a.state == "redirected"'
if command -v promtool >/dev/null; then
    check "promtool likes the metrics" metrics a
else
    pass "promtool likes the metrics # SKIP prometheus is not installed"
fi
has_latency() {
    ask a /metrics | grep -q "^detour_request_duration_seconds_count{.*$1"
}
check "redirected requests are counted" within 3000 \
    has_latency 'route="redirected"'

for h in b c; do black_hole "$h"; done
expect_route a queueing 8000
told "a waits, and fails" 5000 a /health '.status == "fail"'
for path in /health /metrics /; do
    at_most "$path while every path hangs" "$(answer_ms a $path)" 100
done
# a sanitizer's runtime takes its time to start
at_most "detourctl status while every path hangs" "$(status_ms a)" \
    "$((${SANITIZE:+3}00 + 100))"
lab_kill health-b TERM
told "a host without its endpoint is unknown" 3000 a /cluster \
    '.luns[0].hosts.b.state == "unknown"'

for h in "${LAB_HOSTS[@]}"; do heal_paths "$h"; done
expect_io a 10000
expect_route b local 15000
told "a passes again" 20000 a /health '.status == "pass"' \
    '[.checks[][] | select(.status != "pass")]'
kill -STOP "${LAB_PID[proxy-a]}"
told "a proxy that hangs is told" 3000 a /health \
    '.checks["proxy:process"][0].status == "fail"'
kill -CONT "${LAB_PID[proxy-a]}"
expect_no_error a
kill_plugin a
told "a plugin that dies is told" 3000 a /health \
    '.checks["disk:process"][0].output | test("has died")'
for h in a c; do
    stop "health-$h" # a failure is told
done
lab_end
