# SPDX-License-Identifier: BSD-3-Clause
# Ghosts: a write is made late on purpose, a newer one is acknowledged, the
# late one is let go.
# shellcheck shell=bash
#
# Each case runs twice.  With programs that leave the rule out (make rules,
# common/rules.h) the old data must end on top, else the case proves nothing;
# with the real programs it must not, GHOST_ROUNDS times.
#
# What is made late, and where, is said to tests/tools/holdwrites.c inside
# tgtd: at=request, before the target has looked at the command, or at=medium,
# after it has passed all checks.  at=medium leaves a target only one honest
# way: to end its LUN RESET after the write.  So a newer write is waited for
# GHOST_PATIENCE ms, and if it is not answered by then, because somebody waits
# for that very reset, the old one is let go first.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "${BASH_SOURCE[0]}")/lab.sh"

GHOST_ROUNDS=${GHOST_ROUNDS:-2}
GHOST_PATIENCE=2000
GHOST_REAL=$BUILD
GHOST_PROXIES=(b c) # who runs one
GHOST_PLUGINS=(a)
GHOST_STEP=65536 # bytes from the block of one round to that of the next
# Short, since most rounds wait for a path or a link to be missed.
# shellcheck disable=SC2034 # for hosts.sh
LAB_LUN_CONFIG="probe_interval = 150ms
probe_timeout = 600ms
io_timeout = 600ms
link_timeout = 600ms
open_timeout = 1500ms
switch_limit = 0
failback_after = 200ms
failback_max = 200ms
failback_jitter = 0"

GHOST_NO=0   # of the round; makes names unique
GHOST_AT=0   # bytes; the block of this round
GHOST_GOT=   # what a round found there, and
GHOST_WANT=N # what it wants: N new, O old
GHOST_OLD=O  # what makes it corrupt
GHOST_WHY=   # a round did not come about
declare -A GHOST_VM

# ghost_up - a lab whose target can be told to hold commands.
ghost_up() {
    [[ -x $GHOST_REAL/rules/detour-proxy ]] ||
        skip_all "no programs that leave rules out: make rules"
    mkdir "$LAB_DIR/hold"
    # shellcheck disable=SC2034 # for lab.sh
    LAB_TGTD=(env "HOLD_DIR=$LAB_DIR/hold"
        "LD_PRELOAD=$GHOST_REAL/tests/tools/holdwrites.so" tgtd)
    lab_up
    # One host's resets are lost on order: silence_resets.
    local h
    for h in "${LAB_HOSTS[@]}"; do
        in_host "$h" nft -f - <<'NFT' || lab_failed "no nft"
table ip lab { chain out { type filter hook output priority 0; }; }
NFT
    done
}

# ---- holding -------------------------------------------------------------------

# addresses HOST - on the SAN's networks, as holdwrites wants them.
addresses() {
    echo "$(address "$1" san1),$(address "$1" san2)"
}

event() {
    grep -q -- "^$1" "$LAB_DIR/hold/events"
}

# hold NAME WORDS... - from now on; NAME gets the round's number.
hold() {
    local name=$1.$GHOST_NO
    echo "hold $name ${*:2}" >"$LAB_DIR/hold/orders"
    within 5000 event "ready $name" || lab_failed "tgtd takes no orders"
}

# hold_write NAME POINT [HOST] [WORDS...] - writes to this round's block.
hold_write() {
    local from=()
    [[ ! ${3-} ]] || from=("from=$(addresses "$3")")
    hold "$1" "at=$2" op=write "${from[@]}" "offset=$GHOST_AT" count=4096 \
        "${@:4}"
}

# caught NAME - a step of a round: something is held.
caught() {
    within 5000 event "held $1.$GHOST_NO " || not_so "nothing is held as $1"
}

# release NAME - let all go, and wait until tgtd has gone on with it.
release() {
    local name=$1.$GHOST_NO
    event "released $name" && return
    echo "release $name" >"$LAB_DIR/hold/orders"
    within 5000 event "released $name" || lab_failed "tgtd takes no orders"
}

# ---- a VM ------------------------------------------------------------------------

# vm_open HOST - a VM connects to the host's plugin.
vm_open() {
    local name=vm-$1 fifo=$LAB_DIR/vm-$1.in fd
    vm_close "$1"
    rm -f "$fifo"
    mkfifo "$fifo"
    exec {fd}<>"$fifo"
    : >"$LAB_DIR/$name.out"
    "$GHOST_REAL/tests/tools/vmio" "$(uri "$1")" <"$fifo" \
        >>"$LAB_DIR/$name.out" 2>>"$LAB_DIR/log/$name" &
    LAB_PID[$name]=$!
    GHOST_VM[$1]=$fd
    within 10000 grep -q '^ready' "$LAB_DIR/$name.out" ||
        not_so "the VM of $1 cannot connect"
}

vm_close() {
    local fd=${GHOST_VM[$1]-}
    [[ $fd ]] || return 0
    lab_kill "vm-$1" KILL
    exec {fd}>&-
    unset "GHOST_VM[$1]"
}

