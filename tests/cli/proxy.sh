#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# A real proxy on loopback, with TLS: what standard clients get from it, and
# every refusal.
#
# Goal: any NBD client that may is served and sees its own bytes again; nobody
# else gets as far as a LUN, and the log says who and why.
# Timeline: none, but for the silent client, which is cut off after 10 s.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter_loopback
PEER=$(dirname "$0")/proxy-peer.py
ADDRESS=$(address a net1)
PORT=$(lab_port)

LAB_LUN_CONFIG="
[lun private]
device = $LAB_DIR/private
fence = drain
hosts = a, b

[lun readonly]
device = $LAB_DIR/readonly
fence = drain
readonly = yes

[lun missing]
device = $LAB_DIR/missing
fence = drain

[lun unregistered]
device = $LAB_DIR/unregistered
fence = pr
"
LAB_LUN_SIZE=16M
truncate -s 1M "$LAB_DIR/private" "$LAB_DIR/readonly" "$LAB_DIR/unregistered"
lab_up
CONF=$LAB_DIR/a/detour.conf

# libnbd's module is Debian's, for Debian's Python
for PYTHON in python3 /usr/bin/python3; do
    "$PYTHON" -c 'import nbd' 2>/dev/null && break
done

# peer HOST COMMAND [ARGUMENT...] - as that host.
peer() {
    local host=$1
    shift
    timeout 30 "$PYTHON" "$PEER" "$ADDRESS" "$PORT" "$(tls_dir "$host")" "$@" 2>&1
}

# peer_is NAME WANTED HOST COMMAND... - what came of it.
peer_is() {
    local name=$1 wanted=$2
    shift 2
    is "$name" "$(peer "$@")" "$wanted"
}

# go_refused NAME REGEX EXPORT [HOST] - and the answer says why.
go_refused() {
    local said
    said=$(peer "${4-b}" go "$3")
    if [[ $said == refused:* ]] && grep -Eq -- "$2" <<<"$said"; then
        pass "$1"
    else
        fail "$1" "$said"
    fi
}

# log_says NAME REGEX
gone_pid() {
    ! kill -0 "$1" 2>/dev/null
}

log_says() {
    check "$1" within 2000 logged proxy-a "$2"
}

state_of() {
    field proxy-a ".luns[] | select(.lun == \"$1\") | .state"
}

state_is() {
    [[ $(state_of "$1") == "$2" ]]
}

# ---- the command line ------------------------------------------------------

is "--version" "$("$BUILD/detour-proxy" --version)" "detour-proxy 0.1.0"
check "--help" "$BUILD/detour-proxy" --help
is "the page has the options of --help, and no others" \
    "$(sed -n '/^=head1 OPTIONS/,/^=head1 SIGNALS/p' \
        "$LAB_TOP/proxy/detour-proxy.8.pod" | sed -n '/^=item/p' |
        grep -o -- '--[a-z]*' | sort)" \
    "$("$BUILD/detour-proxy" --help | sed -n 's/^  \(--[a-z]*\) .*/\1/p' | sort)"
check_fails "an unknown option" "unrecognized" "$BUILD/detour-proxy" --frobnicate
check_fails "an argument" "unexpected argument: x" "$BUILD/detour-proxy" x
check_fails "no configuration" "No such file" \
    "$BUILD/detour-proxy" --config "$LAB_DIR/none"
check "--check: good" "$BUILD/detour-proxy" --check --config "$CONF"
sed "s,^cert = .*,cert = $LAB_DIR/pki/hosts/b-cert.pem," "$CONF" \
    >"$LAB_DIR/wrong.conf"
check_fails "--check: a key that is another's" "key " \
    "$BUILD/detour-proxy" --check --config "$LAB_DIR/wrong.conf"
