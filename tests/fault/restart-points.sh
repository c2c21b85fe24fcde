#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Plugin and proxy are killed at every step of a redirect and of a return.
#
# Goal: wherever a program dies, its successor serves again, and what blockcheck
# saw before, meanwhile and after is possible.
# Timeline of each step: a under load; one of its writes is held on its way to
# the target; both paths cut, or what else leads to the point; the program
# kills itself there (common/point.h) and is started again, as systemd would;
# <= 15 s a new client of a is served; the load writes to the same place and
# ends; the write is let go, and must leave no trace; all is healed.
#
# RESTART_ROUNDS=N (default 1): the first round passes all points once; the
# others add the ways below that are marked as such.  Every other time the third
# host is there to take over from a proxy that died.
# RESTART_POINTS="NAME...": only these.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

ROUNDS=${RESTART_ROUNDS:-1}
SERVED_MS=15000     # the limit, on a machine that does other things as well
GHOST_CALM_MS=40000 # likewise; one command that is dropped costs 10 s
TRIES=3
GHOST_UNTIL=dead_or_ready
# Twice those of ghost.sh, since only what the way leads to may move a route; a
# drain is soon known.
# shellcheck disable=SC2034 # for hosts.sh
LAB_LUN_CONFIG="probe_interval = 150ms
probe_timeout = 1200ms
io_timeout = 1200ms
link_timeout = 1200ms
open_timeout = 3000ms
standby_interval = 300ms
failback_after = 200ms
failback_max = 200ms
failback_jitter = 0"
LOAD_AT=$((BLOCKCHECK_AT << 20))
LOAD_SIZE=$((128 << 10)) # small: what is held is soon written anew

# ROUND PROGRAM WAY POINT[:PASS]... - a program passes some points when it
# starts already; the pass is the first one that belongs to the way.
WAYS="1 plugin away lost left save saved go-sent go-granted opened forget:2
1 plugin away forgotten:2 link-written:20
1 plugin home aside home-left:2 home-registered:2 home-fenced:2 home-saved:2
1 plugin home home-opened:2
1 plugin reborn register registered
1 proxy serve go-received older-told older-gone preempt:3 preempted:3 reset
1 proxy serve was-reset fenced let-in go-answered write-sent:20 write-done:20
1 proxy serve answered:20
2 plugin reborn preempt preempted reset was-reset
2 plugin reborn home-left home-registered home-fenced home-saved home-opened
2 proxy reborn register registered preempt preempted reset was-reset"

# ---- ways to a point -------------------------------------------------------------

at_b() {
    black_hole a
    within 8000 route_is a "redirected b" || not_so "a is not redirected"
}

# The plugin of a leaves its own paths ...
away() {
    black_hole a
}

# ... and comes back.
home() {
    black_hole a
    within 8000 route_is a "redirected *" || not_so "a is not redirected" ||
        return
    heal_paths a
}

# The proxy of b lets a in, and fences what a has under way; c does not serve.
serve() {
    hold_one own a && caught own || return
    black_hole a
}

# The program is killed in the midst of its work, and what is started in its
# place does not get far.
reborn() {
    [[ $PROGRAM != proxy ]] || at_b || return
    lab_kill "$NAME" KILL
    mortal_start
}

# ---- the one that dies -----------------------------------------------------------

# mortal_start - MORTAL is its process, its log begins after MORTAL_LOG lines.
mortal_start() {
    local host=a
    [[ $PROGRAM == plugin ]] || host=b
    : >>"$LAB_DIR/log/$NAME"
    MORTAL_LOG=$(wc -l <"$LAB_DIR/log/$NAME")
    DETOUR_DIE_AT=$POINT BUILD=$GHOST_REAL/rules "launch_$PROGRAM" "$host"
    MORTAL=${LAB_PID[$NAME]}
}

again() {
    case $PROGRAM in
    plugin) start_plugin a ;;
    proxy) start_proxy b ;;
    esac
}

