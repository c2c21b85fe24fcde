#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Sixteen hosts on one LUN; four of them lose the SAN at once.
#
# Goal: nobody's requests fail; the four, neighbours in the configuration, are
# spread over the peers that are left, each on another one; they come home one
# after the other.  What a host keeps open to its peers does not grow with the
# number of hosts.
# Timeline: all are local and idle, for COST_S (10): what this costs is printed
# (docs/scale.md); light loads on all; h1 to h4 lose both paths, silently: <= 1.5 s
# stall, also of those who had one another as their standby peers; they get them
# back: home after 1 to 3 s, by failback_jitter not together.
#
# MANY (16, at least 8) is the number of hosts; with MANY=4 only the cost is told.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

MANY=${MANY:-16}
COST_S=${COST_S:-10}
LOST=(h1 h2 h3 h4)
LAB_REGION=8
LAB_LUN_SIZE=$((MANY * LAB_REGION + 16))M
LAB_LUN_CONFIG="failback_after = 1s
failback_jitter = 2s"
mapfile -t LAB_HOSTS < <(seq -f 'h%.0f' "$MANY")

# ---- what it costs -----------------------------------------------------------

# cpu NAME - ms of both modes, so far
cpu() {
    local stat
    read -r stat <"/proc/${LAB_PID[$1]}/stat"
    stat=${stat##*) }
    # shellcheck disable=SC2086 # words
    set -- $stat
    echo $(((${12} + ${13}) * 1000 / $(getconf CLK_TCK)))
}

# memory NAME - KiB of its own, and its share of what others map too
memory() {
    awk '$1 == "Pss:" { print $2 }' "/proc/${LAB_PID[$1]}/smaps_rollup"
}

threads() {
    awk '$1 == "Threads:" { print $2 }' "/proc/${LAB_PID[$1]}/status"
}

# connections NAME HOST WHICH - over TCP; WHICH as ss filters them
connections() {
    in_host "$2" ss -Htnp state established "$3" |
        grep -c "pid=${LAB_PID[$1]},"
}

# mean COMMAND KIND [ARGUMENT...] - over all hosts, and the most
mean() {
    local h command=$1 kind=$2
    shift 2
    for h in "${LAB_HOSTS[@]}"; do
        "$command" "$kind-$h${SUFFIX[$kind]-}" "$h" "$@"
    done | awk '{ s += $1; if ($1 > m) m = $1 }
        END { printf "%.1f %d\n", s / NR, m }'
}
declare -A SUFFIX=([plugin]=-vm)

# cost - for the table of docs/scale.md
cost() {
    local kind h name used
    declare -A before
    for kind in plugin proxy; do
        for h in "${LAB_HOSTS[@]}"; do
            name=$kind-$h${SUFFIX[$kind]-}
            before[$name]=$(cpu "$name")
        done
    done
    nap $((COST_S * 1000))
    diag "$MANY hosts, idle for $COST_S s; of each process the mean, and the most:"
    for kind in plugin proxy; do
        used=$(for h in "${LAB_HOSTS[@]}"; do
            name=$kind-$h${SUFFIX[$kind]-}
            echo $(($(cpu "$name") - before[$name]))
        done | awk -v s="$COST_S" '{ sum += $1 }
            END { printf "%.1f", sum / NR / s }')
        diag "$kind: CPU $used ms/s, memory $(mean memory "$kind") KiB," \
            "threads $(mean threads "$kind")," \
            "to the SAN $(mean connections "$kind" "dport = :3260")," \
            "to peers $(mean connections "$kind" "dport = :$(lab_port)")," \
            "from peers $(mean connections "$kind" "sport = :$(lab_port)")"
    done
    diag "tgtd: CPU $(cpu tgtd) ms since it began"
}

most_to_peers() {
    mean connections plugin "dport = :$(lab_port)" | cut -d' ' -f2
}

# ---- what happens --------------------------------------------------------------

all_lost() {
    local h
    for h in "${LOST[@]}"; do
        route_is "$h" "$1" || return 1
    done
}

# note_homecomings - fills HOME_MS by host, as each comes home
declare -A HOME_MS
note_homecomings() {
    local h
    for h in "${LOST[@]}"; do
        [[ -n ${HOME_MS[$h]-} ]] || ! route_is "$h" local ||
            HOME_MS[$h]=$(now_ms)
    done
    ((${#HOME_MS[@]} == ${#LOST[@]}))
}

lab_up
for h in "${LAB_HOSTS[@]}"; do
    launch_proxy "$h"
    launch_plugin "$h"
done
for h in "${LAB_HOSTS[@]}"; do
    { within 60000 route_is "$h" local && within 30000 proxy_is "$h" serving; } ||
        lab_failed "host $h does not become ready"
done
stands_by() {
    (($(field "plugin-$1-vm" '[.peers[] | select(.state == "ready")] | length') \
        >= 2))
}
for h in "${LAB_HOSTS[@]}"; do
    check "two peers stand by for $h" within 30000 stands_by "$h"
done
cost
at_most "connections of a plugin to its peers" "$(most_to_peers)" 4 ""

if ((MANY < 8)); then
    lab_end
    exit
fi

for h in "${LAB_HOSTS[@]}"; do
    load_start "$h" --rate 20 --depth 4
done
for h in "${LOST[@]}"; do
    load_mark "$h" lost
done
for h in "${LOST[@]}"; do
    black_hole "$h"
done
check "all four take a detour" within 20000 all_lost "redirected *"
for h in "${LOST[@]}"; do
    expect_stall "$h" lost 1500
done
for h in "${LOST[@]}"; do
    route_of "$h"
done | sort | uniq -c | sort -rn >"$LAB_DIR/spread"
diag "$(cat "$LAB_DIR/spread")"
at_most "hosts on one peer" "$(awk 'NR == 1 { print $1 }' "$LAB_DIR/spread")" 1 ""
at_most "connections of a plugin to its peers, redirected" \
    "$(most_to_peers)" 8 ""

for h in "${LOST[@]}"; do
    heal_paths "$h"
done
if within 30000 note_homecomings; then
    pass "all four come home"
else
    fail "all four come home" "${!HOME_MS[*]}"
fi
spread=$(printf '%s\n' "${HOME_MS[@]}" | sort -n | awk 'NR == 1 { a = $1 }
    { b = $1 } END { print b - a }')
check "not together, but over $spread ms" test "$spread" -ge 100
for h in "${LAB_HOSTS[@]}"; do
    load_stop "$h" # not inside of check: a subshell cannot wait for it
    is "no error and no mismatch on $h" $? 0
done
for h in "${LOST[@]}"; do
    check "what $h wrote is right when read on h$MANY" load_check "$h" "h$MANY"
done
lab_end
