/* SPDX-License-Identifier: BSD-3-Clause */
/* A non-blocking byte stream to a peer.
 *
 * One thread at a time uses a stream: the one of its connection.
 */
#include "proxy/stream.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/err.h>

/* Some eight records; one of them is at most 16 KiB and 256 bytes. */
#define GATHER_SIZE (136 * 1024)

void
stream_init_take_fd(struct stream *s, int fd)
{
    *s = (struct stream){
        .fd = fd,
        .read_events = POLLIN,
        .write_events = POLLOUT,
    };
}

void
stream_fini(struct stream *s, bool reset)
{
    const struct linger now = {.l_onoff = 1, .l_linger = 0};

    SSL_free(s->ssl);
    s->ssl = NULL;
    free(s->gather);
    s->gather = NULL;
    if (s->fd < 0)
        return;
    if (reset)
        setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(s->fd);
    s->fd = -1;
}

/* ---- gathering: a BIO below TLS that sends when told, or when full ----- */

/* Returns false and errno when something is left. */
static bool
send_gathered(struct stream *s)
{
    while (s->sent < s->gathered) {
        ssize_t n = send(s->fd, s->gather + s->sent, s->gathered - s->sent,
                         MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        s->sent += (size_t)n;
    }
    s->sent = s->gathered = 0;
    return true;
}

static int
gather_failed(BIO *bio)
{
    BIO_clear_retry_flags(bio);
    if (errno == EAGAIN)
        BIO_set_retry_write(bio);
    return -1;
}

static int
gather_write(BIO *bio, const char *data, int len)
{
    struct stream *s = BIO_get_data(bio);
    size_t n = (size_t)len;

    if (n > GATHER_SIZE - s->gathered && !send_gathered(s))
        return gather_failed(bio);
    if (n > GATHER_SIZE)
        n = GATHER_SIZE;
    BIO_clear_retry_flags(bio);
    memcpy(s->gather + s->gathered, data, n);
    s->gathered += n;
    return (int)n;
}

static long
gather_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)number;
    (void)pointer;
    if (command != BIO_CTRL_FLUSH)
        return 0;
    BIO_clear_retry_flags(bio);
    return send_gathered(BIO_get_data(bio)) ? 1 : gather_failed(bio);
}

static int
gather_create(BIO *bio)
{
    BIO_set_init(bio, 1);
    return 1;
}

static BIO_METHOD *gather_method;

static void
make_gather_method(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_TYPE_SOURCE_SINK, "gather");

    if (m && BIO_meth_set_write(m, gather_write) &&
        BIO_meth_set_ctrl(m, gather_ctrl) &&
        BIO_meth_set_create(m, gather_create))
        gather_method = m;
}

static BIO *
gather_new(struct stream *s)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    BIO *bio;

    pthread_once(&once, make_gather_method);
    bio = gather_method ? BIO_new(gather_method) : NULL;
    if (bio)
        BIO_set_data(bio, s);
    return bio;
}

int
stream_secure(struct stream *s, SSL_CTX *ctx)
{
    BIO *bio;

    ERR_clear_error();
    s->ssl = SSL_new(ctx);
    s->gather = malloc(GATHER_SIZE);
    bio = gather_new(s);
    if (!s->ssl || !s->gather || !bio || SSL_set_rfd(s->ssl, s->fd) != 1) {
        BIO_free(bio);
        return -ENOMEM;
    }
    SSL_set0_wbio(s->ssl, bio);
    SSL_set_accept_state(s->ssl);
    return 0;
}

/* Why TLS failed, in words: the certificate's fault before the library's. */
static void
explain(struct stream *s)
{
    long verified = SSL_get_verify_result(s->ssl);
    unsigned long code = ERR_get_error();
    const char *text = code ? ERR_reason_error_string(code) : NULL;

    if (verified != X509_V_OK)
        snprintf(s->error, sizeof s->error, "peer's certificate: %s",
                 X509_verify_cert_error_string(verified));
    else
        snprintf(s->error, sizeof s->error, "TLS: %s",
                 text ? text : "connection broke");
    ERR_clear_error();
}

static ssize_t
plain_failed(struct stream *s, int error)
{
    if (error == EAGAIN || error == EINTR)
        return -EAGAIN;
    snprintf(s->error, sizeof s->error, "%s", strerror(error));
    return -ECONNRESET;
}

/* What a TLS call that returned n <= 0 means. */
static ssize_t
tls_failed(struct stream *s, int n, short *events)
{
    int saved = errno;

    switch (SSL_get_error(s->ssl, n)) {
    case SSL_ERROR_WANT_READ:
        *events = POLLIN;
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        *events = POLLOUT;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        snprintf(s->error, sizeof s->error, "%s",
                 saved ? strerror(saved) : "connection broke");
        ERR_clear_error();
        return -ECONNRESET;
    default:
        if (ERR_GET_REASON(ERR_peek_error()) ==
            SSL_R_UNEXPECTED_EOF_WHILE_READING) {
            snprintf(s->error, sizeof s->error, "closed without a word");
            ERR_clear_error();
            return -ECONNRESET;
        }
        explain(s);
        return -EPROTO;
    }
}

int
stream_handshake(struct stream *s)
{
    ssize_t rc;
    int n;

    ERR_clear_error();
    errno = 0;
    n = SSL_do_handshake(s->ssl);
    if (n == 1)
        return 0;
    rc = tls_failed(s, n, &s->read_events);
    return rc == -EAGAIN ? -EAGAIN : -EPROTO;
}

ssize_t
stream_read(struct stream *s, void *buf, size_t len)
{
    size_t got;
    ssize_t n;

    if (!s->ssl) {
        n = recv(s->fd, buf, len, 0);
        return n >= 0 ? n : plain_failed(s, errno);
    }
    ERR_clear_error();
    errno = 0;
    n = SSL_read_ex(s->ssl, buf, len, &got);
    return n == 1 ? (ssize_t)got : tls_failed(s, (int)n, &s->read_events);
}

ssize_t
stream_write(struct stream *s, const void *buf, size_t len)
{
    size_t put;
    ssize_t n;

    if (!s->ssl) {
        n = send(s->fd, buf, len, MSG_NOSIGNAL);
        return n >= 0 ? n : plain_failed(s, errno);
    }
    ERR_clear_error();
    errno = 0;
    n = SSL_write_ex(s->ssl, buf, len, &put);
    if (n == 1)
        return (ssize_t)put;
    n = tls_failed(s, (int)n, &s->write_events);
    return n == 0 ? -ECONNRESET : n;
}

int
stream_flush(struct stream *s)
{
    if (s->sent == s->gathered || send_gathered(s))
        return 0;
    s->write_events = POLLOUT;
    return (int)plain_failed(s, errno);
}

bool
stream_pending(struct stream *s)
{
    return s->ssl && SSL_has_pending(s->ssl);
}

void
stream_close_notify(struct stream *s)
{
    ERR_clear_error();
    if (s->ssl)
        SSL_shutdown(s->ssl);
    ERR_clear_error();
    if (s->fd >= 0)
        shutdown(s->fd, SHUT_WR);
}
