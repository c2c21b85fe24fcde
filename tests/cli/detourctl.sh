#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# detourctl against processes with made-up answers, dead and hung ones too.
#
# Needs $BUILD with detourctl and tests/tools/fake-control.
set -u

# shellcheck source=tests/lib/tap.sh
. "$(dirname "$0")/../lib/tap.sh"

ctl=$BUILD/detourctl
fake=$BUILD/tests/tools/fake-control
dir=$(mktemp -d "${TMPDIR:-/tmp}/detourctl.XXXXXX") || exit 1
run=$dir/run

finish() {
    local pid
    for pid in $(jobs -p); do
        kill -CONT "$pid"
        kill "$pid"
        wait "$pid"
    done 2>/dev/null
    rm -rf "$dir"
}
trap finish EXIT

# ok NAME COMMAND...: a check, which when it fails shows the last answer
ok() {
    local name=$1
    shift
    if "$@"; then
        pass "$name"
    else
        fail "$name" "$(
            sed 's/^/out: /' "$dir/out"
            sed 's/^/err: /' "$dir/err"
            echo "exit status: $status"
        )"
    fi
}

# ask ARGS...: runs detourctl; its exit status is in $status
ask() {
    "$ctl" --rundir "$run" "$@" >"$dir/out" 2>"$dir/err"
    status=$?
}

exits() { [[ $status == "$1" ]]; }
says() { grep -qE -- "$1" "$dir/out"; }
silent_on() { ! grep -qE -- "$1" "$dir/out"; }
complains() { grep -qE -- "$1" "$dir/err"; }
logged() { [[ $(cat "$dir/$1/log" 2>/dev/null) == "$2" ]]; }

# start NAME: a fake process that listens on NAME.sock
start() {
    local line
    mkdir -p "$dir/$1"
    rm -f "$dir/ready"
    mkfifo "$dir/ready"
    "$fake" "$run/$1.sock" "$dir/$1" >"$dir/ready" &
    last=$!
    read -r -t 10 line <"$dir/ready" && [[ $line == ready ]]
}

# stop PID: as a service manager does
stop() {
    kill "$1"
    wait "$1" 2>/dev/null
    true
}

lun_status() { # VERDICT
    cat <<EOF
{"id": "naa.1", "size": 1048576, "block_size": 512,
 "verdict": {"state": "$1", "reason": "because", "since_s": 12.0},
 "paths": [{"name": "sdb", "state": "good", "since_s": 75.2, "error": null,
            "detail": "group 1, priority 50"},
           {"name": "sdc", "state": "failed", "since_s": 8000, "error": "cut"}],
 "map": {"name": "vmstore", "queueing": true, "age_s": 0.5, "orders": 0,
         "multipathd": "answers, queueing: on"},
 "probe": {"age_s": 0.1, "us": 300, "stuck": 0},
 "registration": {"state": "registered", "number": 1, "key": "de70"},
 "inflight": 3, "orphans": 0, "orphan_reads": 0}
EOF
}

plugin() { # LUN CLIENT PHASE VERDICT
    mkdir -p "$dir/plugin-$1-$2"
    cat >"$dir/plugin-$1-$2/status.json" <<EOF
{"process": "plugin", "pid": 1, "version": "x", "host": "h1", "lun": "$1",
 "client": "$2", "uptime_s": 90000.5, "not-in-the-manual": "surprise",
 "route": {"phase": "$3", "since_s": 3.2, "reason": "a reason", "peer": "h2",
           "generation": 5, "manual": false, "suspects": ["h3"]},
 "queue": {"held": 0, "inflight": 3, "longest_stall_ms": 20},
 "peers": [{"host": "h2", "state": "ready", "reason": "", "load": 0,
            "links": [{"address": "10.0.0.2", "state": "parked", "error": "",
                       "rtt_us": 250}]}],
 "lun_status": $(lun_status "$4")}
EOF
}