dead() {
    [[ $MORTAL ]] && ! kill -0 "$MORTAL" 2>/dev/null
}

died() {
    dead && tail -n "+$((MORTAL_LOG + 1))" "$LAB_DIR/log/$NAME" |
        grep -q "dies at ${POINT%:*}\$"
}

# ---- the load, and what is held of it ----------------------------------------------

load() {
    blockcheck_start a --range "$LOAD_AT+$LOAD_SIZE" --reconnect 30 \
        --patience 15 --threads 2 --story 60
}

# hold_one NAME HOST - the next write of the load that comes from it.  "old" is
# one of the program that dies, "own" one of a's own paths.
hold_one() {
    hold "$1" at=request op=write "from=$(addresses "$2")" \
        "offset=$LOAD_AT" "count=$LOAD_SIZE" max=1
}

# landed NAME - how many writes the target has carried out that overlap it.
landed() {
    awk -v name="$1.$GHOST_NO" '
        $1 == "held" && $2 == name { from = $4; to = $4 + $5 }
        $1 == "landed" && $2 == "write" && $3 < to && $3 + $4 > from { n++ }
        END { print n + 0 }' "$LAB_DIR/hold/events"
}

# written_anew NAME SINCE - a condition: it is not held, or there are writes to
# its place after so many: one may be the same write, sent again, two are not.
written_anew() {
    ! event "held $1.$GHOST_NO " || (($(landed "$1") >= $2 + 2))
}

release_held() {
    local name
    for name in old own; do
        ! event "ready $name.$GHOST_NO\$" || release "$name"
    done
}

# let_go - what is held comes out last of all: what it leaves stays to be read.
let_go() {
    local name
    for name in old own; do
        within "$SERVED_MS" written_anew "$name" "$(landed "$name")" ||
            not_so "what is held as $name is not written anew" || return
    done
    blockcheck_stop a || not_so "$(tail -n 60 "$LAB_DIR/log/blockcheck-a")" ||
        return
    release_held
    settle
    timeout 60 "$GHOST_REAL/tests/tools/blockcheck" --verify-only --story 60 \
        --judge "$LAB_DIR/blockcheck-a.history" "$(uri a)" \
        >"$LAB_DIR/log/left" 2>&1 || not_so "$(tail -n 60 "$LAB_DIR/log/left")"
}

# ---- one step --------------------------------------------------------------------

# served - a new client of a is: it writes and reads.
served() {
    timeout 5 "$GHOST_REAL/tests/tools/blockcheck" --range 255m+1m --threads 1 \
        --depth 1 --requests 8 --max-errors 0 "$(uri a)"
}

# dead_or_ready - a condition: what died while all was being made ready is
# missed by nobody but us.
dead_or_ready() {
    dead || ghost_ready
}

# ready - all serve, and the program is the one that will die, or has done so.
ready() {
    GHOST_NO=$((GHOST_NO + 1))
    GHOST_WHY=
    MORTAL=
    if [[ $WAY != reborn ]]; then
        stop "$NAME"
        mortal_start
    fi
    calm && return
    not_so "not ready: $(
        for h in "${GHOST_PROXIES[@]}"; do
            field "proxy-$h" '.luns[0] | .state, .reason'
        done
        field plugin-a-vm '.route, .peers, .lun_status.paths'
    )"
}

# only_b - c does not serve: a has nobody but b.
only_b() {
    { post proxy-c /drain >/dev/null && within 5000 c_drains; } ||
        not_so "c does not drain"
}

# c_drains - a condition: and a knows.
c_drains() {
    ! peer_serves a c && peer_says a c draining
}

# come_to - the program dies where it is to; false: it did not get there.
come_to() {
    ! dead || not_so "it died too early" || return
    [[ $WAY != serve && $WAY != reborn ]] || only_b || return
    load
    case $PROGRAM in
    plugin) hold_one old a && caught old || return ;;
    proxy) hold_one old b || return ;;
    esac
    "$WAY" || return
    within 10000 died || not_so "a is $(route_of a)"
}

