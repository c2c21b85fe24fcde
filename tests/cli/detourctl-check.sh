#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# detourctl check: nothing on a good host, and each planted mistake is found.
#
# The good host is real: two proxies on loopback that share a LUN, a
# detour-health beside each.  /etc, /proc and /sys are made up.
set -u

# /dev/mapper and loopback of our own
if [[ -z ${CHECK_INSIDE-} ]]; then
    unshare --mount --net true 2>/dev/null || {
        echo "1..0 # SKIP no namespaces here: not root"
        exit 0
    }
    CHECK_INSIDE=1 exec unshare --mount --net bash "$0" "$@"
fi
ip link set lo up || exit 1

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter_loopback
LAB_HOSTS=(a b)
LAB_LUN=vmstore
LAB_LUN_SIZE=16M
HEALTH_PORT=$(($(lab_port) + 1))
LAB_LUN_CONFIG="
[health]
port = $HEALTH_PORT"
for h in a b; do
    LAB_DEVICE[$h]=/dev/mapper/vmstore
done

# dev_up - a /dev of our own with the map in it: a link, as udev makes it.
#
# Not below LAB_DIR, whose end is rm -rf: only single nodes are mounted, in a
# file system that ends with our namespace.
dev_up() {
    local new=/run/dev node
    mount -t tmpfs run /run && mkdir -p "$new/mapper" || return 1
    for node in full null random tty urandom zero; do
        touch "$new/$node" && mount --bind "/dev/$node" "$new/$node" || return 1
    done
    ln -s /proc/self/fd "$new/fd"
    ln -s "$LAB_DIR/lun1" "$new/mapper/vmstore"
    mount --rbind "$new" /dev
}
dev_up 2>"$LAB_DIR/log/dev" || skip_all "no /dev of our own"

# ---- a good host -------------------------------------------------------------

ROOT=$LAB_DIR/root GOOD=$LAB_DIR/a/detour.conf TRY=$LAB_DIR/try.conf
PATH=$LAB_DIR/bin:$PATH

# good_root - what stands in /etc, /proc and /sys of a good host.
good_root() {
    rm -rf "$ROOT"
    mkdir -p "$ROOT"/{etc/multipath/conf.d,proc/sys/kernel} \
        "$ROOT"/sys/class/{iscsi_session/session1,fc_remote_ports/rport-1}
    cp "$LAB_TOP/deploy/examples/multipath.conf" "$ROOT/etc/"
    echo 0 >"$ROOT/proc/sys/kernel/hung_task_panic"
    echo 0 >"$ROOT/proc/sys/kernel/io_uring_disabled"
    echo 5 >"$ROOT/sys/class/iscsi_session/session1/recovery_tmo"
    echo 5 >"$ROOT/sys/class/fc_remote_ports/rport-1/fast_io_fail_tmo"
}

# nbdkit_says TEXT - the nbdkit in PATH
nbdkit_says() {
    mkdir -p "$LAB_DIR/bin"
    printf '#!/bin/sh\necho "%s"\n' "$1" >"$LAB_DIR/bin/nbdkit"
    chmod 755 "$LAB_DIR/bin/nbdkit"
}

# look [OPTION...] - checks; what it says is in $said, its end in $rc.
look() {
    said=$("$BUILD/detourctl" --config "$TRY" --sysroot "$ROOT" "$@" check 2>&1)
    rc=$?
}

good() {
    good_root
    nbdkit_says 'nbdkit 1.42.1'
    cp "$GOOD" "$TRY"
}

# finds NAME REGEX - a problem or a warning, and what to do is told.
finds() {
    look
    local after
    after=$(grep -EA1 -- "^(problem|warning): $2" <<<"$said" | sed -n 2p)
    if ((rc == 1)) && [[ $after == '    '* ]]; then
        pass "found: $1"
    else
        fail "found: $1" "exit status $rc
$said"
    fi
    good
}

# health HOST
health() {
    lab_start "health-$1" "$1" "$BUILD/detour-health" \
        --config "$LAB_DIR/$1/detour.conf"
    within 5000 curl -s -o "$LAB_DIR/out" \
        "http://$(address "$1" net1):$HEALTH_PORT/status" ||
        lab_failed "detour-health of $1 does not start"
}

