/* SPDX-License-Identifier: BSD-3-Clause */
/* TLS 1.3 with certificates on both sides.
 *
 * An SSL_CTX is never changed once it is in force: a reload makes another one
 * and connections keep the one they began with.
 */
#include "proxy/tls.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

/* Enough for one 128 KiB write with its records' heads: one read() for it. */
#define READ_BUFFER (144 * 1024)

struct tls {
    const struct config *config;
    pthread_mutex_t lock;
    SSL_CTX *ctx; /* guarded by lock; itself fixed */
};

static bool
failed(char *err, size_t errlen, const char *what, const char *file)
{
    unsigned long code = ERR_peek_last_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;

    snprintf(err, errlen, "%s %s: %s", what, file, text ? text : "not usable");
    ERR_clear_error();
    return false;
}

/* Was the end of the file what ended the reading, and not a list that is cut
 * off?  PEM_read tells that there is no more by an error. */
static bool
at_end(void)
{
    unsigned long code = ERR_peek_last_error();

    return ERR_GET_LIB(code) == ERR_LIB_PEM &&
           ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

/* All lists of the file; without one, nobody could be let in, and without the
 * last, perhaps somebody who was revoked. */
static bool
load_crl(SSL_CTX *ctx, const char *file, char *err, size_t errlen)
{
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    BIO *bio = BIO_new_file(file, "r");
    unsigned lists = 0;
    X509_CRL *crl;
    bool ok = true;

    if (!bio)
        return failed(err, errlen, "crl", file);
    while (ok && (crl = PEM_read_bio_X509_CRL(bio, NULL, NULL, NULL))) {
        ok = X509_STORE_add_crl(store, crl) == 1;
        X509_CRL_free(crl);
        lists++;
    }
    BIO_free(bio);
    if (!ok || lists == 0 || !at_end())
        return failed(err, errlen, "crl", file);
    ERR_clear_error();
    return X509_STORE_set_flags(store, X509_V_FLAG_CRL_CHECK) == 1;
}

static bool
load_files(SSL_CTX *ctx, const struct config *c, char *err, size_t errlen)
{
    STACK_OF(X509_NAME) * names;

    if (SSL_CTX_load_verify_file(ctx, c->ca) != 1)
        return failed(err, errlen, "ca", c->ca);
    if (SSL_CTX_use_certificate_chain_file(ctx, c->cert) != 1)
        return failed(err, errlen, "cert", c->cert);
    if (SSL_CTX_use_PrivateKey_file(ctx, c->key, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(ctx) != 1)
        return failed(err, errlen, "key", c->key);
    /* Tells clients that hold several certificates which one to send. */
    names = SSL_load_client_CA_file(c->ca);
    if (!names)
        return failed(err, errlen, "ca", c->ca);
    SSL_CTX_set_client_CA_list(ctx, names);
    return !c->crl || load_crl(ctx, c->crl, err, errlen);
}

static void
set_rules(SSL_CTX *ctx)
{
    SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
                       NULL);
    /* No resumption: a certificate is looked at for each connection. */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_max_early_data(ctx, 0);
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_BUFFER);
}

static SSL_CTX *
make_context(const struct config *c, char *err, size_t errlen)
{
    SSL_CTX *ctx;

    ERR_clear_error();
    ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx) {
        snprintf(err, errlen, "no memory for TLS");
        return NULL;
    }
    set_rules(ctx);
    if (!load_files(ctx, c, err, errlen)) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    return ctx;
}

struct tls *
tls_create(const struct config *c, char *err, size_t errlen)
{
    struct tls *t = calloc(1, sizeof *t);

    if (!t) {
        snprintf(err, errlen, "no memory for TLS");
        return NULL;
    }
    t->config = c;
    t->ctx = make_context(c, err, errlen);
    if (!t->ctx) {
        free(t);
        errno = EINVAL;
        return NULL;
    }
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

void
tls_destroy(struct tls *t)
{
    if (!t)
        return;
    SSL_CTX_free(t->ctx);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int
tls_reload(struct tls *t, char *err, size_t errlen)
{
    SSL_CTX *ctx = make_context(t->config, err, errlen), *old;

    if (!ctx)
        return -EINVAL;
    pthread_mutex_lock(&t->lock);
    old = t->ctx;
    t->ctx = ctx;
    pthread_mutex_unlock(&t->lock);
    SSL_CTX_free(old);
    return 0;
}

SSL_CTX *
tls_context(struct tls *t)
{
    SSL_CTX *ctx;

    pthread_mutex_lock(&t->lock);
    ctx = t->ctx;
    SSL_CTX_up_ref(ctx);
    pthread_mutex_unlock(&t->lock);
    return ctx;
}

bool
tls_is_current(struct tls *t, const SSL *ssl)
{
    bool current;

    pthread_mutex_lock(&t->lock);
    current = t->ctx == SSL_get_SSL_CTX(ssl);
    pthread_mutex_unlock(&t->lock);
    return current;
}

static bool
names_host(X509 *cert, const char *name)
{
    /* A leading dot would mean "any subdomain" to X509_check_host. */
    return name[0] != '.' &&
           X509_check_host(cert, name, 0,
                           X509_CHECK_FLAG_NO_WILDCARDS |
                               X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS,
                           NULL) == 1;
}

const struct config_host *
tls_peer(const struct config *c, SSL *ssl, char *err, size_t errlen)
{
    X509 *cert = SSL_get0_peer_certificate(ssl);
    const struct config_host *found = NULL;

    if (!cert || SSL_get_verify_result(ssl) != X509_V_OK) {
        snprintf(err, errlen, "no verified certificate");
        return NULL;
    }
    for (size_t i = 0; i < c->nhosts; i++) {
        if (!names_host(cert, c->hosts[i].name))
            continue;
        if (found) {
            snprintf(err, errlen, "certificate names two hosts, %s and %s",
                     found->name, c->hosts[i].name);
            return NULL;
        }
        found = &c->hosts[i];
    }
    if (!found)
        snprintf(err, errlen, "certificate names no configured host");
    ERR_clear_error();
    return found;
}

int
tls_check_again(struct tls *t, X509 *cert, STACK_OF(X509) * chain, char *err,
                size_t errlen)
{
    X509_STORE_CTX *check = X509_STORE_CTX_new();
    SSL_CTX *ctx = tls_context(t);
    int rc = -EACCES;

    snprintf(err, errlen, "no memory to verify the certificate");
    if (check &&
        X509_STORE_CTX_init(check, SSL_CTX_get_cert_store(ctx), cert, chain)) {
        X509_STORE_CTX_set_default(check, "ssl_client");
        X509_STORE_CTX_set_flags(check, X509_V_FLAG_NO_CHECK_TIME);
        if (X509_verify_cert(check) == 1)
            rc = 0;
        else
            snprintf(
                err, errlen, "%s",
                X509_verify_cert_error_string(X509_STORE_CTX_get_error(check)));
    }
    X509_STORE_CTX_free(check);
    SSL_CTX_free(ctx);
    ERR_clear_error();
    return rc;
}
