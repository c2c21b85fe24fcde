#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# detour-health on two hosts with made-up processes: every endpoint, processes
# and hosts that die, hang and come back, hostile texts, TLS.
#
# Needs $BUILD with detour-health and tests/tools/fake-control.
set -u

TOP=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/lib/health.sh
. "$TOP/tests/lib/health.sh"

# As root the real thing: it runs as nobody, and a group lets it read.
GROUP='' as_nobody=()
if [[ $(id -u) == 0 ]]; then
    GROUP=$(id -gn nobody)
    as_nobody=(setpriv --reuid=nobody --regid="$GROUP" --clear-groups)
fi
cp "$BUILD/detour-health" "$dir"
pki_up >"$dir/pki.log" 2>&1 || skip_all "detour-pki: $(tail -1 "$dir/pki.log")"
host h1 'redirect_alarm = 1m'
host h2 ''

# ---- the command line --------------------------------------------------------

health() {
    "$dir/detour-health" "$@"
}

same_options() {
    diff <(health --help | grep -oE -- '^  --[a-z]+|\| --[a-z]+' |
        grep -oE -- '--[a-z]+' | sort -u) \
        <(sed -n '/^=head1 OPTIONS/,/^=head1 SIGNALS/p' \
            "$TOP/health/detour-health.8.pod" | grep '^=item' |
            grep -oE -- '--[a-z]+' | sort -u)
}
check "help and manual page have the same options" same_options
check_fails "an unknown option is misuse" 'Try detour-health --help' \
    health --nonsense
check_fails "so is an argument" 'unexpected argument: x' health x
check "a good configuration" health --config "$dir/h1/detour.conf" --check
host h3 "cert = $dir/pki/ca-cert.pem" 2>/dev/null
sed -i 's/^host = h3/host = h1/; s/h3-/h1-/' "$dir/h3/detour.conf"
check_fails "a certificate wants its key" 'cert and key need each other' \
    health --config "$dir/h3/detour.conf" --check
host h3 'client_certificates = yes'
sed -i 's/^host = h3/host = h1/; s/h3-/h1-/' "$dir/h3/detour.conf"
check_fails "client certificates want TLS" 'only with cert and key' \
    health --config "$dir/h3/detour.conf" --check

# ---- all is well -------------------------------------------------------------

for h in h1 h2; do
    plugin $h vm1 a local
    proxy $h
    start $h plugin-vm1-a
    start $h proxy
    start_health $h "${as_nobody[@]}"
done
in_time "a host on which all is well passes" 5000 h1 /health '.status == "pass"'
is "with HTTP status" "$status" 200
check "and its own media type" \
    grep -qi '^content-type: application/health+json' "$dir/head"
for aspect in process route queue paths probe registration orphans peers \
    proxy; do
    check "vm1:$aspect is told" \
        holds "[.checks[\"vm1:$aspect\"][].status] | all(. == \"pass\")"
done
check "so are the days that certificates have" \
    holds '[.checks["certificate:days_left"][].observedValue] |
           length == 3 and all(. > 20)'
check "what is well has no output" holds '[.. | .output?] | all(. == null)'

# Each says in milliseconds how old its news are, so that hardly two that were
# made apart are the same; that answers do change is what the rest tells.
answers_of_50() {
    curl --silent --write-out '\n' "$(url h1 '/status?[1-50]')" | sort -u | wc -l
}
distinct=$(answers_of_50)
check "who ask at the same time share an answer ($distinct of 50)" \
    test "$distinct" -lt 40

get h1 /status
check "/status has the answers" holds '.status == "pass" and .host == "h1" and
    ([.processes[].name] == ["plugin-vm1-a", "proxy"]) and
    .processes[1].answer.connections == 3 and .luns[0].state == "local"'
in_time "/cluster has both hosts and their LUNs" 5000 h1 /cluster '
    [.hosts[].status] == ["pass", "pass"] and
    .luns[0].hosts.h1.state == "local" and .luns[0].hosts.h2.state == "local"
    and .luns[1].hosts.h1 == null and .luns[1].hosts.h2.state == "off"'

ctl() {
    "$BUILD/detourctl" --config "$dir/h1/detour.conf" "$@" >"$dir/body" 2>&1
}
check "detourctl cluster: all is well" ctl cluster
check "a row for each LUN" grep -qE '^vm1 +local +local' "$dir/body"
check "a column for each host" grep -qE '^ +h1 +h2' "$dir/body"
check "who is no member has a dash" grep -qE '^vm2 +- +off' "$dir/body"

# ---- metrics -----------------------------------------------------------------