# serves HOST
serves() {
    curl -s --unix-socket "$LAB_RUN/$1/proxy.sock" http://localhost/status |
        jq -e '.luns[0] | .state == "serving" and
            .lun_status.verdict.state == "good"'
}

lab_up
for h in a b; do
    start_proxy $h
    within 20000 serves $h || lab_failed "proxy of $h does not serve"
done
health b
good

look
is "nothing is found on a good host" "$rc: $said" \
    "0: check: 0 problems, 0 warnings"
look --json
is "as JSON" "$rc $(jq -c . <<<"$said")" \
    '0 {"findings":[],"problems":0,"warnings":0}'

# ---- multipath.conf ----------------------------------------------------------

conf=$ROOT/etc/multipath.conf
sed -i 's/no_path_retry fail/no_path_retry queue/' "$conf"
finds "no_path_retry queue" 'vmstore: .*no_path_retry queue in overrides'
printf 'defaults {\n features "1 queue_if_no_path"\n}\n' >"$conf"
finds "queue_if_no_path" 'vmstore: .*queue_if_no_path" in defaults'
echo 'overrides { no_path_retry 12 }' >"$conf"
finds "queueing for a time" 'vmstore: .*no_path_retry 12'
echo 'defaults { no_path_retry fail }' >"$conf"
finds "a built-in entry may queue" 'vmstore: .*neither overrides'
rm "$conf"
finds "no multipath.conf" 'vmstore: there is no /etc/multipath.conf'
sed -i 's/no_path_retry fail/&\n reservation_key 0x1/' "$conf"
finds "reservation_key" 'vmstore: .*reservation_key in overrides'
echo 'multipaths { multipath { alias vmstore
 no_path_retry queue } }' >"$ROOT/etc/multipath/conf.d/x.conf"
finds "a LUN's own section is the stronger, in conf.d" \
    'vmstore: .*no_path_retry queue in multipaths'
sed -i 's/fast_io_fail_tmo 2/fast_io_fail_tmo off/' "$conf"
finds "fast_io_fail_tmo off" 'vmstore: .*fast_io_fail_tmo off'

# What does not concern us is not told.
echo 'multipaths { multipath { alias other # no_path_retry queue
 no_path_retry queue
 reservation_key 0x1 } }
devices { device { no_path_retry queue } }' >"$ROOT/etc/multipath/conf.d/x.conf"
look
is "another LUN may queue, and so may what overrides stop" \
    "$(tail -1 <<<"$said")" "check: 0 problems, 0 warnings"
good

# ---- the host ----------------------------------------------------------------

echo 1 >"$ROOT/proc/sys/kernel/hung_task_panic"
finds "hung_task_panic" 'sysctl: kernel/hung_task_panic is 1'
echo 2 >"$ROOT/proc/sys/kernel/io_uring_disabled"
finds "no io_uring" 'sysctl: kernel/io_uring_disabled is 2'
echo 120 >"$ROOT/sys/class/iscsi_session/session1/recovery_tmo"
finds "iSCSI waits longer than a guest" \
    'transport: .*session1/recovery_tmo is 120: .* waits 120 s'
echo off >"$ROOT/sys/class/fc_remote_ports/rport-1/fast_io_fail_tmo"
finds "Fibre Channel waits for ever" 'transport: .*fast_io_fail_tmo is off'
nbdkit_says nonsense
finds "no nbdkit" 'nbdkit: there is no nbdkit'
nbdkit_says 'nbdkit 1.32.5'
look
is "an old nbdkit is a note" "$rc $(grep -c '^note: nbdkit: version 1.32' \
    <<<"$said") $(tail -1 <<<"$said")" "0 1 check: 0 problems, 0 warnings"
good

# ---- the configuration -------------------------------------------------------

# lun_line LINE - one more line of the LUN's section
lun_line() {
    sed -i "/^\[lun vmstore\]/a $1" "$TRY"
}

