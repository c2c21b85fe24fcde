#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# blockcheck against a server that lies: each lie is found, honesty passes.
#
# Needs $BUILD with tests/tools/blockcheck and liar.so, and nbdkit.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
command -v nbdkit >/dev/null || skip_all "no nbdkit"
lab_enter_loopback
mkdir -p "$LAB_RUN"
sanitizer_wrap

tool=$BUILD/tests/tools/blockcheck
sock=$LAB_RUN/liar
out=$LAB_DIR/out
server="nbd+unix:///?socket=$sock"

# liar LIE [EVERY [PARAMETER...]] - a new server, behind a filter when there is
# one; its disk stays when there is one.
filter=()
liar() {
    lab_kill liar KILL
    rm -f "$sock"
    lab_start liar - "${LAB_WRAP[@]}" nbdkit -f -U "$sock" "${filter[@]}" \
        "$BUILD/tests/tools/liar.so" file="$LAB_DIR/disk" size=16M \
        lie="$1" every="${2-50}" "${@:3}"
    within 5000 test -S "$sock" || lab_failed "the liar does not start"
}

run() {
    timeout 60 "$tool" "$@" >"$out" 2>&1
}

# says PATTERN - a condition: the last line matches.
says() {
    tail -n 1 "$out" | grep -Eq -- "$1"
}

# passes NAME OPTIONS... - a check: exit status 0 and the line that goes with it
passes() {
    local count="[0-9]+" end="stall [0-9]+ ms\$"
    local name=$1
    shift
    if run "$@" &&
        says "^blockcheck: ok, $count requests, $count errors, longest $end"; then
        pass "$name"
    else
        fail "$name" "$(tail -n 60 "$out")"
    fi
}

# fails_with NAME STATUS PATTERN OPTIONS... - a check of both
fails_with() {
    local name=$1 status=$2 pattern=$3 rc
    shift 3
    run "$@"
    rc=$?
    if ((rc == status)) && says "^blockcheck: FAILED: $pattern"; then
        pass "$name"
    else
        fail "$name" "status $rc"$'\n'"$(tail -n 60 "$out")"
    fi
}

# ---- honest servers ------------------------------------------------------------

# 128 requests at once on 256 KiB: most of them overlap
crowd=(--threads 8 --depth 16 --requests 3000 --range 1m+256k)
for honest in none error twice drain; do
    bad=
    for ((seed = 1; seed <= 20; seed++)); do
        # a failed write of one run must not come late in the next
        liar "$honest" 20
        run "${crowd[@]}" --seed "$seed" "$server" || bad+=" $seed"
        [[ -z $bad ]] || break
    done
    if [[ -z $bad ]]; then
        pass "honest ($honest): 20 of 20 seeds pass"
    else
        fail "honest ($honest): 20 of 20 seeds pass" \
            "seed$bad"$'\n'"$(tail -n 60 "$out")"
    fi
done

# ---- lies ------------------------------------------------------------------------

# found LIE EVERY KIND - each run begins with what the one before left
found() {
    liar "$1" "$2"
    fails_with "lie: $1" 1 "[0-9]+ units hold what they cannot" \
        --threads 4 --depth 8 --requests 6000 "$server"
    check "lie: $1: it is called: $3" grep -Eq "^unit at [0-9]+: $3" "$out"
    check "lie: $1: its story shows the read" grep -q '<== impossible$' "$out"
}

old="older value after a newer one: found"
found lost 50 "$old"
found partial 50 "$old"
found torn 50 "torn: found .*, torn: .* up to byte 256, ends as"
found ghost 20 "$old"
found orphan 20 "$old"
found elsewhere 50 "written for another place: found .*, elsewhere: "
found swap 50 "written for another place: found .*, elsewhere: "
found corrupt 50 "written by nobody: found" # "damaged", if not in its head
found stale 50 "$old"
found read-bit 50 "written by nobody: found"
found zero 5 "$old"
found zero-more 5 "$old"
found trim-more 5 "$old"
found trim-garbage 5 "written by nobody: found"

# What is honest for units of 512 bytes is not for larger ones.
liar none
fails_with "a unit that the server does not keep whole" 1 \
    "[0-9]+ units hold what they cannot" "${crowd[@]}" --unit 4096 "$server"
check "it is called torn" grep -q '^unit at [0-9]*: torn: found' "$out"

# ---- histories ---------------------------------------------------------------------

liar none
fails_with "a saved lie is still one" 1 "1 units hold what they cannot" \
    --judge /dev/stdin <<'END'
unit 512
read 1.0 1 2 ok 0+512 0
write 1.1 10 20 ok 0+512 1:1
read 1.1 30 40 ok 0+512 0
END
passes "a run saves its history" --requests 2000 --range 0+8m \
    --history "$LAB_DIR/a" "$server"
passes "a saved history is judged again" --judge "$LAB_DIR/a"
fails_with "a history that is none" 2 ".*line 1: " --judge "$tool"
passes "what is there agrees with the history" --verify-only \
    --judge "$LAB_DIR/a" "$server"