proxy() { # DRAINING STATE
    mkdir -p "$dir/proxy"
    cat >"$dir/proxy/status.json" <<EOF
{"process": "proxy", "pid": 2, "version": "x", "host": "h1", "uptime_s": 5,
 "draining": $1,
 "luns": [{"lun": "vm1", "state": "$2", "reason": "", "sessions":
             [{"host": "h2", "client": "a", "generation": 4, "age_s": 60,
               "unfinished_writes": 0, "connections":
                 [{"address": "10.0.0.2", "age_s": 59, "inflight": 2,
                   "requests": 77}]}],
           "lun_status": $(lun_status good)},
          {"lun": "vm2", "state": "serving", "sessions": [],
           "lun_status": $(lun_status good)}]}
EOF
}

mkdir -p "$run"

# ---- the command line -------------------------------------------------------

ask --help
ok "help is on standard output" says '^usage: detourctl'
ok "help exits with 0" exits 0
ask --version
ok "version" says '^detourctl [0-9.]+$'
ask
ok "no command is misuse" exits 2
ok "and says so" complains 'a command is missing'
ask dance
ok "an unknown command is misuse" exits 2
ask redirect
ok "redirect wants a LUN" exits 2
ask status a b
ok "too many arguments are misuse" exits 2
ask --client x drain
ok "drain has no client" exits 2
ask cluster
ok "cluster asks no sockets" complains 'rundir means nothing to cluster'
ask --sysroot / status
ok "only check has another root" exits 2
ask --nonsense status
ok "an unknown option is misuse" exits 2
ask --config /nonexistent/detour.conf --rundir "$dir/none" status
ok "a folder that is not there cannot be asked" exits 2
"$ctl" --config "$dir/none.conf" status >"$dir/out" 2>"$dir/err"
status=$?
ok "a configuration that was named must be there" exits 2
ok "and --rundir is hinted at" complains 'rundir DIR'

# Every option and command of --help stands in the manual page, and the page
# has no option that --help does not know.
ask --help
words() { grep -oE -- '--[a-z]+' "$1" | sort -u; }
same_options() {
    diff <(words "$dir/out") \
        <(sed -n '/^=head1 OPTIONS/,/^=head1 EXIT/p' health/detourctl.8.pod |
            grep '^=item' | grep -oE -- '--[a-z]+' | sort -u)
}
ok "manual page and help have the same options" same_options
same_commands() {
    diff <(sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p' "$dir/out" | sort -u) \
        <(sed -n '/^=head1 DESCRIPTION/,/^=head1 EXAMPLES/p' \
            health/detourctl.8.pod | sed -n 's/^=item B<\([a-z-]*\)>.*/\1/p' |
            sort -u)
}
ok "manual page and help have the same commands" same_commands

# ---- status -----------------------------------------------------------------

ask status
ok "nothing running is not as wanted" exits 1
ok "and says so" complains 'no process of detour is running'

plugin vm1 a local good
ok "a plugin starts" start plugin-vm1-a
plugin_pid=$last
ask status
ok "a plugin on its own paths is as wanted" exits 0
ok "its route is shown" says '^plugin lun vm1 client a: local, for 3.2s: a reas'
ok "its verdict is shown" says 'verdict +good for 12s: because'
ok "paths are shown" says 'path sdc +failed for 2h13m: cut'
ok "with what else is known" says 'path sdb +good for 1m15s \(group 1, prio'
ok "and the map they are of" \
   says 'map vmstore +queues I/O without a path, read 0.5s ago; multipathd ans'
ok "peers are shown" says 'peer h2 +ready, load 0$'
ok "their links are shown" says 'link 10.0.0.2 +parked, round trip 250 us$'
ok "suspects are shown" says 'suspects +h3$'
ok "what is missing is a dash" says 'held 0 \(oldest - ms\)'
ok "what is unknown is passed over" silent_on 'surprise'

plugin vm1 a redirected good
ask status
ok "a redirected route is not as wanted" exits 1
ok "its peer is shown" says 'redirected, peer h2, generation 5'
plugin vm1 a local degraded
ask status
ok "a missing path is not as wanted" exits 1
echo '{"process": "plugin"}' >"$dir/plugin-vm1-a/status.json"
ask status
ok "an answer without its fields is not as wanted" exits 1
printf '{"process": "plugin", "lun": "%s"}' 'x\u001b[2Jy\u009bz\nend' \
    >"$dir/plugin-vm1-a/status.json"
ask status
ok "control characters are not passed to the terminal" \
    says 'lun x\?\[2Jy\?\?z\?end client -'