get h1 /metrics
check "metrics have Prometheus' media type" \
    grep -qi '^content-type: text/plain; version=0.0.4' "$dir/head"
has_metric() { grep -qxF -- "$1" "$dir/body"; }
v='process="plugin-vm1-a",lun="vm1",client="a"'
check "a state" has_metric "detour_route_state{$v,state=\"local\"} 1"
check "why peers were not connected to" has_metric \
    "detour_link_failures_total{$v,peer=\"h2\",reason=\"certificate\"} 4"
check "what probes usually take" has_metric \
    "detour_probe_usual_seconds{$v} 0.00029"
check "that paths are not slow" has_metric \
    "detour_lun_verdict{$v,state=\"slow\"} 0"
check "whether it is latched" has_metric "detour_route_latched{$v} 0"
check "another state" has_metric "detour_route_state{$v,state=\"queueing\"} 0"
check "milliseconds are seconds" \
    has_metric "detour_inflight_oldest_seconds{$v} 0.004"
check "microseconds are, too" \
    has_metric "detour_probe_duration_seconds{$v} 0.0003"
p='process="proxy",lun="vm1",peer="h2",peer_client'
check "what a peer's client did" \
    has_metric "detour_proxy_requests_total{$p=\"a\"} 80"
check "connections of a peer's client are summed" \
    has_metric "detour_proxy_inflight_requests{$p=\"a\"} 2"
check "clients without a name are one series" test 1 = "$(
    grep -c "^detour_proxy_inflight_requests{$p=\"\"" "$dir/body")"
# promtool_likes NAME - the last body.
promtool_likes() {
    promtool_check() { promtool check metrics <"$dir/body"; }
    if command -v promtool >/dev/null; then
        check "$1" promtool_check
    else
        pass "$1 # SKIP prometheus is not installed"
    fi
}
promtool_likes "promtool likes them"

# ---- requests of all kinds ---------------------------------------------------

get h1 /nothing
is "there is no other path" "$status" 404
get h1 /health --request POST --data '{}'
is "nothing can be posted" "$status" 405
get h1 /health --head
is "HEAD" "$status" 200
garbage() {
    exec 9<>"/dev/tcp/$net.1/$port" || return 1
    printf '\x16\x03\x01 nonsense\r\n\r\n' >&9
    timeout 5 cat <&9 >/dev/null
    exec 9>&-
    get h1 /health
}
check "garbage does no harm" garbage
# idle_from N ADDRESS... - N silent connections to h2 from each of them.
idle_from() {
    rm -f "$dir/idle"
    python3 - "$net.2" "$port" "$@" >"$dir/idle" <<'END' &
import signal
import socket
import sys
to = (sys.argv[1], int(sys.argv[2]))
held = [socket.create_connection(to, 5, (address, 0))
        for address in sys.argv[4:] for _ in range(int(sys.argv[3]))]
print("open", flush=True)
signal.pause()
END
    PIDS[h2/idle]=$!
    check "$1 idle connections from each of ${*:2}" within 10000 \
        grep -qs open "$dir/idle"
}
idle_from 80 "$net.9"
within 15000 get h2 /status # not by check: it would keep $took
at_most "another address is answered without a wait" "$took" 2000
check_fails "but that one has no more connections" . \
    curl --silent --show-error --interface "$net.9" "$(url h2 /status)"
check "until their time is over" within 15000 \
    get h2 /status --interface "$net.9"
kill_it h2 idle
idle_from 16 "$net".{11..15}
check "80 idle connections are cut when their time is over" within 15000 \
    get h2 /status
kill_it h2 idle

# ---- something is wrong ------------------------------------------------------

plugin h1 vm1 a redirected 5 0 'no path is left' '"h2"'
in_time "a detour is a warning" 2000 h1 /health '.status == "warn"'
is "but no failure" "$status" 200
check "it tells why" holds '.output == "vm1:route: through h2: no path is left"'
check "and since when" holds '.checks["vm1:route"][0].since_s == 5'
plugin h1 vm1 a redirected 61 0 'no path is left' '"h2"'
in_time "after redirect_alarm it is a failure" 2000 h1 /health \
    '.status == "fail"'
is "with HTTP status" "$status" 503
plugin h1 vm1 a queueing 1
in_time "to queue is a failure" 2000 h1 /health '.status == "fail"'
plugin h1 vm1 a local 1 1500
in_time "a request that is held is a warning" 2000 h1 /health \
    '.status == "warn" and .checks["vm1:queue"][0].status == "warn"'
plugin h1 vm1 a local
proxy h1 drained
in_time "a drained proxy is a warning" 2000 h1 /health \
    '.status == "warn" and .checks["vm1:proxy"][0].observedValue == "drained"'
