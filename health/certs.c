/* SPDX-License-Identifier: BSD-3-Clause */
/* Until when certificates are good, by GnuTLS, which libmicrohttpd brings. */
#include "health/certs.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int
read_certificate(const gnutls_datum_t *pem, time_t *not_after)
{
    gnutls_x509_crt_t crt;
    int r = gnutls_x509_crt_init(&crt);

    if (r < 0)
        return r;
    r = gnutls_x509_crt_import(crt, pem, GNUTLS_X509_FMT_PEM);
    if (r >= 0)
        *not_after = gnutls_x509_crt_get_expiration_time(crt);
    gnutls_x509_crt_deinit(crt);
    return r;
}

static int
read_list(const gnutls_datum_t *pem, time_t *not_after)
{
    gnutls_x509_crl_t crl;
    int r = gnutls_x509_crl_init(&crl);

    if (r < 0)
        return r;
    r = gnutls_x509_crl_import(crl, pem, GNUTLS_X509_FMT_PEM);
    if (r >= 0)
        *not_after = gnutls_x509_crl_get_next_update(crl);
    gnutls_x509_crl_deinit(crl);
    return r;
}

static void
read_file(struct cert *c, bool list)
{
    gnutls_datum_t pem;
    FILE *f = fopen(c->path, "re"); /* for its errno */
    int r;

    if (!f) {
        snprintf(c->error, sizeof c->error, "%s", strerror(errno));
        return;
    }
    fclose(f);
    r = gnutls_load_file(c->path, &pem);
    if (r >= 0) {
        r = list ? read_list(&pem, &c->not_after)
                 : read_certificate(&pem, &c->not_after);
        gnutls_free(pem.data);
    }
    if (r >= 0 && c->not_after == (time_t)-1)
        r = GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE;
    if (r >= 0)
        return;
    c->not_after = 0;
    snprintf(c->error, sizeof c->error, "%s", gnutls_strerror(r));
}

size_t
certs_read(const struct config *c, struct cert *to)
{
    const struct {
        const char *name, *path;
        bool list;
    } files[CERTS_MAX] = {
        {"ca", c->ca, false},
        {"cert", c->cert, false},
        {"crl", c->crl, true},
        {"health-ca", c->health.ca, false},
        {"health-cert", c->health.cert, false},
    };
    size_t n = 0;

    for (size_t i = 0; i < CERTS_MAX; i++) {
        if (!files[i].path)
            continue;
        to[n] = (struct cert){.name = files[i].name, .path = files[i].path};
        read_file(&to[n++], files[i].list);
    }
    return n;
}
