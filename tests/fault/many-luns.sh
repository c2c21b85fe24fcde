#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# 64 LUNs on one host, and everything that tells of them is asked 50 times a
# second.
#
# Goal: answers within 100 ms (their median), none fails, no process grows, and VMs notice
# nothing.
# Timeline: POLL_SECONDS (10) of detour-health, the proxy and a plugin at once,
# to warm up, and as long again to be measured; then all 66 processes, each at
# POLL_ALL (1) a second.
#
# As with stalls, a loaded machine is forgiven LAB_SLACK (4) times the limit.
#
#   LAB_SLACK=1 POLL_SECONDS=60 tests/fault/many-luns.sh    for docs/status.md

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"
[[ ! ${SANITIZE-} ]] ||
    skip_all "time and memory would be those of the sanitizer's runtime"

LUNS=64
limit=$((100 * ${LAB_SLACK:-4}))
LAB_HOSTS=(a b)
LAB_FENCE=drain
LAB_LUN=lun1

# more_luns HOST - the others, behind the first one.
more_luns() {
    local i
    for ((i = 2; i <= LUNS; i++)); do
        printf '\n[lun lun%s]\ndevice = %s\nfence = drain\n' \
            "$i" "$LAB_DIR/lun$i"
    done >>"$LAB_DIR/$1/detour.conf"
}

# start_luns - a plugin for each but the first, which the load has.
start_luns() {
    local i
    for ((i = 2; i <= LUNS; i++)); do
        lab_start "plugin$i" a nbdkit -f -U "$LAB_RUN/a/lun$i.nbd" \
            "$BUILD/nbdkit-detour-plugin.so" "lun=lun$i" client=vm \
            config="$LAB_DIR/a/detour.conf"
    done
}

# everything HOST - a condition: detour-health there finds that all is well,
# and hears of all LUNs.
everything() {
    in_host a curl -s --max-time 5 "http://$(address a net1):10811/status" |
        jq -e ".status == \"pass\" and (.luns | length) == $LUNS and
               ([.luns[].state] | all(. == \"local\"))"
}

# rss NAME - KiB
rss() {
    awk '$1 == "VmRSS:" { print $2 }' "/proc/${LAB_PID[$1]}/status"
}

# cpu_ms NAME - it has used
cpu_ms() {
    awk '{ sub(/.*\) /, ""); print ($12 + $13) * 10 }' \
        "/proc/${LAB_PID[$1]}/stat"
}

# polls RATE SECONDS TARGET... - its words in $LAB_DIR/polls
polls() {
    in_host a "$BUILD/tests/tools/polls" "$@" >"$LAB_DIR/polls" &&
        diag "$(cat "$LAB_DIR/polls")"
}

# told TARGET KEY
told() {
    awk -v target="$1" -v key="$2" '$1 == target {
        for (i = 2; i < NF; i += 2) if ($i == key) print $(i + 1) }' \
        "$LAB_DIR/polls"
}

for ((i = 1; i <= LUNS; i++)); do truncate -s 256M "$LAB_DIR/lun$i"; done
for h in "${LAB_HOSTS[@]}"; do LAB_DEVICE[$h]=$LAB_DIR/lun1; done
{ net_up && pki_up; } || lab_failed "no cables or no certificates"
sanitizer_wrap
for h in "${LAB_HOSTS[@]}"; do
    host_config "$h"
    more_luns "$h"
    start_proxy "$h"
done
start_plugin a
start_luns
lab_start health-a a "$BUILD/detour-health" --config "$LAB_DIR/a/detour.conf"
within 120000 everything || lab_failed "64 LUNs do not become ready"
load_start a --rate 200
expect_io a 5000

health=$(address a net1):10811
targets=("$health:/metrics"
    "unix:$LAB_RUN/a/proxy.sock:/status"
    "unix:$LAB_RUN/a/plugin-lun1-vm.sock:/status")
load_mark a warm
polls 50 "${POLL_SECONDS:-10}" "${targets[@]}" || lab_failed "polls fails"
declare -A before
for name in health-a proxy-a plugin-a-vm plugin2; do
    before[$name]=$(rss "$name")
    before[$name-cpu]=$(cpu_ms "$name")
done
load_mark a polled
polls 50 "${POLL_SECONDS:-10}" "${targets[@]}" || lab_failed "polls fails"
load_mark a alone
for name in health-a proxy-a plugin-a-vm plugin2; do
    diag "$name used $(($(cpu_ms "$name") - before[$name-cpu])) ms of a CPU"
done
for target in "${targets[@]}"; do
    is "$target: no answer was missing" "$(told "$target" failed)" 0
    at_most "$target: median" "$(($(told "$target" median_us) / 1000))" "$limit"
done
# what malloc keeps varies a little; a leak of an answer would be 50 MiB and more
for name in health-a proxy-a plugin-a-vm plugin2; do
    at_most "growth of $name, which has ${before[$name]} KiB" \
        "$(($(rss "$name") - before[$name]))" 2048 KiB
done
expect_stall a polled 100

all=("unix:$LAB_RUN/a/proxy.sock:/status" "$health:/metrics"
    "$health:/status" "$health:/health")
for ((i = 1; i <= LUNS; i++)); do
    all+=("unix:$LAB_RUN/a/plugin-lun$i-vm.sock:/status")
done
load_mark a all
polls "${POLL_ALL:-1}" "${POLL_SECONDS:-10}" "${all[@]}" ||
    lab_failed "polls fails"
load_mark a end
is "all processes at once: no answer was missing" \
    "$(awk '{ n += $5 } END { print n + 0 }' "$LAB_DIR/polls")" 0
at_most "the worst median of them" \
    "$(awk '$7 > n { n = $7 } END { printf "%.0f\n", n / 1000 }' \
        "$LAB_DIR/polls")" "$limit"
expect_stall a all 100
expect_no_error a
for ((i = 2; i <= LUNS; i++)); do lab_kill "plugin$i" TERM; done
stop health-a # a failure is told
lab_end