# vm HOST VERB TAG [OFFSET-IN-ROUND [CHAR]] - an order to it.
vm() {
    echo "$2 $3.$GHOST_NO $((GHOST_AT + ${4:-0})) ${5-}" >&"${GHOST_VM[$1]}"
}

vm_answer() {
    grep "^$2.$GHOST_NO " "$LAB_DIR/vm-$1.out"
}

# answered HOST TAG [MS] - a step of a round: it was, and well.
answered() {
    within "${3:-15000}" vm_answer "$1" "$2" || {
        not_so "$2 is not answered"
        return 1
    }
    [[ $(vm_answer "$1" "$2") == *" ok"* ]] ||
        not_so "$2: $(vm_answer "$1" "$2")"
}

# content HOST [OFFSET-IN-ROUND]... - what the VM of HOST finds there.
content() {
    local offset tag
    GHOST_GOT=
    for offset in "${@:2}"; do
        tag=read$offset
        vm "$1" read "$tag" "$offset"
        answered "$1" "$tag" || return 1
        GHOST_GOT+=$(vm_answer "$1" "$tag" | sed 's/.* //')
    done
}

# not_so WHY - the round does not count.
not_so() {
    GHOST_WHY=$1
    return 1
}

# overtake HOST NAME - the old write of HOST, tag "old", is on a new way while
# its first copy is held as NAME: once it is acknowledged, write anew, and let
# the first copy go when that is acknowledged too.
overtake() {
    if within "$GHOST_PATIENCE" vm_answer "$1" old; then
        answered "$1" old && vm "$1" write new 0 N && answered "$1" new &&
            release "$2" && settle
    else
        release "$2" && answered "$1" old && vm "$1" write new 0 N &&
            answered "$1" new && settle
    fi
}

# late_writes - a story for round: four writes, and the paths take turns, so that
# there are two on each; the target looks at neither of those on one path until
# newer ones were acknowledged.  Wants GHOST_WANT=NNNN.
late_writes() {
    local tag offsets=(0 4096 8192 12288)
    hold old at=request op=write "from=$(addresses a)" "offset=$GHOST_AT" \
        count=16384 max=1
    for tag in "${offsets[@]}"; do
        vm a write "old$tag" "$tag" O
    done
    caught old || return
    for tag in "${offsets[@]}"; do
        answered a "old$tag" && vm a write "new$tag" "$tag" N &&
            answered a "new$tag" || return
    done
    release old && settle && content a "${offsets[@]}"
}

# settle - what was let go takes effect now, or never.  That it is refused, or
# was dropped, nobody tells: hence a pause.
settle() {
    nap 200
}

# ---- hosts -------------------------------------------------------------------------

# redirect HOST PEER - by order, its own paths stay good.
redirect() {
    { within 5000 post "plugin-$1-vm" /redirect "{\"peer\":\"$2\"}" &&
        within 5000 route_is "$1" "redirected $2"; } ||
        not_so "$1 is not redirected to $2"
}

freeze() {
    kill -STOP "${LAB_PID[$1]}"
}

thaw() {
    [[ ! ${LAB_PID[$1]-} ]] || kill -CONT "${LAB_PID[$1]}"
}

isolate() {
    cut_network "$1" 1 && cut_network "$1" 2
}

# delay_network HOST NETWORK... - frames to HOST crawl; hurry_network - until
# now, and all that crawled has arrived.
delay_network() {
    local n
    for n in "${@:2}"; do
        tc qdisc add dev "$1-net$n" root tbf rate 1kbit burst 1600 \
            limit 1000000 || return 1
    done
}

hurry_network() {
    local n
    for n in "${@:2}"; do
        tc qdisc change dev "$1-net$n" root tbf rate 1gbit burst 1000000 \
            limit 1000000
        # the next frame makes it look at its queue
        in_host a ping -c 1 -W 2 "$(address "$1" "net$n")" >/dev/null ||
            not_so "net$n does not deliver" || return
    done
}

# lose_resets HOST - it sends no TCP reset to other hosts from now on.
lose_resets() {
    in_host "$1" nft add rule ip lab out ip daddr 10.77.11.0/24 tcp flags rst drop
    in_host "$1" nft add rule ip lab out ip daddr 10.77.12.0/24 tcp flags rst drop
}

ghost_start() {
    local h
    for h in "${GHOST_PROXIES[@]}"; do
        start_proxy "$h"
    done
    for h in "${GHOST_PLUGINS[@]}"; do
        start_plugin "$h"
    done
}

ghost_ready() {
    local h peer
    for h in "${GHOST_PROXIES[@]}"; do
        proxy_is "$h" serving || return 1
    done
    for h in "${GHOST_PLUGINS[@]}"; do
        route_is "$h" local && paths_are "$h" "good good" || return 1
        for peer in "${GHOST_PROXIES[@]}"; do
            [[ $peer == "$h" ]] || peer_serves "$h" "$peer" || return 1
        done
    done
}