check_fails "a start with it" "key " \
    "$BUILD/detour-proxy" --config "$LAB_DIR/wrong.conf"
{
    cat "$LAB_DIR/pki/ca-crl.pem"
    head -n 3 "$LAB_DIR/pki/ca-crl.pem"
} >"$LAB_DIR/cut-crl.pem"
sed "s,^crl = .*,crl = $LAB_DIR/cut-crl.pem," "$CONF" >"$LAB_DIR/wrong.conf"
check_fails "--check: a second revocation list that is cut off" "crl .*bad end line" \
    "$BUILD/detour-proxy" --check --config "$LAB_DIR/wrong.conf"
cat "$LAB_DIR"/pki/ca-crl.pem{,} >"$LAB_DIR/cut-crl.pem"
check "--check: two whole ones" \
    "$BUILD/detour-proxy" --check --config "$LAB_DIR/wrong.conf"

start_proxy a
check "it serves" within 5000 state_is disk serving
check_fails "a second one on this host" "runs already" \
    "$BUILD/detour-proxy" --config "$CONF"

peer b silent >"$LAB_DIR/silent" &
silent=$!

# ---- standard clients --------------------------------------------------------

TLS=$(tls_dir b)
URI="nbds://$ADDRESS:$PORT/disk?tls-certificates=$TLS"
QEMU=(--object "tls-creds-x509,id=tls,endpoint=client,dir=$TLS,verify-peer=yes")
IMAGE="driver=nbd,server.type=inet,server.host=$ADDRESS,server.port=$PORT"
IMAGE+=",export=disk,tls-creds=tls"
head -c 16M /dev/urandom >"$LAB_DIR/random"

check "nbdinfo" nbdinfo "$URI"
is "nbdinfo: the size" "$(nbdinfo --size "$URI")" $((16 << 20))
peer_is "the LUNs of b" "disk missing private readonly unregistered" b list
peer_is "the LUNs of c" "disk missing readonly unregistered" c list
is "nbdinfo --map: a hole" "$(nbdinfo --map --totals "$URI" | tr -s ' ')" \
    " 16777216 100.0% 3 hole,zero"
check "nbdcopy there" nbdcopy --flush "$LAB_DIR/random" "$URI"
check "it is on the LUN" cmp "$LAB_DIR/random" "$LAB_DIR/lun1"
check "nbdcopy back" nbdcopy "$URI" "$LAB_DIR/back"
check "it is the same" cmp "$LAB_DIR/random" "$LAB_DIR/back"
check "qemu-img convert" qemu-img convert "${QEMU[@]}" --image-opts "$IMAGE" \
    -O raw "$LAB_DIR/back"
check "it is the same, too" cmp "$LAB_DIR/random" "$LAB_DIR/back"
check "qemu-io: write, discard, zero, read" qemu-io "${QEMU[@]}" --image-opts \
    -c "write -P 0x5a 1M 1M" -c "write -z 2M 64k" -c "discard 4M 1M" \
    -c "write -P 0x5b -f 3M 512" -c flush -c "read -P 0x5a 1M 1M" \
    -c "read -P 0 2M 64k" -c "read -P 0x5b 3M 512" "$IMAGE"
is "its bytes are on the LUN" \
    "$(od -An -tx1 -j $((3 << 20)) -N 4 "$LAB_DIR/lun1")" " 5b 5b 5b 5b"
peer_is "1000 requests at once" "True" b many
peer_is "requests and their errors" "unaligned=EINVAL beyond=EINVAL \
write-beyond=ENOSPC trim-beyond=EINVAL huge=EINVAL fast-zero=ENOTSUP zero=ok \
cache=ok fua=ok df=ok flush=ok" b requests
peer_is "the old NBD_OPT_EXPORT_NAME" "16777216 67446698 0 7 closed" \
    b export-name disk

# ---- who is not let in ---------------------------------------------------------

peer_is "options without TLS" \
    "tls-reqd tls-reqd tls-reqd tls-reqd tls-reqd tls-reqd" b plain-options
