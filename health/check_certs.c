/* SPDX-License-Identifier: BSD-3-Clause */
/* Certificates: will peers believe this host, today and next week? */
#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <string.h>

#include "health/certs.h"
#include "health/check.h"
#include "health/judge.h"

#define RENEW_CERT "detour-pki issue --renew makes a new one"
#define RENEW_LIST "detour-pki crl makes a new one; have it made each week"
#define DAY_S      86400

/* ---- how long ------------------------------------------------------------ */

static void
check_end(struct check *k, const struct cert *c, time_t now)
{
    bool list = strcmp(c->name, "crl") == 0;
    const char *advice = list ? RENEW_LIST : RENEW_CERT;
    long days = (long)((c->not_after - now) / DAY_S);

    if (c->error[0])
        check_add(k, CHECK_PROBLEM, c->name, "restore the file; detour-pki(8)",
                  "%s: %s", c->path, c->error);
    else if (c->not_after <= now)
        check_add(k, CHECK_PROBLEM, c->name, advice, "%s ended %ld days ago%s",
                  c->path, -days, list ? ": nobody is served any more" : "");
    else if (days <= JUDGE_CERT_WARN_DAYS)
        check_add(k, CHECK_WARNING, c->name, advice, "%s ends in %ld days",
                  c->path, days);
}

/* ---- do they fit together ------------------------------------------------ */

struct bundle {
    gnutls_x509_crt_t ca, cert;
    gnutls_x509_privkey_t key;
    gnutls_x509_crl_t crl;
    bool has_ca, has_cert, has_key, has_crl;
};

static bool
load(const char *path, gnutls_datum_t *pem)
{
    return path && gnutls_load_file(path, pem) >= 0;
}

/* What cannot be read has been told before. */
static void
bundle_init(struct bundle *b, const struct config *c)
{
    const gnutls_x509_crt_fmt_t fmt = GNUTLS_X509_FMT_PEM;
    gnutls_datum_t pem;

    gnutls_x509_crt_init(&b->ca);
    gnutls_x509_crt_init(&b->cert);
    gnutls_x509_privkey_init(&b->key);
    gnutls_x509_crl_init(&b->crl);
    if (load(c->ca, &pem)) {
        b->has_ca = gnutls_x509_crt_import(b->ca, &pem, fmt) >= 0;
        gnutls_free(pem.data);
    }
    if (load(c->cert, &pem)) {
        b->has_cert = gnutls_x509_crt_import(b->cert, &pem, fmt) >= 0;
        gnutls_free(pem.data);
    }
    if (load(c->crl, &pem)) {
        b->has_crl = gnutls_x509_crl_import(b->crl, &pem, fmt) >= 0;
        gnutls_free(pem.data);
    }
    if (load(c->key, &pem)) {
        b->has_key =
            gnutls_x509_privkey_import2(b->key, &pem, fmt, NULL, 0) >= 0;
        gnutls_memset(pem.data, 0, pem.size);
        gnutls_free(pem.data);
    }
}

static void
bundle_fini(struct bundle *b)
{
    gnutls_x509_crt_deinit(b->ca);
    gnutls_x509_crt_deinit(b->cert);
    gnutls_x509_privkey_deinit(b->key);
    gnutls_x509_crl_deinit(b->crl);
}

static void
check_key(struct check *k, const struct bundle *b)
{
    unsigned char of_key[64], of_cert[64];
    size_t nkey = sizeof of_key, ncert = sizeof of_cert;
    const struct config *c = k->config;

    if (!b->has_key) {
        check_add(k, CHECK_PROBLEM, "key", RENEW_CERT, "%s: no private key",
                  c->key);
        return;
    }
    if (gnutls_x509_privkey_get_key_id(b->key, 0, of_key, &nkey) < 0 ||
        gnutls_x509_crt_get_key_id(b->cert, 0, of_cert, &ncert) < 0 ||
        nkey != ncert || memcmp(of_key, of_cert, nkey) != 0)
        check_add(k, CHECK_PROBLEM, "key",
                  "install key and certificate that were made together",
                  "%s is not the key of %s", c->key, c->cert);
}

/* Times are check_end's. */
static void
check_chain(struct check *k, const struct bundle *b)
{
    const struct config *c = k->config;
    unsigned status = 0;
    int r = gnutls_x509_crt_list_verify(
        &b->cert, 1, &b->ca, 1, &b->crl, b->has_crl,
        GNUTLS_VERIFY_DISABLE_TIME_CHECKS |
            GNUTLS_VERIFY_DISABLE_CRL_CHECKS * !b->has_crl,
        &status);

    if (r >= 0 && (status & GNUTLS_CERT_REVOKED))
        check_add(k, CHECK_PROBLEM, "cert", RENEW_CERT,
                  "%s stands in the revocation list: no peer believes it",
                  c->cert);
    else if (r < 0 || (status & (GNUTLS_CERT_SIGNER_NOT_FOUND |
                                 GNUTLS_CERT_SIGNER_NOT_CA |
                                 GNUTLS_CERT_SIGNATURE_FAILURE)))
        check_add(k, CHECK_PROBLEM, "cert",
                  "install ca and cert of the same authority",
                  "%s is not of the authority %s", c->cert, c->ca);
}

static bool
carries(gnutls_x509_crt_t cert, const char *address)
{
    unsigned char raw[16];
    unsigned len = strchr(address, ':') ? 16 : 4;

    return inet_pton(len == 16 ? AF_INET6 : AF_INET, address, raw) == 1 &&
           gnutls_x509_crt_check_ip(cert, raw, len, 0);
}

static void
check_names(struct check *k, const struct bundle *b)
{
    const struct config_host *self = k->config->self;
    char cn[128] = "";
    size_t len = sizeof cn;

    gnutls_x509_crt_get_dn_by_oid(b->cert, GNUTLS_OID_X520_COMMON_NAME, 0, 0,
                                  cn, &len);
    if (strcmp(cn, self->name) != 0)
        check_add(k, CHECK_PROBLEM, "cert",
                  "install this host's own certificate and key",
                  "%s is of %s, and this host is %s", k->config->cert,
                  cn[0] ? cn : "nobody", self->name);
    for (size_t i = 0; i < self->naddresses; i++)
        if (!carries(b->cert, self->addresses[i]))
            check_add(k, CHECK_PROBLEM, "cert",
                      "detour-pki issue --renew HOST ADDRESS..., with all of "
                      "its addresses",
                      "%s does not carry the address %s: peers refuse us "
                      "there",
                      k->config->cert, self->addresses[i]);
}

void
check_certs(struct check *k)
{
    struct cert certs[CERTS_MAX];
    size_t n = certs_read(k->config, certs);
    time_t now = time(NULL);
    struct bundle b = {.has_ca = false};

    for (size_t i = 0; i < n; i++)
        check_end(k, &certs[i], now);
    bundle_init(&b, k->config);
    if (b.has_cert) {
        if (gnutls_x509_crt_get_activation_time(b.cert) > now)
            check_add(k, CHECK_PROBLEM, "cert",
                      "is the clock of this host right?", "%s is not valid yet",
                      k->config->cert);
        check_key(k, &b);
        check_names(k, &b);
        if (b.has_ca)
            check_chain(k, &b);
    }
    bundle_fini(&b);
    if (!k->config->crl)
        check_add(k, CHECK_NOTE, "crl", "name a list as crl in [self]",
                  "no revocation list: a stolen key is good until its "
                  "certificate ends");
}