proxy h1
says h1 plugin-vm1-a '{"process": "plugin"}'
in_time "an answer without its fields is a failure" 2000 h1 /health \
    '.status == "fail"'
plugin h1 vm1 a local
in_time "all is well again" 2000 h1 /health '.status == "pass"'

# ---- processes that die, hang, end -------------------------------------------

kill_it h1 plugin-vm1-a
in_time "a process that was killed is told" 3000 h1 /health '.status == "fail"'
check "as that" holds '.checks["vm1:process"][0].output |
    test("last answer [0-9.]+ s ago: nobody listens: the process has died")'
check "nothing it said before is" holds '.checks | has("vm1:route") | not'
get h1 /status
check "its LUN is unknown" holds '.luns[0].state == "unknown" and
    .luns[0].status == "fail"'
get h1 /metrics
check "it is down" has_metric 'detour_process_up{process="plugin-vm1-a"} 0'
is "its numbers are gone" "$(grep -c ',client="a"' "$dir/body")" 0
in_time "the other host knows" 5000 h2 /cluster \
    '.luns[0].hosts.h1.state == "unknown"'
start h1 plugin-vm1-a
in_time "it is back" 3000 h1 /health '.status == "pass"'

kill -STOP "${PIDS[h1/plugin-vm1-a]}"
in_time "a process that hangs is told" 3000 h1 /health '.status == "fail" and
    (.checks["vm1:process"][0].output | test("no answer within 1 s"))'
# Without curl's own start, and the median: the machine has other things to do.
median_ms() {
    for _ in {1..11}; do
        curl --silent --output /dev/null --write-out '%{time_total}\n' "$@"
    done | sort -n | awk 'NR == 6 { printf "%.0f\n", $1 * 1000 }'
}
at_most "/health answers while it hangs" "$(median_ms "$(url h1 /health)")" 100
get h1 /health
check "others are as well as before" holds \
    '.checks["proxy:process"][0].status == "pass"'
kill -STOP "${PIDS[h1/proxy]}"
in_time "so is a second one" 3000 h1 /health \
    '.checks["proxy:process"][0].status == "fail"'
kill -CONT "${PIDS[h1/plugin-vm1-a]}" "${PIDS[h1/proxy]}"
in_time "both come round" 3000 h1 /health '.status == "pass"'

stop h1 plugin-vm1-a
in_time "a process that ended in order is forgotten" 3000 h1 /status \
    '.status == "pass" and .luns[0].state == "serving"'
stop h1 proxy
in_time "a proxy is missed" 3000 h1 /health '.status == "warn" and
    .checks["proxy:process"][0].observedValue == "absent"'
mv "$dir/h1/run" "$dir/h1/away"
in_time "without its folder nobody knows" 3000 h1 /health '.status == "fail" and
    (.output | test("No such file"))'
mv "$dir/h1/away" "$dir/h1/run"
start h1 plugin-vm1-a
start h1 proxy
in_time "all is well once more" 3000 h1 /health '.status == "pass"'

if [[ $GROUP ]]; then
    by() { # USER GROUP METHOD PATH
        setpriv --reuid="$1" --regid="$2" --clear-groups curl --silent \
            --output /dev/null --write-out '%{http_code}' --request "$3" \
            --unix-socket "$dir/h1/run/proxy.sock" "http://x$4"
    }
    is "the group reads" "$(by nobody "$GROUP" GET /status)" 200
    is "the group does not command" "$(by nobody "$GROUP" POST /drain)" 403
    is "nobody else reads" "$(by nobody 54321 GET /status)" 000

    # The key is root's, and detourctl wants nothing of it.  Not from $BUILD,
    # which nobody may perhaps not enter.
    cp "$BUILD/detourctl" "$dir"
    as() { # GROUP ARGS...
        setpriv --reuid=nobody --regid="$1" --clear-groups \
            "$dir/detourctl" --config "$dir/h1/detour.conf" "${@:2}"
    }
    tells() { # PATTERN ARGS...: as the group, with a status of 0
        local said
        said=$(as "$GROUP" "${@:2}") && grep -qE -- "$1" <<<"$said"
    }
    check_fails "the key is closed to the group" \
        'h1-key.pem: Permission denied' \
        setpriv --reuid=nobody --regid="$GROUP" --clear-groups \
        cat "$dir/pki/hosts/h1-key.pem"
    check "the group may ask for the status" \
        tells '^plugin lun vm1 client a: local' status
    check "for one LUN, as JSON" tells '"lun": "vm1"' --json status vm1
    check "for paths" tells 'sdb .*good' paths
    check "for peers" tells 'h2 ' peers
    check "for events" tells 'local' events
    check_fails "it reaches the processes with an order, and is refused" \
        "only root and the process' own user" as "$GROUP" drain
    check_fails "the check goes on to look at the key" \
        'h1-key.pem: Permission denied' as "$GROUP" check
    check_fails "who is not of the group is refused by the sockets" \
        'cannot connect: Permission denied' as 54321 status
