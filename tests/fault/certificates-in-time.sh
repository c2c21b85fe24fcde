#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Certificates that run out, are renewed, and change their authority, all while
# I/O takes a detour.
#
# Goal: a session outlives the certificates it began with: they are asked for at
# connecting, not at each request.  What connects anew meets the new rules, and
# says what is wrong.  Renewing needs no restart, and no stall.
# Timeline: a's and b's certificates are good for VALID_S (12); a is redirected
# to b; they run out: I/O goes on; b is lost for a moment: nobody takes a in, and
# a waits and knows why; new certificates and SIGHUP: <= 5 s I/O goes on.  A list
# of revoked ones that is too old: the session goes on.  Both authorities are
# trusted, certificates of the new one come: the session goes on; the old
# one goes: it is opened anew.

# shellcheck source=tests/lib/lab.sh
. "$(dirname "$0")/../lib/lab.sh"
lab_enter "$@"

VALID_S=${VALID_S:-12}
# What every host trusts, as an operator copies it there.
LAB_CA=$LAB_DIR/ca.pem
LAB_CRL=$LAB_DIR/crl.pem

# trust PKI... - all hosts: these authorities and their lists.
trust() {
    local files=("${@/%//ca-cert.pem}") lists=("${@/%//ca-crl.pem}")
    cat "${files[@]}" >"$LAB_CA.new" && mv "$LAB_CA.new" "$LAB_CA" &&
        cat "${lists[@]}" >"$LAB_CRL.new" && mv "$LAB_CRL.new" "$LAB_CRL"
}

# issue HOST [OPTION...] - a new certificate in the place of the old one.
issue() {
    local h=$1
    shift
    pki issue --renew "$@" "$h" "$(address "$h" net1)" \
        "$(address "$h" net2)" || lab_failed "detour-pki issue $h fails"
}

# reload - what a proxy needs; a plugin looks at each connection.
reload() {
    local h
    for h in "${LAB_HOSTS[@]}"; do
        kill -HUP "${LAB_PID[proxy-$h]}"
    done
}

# lives_on WHAT - checks: it did not end the session of a.
lives_on() {
    expect_io a 3000
    is "$1: it is the same session" \
        "$(field plugin-a-vm .route.generation)" "$generation"
}

# connects_anew WHAT - checks: a's connections that stand by are up again, with
# the new files.
connects_anew() {
    check "$1: b's proxy has them" within 5000 \
        logged_after proxy-b "$reloaded" "certificates reloaded"
    check "$1: b stands by" within 8000 peer_serves a b
}

logged_after() {
    tail -n "+$(($2 + 1))" "$LAB_DIR/log/$1" | grep -q -- "$3"
}

LAB_HOSTS=(a b)
lab_up
trust "$LAB_DIR/pki"
until_ms=$(($(now_ms) + VALID_S * 1000))
for h in a b; do
    issue "$h" --not-after "@$((until_ms / 1000))"
done
start_hosts
check "b stands by for a" within 8000 peer_serves a b
load_start a --rate 300
blockcheck_start a --rate 150
black_hole a
expect_route a "redirected b" 3000
generation=$(field plugin-a-vm .route.generation)
(($(now_ms) < until_ms)) || lab_failed "too slow: VALID_S must be longer"

# ---- run out -------------------------------------------------------------------

nap $((until_ms - $(now_ms) + 1000))
lives_on "certificates have run out"
kill_proxy b
expect_route a queueing 8000
start_proxy b
check "b is on its paths" within 10000 proxy_is b serving
check "a knows why nobody takes it in" within 8000 \
    peer_says a b "certificate|expired|TLS"
for h in a b; do
    issue "$h"
done
begin=$(now_ms)
reload
expect_route a "redirected *" 8000
diag "redirected again $(($(now_ms) - begin)) ms after SIGHUP"
expect_io a 3000

# ---- a list of revoked ones that is too old ---------------------------------------

check "b stands by again" within 8000 peer_serves a b
check "a is sent to b" ctl a redirect disk b
expect_route a "redirected b" 5000
generation=$(field plugin-a-vm .route.generation)
cp "$LAB_CRL" "$LAB_DIR/crl.good"
(cd "$LAB_DIR/pki" && openssl ca -config ca.cnf -gencrl \
    -crl_lastupdate 20260101000000Z -crl_nextupdate 20260102000000Z \
    -out "$LAB_CRL") >>"$LAB_DIR/log/pki" 2>&1 || lab_failed "no old list"
reload
check "nobody new is let in" within 8000 peer_says a b \
    "certificate|revo|crl|TLS"
lives_on "the list is too old"
reloaded=$(wc -l <"$LAB_DIR/log/proxy-b")
mv "$LAB_DIR/crl.good" "$LAB_CRL"
reload
connects_anew "a new list"
lives_on "a new list"

# ---- another authority -----------------------------------------------------------

mv "$LAB_DIR/pki" "$LAB_DIR/pki-old"
pki_up || lab_failed "no second authority"
mv "$LAB_DIR/pki" "$LAB_DIR/pki-new"
mkdir "$LAB_DIR/pki"
mv "$LAB_DIR/pki-old/hosts" "$LAB_DIR/pki/"
reloaded=$(wc -l <"$LAB_DIR/log/proxy-b")
trust "$LAB_DIR/pki-old" "$LAB_DIR/pki-new"
reload
connects_anew "both authorities"
lives_on "both authorities"
reloaded=$(wc -l <"$LAB_DIR/log/proxy-b")
mv "$LAB_DIR/pki/hosts" "$LAB_DIR/pki/hosts-old"
mv "$LAB_DIR/pki-new/hosts" "$LAB_DIR/pki/"
reload
connects_anew "certificates of the new one"
lives_on "certificates of the new one"
# The session began with one of the old: it must end now, and be opened anew.
reloaded=$(wc -l <"$LAB_DIR/log/proxy-b")
load_mark a new
trust "$LAB_DIR/pki-new"
reload
connects_anew "the new authority alone"
check "the old certificate's session is ended" within 5000 \
    logged_after proxy-b "$reloaded" "a is not let in any more"
expect_route a "redirected *" 5000
expect_io a 3000
expect_stall a new 500

heal_paths a
check "a comes home" ctl a return disk
expect_route a local 15000
blockcheck_ok a
expect_no_error a
lab_end