# go_on - and all goes on.  SERVED is how long it took, from the death on.
go_on() {
    local begin
    begin=$(now_ms)
    lab_kill "$NAME" KILL
    again
    ((C_THERE == 0)) || post proxy-c /undrain >/dev/null
    within "$SERVED_MS" served || not_so "nobody is served" || return
    SERVED=$(($(now_ms) - begin))
    let_go || return
    heal_paths a
    within "$SERVED_MS" served || not_so "nobody is served after all is healed"
}

undo() {
    heal_paths a
    release_held
    lab_kill blockcheck-a KILL
    ! dead || lab_kill "$NAME" KILL
}

# step - a machine that is busy for as long as a probe's timeout moves routes by
# itself, and the program is there too early or not at all: up to TRIES times.
# What is wrong after the death, or before all is ready, is so at once.
step() {
    local try
    for ((try = 1; try <= TRIES; try++)); do
        ready || return
        if come_to; then
            go_on
            return
        fi
        diag "$PROGRAM, $POINT ($WAY), try $try: not come to: $GHOST_WHY"
        undo
    done
    not_so "not come to in $TRIES tries: $GHOST_WHY"
}

# walk POINT - both PROGRAM and WAY are set.
walk() {
    local name
    POINT=$1
    case $PROGRAM in
    plugin) NAME=plugin-a-vm ;;
    proxy) NAME=proxy-b ;;
    esac
    name="$PROGRAM dies at $POINT ($WAY)"
    if step; then
        pass "$name: served after $SERVED ms; $(
            tail -n 1 "$LAB_DIR/log/blockcheck-a")"
    else
        fail "$name" "$GHOST_WHY"
        undo
    fi
}

# ---- all -------------------------------------------------------------------------

no_seam() {
    ! grep -l DETOUR_DIE_AT "$GHOST_REAL"/detour-proxy \
        "$GHOST_REAL"/nbdkit-detour-plugin.so
}

# Every point that common/point.c knows is in the list above.
all_points() {
    diff <(grep -o '= "[a-z-]*"' "$LAB_TOP/common/point.c" | tr -d '= "' |
        sort) <(awk '$1 == 1 { for (i = 4; i <= NF; i++) print $i }' \
        <<<"$WAYS" | sed 's/:.*//' | sort -u)
}

# find_ghost - a step whose peers leave out what cuts off the held write.
find_ghost() {
    local rc
    PROGRAM=plugin NAME=plugin-a-vm WAY=away POINT=lost
    export DETOUR_LEAVE_OUT=fence
    BUILD=$GHOST_REAL/rules start_proxy b
    BUILD=$GHOST_REAL/rules start_proxy c
    unset DETOUR_LEAVE_OUT
    ! step && logged left '^faults  *older value'
    rc=$?
    undo
    kill_proxy b
    kill_proxy c
    return "$rc"
}

# ghost_found - in one of TRIES: a held write must meet a newer one.
ghost_found() {
    local try
    for ((try = 1; try <= TRIES; try++)); do
        find_ghost && return
        diag "no ghost in try $try: ${GHOST_WHY:-the write did not come late}"
    done
    return 1
}

asked_for() {
    [[ ! ${RESTART_POINTS-} || " $RESTART_POINTS " == *" $1 "* ]]
}

ghost_up
check "no program dies on order but those for tests" no_seam
check "all points are walked through" all_points
if ghost_found; then
    pass "blockcheck finds a ghost when there is one"
else
    fail "blockcheck finds a ghost when there is one" "$GHOST_WHY"
fi
for ((i = 1; i <= ROUNDS; i++)); do
    C_THERE=$(((i + 1) % 2))
    while read -r round PROGRAM WAY points; do
        ((round <= i)) || continue
        for point in $points; do
            asked_for "${point%:*}" || continue
            C_THERE=$((1 - C_THERE))
            walk "$point"
        done
    done <<<"$WAYS"
done
lab_end
