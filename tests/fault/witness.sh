#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The instrument that all other scripts trust finds what it must find.
#
# Goal: an older write that shows up, foreign data, an error and a standstill
# are each reported; a server that is right is not blamed.
# Timeline: the server stands still for 700 ms; 700 to 1000 ms are reported.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

image=$LAB_DIR/image
sock=$LAB_RUN/server.nbd
witness=$BUILD/tests/tools/witness
[[ -x $witness ]] || lab_failed "$witness is not built"

# serve NBDKIT-ARGUMENTS...
serve() {
    lab_kill server KILL
    rm -f "$sock"
    LAB_MODE=loopback lab_start server - nbdkit -f -U "$sock" "$@"
    within 5000 test -S "$sock" || lab_failed "nbdkit does not start"
}

# run OPTIONS... - half a second of load
run() {
    { nap 500; } | "$witness" --state "$LAB_DIR/state" --rate 2000 "$@" \
        "nbd+unix:///?socket=$sock"
}

compare() {
    "$witness" --state "$LAB_DIR/state" --check "nbd+unix:///?socket=$sock"
}

truncate -s 1M "$image"
serve file "$image"
check "a right server is not blamed" run
check "what was written is there" compare

cp "$image" "$image.old"
check "the second run goes on from the first" run
check "and is there as well" compare
# one block of the older image that the second run wrote again
block=$(cmp -l "$image" "$image.old" |
    awk '$3 != 0 { print int(($1 - 1) / 4096); exit }')
dd if="$image.old" of="$image" bs=4096 count=1 skip="$block" seek="$block" \
    conv=notrunc status=none
check_fails "an older write is found" "block $block .*: an older write" compare
dd if=/dev/urandom of="$image" bs=4096 count=1 seek="$block" conv=notrunc \
    status=none
check_fails "other data is found" "got other data" compare

touch "$LAB_DIR/fail"
serve --filter=error file "$image" error-rate=10% \
    error-file="$LAB_DIR/fail" error=EIO
rm -f "$LAB_DIR/state"
check_fails "errors are found" "errors [1-9]" run
serve --filter=exitlast file "$image"
check_fails "a server that goes away is an error" "error: " \
    bash -c "{ sleep 0.3; kill -KILL ${LAB_PID[server]}; sleep 0.2; } |
             $witness 'nbd+unix:///?socket=$sock'"

serve file "$image"
out=$({
    nap 300
    kill -STOP "${LAB_PID[server]}"
    nap 700
    kill -CONT "${LAB_PID[server]}"
    nap 200
} | "$witness" "nbd+unix:///?socket=$sock")
stall=$(sed -n 's/^total.* stall_ms \([0-9]*\) .*/\1/p' <<<"$out")
machine=$(sed -n 's/^total.* machine_ms \([0-9]*\) .*/\1/p' <<<"$out")
check "a standstill is measured ($stall ms, of these $machine the machine's)" \
    test "$stall" -ge 690
at_most "and not exaggerated" $((stall - machine)) 1000
lab_kill server KILL
lab_end
