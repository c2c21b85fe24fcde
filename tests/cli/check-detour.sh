#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# check_detour, asked as Nagios asks it: a real detour-health with made-up
# processes, over HTTP and TLS, and servers that say nothing or nonsense.
set -u

TOP=$(realpath "$(dirname "$0")/../..")
# shellcheck source=tests/lib/health.sh
. "$TOP/tests/lib/health.sh"

for tool in curl jq; do
    command -v "$tool" >/dev/null || skip_all "$tool is not installed"
done

# ask OPTION... - what it prints is in $out, its exit status in $rc.
ask() {
    out=$("$TOP/deploy/check_detour" "$@" 2>"$dir/err" </dev/null)
    rc=$?
    [[ -s $dir/err ]] && out+="ERR: $(<"$dir/err")"
}

# answers NAME STATUS PATTERN OPTION... - one line of TAP.
answers() {
    local name=$1 want=$2 pattern=$3
    shift 3
    ask "$@"
    # shellcheck disable=SC2053 # it may be a pattern
    if [[ $rc == $want && $out =~ $pattern ]]; then
        pass "$name"
    else
        fail "$name" "exit status $rc, wanted $want with /$pattern/
$out"
    fi
}

# soon NAME STATUS PATTERN OPTION... - the same, within 5 s.
soon() {
    local name=$1 want=$2 pattern=$3
    shift 3
    # shellcheck disable=SC2317 # called by within
    asked() {
        ask "$@"
        [[ $rc == "$want" && $out =~ $pattern ]]
    }
    within 5000 asked "$@"
    answers "$name" "$want" "$pattern" "$@"
}

# ---- the command line --------------------------------------------------------

answers "--help tells, and is not green" 3 '^Usage: check_detour -H' --help
help=$out # check has an $out of its own
told_of() { [[ $help =~ (^|[[:space:]])$1[\ ,] ]]; }
for o in -H -p -l -w -c -t --ca --cert --key --version; do
    check "it tells of $o" told_of "$o"
done
answers "the version is the Makefile's" 3 \
    "^check_detour $(sed -n 's/^VERSION *:= *//p' "$TOP/Makefile")\$" --version
answers "no host" 3 'UNKNOWN - no host' -p 1
answers "an unknown option" 3 'unknown option: --nonsense' --nonsense
answers "an option without its value" 3 '-p wants a value' -H x -p
answers "a host that is a URL" 3 'not a host' -H 'x/y?@z'
answers "a port that is none" 3 'not a port' -H x -p 1x
answers "a threshold that is none" 3 'not a number: -w 1s' -H x -w 1s
answers "another" 3 'not a number: -c 1.2.3' -H x -c 1.2.3
answers "a certificate wants its key" 3 'need each other' -H x --ca y --cert z

# ---- a host ------------------------------------------------------------------

cp "$BUILD/detour-health" "$dir"
pki_up >"$dir/pki.log" 2>&1 || skip_all "detour-pki: $(tail -1 "$dir/pki.log")"
host h1 'redirect_alarm = 1m'
at=(-H "$net.1" -p "$port")
answers "nobody listens: CRITICAL" 2 '^DETOUR CRITICAL - no answer: Failed to' \
    "${at[@]}"
