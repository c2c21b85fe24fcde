#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Faults at random: paths, networks, single packets, processes, file
# descriptors, orders and the whole SAN.
#
# Goal: no error, and nothing read that cannot be, whatever fails beside what:
# three hosts write ranges of their own, and two of them one range together.
# Timeline: rounds of about 7 s.  In each, 6 to 12 faults, which overlap; each
# is undone after at most 3 s.  Then all is healed: <= 20 s later every host is on
# its own paths again and the next round begins, until RANDOM_SECONDS (45) are
# over.  Mostly it takes one second; a command that another host's LUN RESET
# dropped without a word costs 10 s (ISCSI_KEEPER_MS).  At least one change of a
# route in 3 s.
#
# SEED (random) chooses the faults, their order and their times.  FIRST_ROUND
# (1) begins with a later round, to see one again; with a smaller HEALED_MS
# (20000) one that was slow fails, and tells the logs.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
# shellcheck source=tests/lib/faults.sh
. "$(dirname "$0")/../lib/faults.sh"
lab_enter "$@"

SEED=${SEED:-$RANDOM}
RANDOM_SECONDS=${RANDOM_SECONDS:-45}
HEALED_MS=${HEALED_MS:-20000}
# Short, so that routes change often.
LAB_LUN_CONFIG="probe_interval = 100ms
probe_timeout = 500ms
io_timeout = 600ms
link_timeout = 500ms
open_timeout = 2s
standby_interval = 300ms
failback_after = 300ms
failback_max = 600ms
failback_jitter = 100ms
switch_limit = 0"

# ---- chance ----------------------------------------------------------------------

# choose N - sets REPLY to 0...N-1: the next of a sequence that the seed and the
# round decide alone.  SplitMix64; a shift here keeps the sign, hence the masks,
# and the constants are negative because numbers have one.
chance=0
choose() {
    local z
    chance=$((chance - 0x61c8864680b583eb))
    z=$(((chance ^ (chance >> 30 & 0x3ffffffff)) * -0x40a7b892e31b1a47))
    z=$(((z ^ (z >> 27 & 0x1fffffffff)) * -0x6b2fb644ecceee15))
    z=$((z ^ (z >> 31 & 0x1ffffffff)))
    REPLY=$(((z >> 1 & 0x7fffffffffffffff) % $1))
}

# one_of WORD... - sets REPLY to one of them.
one_of() {
    choose $#
    shift "$REPLY"
    REPLY=$1
}

# ---- the plan of a round -----------------------------------------------------------

events=()        # "MS COMMAND..."
declare -A freed # by what a fault needs for itself: when that is whole again

# fault FROM MS BEGIN END THING... - not before FROM, when all things are whole;
# it lasts for MS.
fault() {
    local from=$1 ms=$2 begin=$3 end=$4 thing
    shift 4
    for thing; do
        ((${freed[$thing]-0} <= from)) || from=${freed[$thing]}
    done
    for thing; do
        freed[$thing]=$((from + ms))
    done
    events+=("$from $begin" "$((from + ms)) $end")
}

