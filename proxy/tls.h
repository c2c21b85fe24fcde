/* SPDX-License-Identifier: BSD-3-Clause */
/* Who may connect: TLS 1.3 with certificates on both sides, and which
 * configured host a certificate stands for. */
#ifndef DETOUR_PROXY_TLS_H
#define DETOUR_PROXY_TLS_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/ssl.h>

#include "common/config.h"

struct tls;

/* tls_create - load ca, cert, key and crl.
 *
 * errors:  NULL and errno: EINVAL, said in err; ENOMEM
 * owns:    c must outlive it; ended with tls_destroy
 */
struct tls *tls_create(const struct config *c, char *err, size_t errlen);

/* tls_destroy - NULL is fine; contexts that were handed out live on. */
void tls_destroy(struct tls *t);

/* tls_reload - load the files anew, for connections to come.
 *
 * errors:  -EINVAL, -ENOMEM, said in err: the old ones stay in force
 * threads: any
 */
int tls_reload(struct tls *t, char *err, size_t errlen);

/* tls_context - what is in force now; the caller ends it with SSL_CTX_free.
 * threads: any */
SSL_CTX *tls_context(struct tls *t);

/* tls_is_current - did ssl begin with what is in force now?
 * threads: any */
bool tls_is_current(struct tls *t, const SSL *ssl);

/* tls_peer - the host that the peer's verified certificate names.
 *
 * A name matches as it is: no wildcards.  A certificate that names two
 * configured hosts is nobody's.
 *
 * errors:  NULL, said in err
 * owns:    lives as long as c
 */
const struct config_host *tls_peer(const struct config *c, SSL *ssl, char *err,
                                   size_t errlen);

/* tls_check_again - would the peer of ssl still be let in?
 *
 * For connections older than a reload.  The time of day is not looked at:
 * a certificate that merely ran out does not end what it began.
 *
 * errors:  -EACCES, said in err
 * threads: any, also while another one reads and writes ssl
 */
int tls_check_again(struct tls *t, X509 *cert, STACK_OF(X509) * chain,
                    char *err, size_t errlen);

#endif