plugin h1 vm1 a local
proxy h1
start h1 plugin-vm1-a
start h1 proxy
start_health h1
soon "all is well" 0 '^DETOUR OK - h1: vm1 is local \| ' "${at[@]}"
perf=${out#* | }
p="'vm1 wait'=0.004s;;;0 'vm1 redirected'=60.5c 'vm1 paths'=2;;;0;2"
is "performance data of the LUN" "${perf:0:${#p}}" "$p"
number='-?[0-9]+(\.[0-9]+)?'
perf_is() { [[ $perf =~ $1 ]]; }
check "all of it is what the guidelines say" perf_is \
    "^('[^'=|]+'=$number(s|c)?(;[0-9.:]*){0,4} ?)+\$"
check "certificates are among it" perf_is "'cert days'=$number;14:;0:"
answers "one LUN" 0 '^DETOUR OK - h1: vm1 is local \| ' "${at[@]}" -l vm1
check "without the host's certificates" test "${out%days*}" = "$out"
answers "a LUN that is not there" 3 'UNKNOWN - no such LUN there: vm7' \
    "${at[@]}" -l vm7

VERDICT=degraded plugin h1 vm1 a redirected 5 0 'no path is left' '"h2"'
soon "a detour warns, and tells why" 1 \
    '^DETOUR WARNING - h1: vm1:route: through h2: no path is left \| ' \
    "${at[@]}"
is "what else is wrong follows" "$(sed -n 2p <<<"$out")" \
    "WARNING: vm1:paths: because"
answers "so does it for its LUN" 1 'vm1:route' "${at[@]}" -l vm1
plugin h1 vm1 a redirected 61 0 'no path is left' '"h2"'
soon "a long one is critical" 2 '^DETOUR CRITICAL - h1: vm1:route' "${at[@]}"
plugin h1 vm1 a queueing 1 6000
soon "so is to queue" 2 '^DETOUR CRITICAL - h1: vm1:' "${at[@]}"
plugin h1 vm1 a local 1 900
soon "a request that waits for less than a second is none" 0 "wait'=0.9s" \
    "${at[@]}"
answers "-w" 1 "WARNING - .*vm1: a request waits for 0.9 s .*=0.9s;0.5;2;0" \
    "${at[@]}" -w 0.5 -c 2
answers "-c" 2 'CRITICAL - .*vm1: a request waits' "${at[@]}" -w .2 -c .5
answers "neither" 0 'OK - ' "${at[@]}" -w 1 -c 2

evil="a|b=1\\n<b>'x\\u202e"
plugin h1 vm1 a redirected 5 0 "$evil" '"h2"'
soon "a hostile text cannot pass for performance data" 1 'a\?b=1' "${at[@]}"
is "nor for a line" "$(sed -n '1s/ | .*//p' <<<"$out")" \
    "DETOUR WARNING - h1: vm1:route: through h2: a?b=1??b?'x?"
plugin h1 vm1 a local

kill -STOP "${PIDS[h1/plugin-vm1-a]}"
soon "a process that hangs" 2 'CRITICAL - h1: vm1:process: .*no answer' \
    "${at[@]}"
kill -CONT "${PIDS[h1/plugin-vm1-a]}"
soon "and comes round" 0 'OK' "${at[@]}"

kill -STOP "${PIDS[h1/health]}"
answers "detour-health hangs" 2 'CRITICAL - no answer: .*timed out' \
    "${at[@]}" -t 1
kill -CONT "${PIDS[h1/health]}"

# ---- TLS ---------------------------------------------------------------------

stop h1 health
host h1 "cert = $dir/pki/hosts/h1-cert.pem
key = $dir/pki/hosts/h1-key.pem
client_certificates = yes"
start_health h1
tls=(--ca "$dir/pki/ca-cert.pem")
ours=("${tls[@]}" --cert "$dir/pki/hosts/h1-cert.pem"
    --key "$dir/pki/hosts/h1-key.pem")
soon "TLS with a certificate" 0 'OK - h1' "${at[@]}" "${ours[@]}"
answers "TLS without one" '[23]' '(UNKNOWN|CRITICAL) - ' "${at[@]}" "${tls[@]}"
answers "without TLS" '[23]' '(UNKNOWN|CRITICAL) - ' "${at[@]}"
answers "another authority" 2 'CRITICAL - no answer: SSL' "${at[@]}" \
    --ca "$dir/pki/hosts/h2-cert.pem"
answers "an authority that is not there" 3 'UNKNOWN - ' "${at[@]}" \
    --ca "$dir/nothing"
stop h1 health

# ---- those who are not detour-health -----------------------------------------

# server ANSWER - says it to whoever comes, on $net.4.
cat >"$dir/server.py" <<'END'
import socket, sys
s = socket.create_server((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
answer = open(sys.argv[3], "rb").read()
while True:
    c, _ = s.accept()
    c.recv(4096)
    c.sendall(answer)
    c.close()
END
garbage() { # NAME STATUS PATTERN ANSWER
    local line
    printf '%b' "$4" >"$dir/answer"
    rm -f "$dir/ready"
    mkfifo "$dir/ready"
    python3 "$dir/server.py" "$net.4" "$port" "$dir/answer" >"$dir/ready" &
    PIDS[server]=$!
    read -r -t 10 line <"$dir/ready"
    answers "$1" "$2" "$3" -H "$net.4" -p "$port"
    kill "${PIDS[server]}"
    wait "${PIDS[server]}" 2>/dev/null
    unset 'PIDS[server]'
}
no='^DETOUR UNKNOWN - not an answer of detour-health$'
http='HTTP/1.0 200 OK\r\n\r\n'
garbage "no HTTP" 2 'CRITICAL - no answer' 'SSH-2.0-OpenSSH\r\n'
garbage "nothing" 2 'CRITICAL - no answer' ''
garbage "an empty body" 3 "$no" "$http"
garbage "HTML" 3 "$no" "$http<html>|x=1</html>"
garbage "JSON of somebody else" 3 "$no" "$http"'{"status": "pass"}'
garbage "half an answer" 3 "$no" "$http"'{"status": "pass", "host": "h1", "lu'
good='{"status": "pass", "host": "h1", "luns": [], "checks": [],
    "processes": []}'
garbage "the least that is one" 0 '^DETOUR OK - h1: 0 LUNs are well$' \
    "$http$good"
garbage "two of them" 3 "$no" "$http$good$good"
garbage "a status that is none" 3 "$no" "$http${good/pass/great}"
garbage "what is not a list of objects" 3 "$no" "$http${good/checks\": \[/&7}"
garbage "another HTTP status" 3 'UNKNOWN - it answers with HTTP status 500' \
    "HTTP/1.0 500 Oops\r\n\r\n$good"

tap_end
