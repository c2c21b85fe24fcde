#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# detourctl gone against real detour-health processes with made-up proxies:
# wrong use, what is told, and that no old answer counts.
#
# Needs $BUILD with detour-health, detourctl and tests/tools/fake-control.
set -u

TOP=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/lib/health.sh
. "$TOP/tests/lib/health.sh"

cp "$BUILD/detour-health" "$dir"
pki_up >"$dir/pki.log" 2>&1 || skip_all "detour-pki: $(tail -1 "$dir/pki.log")"
for h in h1 h2; do
    host $h ''
done

# gone ARGUMENTS... - on h1; its exit status is in $status.
gone() {
    "$BUILD/detourctl" --config "$dir/h1/detour.conf" gone "$@" \
        >"$dir/out" 2>"$dir/err"
    status=$?
}

# ends NAME STATUS OUT ERR ARGUMENTS... - a check: it ends so, and its output
# and errors match.
ends() {
    gone "${@:5}"
    if ((status == $2)) && [[ $(cat "$dir/out") =~ $3 ]] &&
        [[ $(cat "$dir/err") =~ $4 ]]; then
        pass "$1"
    else
        fail "$1" "exit status $status"$'\n'"$(cat "$dir/out" "$dir/err")"
    fi
}

# has SESSION... - what h1's proxy has from now on.
has() {
    local IFS=,
    says h1 proxy "{\"process\": \"proxy\", \"host\": \"h1\", \"luns\": [
        {\"lun\": \"vm1\", \"state\": \"serving\", \"reason\": \"registered\",
         \"settled\": true, \"sessions\": [$*],
         \"lun_status\": {\"orphans\": 0}}]}"
}

of_h2='{"host": "h2", "client": "a", "unfinished_writes": 2, "connections": []}'

# ---- wrong use ---------------------------------------------------------------

ends "it wants a host" 2 '^$' 'a host must be named for gone'
ends "an unknown host" 2 '^$' 'gone: h9: no such host in the configuration' h9
ends "one of several" 2 '^$' 'gone: h9: no such host' h2 h9
ends "this host" 2 '^$' 'gone: h1: it is this very host' h1
ends "an unknown LUN" 2 '^$' 'gone: vm9: no such lun' h2 --lun vm9
ends "no time" 2 '^$' '--wait wants a time such as .* not soon' h2 --wait soon
ends "a wait of nothing" 2 '^$' '--wait wants a time' h2 --wait 0
ends "a client" 2 '^$' '--client means nothing to gone' h2 --client a
ends "a run directory" 2 '^$' '--rundir means nothing to gone' h2 --rundir /
ends "a time that is redirect's" 2 '^$' '--for means nothing to gone' \
    h2 --for 3s
sed -i 's/^hosts = h2$/hosts = h1/' "$dir/h1/detour.conf"
ends "a LUN that the host is no member of" 2 '^$' \
    'gone: vm2: not a lun of that host' h2 --lun vm2
sed -i 's/^device.*vm1$/&\nhosts = h1/' "$dir/h1/detour.conf"
ends "a host without a LUN" 2 '^$' 'gone: h2: no lun has that host' h2
host h1 ''
for option in --wait=3s --lun=vm1; do
    check_fails "status knows no ${option%=*}" "${option%=*} means nothing" \
        "$BUILD/detourctl" status "$option"
done

# ---- nobody answers ----------------------------------------------------------

ends "no detour-health" 1 'peer h1, lun vm1: not clear: its detour-health does
* not answer: .*; start its detour-health, or power it off' '^$' h2
ends "only its LUNs" 0 \
    '^all clear: no other host has anything left of h2 on lun vm2$' \
    '^$' h2 --lun vm2
before=$(date +%s%N)
gone h2 --wait 3s
took=$((($(date +%s%N) - before) / 1000000))
is "it waits" "$status" 1
check "for so long ($took ms)" test "$took" -ge 3000 -a "$took" -lt 9000
start_health h1
within 5000 get h1 /status || fail "detour-health answers"
ends "no proxy" 1 'peer h1, lun vm1: not clear: no proxy runs there' '^$' h2

# ---- what the proxy has ------------------------------------------------------

has
start h1 proxy
in_time "the proxy is seen" 5000 h1 /status '.processes[0].answers'
ends "nothing" 0 '^peer h1, lun vm1: clear
all clear: no other host has anything left of h2$' '^$' h2
gone h2 --json
check "as JSON" jq -e '. == {hosts: ["h2"], clear: true, lines: [{peer: "h1",
    lun: "vm1", clear: true, stale: false, reason: null, advice: null}]}' \
    "$dir/out"

