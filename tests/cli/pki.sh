#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Goal: detour-pki makes certificates that both OpenSSL and GnuTLS take for
# what they are meant for and for nothing else, and never destroys a key.
set -u

. tests/lib/tap.sh

pki() { bash deploy/detour-pki -d "$dir" "$@"; }

dir=$(mktemp -d "${TMPDIR:-/tmp}/pki.XXXXXX")/ca
trap 'rm -rf "${dir%/ca}"' EXIT
said=${dir%/ca}/said

# fails STATUS WORDS COMMAND...: it must end with STATUS and say WORDS
fails() {
    local status=$1 words=$2 got

    shift 2
    "$@" >"$said.fails" 2>&1
    got=$?
    cat "$said.fails"
    [[ $got = "$status" ]] && grep -qF -- "$words" "$said.fails"
}

says() {
    local words=$1

    shift
    "$@" >"$said.says" 2>&1
    cat "$said.says"
    grep -qF -- "$words" "$said.says"
}

says_not() { ! says "$@"; }

mode_is() { [[ $(stat -c %a "$2") = "$1" ]]; }

# verify HOST [OPTION...]: with OpenSSL, revocation list included
verify() {
    local host=$1

    shift
    openssl verify -x509_strict -crl_check -CAfile "$dir/ca-cert.pem" \
        -CRLfile "$dir/ca-crl.pem" "$@" "$dir/hosts/$host-cert.pem"
}

gnutls_verify() {
    local host=$1

    shift
    certtool --verify --verify-profile medium \
        --load-ca-certificate "$dir/ca-cert.pem" \
        --load-crl "$dir/ca-crl.pem" "$@" <"$dir/hosts/$host-cert.pem"
}

# handshake ADDRESS: GnuTLS as host b calls OpenSSL as host a, which listens
# on ADDRESS; both verify (-www: or it ends with its standard input)
handshake() {
    local out=${dir%/ca}/server port= server try

    : >"$out"
    openssl s_server -www -accept "$1:0" -naccept 1 -tls1_3 -Verify 1 \
        -verify_return_error -CAfile "$dir/ca-cert.pem" \
        -cert "$dir/hosts/a-cert.pem" -key "$dir/hosts/a-key.pem" \
        >"$out" 2>&1 &
    server=$!
    for ((try = 0; try < 500; try++)); do
        port=$(sed -n 's/^ACCEPT .*:\([0-9]*\)$/\1/p' "$out")
        [[ $port ]] && break
        sleep 0.02
    done
    gnutls-cli --x509cafile "$dir/ca-cert.pem" \
        --x509certfile "$dir/hosts/b-cert.pem" \
        --x509keyfile "$dir/hosts/b-key.pem" \
        --port "$port" "$1" </dev/null
    local status=$?

    kill "$server" 2>/dev/null
    wait "$server" 2>/dev/null
    return $status
}

same_key() {
    cmp "$1" "$2"
}

check "help tells the commands" says "revoke HOST" pki --help
check "no command is an error" fails 2 "command is missing" pki
check "unknown command is an error" fails 2 "unknown command" pki destroy
check "nothing works before init" fails 1 "no authority" pki issue a 127.0.0.1

check "init" pki init prod
check "the authority's key is private" mode_is 600 "$dir/ca-key.pem"
cp "$dir/ca-key.pem" "$said.key"
check "init never overwrites the key" fails 1 "not overwritten" pki init prod
check "the key is the old one" same_key "$said.key" "$dir/ca-key.pem"
check "the authority signs, and no authority below it" \
    says "CA:TRUE, pathlen:0" openssl x509 -in "$dir/ca-cert.pem" -noout -text

check "issue" pki issue a 127.0.0.1 fd00::1 10.1.2.3
check "a host's key is private" mode_is 600 "$dir/hosts/a-key.pem"
check "the certificate may be read" mode_is 644 "$dir/hosts/a-cert.pem"
check "the name is the host's" says "CN = a" \
    openssl x509 -in "$dir/hosts/a-cert.pem" -noout -subject
check "the key is on P-256" says "prime256v1" \
    openssl x509 -in "$dir/hosts/a-cert.pem" -noout -text