peer_is "an export without TLS" closed b plain-export-name
log_says "and the log says so" "refused 127.*: asked for an export without TLS"
peer_is "too many options" closed b plain-many
peer_is "bytes behind STARTTLS" closed b behind-starttls
log_says "and the log says so" "plain bytes behind STARTTLS"
peer_is "TLS 1.2" refused b tls12
log_says "and the log says so" "TLS: unsupported protocol"
peer_is "no certificate" refused b no-certificate
log_says "and the log says so" "peer did not return a certificate"
pki issue stranger "$(address b net1)" || lab_failed "detour-pki fails"
check_fails "a certificate of no configured host" "." \
    nbdinfo "${URI/tls-b/$(basename "$(tls_dir stranger)")}"
log_says "and the log says so" "names no configured host"
is "each of these is counted" "$(field proxy-a .tls_errors)" 3
peer_is "a long option" closed b long-option
peer_is "no NBD at all" closed b rubbish
log_says "and the log says so" "refused 127.*, b: bad option magic"
peer_is "rubbish for a request" closed b bad-request

# ---- what is refused -----------------------------------------------------------

check "a granted one" grep -q granted <(peer b go disk)
check "the same asked by INFO" grep -q granted <(peer b go disk 6)
go_refused "an unknown LUN" "unknown: no such LUN" nothing
go_refused "a LUN of others" "policy: .*not a member" private c
check "the same LUN for a member" grep -q granted <(peer b go private)
peer_is "the old way to be refused" closed c export-name private
go_refused "a name with rubbish" "invalid: " "disk?frobnicate=1"
go_refused "a client without generation" "invalid: client needs a generation" "disk?client=vm"
go_refused "a generation without client" "invalid: generation and fence need a client" "disk?generation=1"
go_refused "a fence without client" "invalid: generation and fence need a client" "disk?fence=c"
go_refused "a fence of this very host" "this very host" \
    "disk?client=f&generation=1&fence=a"
go_refused "a fence of nobody" "no such host" \
    "disk?client=f&generation=1&fence=z"
go_refused "a fence without reservations" "cannot fence c" \
    "disk?client=f&generation=2&fence=c"
go_refused "another LUN of that name" "another LUN" \
    "disk?client=f&generation=3&id=naa.123"
id=$(field proxy-a '.luns[] | select(.lun == "disk") | .lun_status.id')
check "the right LUN of that name" \
    grep -q granted <(peer b go "disk?client=f&generation=4&id=$id")
go_refused "a LUN that is not there" "not serving" missing
go_refused "a LUN that cannot be registered" "not serving.*cannot register" \
    unregistered
check_fails "a write to a read-only LUN" "Operation not permitted|EPERM|read-only" \
    "$PYTHON" -c "
import nbd
h = nbd.NBD()
h.set_strict_mode(0)
h.set_uri_allow_local_file(True)
h.connect_uri('${URI/disk/readonly}')
assert h.is_read_only()
h.pwrite(bytes(512), 0)"

# ---- sessions --------------------------------------------------------------------

peer_is "generations" "yes yes alive alive no yes alive yes dead dead alive alive" \
    b generations
check "another host's client of that name" \
    grep -q granted <(peer c go "disk?client=vm&generation=1")

# hold FILE HOST NAME - a peer with an open session, in the background.
hold() {
    peer "$2" hold "$3" >"$1" &
    check "$2 opens ${3%%\?*}" within 5000 grep -q open "$1"
}

# ---- drain ------------------------------------------------------------------------

hold "$LAB_DIR/held" b "disk?client=d&generation=1"
is "the status shows it" "$(field proxy-a '.luns[] | select(.lun == "disk")
    | .sessions[] | [.host, .client, .generation, (.connections | length)]
    | join(" ")')" "b d 1 1"
# The limit of connections is reckoned from the descriptors that one takes.
descriptors() {
    find "/proc/${LAB_PID[proxy-a]}/fd" -mindepth 1 | wc -l
}
before=$(descriptors)
hold "$LAB_DIR/latin" b "disk?client=%FFd%C3%A9&generation=1"
is "and one whose name is not UTF-8" "$(field proxy-a '.luns[]
    | select(.lun == "disk") | [.sessions[].client] | sort | join(" ")')" "?d?? d"
