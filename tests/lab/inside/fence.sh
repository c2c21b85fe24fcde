# SPDX-License-Identifier: BSD-3-Clause
# Registrations, preemption and unit attentions, on a map and on a plain disk.
# shellcheck shell=bash
#
# Goal: a fenced host gets EBADE, loses no path by it, registers under a new
# key and goes on, with no error to the VM; a host registers although a path is
# down, and on that path when it is back; a unit attention is no error.
# Timeline: path 1 of a is down when a starts, comes back; c takes a's keys; a
# takes c's; a LUN RESET under load.

# shellcheck source=tests/lab/inside/guest.sh
. "$(dirname "$0")/guest.sh"
lab_enter "$@"

LAB_HOSTS=(a c)
lab_up
cut_path a 1
start_hosts
check "a registers with a path down, on the other one" \
    within 3000 registrations_are a 1
check "c registers on its only path" within 3000 registrations_are c 1
load_start a --rate 25 --depth 4
load_start c --rate 25 --depth 4
heal_path a 1
check "multipathd puts the path back" within 5000 dm_active a 2
expect_registered a 2 5000
expect_io a 5000
is "a is local" "$(route_of a)" local

# taken HOST BY - every key of HOST is preempted over BY's path.  Without ABORT:
# Linux 6.1's tcm_loop waits for itself for ever when the victim holds the
# reservation (target_queued_submit_work -> core_tmr_lun_reset -> flush_work).
taken() {
    local key
    key=$(key_of "$1")
    sg_persist --out --preempt --param-rk="$(key_of "$2")" \
        --param-sark="$key" --prout-type=5 "/dev/$(path_name "$2" 1)"
}

# anew HOST OLD - a condition: it has another key, which is on all its paths.
anew() {
    [[ $(key_of "$1") != "$2" ]] && key_is_number "$1" &&
        registrations_are "$1" "$(wc -w <<<"${LUN_PATHS[$1]}")"
}

key_is_number() {
    [[ $(key_of "$1") =~ ^0x[0-9a-f]{16}$ ]]
}

failures=$(path_failures)
for victim in a c; do
    by=c
    [[ $victim == a ]] || by=a
    old=$(key_of "$victim")
    check "$by takes the keys of $victim" taken "$victim" "$by"
    check "$victim is registered under a new key on each path" \
        within 10000 anew "$victim" "$old"
    check "$victim has said that it was fenced" \
        logged "plugin-$victim-vm" "another host fenced us"
    expect_route "$victim" local 15000
    expect_io "$victim" 5000
done
is "a reservation conflict has failed no path" "$(path_failures)" "$failures"

# LIO puts a unit attention on every nexus and aborts what is under way.
old=$(key_of a)$(key_of c)
check "c resets the LUN" sg_reset --device "/dev/$(path_name c 1)"
expect_io a 5000
expect_io c 5000
is "keys outlive a reset" "$(key_of a)$(key_of c)" "$old"
expect_no_error a
expect_no_error c
lab_end