# plan_fault FROM - one of all kinds; often one that moves a route.
plan_fault() {
    local kind host n how ms
    one_of paths paths paths path path network networks kill_proxy \
        stop_proxy kill_plugin kill_both redirect redirect redirect_to \
        drain san lossy one_way big descriptors
    kind=$REPLY
    one_of "${LAB_HOSTS[@]}" && host=$REPLY
    one_of 1 2 && n=$REPLY
    one_of cut_path reset_path && how=$REPLY
    choose 2700 && ms=$((300 + REPLY))
    case $kind in
    paths)
        fault "$1" "$ms" "paths $how $host" "heal_paths $host" \
            "$host-path1" "$host-path2"
        ;;
    path)
        fault "$1" "$ms" "$how $host $n" "heal_path $host $n" "$host-path$n"
        ;;
    network)
        fault "$1" "$ms" "cut_network $host $n" "heal_network $host $n" \
            "$host-net$n"
        ;;
    networks)
        fault "$1" "$ms" "networks cut $host" "networks heal $host" \
            "$host-net1" "$host-net2"
        ;;
    kill_proxy)
        fault "$1" "$ms" "kill_proxy $host" "launch_proxy $host" "$host-proxy"
        ;;
    stop_proxy)
        fault "$1" "$ms" "send STOP proxy-$host" "send CONT proxy-$host" \
            "$host-proxy"
        ;;
    kill_plugin)
        fault "$1" "$((ms / 4))" "lose_plugin $host" "launch_plugin $host" \
            "$host-plugin"
        ;;
    kill_both)
        fault "$1" "$((ms / 4))" "lose_both $host" "launch_both $host" \
            "$host-plugin" "$host-proxy"
        ;;
    redirect)
        fault "$1" "$ms" "order $host redirect" "order $host return" \
            "$host-order"
        ;;
    redirect_to)
        other_than "$host"
        fault "$1" "$ms" "order $host redirect $REPLY" "order $host return" \
            "$host-order"
        ;;
    drain)
        fault "$1" "$ms" "order $host drain" "order $host undrain" \
            "$host-drain"
        ;;
    san)
        fault "$1" "$((ms / 2))" freeze_san thaw_san san
        ;;
    lossy | one_way | big)
        plan_filter "$1" "$ms" "$kind" "$host" "$n"
        ;;
    descriptors)
        one_of proxy plugin
        fault "$1" "$ms" "descriptors none $REPLY $host" \
            "descriptors some $REPLY $host" "$host-$REPLY"
        ;;
    esac
}

# plan_filter FROM MS KIND HOST N - a host has one table of filters, for one
# fault at a time.
plan_filter() {
    local from=$1 ms=$2 kind=$3 host=$4 n=$5 begin thing network
    one_of path net && thing=$REPLY
    network=${thing/path/san}$n
    case $kind in
    lossy)
        choose 20
        begin="lose_some $host $network $((REPLY + 1))"
        ;;
    one_way)
        one_of in out
        begin="lose_all $host $REPLY $network"
        ;;
    big) begin="lose_big $host $network 1000" ;;
    esac
    fault "$from" "$ms" "$begin" "filter_off $host" "$host-filter" \
        "$host-$thing$n"
}

other_than() {
    local h others=()
    for h in "${LAB_HOSTS[@]}"; do
        [[ $h == "$1" ]] || others+=("$h")
    done
    one_of "${others[@]}"
}

# plan_round ROUND - into events, in the order of their times.
plan_round() {
    local from=0 faults
    chance=$((SEED << 32 ^ $1))
    events=()
    freed=()
    choose 7 && faults=$((6 + REPLY))
    for ((; faults > 0; faults--)); do
        choose 900 && from=$((from + REPLY))
        plan_fault "$from"
    done
    mapfile -t events < <(printf '%s\n' "${events[@]}" | sort -sn -k 1,1)
}

# ---- what the plan commands ----------------------------------------------------------

paths() {
    "$1" "$2" 1 && "$1" "$2" 2
}

networks() {
    "$1_network" "$2" 1 && "$1_network" "$2" 2
}

send() {
    kill "-$1" "${LAB_PID[$2]}"
}

# descriptors none|some proxy|plugin HOST - one that is just starting is left
# alone: without any it would end, and that is not meant.
descriptors() {
    local name=proxy-$3
    [[ $2 == proxy ]] || name=plugin-$3-vm
    if [[ $1 == some ]]; then
        descriptors_back "$name"
    elif status "$name" >/dev/null; then
        no_descriptors "$name"
    fi
}

# A plugin that is killed takes its count of changes along.
changes_lost=0
lose_plugin() {
    changes_lost=$((changes_lost + $(changes_of "$1")))
    kill_plugin "$1"
}

lose_both() {
    kill_proxy "$1"
    lose_plugin "$1"
}

launch_both() {
    launch_proxy "$1"
    launch_plugin "$1"
}