# Each time its detour-health knows what was true until a moment ago.
known() {
    in_time "that is known" 5000 h1 /status \
        ".processes[0].answer.luns[0].sessions | length == $1"
}
for round in 1 2 3; do
    has "$of_h2"
    ends "writes of a moment ago ($round)" 1 '^peer h1, lun vm1: not clear: 2 '\
'writes of h2 have not come back; wait, or power it off and name it too
not clear: start nothing elsewhere that ran on h2$' '^$' h2
    known 1
    has
    ends "they came back a moment ago ($round)" 0 'all clear' '^$' h2
    known 0
done

has "$of_h2"
gone h2 --json
check "not clear, as JSON" jq -e '.clear == false and (.lines[0] |
    .clear == false and .stale == false and (.reason | test("2 writes")) and
    (.advice | test("wait")))' "$dir/out"
is "with its exit status" "$status" 1
# start_wait - in the background, $waiter.
start_wait() {
    "$BUILD/detourctl" --config "$dir/h1/detour.conf" gone h2 --wait 60s \
        >"$dir/waited" &
    waiter=$!
}
start_wait
known 1
has
wait $waiter
is "lasts until it is clear" $? 0
check "which is told" grep -q '^all clear' "$dir/waited"
has "$of_h2"
known 1
start_wait
# A shell starts its jobs with SIGINT ignored: one that comes too early is lost.
broken_off() {
    kill -INT $waiter
    grep -q '^not clear' "$dir/waited"
}
check "a wait that is broken off tells what it knows" within 5000 broken_off
wait $waiter
is "with its exit status" $? 1

has "{\"host\": \"h2\", \"connections\": [],
      \"unfinished_writes\": 1e300}"
gone h2
is "an absurd number is no yes" "$status" 1
says h1 proxy "{\"process\": \"proxy\", \"host\": \"h1\", \"luns\": [
    {\"lun\": \"vm1\", \"state\": \"waiting\", \"reason\": \"\\u001b[2J\",
     \"sessions\": [], \"lun_status\": {\"orphans\": 0}}]}"
known 0
ends "a text from elsewhere is shown without control characters" 1 \
    'its proxy is waiting \(\?\[2J\) and has not served' '^$' h2

# ---- a host that is not off, and TLS -----------------------------------------

has
start_health h2
within 5000 get h2 /status || fail "detour-health of h2 answers"
ends "a host that is not off is warned of" 0 'all clear' \
    'warning: the detour-health of h2 answers' h2
stop h1 health
stop h2 health
tls="cert = $dir/pki/hosts/HOST-cert.pem
key = $dir/pki/hosts/HOST-key.pem
client_certificates = yes"
host h1 "${tls//HOST/h1}"
start_health h1
tls_answers() {
    curl --silent --output /dev/null --cacert "$dir/pki/ca-cert.pem" \
        --cert "$dir/pki/hosts/h1-cert.pem" \
        --key "$dir/pki/hosts/h1-key.pem" "https://$net.1:$port/status"
}
check "TLS" within 5000 tls_answers
ends "over TLS, with a certificate" 0 'peer h1, lun vm1: clear' '^$' h2
stop h1 health
stop h1 proxy

tap_end
