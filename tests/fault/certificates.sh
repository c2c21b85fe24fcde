#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Who may talk to whom.
#
# Goal: a proxy serves only hosts of the configuration, by a certificate of our
# authority; a plugin sends nothing to a peer that it cannot verify.  Every
# refusal is logged with its reason and the address it came from.
# Timeline: none: each refusal is immediate; the plugin's peers are judged
# within 5 s.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

LAB_HOSTS=(a b c)
lab_up
start_proxy b
check "b serves" within 10000 proxy_is b serving

# Certificates that look right, but for one thing.
net1=$(address a net1)
net2=$(address a net2)
foreign() {
    "$LAB_TOP/deploy/detour-pki" -d "$LAB_DIR/foreign" "$@" \
        >>"$LAB_DIR/log/pki" 2>&1
}
{ foreign init lab && foreign issue a "$net1" "$net2" &&
    pki issue stranger "$net1" "$net2" &&
    pki issue --not-before "2 days ago" --not-after "1 day ago" expired \
        "$net1" "$net2" &&
    pki issue revoked "$net1" "$net2"; } ||
    lab_failed "detour-pki fails"

# ask TLS-DIR - does b serve a client with these?
ask() {
    in_host a timeout 8 nbdinfo --size \
        "nbds://$(address b net1):$(lab_port)/$LAB_LUN?tls-certificates=$1"
}

# refused NAME TLS-DIR REASON - and b's log says why.
refused() {
    local before
    before=$(wc -l <"$LAB_DIR/log/proxy-b")
    check_fails "$1 is refused" "." ask "$2"
    check "and the log says why" within 2000 \
        log_after "$before" "$net1.*($3)"
}

log_after() {
    tail -n "+$(($1 + 1))" "$LAB_DIR/log/proxy-b" | grep -Eqi -- "$2"
}

check "a member is served" ask "$(tls_dir a)"
refused "a name that is not configured" "$(tls_dir stranger)" \
    "no host|not configured|name"
refused "an expired certificate" "$(tls_dir expired)" "expired"

# Revoked while in use: SIGHUP brings the new list, and ends what it forbids.
start_plugin c
check "c is local" within 10000 route_is c local
check "b stands by for c" within 10000 peer_serves c b
black_hole c
expect_route c "redirected b" 5000
{ pki revoke revoked && pki revoke c; } || lab_failed "detour-pki fails"
kill -HUP "${LAB_PID[proxy-b]}"
expect_route c queueing 5000
check "c is told why" within 5000 peer_says c b "revoked|certificate|TLS"
refused "a revoked certificate" "$(tls_dir revoked)" "revoked"
check "a member is still served" ask "$(tls_dir a)"
stop_plugin c

mkdir "$LAB_DIR/tls-foreign"
ln -s "$LAB_DIR/pki/ca-cert.pem" "$LAB_DIR/tls-foreign/ca-cert.pem"
ln -s "$LAB_DIR/foreign/hosts/a-cert.pem" "$LAB_DIR/tls-foreign/client-cert.pem"
ln -s "$LAB_DIR/foreign/hosts/a-key.pem" "$LAB_DIR/tls-foreign/client-key.pem"
refused "another authority" "$LAB_DIR/tls-foreign" \
    "issuer|self.signed|verif|no certificate|authority|unknown ca"
mkdir "$LAB_DIR/tls-none"
ln -s "$LAB_DIR/pki/ca-cert.pem" "$LAB_DIR/tls-none/ca-cert.pem"
refused "no certificate" "$LAB_DIR/tls-none" "no certificate|did not return"
check_fails "no TLS is refused" "." in_host a timeout 8 nbdinfo --size \
    "nbd://$(address b net1):$(lab_port)/$LAB_LUN"

# The other way round: a's plugin and peers that are not what they say.
stop_proxy b
start_plugin a
check "a is local" within 10000 route_is a local

# failures REASON - of a's connections to b
failures() {
    field plugin-a-vm ".peers[] | select(.host == \"b\") | .failed.$1"
}

# refused_since COUNT REASON - a condition: once more than that, and for that
# reason, which may be that of the impostor before as well
refused_since() {
    (($(failures certificate) > $1)) && peer_says a b "$2"
}

# impostor NAME REASON - b's proxy with the certificate LAB_CERT, LAB_KEY
impostor() {
    local before
    before=$(failures certificate)
    host_config b
    start_proxy b
    check "$1: b serves" within 10000 proxy_is b serving
    check "$1: the plugin refuses its certificate and says why" \
        within 8000 refused_since "$before" "$2"
    stop_proxy b
}

pki issue elsewhere 10.99.99.99
# GnuTLS says no more through libnbd than that verification failed.
why="certificate verification|certificate.*not.*(match|trusted)"
for bad in elsewhere expired revoked; do
    LAB_CERT=$LAB_DIR/pki/hosts/$bad-cert.pem
    LAB_KEY=$LAB_DIR/pki/hosts/$bad-key.pem
    impostor "peer $bad" "$why"
done
LAB_CA=$LAB_DIR/foreign/ca-cert.pem
LAB_CRL=$LAB_DIR/foreign/ca-crl.pem
foreign issue b "$(address b net1)" "$(address b net2)"
LAB_CERT=$LAB_DIR/foreign/hosts/b-cert.pem
LAB_KEY=$LAB_DIR/foreign/hosts/b-key.pem
impostor "peer of another authority" "$why"
unset LAB_CA LAB_CRL LAB_CERT LAB_KEY
check "and told to people" grep -q 'failed .*certificate [1-9]' <(ctl a peers)
host_config b
start_proxy b
check "the right b is accepted again" within 10000 peer_serves a b
black_hole a
expect_route a "redirected b" 5000
lab_end