rm "$dir/plugin-vm1-a/status.json"
ask status
ok "an error instead of a status is not as wanted" exits 1
ok "and is shown" says '^plugin-vm1-a.sock: HTTP status 404$'
plugin vm1 a local good

proxy false serving
ok "a proxy starts" start proxy
ask status
ok "plugin and proxy are as wanted" exits 0
ok "sessions are shown" says \
    'session h2 +client a, generation 4, for 1m00s, unfinished writes 0$'
ok "their connections are shown" says \
    'from 10.0.0.2 +77 requests, under way 2, for 59s$'
ask status vm2
ok "one LUN: others are left out" silent_on 'vm1'
ok "one LUN: it is shown" says '^proxy lun vm2: serving$'
ask status vm9
ok "a LUN that nobody knows is not as wanted" exits 1
proxy true serving
ask status
ok "a draining proxy is not as wanted" exits 1
proxy false recovering
ask status
ok "a proxy that does not serve is not as wanted" exits 1
ask status vm2
ok "unless another LUN was asked for" exits 0
proxy false serving

ask --json status
ok "json is json" python3 -c '
import json, sys
p = {x["socket"].split("/")[-1]: x for x in json.load(open(sys.argv[1]))
     ["processes"]}
assert p["proxy.sock"]["answer"]["draining"] is False
assert p["plugin-vm1-a.sock"]["answer"]["not-in-the-manual"] == "surprise"
assert p["plugin-vm1-a.sock"]["status"] == 200' "$dir/out"
http_proxy=http://127.0.0.1:9 ask status
ok "the environment's proxy is not used" exits 0

# ---- commands ---------------------------------------------------------------

plugin vm1 b-c local good
ok "a second plugin of the LUN starts" start plugin-vm1-b-c
plugin vm2 a local good
ok "a plugin of another LUN starts" start plugin-vm2-a

ask redirect vm1 h2
ok "redirect" exits 0
ok "tells each process" says '^plugin-vm1-b-c.sock: redirect: done$'
ok "reaches the first" logged plugin-vm1-a '/redirect {"peer": "h2"}'
ok "reaches the second" logged plugin-vm1-b-c '/redirect {"peer": "h2"}'
ok "reaches no other LUN's" logged plugin-vm2-a ''
rm -f "$dir"/*/log
ask redirect vm1
ok "without a peer none is named" logged plugin-vm1-a '/redirect {}'
rm -f "$dir"/*/log
ask --client b-c return vm1
ok "return with a client" logged plugin-vm1-b-c '/return -'
ok "reaches no other client's" logged plugin-vm1-a ''
ask return vm9
ok "return of a LUN that nobody has" exits 1
ok "says so" complains 'no plugin of lun vm9 is running'
printf 'h2 refuses\033' >"$dir/plugin-vm1-a/refuse"
ask redirect vm1 h2
ok "a refusal is not as wanted" exits 1
ok "and is shown" says '^plugin-vm1-a.sock: h2 refuses\?$'
ok "others are done all the same" says '^plugin-vm1-b-c.sock: redirect: done$'
rm -f "$dir"/*/refuse

rm -f "$dir"/*/log
ask confirm-dead
ok "confirm-dead wants a host" exits 2
ok "and says so" complains 'a host must be named for confirm-dead'
ask confirm-dead h3
ok "confirm-dead" exits 0
ok "reaches each plugin" logged plugin-vm2-a '/confirm-dead {"host": "h3"}'
ok "of each LUN" logged plugin-vm1-a '/confirm-dead {"host": "h3"}'
ok "and no proxy" logged proxy ''
rm -f "$dir"/*/log
ask confirm-dead h3 vm2
ok "confirm-dead for one LUN" logged plugin-vm2-a '/confirm-dead {"host": "h3"}'
ok "reaches no other LUN's" logged plugin-vm1-a ''
printf 'h3 is not dead: its proxy answers' >"$dir/plugin-vm2-a/refuse"
ask confirm-dead h3 vm2
ok "a host that answers is not dead" exits 1
ok "and that is shown" says '^plugin-vm2-a.sock: h3 is not dead: its proxy answers$'
rm -f "$dir"/*/refuse "$dir"/*/log

ask drain
ok "drain" exits 0
ok "reaches the proxy" logged proxy '/drain {}'
rm -f "$dir"/*/log
ask undrain vm1
ok "undrain of one LUN" logged proxy '/undrain {"lun": "vm1"}'
ok "reaches no plugin" logged plugin-vm1-a ''