check "good for a server" verify a -purpose sslserver
check "good for a client" verify a -purpose sslclient
check "good for its name" verify a -verify_hostname a
check "good for its IPv4 address" verify a -verify_ip 10.1.2.3
check "good for its IPv6 address" verify a -verify_ip fd00::1
check "not for another name" fails 2 "hostname mismatch" \
    verify a -verify_hostname b
check "not for another address" fails 2 "IP address mismatch" \
    verify a -verify_ip 10.1.2.4

cp "$dir/hosts/a-key.pem" "$said.key"
check "issue never overwrites a key" fails 1 "--renew" pki issue a 127.0.0.1
check "the host's key is the old one" same_key "$said.key" \
    "$dir/hosts/a-key.pem"
check "renew replaces it" pki issue --renew a 127.0.0.1 ::1
check "the host's key is a new one" fails 1 differ \
    same_key "$said.key" "$dir/hosts/a-key.pem"
check "the new certificate is good" verify a -verify_ip ::1

check "a name that is none is refused" fails 2 "is no name" \
    pki issue ../x 127.0.0.1
check "an address that is none is refused" fails 2 "is no IPv4" \
    pki issue x "10.0.0.1,DNS:y"
check "an impossible address is refused" fails 1 "bad ip address" \
    pki issue x 999.0.0.1
check "nothing is left of it" fails 2 "No such file" ls "$dir/hosts/x-key.pem"
check "a host needs an address" fails 2 "needs a host" pki issue x
check "days must be a number" fails 2 "number of days" \
    pki issue --days 0x9 x 127.0.0.1

check "a certificate may be short" pki issue --days 1 short 127.0.0.1
check "it ends within two days" fails 1 "will expire" \
    openssl x509 -in "$dir/hosts/short-cert.pem" -noout -checkend 172800
check "a certificate may be over" \
    pki issue --not-before '2 days ago' --not-after '1 day ago' old 127.0.0.1
check "OpenSSL refuses it" fails 2 "has expired" verify old
check "a certificate may be early" \
    pki issue --not-before '1 day' --not-after '2 days' early 127.0.0.1
check "OpenSSL refuses it" fails 2 "not yet valid" verify early
check "it cannot end before it begins" fails 2 "before it begins" \
    pki issue --not-before '2 days' --not-after '1 day' x 127.0.0.1

check "issue b" pki issue b 127.0.0.2
if command -v certtool gnutls-cli >/dev/null; then
    check "GnuTLS takes it" gnutls_verify b
    check "GnuTLS takes it as a server's" \
        gnutls_verify b --verify-purpose 1.3.6.1.5.5.7.3.1
    check "GnuTLS takes it as a client's" \
        gnutls_verify b --verify-purpose 1.3.6.1.5.5.7.3.2
    check "GnuTLS refuses another purpose" fails 1 "NOT trusted" \
        gnutls_verify b --verify-purpose 1.3.6.1.5.5.7.3.3
    check "GnuTLS and OpenSSL shake hands" handshake 127.0.0.1
    check "GnuTLS refuses a wrong address" fails 1 "does not match" \
        handshake 127.0.0.9
fi

check "revoke" says "ca-crl.pem" pki revoke b
check "OpenSSL refuses it" fails 2 "certificate revoked" verify b
command -v certtool >/dev/null &&
    check "GnuTLS refuses it" fails 1 "revoked" gnutls_verify b
check "others are still good" verify a
check "revoke takes every certificate of a name" pki revoke a
check "the renewed and the first one" \
    [ "$(grep -c '^R.*/CN=a$' "$dir/ca-index.txt")" = 2 ]
check "revoke again is told" fails 1 "no certificate to revoke" pki revoke b
check "revoke of nobody is told" fails 1 "no certificate" pki revoke nobody

check "show lists what is valid" says "short                valid" pki show
check "show lists what is revoked" says "b                    revoked" pki show
check "show lists what has expired" says "old                  expired" pki show
check "crl makes a list that lasts as long as told" pki crl --days 90
check "its end is that far" says \
    "$(LC_ALL=C date -u -d '90 days' +%b\ %_d)" \
    openssl crl -in "$dir/ca-crl.pem" -noout -nextupdate
check "revoked certificates stay on it" fails 2 "certificate revoked" verify b
check "no scratch folder is left" says_not scratch ls "$dir"
tap_end