dd if=/dev/zero of="$LAB_DIR/disk" bs=1M seek=3 count=1 conv=notrunc \
    status=none
fails_with "what is there does not" 1 "[0-9]+ units hold what they cannot" \
    --verify-only --judge "$LAB_DIR/a" "$server"

# Two writers in one range: neither knows all, both together do.
shared=(--rate 1500 --time 2 --range 0+1m)
"$tool" "${shared[@]}" --seed 1 --history "$LAB_DIR/a" "$server" \
    >"$LAB_DIR/out-a" &
writer=$!
fails_with "half a history is not enough" 1 \
    "[0-9]+ units hold what they cannot" "${shared[@]}" --seed 2 \
    --history "$LAB_DIR/b" "$server"
wait "$writer"
passes "two histories of one range are" --judge "$LAB_DIR/a" "$LAB_DIR/b"

# ---- ends ------------------------------------------------------------------------------

# logging - a new honest server, which logs what it is asked and what it answers
logging() {
    local filter=(--filter=log)
    rm -f "$LAB_DIR/asked"
    liar none 50 logfile="$LAB_DIR/asked"
}

# answered N - a condition: so many requests since that server began
answered() {
    (($(grep -c ' \.\.\.[A-Z].* return=' "$LAB_DIR/asked") >= $1))
}

# stands_still - a condition: no thread of the server runs any more
stands_still() {
    awk '/^State:/ && $2 != "T" { n++ } END { exit n > 0 }' \
        /proc/"${LAB_PID[liar]}"/task/*/status
}

# freezes_busy - a condition: the server stands still, and owes an answer; else
# it goes on
freezes_busy() {
    kill -STOP "${LAB_PID[liar]}"
    within 5000 stands_still || return
    ! awk '/ \.\.\.[A-Z].* return=/ { n-- } / id=.* \.\.\.$/ { n++ }
        END { exit n > 0 }' "$LAB_DIR/asked" && return
    kill -CONT "${LAB_PID[liar]}"
    return 1
}

freeze_busy() {
    within 10000 freezes_busy || lab_failed "the server is never asked"
}

# begin OPTIONS... - in the background; ended_with judges its end
begin() {
    : >"$LAB_DIR/log/tool"
    logging
    lab_start tool - "$tool" --time 60 --rate 2000 "$@" "$server"
    within 10000 answered 500 || lab_failed "blockcheck does not begin"
}

ended_with() {
    local rc
    within 20000 gone tool || lab_kill tool KILL
    wait "${LAB_PID[tool]-}"
    rc=$?
    unset "LAB_PID[tool]"
    cp "$LAB_DIR/log/tool" "$out"
    if ((rc == $2)) && says "^blockcheck: $3"; then
        pass "$1"
    else
        fail "$1" "status $rc"$'\n'"$(tail -n 60 "$out")"
    fi
}

begin
kill -TERM "${LAB_PID[tool]}"
ended_with "SIGTERM ends with the verdict" 0 "ok, "
begin --stop-file "$LAB_DIR/stop"
touch "$LAB_DIR/stop"
ended_with "so does the stop file" 0 "ok, "

begin --reconnect 10 --stop-file "$LAB_DIR/stop2"
freeze_busy
logging # the one before is killed
within 10000 answered 500
touch "$LAB_DIR/stop2"
ended_with "a killed server is survived" 0 "ok, "
check "what was under way is counted" \
    grep -Eq '^errors .* lost with a connection [1-9]' "$out"
begin
liar none
ended_with "a lost connection is a failure without --reconnect" 1 "FAILED: "

begin --patience 1
freeze_busy
kill -TERM "${LAB_PID[tool]}"
ended_with "what is never answered is a failure" 1 \
    "FAILED: [0-9]+ requests were never answered"
liar none # nbdkit 1.32 may abort when such a client is gone: kill it frozen

begin --max-stall 300
kill -STOP "${LAB_PID[liar]}"
nap 1500 # the stall itself
kill -CONT "${LAB_PID[liar]}"
kill -TERM "${LAB_PID[tool]}"
ended_with "a long stall is a failure" 1 "FAILED: a stall of [0-9]+ ms"

liar error 20
fails_with "too many errors are a failure" 1 "[0-9]+ errors" \
    --requests 2000 --max-errors 0 "$server"

# ---- options -----------------------------------------------------------------------------

check_fails "no URI" "one URI is needed" "$tool"
check_fails "a range that is none" "bad number" "$tool" --range 5 "$server"
check_fails "a range behind the end" "not one of whole units" \
    "$tool" --range 16m+1m "$server"
check_fails "nobody there" "cannot connect" "$tool" "nbd+unix:///?socket=/nobody"
check "--help tells the last line" grep -q 'blockcheck: ok, N requests' \
    <("$tool" --help)
lab_kill liar TERM
check "no program crashed or leaked" lab_logs_clean
tap_end