# ---- paths, peers, events, watch, colour ------------------------------------

ask paths vm1
ok "paths" exits 0
ok "are shown" says 'path sdc +failed for 2h13m: cut'
ok "with their map" says 'map vmstore +queues'
ok "without the rest" silent_on 'verdict|probe'
ok "of a proxy's LUNs, too" says '^proxy lun vm1:$'
ok "and of no other LUN" silent_on 'vm2'
ask peers
ok "peers" exits 0
ok "are shown, too" says 'peer h2 +ready, load 0$'
ok "without paths" silent_on 'path'
ask peers vm9
ok "peers of a LUN that nobody has" exits 1

ask events vm1
ok "events" exits 0
ok "tell when and why the route changed" says \
    '^[0-9-]{10} [0-9:]{8}  plugin-vm1-a vm1 route: local: a reason$'
ok "and a path" says 'plugin-vm1-a vm1 path sdc: failed: cut$'
ok "and what the proxy did" says 'proxy vm1 verdict: good: because$'
ok "and of no other LUN" silent_on 'vm2'
in_order() { sort -c <(cut -c 1-19 "$dir/out"); }
ok "the oldest first" in_order
ask --json events vm1
ok "events as JSON" python3 -c '
import json, sys, time
events = json.load(open(sys.argv[1]))["events"]
route = [e for e in events if e["what"] == "route"][0]
assert abs(time.time() - 3.2 - route["time"]) < 60 and route["lun"] == "vm1"
' "$dir/out"

# holds_within REGEX FILE - waits for it
holds_within() {
    local end=$((SECONDS + 20))
    until grep -qE -- "$1" "$2"; do
        ((SECONDS < end)) || return 1
        sleep 0.05
    done
}

"$ctl" --rundir "$run" --follow events vm1 >"$dir/follow" 2>"$dir/err" &
follower=$!
ok "following begins with what there was" \
    holds_within 'plugin-vm1-a vm1 route: local' "$dir/follow"
plugin vm1 a redirected good
ok "and goes on with what changes" \
    holds_within 'plugin-vm1-a vm1 route: redirected' "$dir/follow"
once() { [[ $(grep -cE "$1" "$dir/follow") == 1 ]]; }
ok "what does not change is told once" once 'plugin-vm1-b-c vm1 route'
kill -INT "$follower"
wait "$follower"
status=$?
ok "a signal ends it" exits 0
plugin vm1 a local good

"$ctl" --rundir "$run" watch vm1 >"$dir/watch" 2>"$dir/err" &
watcher=$!
ok "watch shows the status" \
    holds_within '^plugin lun vm1 client a: local' "$dir/watch"
plugin vm1 a redirected good
ok "again and again" \
    holds_within '^plugin lun vm1 client a: redirected' "$dir/watch"
kill -INT "$watcher"
wait "$watcher"
status=$?
ok "and exits as status does" exits 1
cp "$dir/watch" "$dir/out"
escape=$(printf '\033')
ok "without escapes where there is no terminal" silent_on "$escape"
plugin vm1 a local good

# on_terminal ARGS...: the same, with a terminal for standard output
on_terminal() {
    python3 -c '
import os, pty, sys
status = pty.spawn(sys.argv[1:])
sys.exit(os.waitstatus_to_exitcode(status))' \
        "$ctl" --rundir "$run" "$@" >"$dir/out" 2>"$dir/err" </dev/null
    status=$?
}
TERM=xterm on_terminal status vm1
ok "a terminal gets colour" says "path sdc +$escape\[31mfailed$escape\[0m for"
ok "and green for what is good" says "a: $escape\[32mlocal$escape\[0m, for"
TERM=xterm NO_COLOR=1 on_terminal status vm1
ok "NO_COLOR is heeded" silent_on "$escape\[3"
TERM=dumb on_terminal status vm1
ok "so is a terminal without colour" silent_on "$escape\[3"
TERM=xterm ask status vm1
ok "a file gets none" silent_on "$escape"

# ---- redirected for a time --------------------------------------------------

