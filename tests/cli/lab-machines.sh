#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Commands to the lab's machines (tests/lab/outside/machines.sh), a shell in a
# machine's place: what one command prints is never taken for another's.
# shellcheck disable=SC2034 # what machines.sh reads
set -u

TOP=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/lib/lab.sh
. "$TOP/tests/lib/lab.sh"
# shellcheck source=tests/lab/outside/machines.sh
. "$TOP/tests/lab/outside/machines.sh"

LAB_DIR=$(mktemp -d "${TMPDIR:-/tmp}/lab.XXXXXX")
LAB_RUN=$LAB_DIR/run
mkdir "$LAB_DIR/log"
trap 'kill "$machine"; wait "$machine"; rm -rf "$LAB_DIR"' EXIT

# As tests/lab/machine/init.
obey() {
    local number command
    while read -r number command; do
        sh -c "$command" </dev/null 2>&1
        printf '\n\001%s %d\n' "$number" $?
    done
}

machine_new m
obey <"$LAB_RUN/machine-m/sh.in" >"$LAB_RUN/machine-m/sh.out" &
machine=$!
echo "$machine" >"$LAB_RUN/machine-m/pid"

gate=$LAB_DIR/gate
wait_for_gate="until [ -e $gate ]; do sleep 0.01; done"

is "all that a command prints" \
    "$(machine_sh m "echo one; echo; echo two")" $'one\ntwo'
machine_sh m "exit 3"
is "its exit status" $? 3

# Who reads may have gone before the second line is there: he has the first one
# at once, or (as it should be) none until the command has ended.
machine_sh m "echo one; $wait_for_gate; echo two; echo three" | {
    read -rt 0.5 _
    exec <&-
    : >"$gate"
}
is "lines that nobody read are not the next command's" \
    "$(machine_sh m "echo four")" four

rm "$gate"
MACHINE_LIMIT=200 machine_sh m "$wait_for_gate; echo late"
is "a command that takes too long" $? 255
: >"$gate"
is "what it prints in the end is not the next command's" \
    "$(machine_sh m "echo five")" five

printf 'lab: %s\n' "ready at 3 s" >"$LAB_DIR/log/console-m"
check "a machine that says so is ready" machine_booted m
echo "I/O error" >>"$LAB_DIR/log/console-m"
check "and still is, whatever its kernel says" machine_booted m
echo "lab: switched on" >>"$LAB_DIR/log/console-m"
check "it is not when it was switched on again" eval '! machine_booted m'
tap_end