else
    for what in status paths peers events order check; do
        pass "detourctl by the group: $what # SKIP not root"
    done
fi

# ---- hostile texts -----------------------------------------------------------

evil='<script>alert(1)</script>\"'\''&\\\n\u001b[2J\u202e'
plugin h1 vm1 a redirected 5 0 "$evil" "\"$evil\""
says h1 proxy "{\"process\": \"proxy\", \"luns\": [{\"lun\": \"$evil\",
    \"sessions\": [{\"host\": \"$evil\", \"client\": \"$evil\",
    \"connections\": [{\"requests\": 1}]}],
    \"clients\": [{\"host\": \"$evil\", \"client\": \"$evil\"}]}]}"
in_time "a hostile text is told" 2000 h1 /status \
    '.luns[0].reason | test("alert")'
get h1 /metrics
promtool_likes "promtool likes hostile texts"
get h1 /
is "the page has one script" "$(grep -c '<script' "$dir/body")" 1
escaped='&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\??[2J?'
check "the text is text" grep -qF -- "$escaped" "$dir/body"
check "no other script would run" \
    grep -qi "^content-security-policy: default-src 'none'" "$dir/head"
plugin h1 vm1 a local
proxy h1

# ---- hosts -------------------------------------------------------------------

stop h2 health
in_time "a host that is not heard is unknown" 9000 h1 /cluster '
    .hosts[1].status == "unknown" and .luns[0].hosts.h2.state == "unknown"'
check "with the age of its last word" holds '.hosts[1].age_s > 0'
in_time "this does not change this host" 2000 h1 /health '.status == "pass"'

# The unit gives detour-health 256 MiB.
python3 - "$net.2" "$port" >"$dir/liar" <<'END' &
import http.server
import sys
said = b'{"cluster":"lab","host":"h2","luns":[' + b"{}," * 1390000 + b"{}]}"
class Liar(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)
        print("said", flush=True)
    def log_message(self, *_):
        pass
class Server(http.server.HTTPServer):
    allow_reuse_address = True
Server((sys.argv[1], int(sys.argv[2])), Liar).serve_forever()
END
PIDS[h2/liar]=$!
heard_twice() {
    [[ $(grep -c said "$dir/liar") -ge 2 ]]
}
check "somebody at its address says too much" within 20000 heard_twice
most_kb() {
    sed -n 's/^VmHWM:[[:space:]]*\([0-9]*\) kB/\1/p' "/proc/${PIDS[h1/health]}/status"
}
if [[ ${SANITIZE-} ]]; then # has memory of its own
    pass "this does not take the memory # SKIP with a sanitizer"
else
    at_most "this does not take the memory" "$(most_kb)" 100000 kB
fi
get h1 /cluster
check "nor is it believed" holds '.hosts[1].status == "unknown"'
kill_it h2 liar

# ---- TLS ---------------------------------------------------------------------

stop h1 health
tls="cert = $dir/pki/hosts/HOST-cert.pem
key = $dir/pki/hosts/HOST-key.pem
client_certificates = yes"
for h in h1 h2; do
    host $h "${tls//HOST/$h}"
    [[ $GROUP ]] && chown nobody "$dir/pki/hosts/$h-key.pem"
    start_health $h "${as_nobody[@]}"
done
SCHEME=https
ca=(--cacert "$dir/pki/ca-cert.pem")
ours=("${ca[@]}" --cert "$dir/pki/hosts/h1-cert.pem"
    --key "$dir/pki/hosts/h1-key.pem")
tls_get() { get "$1" "$2" "${ours[@]}" && holds "$3"; }
check "TLS with a certificate" within 5000 tls_get h1 /health '.status == "pass"'
is "answers" "$status" 200
get h1 /health "${ca[@]}"
check "without one there is nothing" test "$status" = 403 -o "$status" = 000
plain() { curl --silent --max-time 5 --output /dev/null "http://$net.1:$port/"; }
check_fails "nor without TLS" '' plain
check "hosts know each other" within 6000 tls_get h1 /cluster \
    '[.hosts[].answers] == [true, true]'
stop h1 health
stop h2 health

tap_end
