#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A host dies while a peer carries its writes, and its VM is to start elsewhere.
#
# Goal: detourctl gone says no as long as one of the dead host's writes may
# still take effect, names the peer, and says yes once none can; after that no
# older write comes out.  That the no was right is shown: a write of the VM's
# new host, made against it, is undone.
# Timeline: b redirected to c; its write is held in the target; b is killed for
# good: no; a writes the block; c's paths swallow all; the old write takes
# effect, over the newer one, and c does not know: still no; c's paths heal:
# yes within 30 s; a writes again, and that stays.

# shellcheck source=tests/lib/ghost.sh
. "$(dirname "$0")/../lib/ghost.sh"
lab_enter "$@"

# Nothing of b's is to move while it is held.
LAB_LUN_CONFIG="io_timeout = 5s
failback_after = 30m
failback_max = 30m
switch_limit = 0"
mkdir "$LAB_DIR/hold"
# shellcheck disable=SC2034 # for lab.sh
LAB_TGTD=(env "HOLD_DIR=$LAB_DIR/hold"
    "LD_PRELOAD=$BUILD/tests/tools/holdwrites.so" tgtd)
GHOST_AT=1048576

# asks HOST ARGUMENTS... - detourctl gone on that host.
asks() {
    in_host "$1" "$BUILD/detourctl" --config "$LAB_DIR/$1/detour.conf" \
        gone "${@:2}"
}

# says STATUS REGEX HOST ARGUMENTS... - detourctl gone on that host ends so, and
# a line of what it says is that.
says() {
    local want=$1 line=$2 host=$3 rc
    asks "$host" "${@:4}" >"$LAB_DIR/said" 2>&1
    rc=$?
    cat "$LAB_DIR/said"
    ((rc == want)) || echo "exit status $rc, not $want"
    ((rc == want)) && grep -Eq -- "$line" "$LAB_DIR/said"
}

silent_of() {
    ! grep -E -- "$1" "$LAB_DIR/said"
}

# hears HOST OTHER - a condition: the detour-health of OTHER answers HOST.
hears() {
    in_host "$1" curl -sf --max-time 2 "http://$(address "$2" net1):10811/status"
}

# landed CHAR - how often such a block has reached the medium.
landed() {
    grep -c "^landed write $GHOST_AT 4096 $(printf '%02x' "'$1")" \
        "$LAB_DIR/hold/events"
}

has_landed() {
    (($(landed "$1") > 0))
}

# wrote TAG CHAR - a step: a's VM writes the block.
wrote() {
    vm a write "$1" 0 "$2" && answered a "$1"
}

# finds NAME CHAR - a check: a's VM reads it.
READS=100
finds() {
    local GHOST_NO=$((READS++)) # answers are told apart by it
    content a 0 || GHOST_GOT=$GHOST_WHY
    is "$1" "$GHOST_GOT" "$2"
}

lab_up
start_hosts
for h in "${LAB_HOSTS[@]}"; do
    lab_start "health-$h" "$h" "$BUILD/detour-health" \
        --config "$LAB_DIR/$h/detour.conf"
done
for h in b c; do
    check "the detour-health of $h answers" within 5000 hears a "$h"
done
{ vm_open a && vm_open b; } || lab_failed "no VM: $GHOST_WHY"

# ---- nothing is wrong ------------------------------------------------------------

check "b at home has left nothing" says 0 \
    'all clear: no other host has anything left of b' a b
check "but it is not off, which is told" grep -q \
    'warning: the detour-health of b answers' "$LAB_DIR/said"
check "each other host has a line" test \
    "$(grep -c 'peer [ac], lun disk: clear$' "$LAB_DIR/said")" = 2
check "b is redirected to c" redirect b c
check "c has a session of b" says 1 \
    'peer c, lun disk: not clear: a session of b is open' a b
check "a has none" grep -q 'peer a, lun disk: clear$' "$LAB_DIR/said"
lab_kill health-b KILL
check "b's proxy is not off either" says 1 'warning: the proxy of b answers' a b

# ---- b dies ----------------------------------------------------------------------

hold_write old medium '' max=1
vm b write old 0 O
check "a write of b is held in the target" caught old
kill_plugin b
kill_proxy b
check "b is gone, its write is not" says 1 \
    'peer c, lun disk: not clear: (a session of b is open .*, 1 writes|1 writes of b have not)' \
    a b
check "nobody answers there" silent_of warning
check "what is not to be done is told" grep -qx \
    'not clear: start nothing elsewhere that ran on b' "$LAB_DIR/said"
check "for this LUN" says 1 'not clear' a b --lun disk
asks a b --wait 2m >"$LAB_DIR/waited" 2>&1 &
LAB_PID[waiter]=$! # itself, or a shell that ends with it
check "a's VM writes the block against all advice" wrote early E
finds "it reads what it wrote" E

black_hole c
check "c has lost its paths" within 10000 proxy_is c waiting
release old
check "b's write has taken effect" within 5000 has_landed O
finds "over the newer one: no was right" O
check "c cannot know: still no" says 1 'peer c, lun disk: not clear' a b
check "who waits for a yes waits" running waiter

# ---- c heals ---------------------------------------------------------------------

heal_paths c
check "all is clear" says 0 'all clear' a b --wait 30s
landed=$(landed O)
check "who waited was told so" within 5000 gone waiter
wait "${LAB_PID[waiter]}"
is "with the exit status" $? 0
unset "LAB_PID[waiter]"
check "a's VM writes" wrote late L
settle
finds "and finds that" L
is "b's write did not come again" "$(landed O)" "$landed"

# ---- a peer that cannot say -------------------------------------------------------

post proxy-c /drain >/dev/null
check "c is drained" within 5000 proxy_is c drained
check "which is as good" says 0 'peer c, lun disk: clear' a b
kill_proxy c
check "a proxy that was killed is no proof" says 1 \
    'peer c, lun disk: not clear: its proxy does not answer' a b --wait 3s
black_hole c
start_proxy c
check "nor is the next one without paths, which has not looked" says 1 \
    'c, lun disk: not clear: .*(has not served since|writes were given up)' a b
heal_paths c
check "it has, once it serves" says 0 'peer c, lun disk: clear' a b --wait 30s
kill -STOP "${LAB_PID[proxy-c]}"
check "a proxy that hangs is no proof" says 1 \
    'peer c, lun disk: not clear: its proxy (does not answer|.s answer is older)' \
    a b
kill -CONT "${LAB_PID[proxy-c]}"
power_off c
check "nor is a host that does not answer" says 1 \
    'peer c, lun disk: not clear: its detour-health does not answer' a b
# c had lost its paths and went through a, which must notice its death.
check "one that is off as well is named" says 0 'left of b, c$' a b c --wait 1m
stop health-a # a failure is told
lab_end