rm "$TRY"
finds "no configuration" 'configuration: .*No such file'
lun_line 'nonsense = 1'
finds "a mistake in it" "configuration: $TRY:[0-9]+: .*nonsense"
lun_line 'open_timeout = 20s'
finds "a switch longer than a guest's timeout" 'vmstore: .* may take 41 s'
lun_line 'queue_limit = 10s'
finds "errors before the guest gives up" 'vmstore: guests get I/O errors'
lun_line 'hosts = a'
finds "nobody shares the LUN" 'vmstore: this host is its only one'
sed -i "s,^statedir = .*,statedir = $LAB_DIR/none," "$TRY"
finds "no statedir" 'statedir: .*/none: No such file'
sed -i 's/^address = 127.77.11.11/address = 192.0.2.1/' "$TRY"
finds "an address that is not ours" 'a: this host has not its address 192.0.2.1'
sed -i 's/^address = 127.77.11.12, [0-9.]*/address = 127.77.11.12, 127.77.11.99/' \
    "$TRY"
finds "a peer that one network does not reach" \
    'b: cannot be asked at 127.77.11.99 port'
sed -i 's,/dev/mapper/vmstore,/dev/sdzz,' "$TRY"
finds "a name that changes" 'vmstore: /dev/sdzz may be another disk'
sed -i 's,/dev/mapper/vmstore,/dev/mapper/gone,' "$TRY"
finds "no device" 'vmstore: /dev/mapper/gone: No such file'
lun_line 'wwid = naa.600'
finds "a wwid that is not the device's" \
    'vmstore: .* is file\..*, and wwid wants naa.600'
sed -i 's/^fence = drain/fence = pr/' "$TRY"
finds "fence = pr on a file" 'vmstore: fence = pr, but .* is a file'
printf '[lun extra]\ndevice = %s\nfence = drain\n' "$LAB_DIR/extra" >>"$TRY"
truncate -s 1M "$LAB_DIR/extra"
finds "a LUN that the peer does not have" \
    'extra: peer b would not serve it: '
printf '[lun twin]\ndevice = %s\nfence = drain\n' "$LAB_DIR/lun1" >>"$TRY"
finds "one LUN under two names" 'twin: it is the same LUN as vmstore'
truncate -s 16M "$LAB_DIR/other"
sed -i "s,^device = .*,device = $LAB_DIR/other," "$TRY"
finds "another LUN under that name" \
    'vmstore: peer b has file\..* under this name'

# ---- certificates ------------------------------------------------------------

# own_pki NAME - certificates of their own, to be spoilt
own_pki() {
    sed -i "s,^cert = .*,cert = $LAB_DIR/$1/hosts/a-cert.pem,
        s,^key = .*,key = $LAB_DIR/$1/hosts/a-key.pem,
        s,^crl = .*,crl = $LAB_DIR/$1/ca-crl.pem," "$TRY"
}
# spoil ARGUMENT... - of detour-pki, on a copy of the lab's
spoil() {
    rm -rf "$LAB_DIR/spoilt"
    cp -a "$LAB_DIR/pki" "$LAB_DIR/spoilt"
    "$LAB_TOP/deploy/detour-pki" -d "$LAB_DIR/spoilt" "$@" \
        >>"$LAB_DIR/log/pki" 2>&1 || fail "detour-pki $1" "see its log"
    own_pki spoilt
}
addresses=("$(address a net1)" "$(address a net2)")

spoil issue --renew --days 5 a "${addresses[@]}"
finds "a certificate that expires" 'cert: .* ends in [45] days'
spoil issue --renew --not-before '-9 days' --not-after '-2 days' \
    a "${addresses[@]}"
finds "one that has" 'cert: .* ended 2 days ago'
spoil issue --renew --not-before '+2 days' a "${addresses[@]}"
finds "one that is not valid yet" 'cert: .* is not valid yet'
spoil issue --renew a "${addresses[0]}"
finds "one without an address" \
    "cert: .* does not carry the address ${addresses[1]}"
spoil crl --days 3
finds "a revocation list that runs out" 'crl: .* ends in [23] days'
spoil revoke a
finds "a revoked certificate" 'cert: .* stands in the revocation list'
cp -a "$LAB_DIR/pki" "$LAB_DIR/open"
chmod 644 "$LAB_DIR/open/hosts/a-key.pem"
own_pki open
finds "a key that others can read" 'configuration: .* is open to others'
sed -i "s,^key = .*,key = $LAB_DIR/pki/hosts/b-key.pem," "$TRY"
finds "another certificate's key" 'key: .*b-key.pem is not the key of'
sed -i "s,^\(cert\|key\) = \(.*\)a-,\1 = \2b-," "$TRY"
finds "another host's certificate" 'cert: .* is of b, and this host is a'
LAB_FOREIGN=$LAB_DIR/foreign
"$LAB_TOP/deploy/detour-pki" -d "$LAB_FOREIGN" init other >/dev/null 2>&1
"$LAB_TOP/deploy/detour-pki" -d "$LAB_FOREIGN" issue a "${addresses[@]}" \
    >/dev/null 2>&1