# order HOST WORD [PEER] - given, not waited for: whom it is meant for may be
# dead or stopped.
order() {
    local words=("$2" "$LAB_LUN" ${3+"$3"})
    ctl "$1" "${words[@]}" >>"$LAB_DIR/log/orders" 2>&1 &
}

# changes_of HOST - how often its route changed since its plugin began.
changes_of() {
    local n
    n=$(field "plugin-$1-vm" .route.changes)
    echo "${n:-0}"
}

changes() {
    local h sum=$changes_lost
    for h in "${LAB_HOSTS[@]}"; do
        sum=$((sum + $(changes_of "$h")))
    done
    echo "$sum"
}

# ---- a round -------------------------------------------------------------------------

# run_round ROUND - all that is planned, each at its time.
run_round() {
    local begin event at words wait
    plan_round "$1"
    begin=$(now_ms)
    for event in "${events[@]}"; do
        read -ra words <<<"$event"
        at=$((begin + words[0]))
        wait=$((at - $(now_ms)))
        ((wait <= 0)) || nap "$wait" # each fault has its time
        echo "$(date +%T.%3N) round $1: $event" >>"$LAB_DIR/log/faults"
        "${words[@]:1}" >>"$LAB_DIR/log/faults" 2>&1
    done
}

# An order that came while its process was dead or stopped is given again.
take_orders_back() {
    local h
    for h in "${LAB_HOSTS[@]}"; do
        within 5000 status "proxy-$h"
        within 5000 status "plugin-$h-vm"
        ctl "$h" return "$LAB_LUN" >>"$LAB_DIR/log/orders" 2>&1
        ctl "$h" undrain >>"$LAB_DIR/log/orders" 2>&1
    done
}

all_is_well() {
    local h
    for h in "${LAB_HOSTS[@]}"; do
        { route_is "$h" local && proxy_is "$h" serving; } || return 1
    done
}

loads_run() {
    local l
    for l in "${loads[@]}"; do
        running "blockcheck-$l" || return 1
    done
}

# expect_calm ROUND - a check: all is well soon after the last fault has ended.
expect_calm() {
    local begin
    begin=$(now_ms)
    take_orders_back
    if within "$HEALED_MS" all_is_well && loads_run; then
        pass "round $1: ${#events[@]} events, all is well after $((
            $(now_ms) - begin)) of $HEALED_MS ms"
    else
        fail "round $1: all is well within $HEALED_MS ms" "$(
            for h in "${LAB_HOSTS[@]}"; do
                status "plugin-$h-vm"
                status "proxy-$h"
            done
            tail -n 3 "$LAB_DIR"/log/blockcheck-*
        )"
        return 1
    fi
}

# ---- the run -------------------------------------------------------------------------

diag "SEED=$SEED RANDOM_SECONDS=$RANDOM_SECONDS"
lab_up
start_hosts
loads=(a b c a-shared b-shared)
for l in "${loads[@]}"; do
    shared=()
    [[ $l != *-shared ]] || shared=(--range 230m+256k --story 0)
    blockcheck_start "$l" --reconnect 60 --rate 100 --threads 2 \
        --max-stall 40000 "${shared[@]}"
done
lost_before=$(changes)

begin=$(now_ms)
for ((round = ${FIRST_ROUND:-1}; ; round++)); do
    run_round "$round"
    expect_calm "$round" || break
    (($(now_ms) - begin < RANDOM_SECONDS * 1000)) || break
done
seconds=$((($(now_ms) - begin) / 1000))

routes=$(($(changes) - lost_before))
if ((routes >= seconds / 3)); then
    pass "routes changed $routes times in $seconds s"
else
    fail "routes change at least $((seconds / 3)) times" "$routes in $seconds s"
fi
blockcheck_together a-shared b-shared
for l in a b c; do
    blockcheck_ok "$l"
done
((TAP_FAILED == 0)) ||
    diag "to see it again: make soak T=$RANDOM_SECONDS SEED=$SEED"
lab_end