# calm - undo whatever a round did, and wait until all is as at the start.
calm() {
    local h name
    # shellcheck disable=SC2013 # words: names hold no blank
    for name in $(sed -n 's/^ready //p' "$LAB_DIR/hold/events"); do
        event "released $name" || echo "release $name" >"$LAB_DIR/hold/orders"
    done
    for h in "${LAB_HOSTS[@]}"; do
        thaw "proxy-$h"
        tc qdisc del dev "$h-net1" root 2>/dev/null
        tc qdisc del dev "$h-net2" root 2>/dev/null
        in_host "$h" nft flush chain ip lab out
        heal_network "$h" 1
        heal_network "$h" 2
        heal_paths "$h"
    done
    for h in "${GHOST_PROXIES[@]}"; do
        running "proxy-$h" || start_proxy "$h"
        post "proxy-$h" /undrain >/dev/null
    done
    for h in "${GHOST_PLUGINS[@]}"; do
        running "plugin-$h-vm" || start_plugin "$h"
        within 5000 post "plugin-$h-vm" /return >/dev/null
    done
    within "${GHOST_CALM_MS:-20000}" "${GHOST_UNTIL:-ghost_ready}"
}

ghost_kill() {
    local name
    for name in "${!LAB_PID[@]}"; do
        case $name in
        vm-*) vm_close "${name#vm-}" ;;
        plugin-* | proxy-*) lab_kill "$name" KILL ;;
        esac
    done
}

# ---- rounds --------------------------------------------------------------------------

# round SCENARIO... - one of them; false: it did not come about.
round() {
    local rc h
    GHOST_NO=$((GHOST_NO + 1))
    GHOST_AT=$((GHOST_NO * GHOST_STEP))
    GHOST_WHY=''
    GHOST_GOT=''
    calm || lab_failed "round $GHOST_NO: not ready"
    for h in "${GHOST_PLUGINS[@]}"; do
        vm_open "$h" || return 1
    done
    "$@"
    rc=$?
    ((rc == 0)) || diag "round $GHOST_NO did not come about: $GHOST_WHY"
    return "$rc"
}

# corrupt SCENARIO... - is there a round that ends with the old data on top?
corrupt() {
    local try
    for try in 1 2 3; do
        round "$@" && [[ $GHOST_GOT == *"$GHOST_OLD"* ]] && return
        diag "try $try: ${GHOST_WHY:-got $GHOST_GOT}"
    done
    return 1
}

# clean SCENARIO... - GHOST_ROUNDS rounds, and none of them is corrupt.
clean() {
    local good=0 tries=0
    while ((good < GHOST_ROUNDS && tries++ < 2 * GHOST_ROUNDS)); do
        round "$@" || continue
        if [[ $GHOST_GOT != "$GHOST_WANT" ]]; then
            echo "round $tries found $GHOST_GOT, wants $GHOST_WANT"
            tail -n 40 "$LAB_DIR/hold/events"
            return 1
        fi
        good=$((good + 1))
    done
    ((good == GHOST_ROUNDS)) || echo "only $good rounds came about"
    ((good == GHOST_ROUNDS))
}

# programs LEFT-OUT - the test's programs that leave these rules out; "": the
# real ones.
programs() {
    ghost_kill
    BUILD=$GHOST_REAL
    unset DETOUR_LEAVE_OUT
    if [[ $1 ]]; then
        BUILD=$GHOST_REAL/rules
        export DETOUR_LEAVE_OUT=$1
    fi
    ghost_start
}

# expect_clean NAME SCENARIO...
expect_clean() {
    local name=$1 begin
    begin=$(now_ms)
    if clean "${@:2}" >"$LAB_DIR/why"; then
        pass "$name: clean in $GHOST_ROUNDS rounds ($(($(now_ms) - begin)) ms)"
    else
        fail "$name: clean in $GHOST_ROUNDS rounds" "$(cat "$LAB_DIR/why")"
    fi
}

# expect_corrupt NAME RULE SCENARIO...
expect_corrupt() {
    local name="$1: corrupt without $2" begin
    begin=$(now_ms)
    if corrupt "${@:3}"; then
        pass "$name ($(($(now_ms) - begin)) ms)"
    else
        fail "$name" "$(tail -n 40 "$LAB_DIR/hold/events")"
    fi
}

# ghost NAME RULES SCENARIO... - both halves of a case; of several RULES each
# one alone, but those joined by commas.
#
# GHOST_ALSO: rules without which the ghost is seen only, for this target hides
# it otherwise.  They are left out as well, and a half more shows that it is
# not they that matter.
ghost() {
    local name=$1 rules=$2 rule
    shift 2
    for rule in $rules; do
        programs "$rule${GHOST_ALSO:+,$GHOST_ALSO}"
        expect_corrupt "$name" "$rule" "$@"
    done
    if [[ ${GHOST_ALSO-} ]]; then
        programs "$GHOST_ALSO"
        expect_clean "$name, without $GHOST_ALSO" "$@"
    fi
    programs ""
    expect_clean "$name" "$@"
    calm || lab_failed "not calm after $name"
    ghost_kill
}