own_pki foreign
sed -i '/^crl/d' "$TRY"
finds "a certificate of another authority" 'cert: .* is not of the authority'

# ---- processes ---------------------------------------------------------------

# made_up JSON - a proxy that says so, in a run directory of its own
made_up() {
    mkdir -p "$LAB_RUN/fake" "$LAB_DIR/fake"
    sed -i "s,^rundir = .*,rundir = $LAB_RUN/fake," "$TRY"
    jq -nc --arg version "$("$BUILD/detourctl" --version | cut -d' ' -f2)" \
        --arg id "$(proxy_id)" '{process: "proxy", host: "a", luns: [
            {lun: "vmstore", state: "serving", reason: "",
             lun_status: {id: $id, size: 16777216, orphans: 0,
                          verdict: {state: "good", reason: ""},
                          registration: {state: "unregistered"}}}]} +
            {version: $version} | '"$1" >"$LAB_DIR/fake/status.json"
    lab_start fake-proxy a "$BUILD/tests/tools/fake-control" \
        "$LAB_RUN/fake/proxy.sock" "$LAB_DIR/fake"
    within 5000 test -S "$LAB_RUN/fake/proxy.sock"
}
proxy_id() {
    curl -s --unix-socket "$LAB_RUN/a/proxy.sock" http://localhost/status |
        jq -r '.luns[0].lun_status.id'
}
unmake() {
    lab_kill fake-proxy TERM
    rm -rf "$LAB_RUN/fake"
}

made_up .
look
is "a proxy that says what it should" "$(tail -1 <<<"$said")" \
    "check: 0 problems, 0 warnings"
unmake
good
made_up '.luns[0].lun_status.registration.state = "unregistered"'
sed -i 's/^fence = drain/fence = pr/' "$TRY"
finds "reservations that the target refuses" \
    'vmstore: fence = pr, but proxy is not registered: unregistered'
unmake
made_up '.luns[0].lun_status.verdict = {state: "degraded", reason: "one"}'
finds "a path that is missing" "vmstore: proxy finds .* degraded: one"
unmake
made_up '.luns[0].lun_status.id = "naa.6"'
finds "a process that uses another LUN" 'vmstore: proxy uses naa.6'
unmake
made_up '.luns[0].lun_status.orphans = 2'
finds "writes that were given up" 'vmstore: proxy has 2 writes'
unmake
made_up '.version = "0.0"'
finds "a process of another version" 'proxy: runs version 0.0'
unmake
made_up .
kill -STOP "${LAB_PID[fake-proxy]}"
finds "a process that hangs" 'proxy: no answer within 2 s'
kill -CONT "${LAB_PID[fake-proxy]}"
unmake
mkdir -p "$LAB_RUN/fake"
sed -i "s,^rundir = .*,rundir = $LAB_RUN/fake," "$TRY"
finds "no proxy" 'proxy: no proxy runs here'

# ---- peers -------------------------------------------------------------------

lab_kill health-b TERM
lab_start clock b python3 -c '
import http.server, sys
class Clock(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (b"{\"cluster\": \"lab\", \"host\": \"b\", \"version\": \"%s\","
                b"\"time\": \"2020-01-01T00:00:00Z\"}" % sys.argv[3].encode())
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer((sys.argv[1], int(sys.argv[2])), Clock).serve_forever()
' "$(address b net1)" "$HEALTH_PORT" "$("$BUILD/detourctl" --version | cut -d' ' -f2)"
within 5000 curl -s -o "$LAB_DIR/out" "http://$(address b net1):$HEALTH_PORT/"
finds "a peer's clock" 'b: its clock and ours differ by -[0-9]{8}'
lab_kill clock KILL
stop_proxy b
finds "a peer that is down" "b: cannot be asked at $(address b net1) port"

lab_end