rm -f "$dir"/*/log
ask --for 0s redirect vm1
ok "no time at all is misuse" exits 2
ask --for 10x redirect vm1
ok "so is one that cannot be read" complains 'a time such as 30s, 10m or 2h'
ask --for 1m return vm1
ok "return has no time" complains 'for means nothing to return'
ask --for 25h redirect vm1
ok "so is more than a day" exits 2
ask --for 10m redirect vm1 h2
ok "redirect for ten minutes" exits 0
ok "the process is told how long" logged plugin-vm1-a \
    '/redirect {"for_s": 600, "peer": "h2"}'
ok "every process is" logged plugin-vm1-b-c \
    '/redirect {"for_s": 600, "peer": "h2"}'
rm -f "$dir"/*/log
printf 'h2 refuses' >"$dir/plugin-vm1-a/refuse"
ask --for 2h redirect vm1
ok "a refusal is told" exits 1
ok "and who did not refuse goes on" logged plugin-vm1-b-c \
    '/redirect {"for_s": 7200}'
rm -f "$dir"/*/refuse "$dir"/*/log

# ---- completion -------------------------------------------------------------

# completes LINE... = WORDS: the last word of LINE is completed to WORDS
completes() {
    local wanted=${*: -1}
    # shellcheck disable=SC2030 # nobody else needs them
    (
        # shellcheck source=deploy/completion/detourctl
        . deploy/completion/detourctl
        COMP_WORDS=("${@:1:$#-1}")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _detourctl
        [[ ${COMPREPLY[*]} == "$wanted" ]] ||
            { echo "# ${COMPREPLY[*]}" && false; }
    )
}
printf '[host h1]\n[host  h2 ]\n[lun vm1]\n[lun vm2]\n' >"$dir/names.conf"
named=(detourctl --config "$dir/names.conf")
ok "a command is completed" completes detourctl und undrain
ok "a LUN is" completes "${named[@]}" redirect v 'vm1 vm2'
ok "a peer is" completes "${named[@]}" redirect vm1 h 'h1 h2'
ok "confirm-dead wants the host first" \
    completes "${named[@]}" confirm-dead '' 'h1 h2'
ok "an option is" completes detourctl --ru --rundir
ok "after the last argument there is nothing" \
    completes "${named[@]}" return vm1 '' ''
"$ctl" --help >"$dir/out"
told() {
    sed -n 's/^  \([a-z][a-z-]*\) .*/\1/p; s/^  \(--[a-z]*\).*/\1/p' "$dir/out"
    echo --version # on --help's line
}
completed() {
    . deploy/completion/detourctl
    COMP_CWORD=1 COMP_WORDS=(detourctl '')
    _detourctl && printf '%s\n' "${COMPREPLY[@]}"
    COMP_WORDS=(detourctl --)
    _detourctl && printf '%s\n' "${COMPREPLY[@]}"
}
same_completion() { diff <(told | grep . | sort) <(completed | sort); }
ok "completion knows what --help tells" same_completion

# ---- the dead and the hung --------------------------------------------------

kill -STOP "$plugin_pid"
before=$(date +%s%N)
ask status
took_ms=$((($(date +%s%N) - before) / 1000000))
ok "a hung process is not as wanted" exits 1
ok "and is told" says '^plugin-vm1-a.sock: no answer within 2 s$'
ok "the others are shown" says '^plugin lun vm2 client a: local'
ok "after 2 s, not more" test "$took_ms" -ge 1900 -a "$took_ms" -lt 4000
ask --json status vm1
ok "json tells it as well" says '"error": "no answer within 2 s"'
ask status vm2
ok "another LUN's is as wanted" exits 0
kill -CONT "$plugin_pid"
kill -KILL "$plugin_pid"
wait "$plugin_pid" 2>/dev/null
ask status
ok "a dead process is not as wanted" exits 1
ok "and is told" says '^plugin-vm1-a.sock: nobody listens: the process has died$'
ask return vm1
ok "nor can it be commanded" exits 1
ok "a dead process' place is taken" start plugin-vm1-a
stop "$last"
ask status
ok "one that ended well is gone" exits 0

status=0
"$ctl" --rundir "$run" status >/dev/full 2>"$dir/err" || status=$?
ok "output that is lost is an error" exits 2

tap_end