is "and what that one did" "$(field proxy-a '.luns[]
    | select(.lun == "disk") | .clients[] | select(.client == "?d??") | .host')" b
at_most "the descriptors of a connection" $(($(descriptors) - before)) \
    "$(sed -n 's/#define SERVER_FDS_PER_CONN //p' "$LAB_TOP/proxy/server.h")" \
    descriptors
check "drain" post proxy-a /drain '{"lun": "disk"}'
check "the session ends" within 5000 grep -q "ended: ESHUTDOWN" "$LAB_DIR/held"
go_refused "a session on a draining LUN" "shutdown: disk: draining" disk
check "it is drained" within 5000 state_is disk drained
is "the others are not" "$(state_of private)" serving
check "undrain" post proxy-a /undrain '{"lun": "disk"}'
check "it serves again" within 5000 state_is disk serving
check "and lets in" grep -q granted <(peer b go disk)
check_fails "drain of an unknown LUN" 404 curl -sSf --unix-socket \
    "$(control_socket proxy-a)" -d '{"lun": "none"}' http://localhost/drain
check_fails "an unknown order" 404 curl -sSf --unix-socket \
    "$(control_socket proxy-a)" http://localhost/frobnicate

# ---- certificates come and go ------------------------------------------------------

hold "$LAB_DIR/held-b" b disk
hold "$LAB_DIR/held-c" c disk
declare -A late_pid
cp "$LAB_DIR/pki/ca-crl.pem" "$LAB_DIR/crl"
echo rubbish >"$LAB_DIR/pki/ca-crl.pem"
kill -HUP "${LAB_PID[proxy-a]}"
log_says "a bad list is not taken" "certificates not reloaded, the old ones stay"
is "c is still served" "$(cat "$LAB_DIR/held-c")" open
cp "$LAB_DIR/crl" "$LAB_DIR/pki/ca-crl.pem"
mkfifo "$LAB_DIR/late-b.in" "$LAB_DIR/late-c.in"
for h in b c; do
    peer "$h" late <"$LAB_DIR/late-$h.in" >"$LAB_DIR/late-$h" &
    late_pid[$h]=$!
done
exec {late_b}>"$LAB_DIR/late-b.in" {late_c}>"$LAB_DIR/late-c.in"
for h in b c; do
    check "$h begins its handshake" within 5000 \
        grep -q waiting "$LAB_DIR/late-$h"
done
pki revoke c || lab_failed "detour-pki fails"
kill -HUP "${LAB_PID[proxy-a]}"
log_says "the new list is taken" "certificates reloaded"
check "c's session ends" within 5000 grep -q ended "$LAB_DIR/held-c"
log_says "and the log says why" "c is not let in any more: certificate revoked"
is "b's does not" "$(cat "$LAB_DIR/held-b")" open
echo >&"$late_b"
echo >&"$late_c"
wait "${late_pid[b]}" "${late_pid[c]}"
is "b's handshake goes on" "$(tail -n 1 "$LAB_DIR/late-b")" "answered 0x2"
is "c's handshake, begun before, comes too late" \
    "$(tail -n 1 "$LAB_DIR/late-c")" refused
URI_C=${URI/tls-b/$(basename "$(tls_dir c)")}
check_fails "c comes no more" "." nbdinfo "$URI_C"

# Refusals are told at a limited rate, and this script has caused many.
told_revoked() {
    ! nbdinfo "$URI_C" && logged proxy-a "peer's certificate: certificate revoked"
}
check "and the log says why" within 5000 told_revoked

# ---- the end --------------------------------------------------------------------------

check "the silent client is cut off" within 15000 gone_pid "$silent"
log_says "and the log says so" "handshake timed out"
begin=$(now_ms)
stop_proxy a
at_most "SIGTERM ends it" $(($(now_ms) - begin)) 2000
check "b's session ended with it" within 1000 grep -q ended "$LAB_DIR/held-b"
check "nothing is left in rundir but locks" \
    test -z "$(find "$LAB_RUN/a" -type s)"
lab_end
