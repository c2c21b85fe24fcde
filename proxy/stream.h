/* SPDX-License-Identifier: BSD-3-Clause */
/* A non-blocking byte stream to a peer: a socket, later TLS on top of it.
 *
 * TLS makes a record of each 16 KiB.  They are gathered and leave in few
 * system calls, so that stream_flush has to be called after the last write. */
#ifndef DETOUR_PROXY_STREAM_H
#define DETOUR_PROXY_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <openssl/ssl.h>

struct stream {
    int fd;   /* non-blocking */
    SSL *ssl; /* NULL: plain */
    /* What poll() must wait for before the call that said -EAGAIN is tried
     * again; TLS may have to write in order to read. */
    short read_events, write_events;
    char error[160]; /* of the last call that failed; for people */
    /* encrypted, from sent up to gathered not yet with the socket */
    uint8_t *gather;
    size_t sent, gathered;
};

/* stream_init_take_fd - take over a connected non-blocking socket.
 *
 * owns:    s, until stream_fini
 */
void stream_init_take_fd(struct stream *s, int fd);

/* stream_fini - close.  reset: throw away what is unsent and send RST. */
void stream_fini(struct stream *s, bool reset);

/* stream_secure - begin TLS as a server; then call stream_handshake.
 *
 * errors:  -ENOMEM
 */
int stream_secure(struct stream *s, SSL_CTX *ctx);

/* stream_handshake - go on with it.
 *
 * errors:  -EAGAIN wait for read_events; -EPROTO failed (s->error)
 */
int stream_handshake(struct stream *s);

/* stream_read - up to len bytes.
 *
 * returns: bytes; 0: the peer ended the stream in order
 * errors:  -EAGAIN wait for read_events; -ECONNRESET broken, or ended
 *          without TLS' close_notify; -EPROTO TLS error
 */
ssize_t stream_read(struct stream *s, void *buf, size_t len);

/* stream_write - up to len bytes, len > 0; errors as stream_read, and wait
 * for write_events.  After -EAGAIN the next call must offer the same bytes,
 * and may offer more of them. */
ssize_t stream_write(struct stream *s, const void *buf, size_t len);

/* stream_flush - hand everything that was written to the socket.
 *
 * errors:  as stream_write; what is left goes with the next call
 */
int stream_flush(struct stream *s);

/* stream_pending - bytes have come that poll() does not know of. */
bool stream_pending(struct stream *s);

/* stream_close_notify - tell the peer that nothing more comes; best effort. */
void stream_close_notify(struct stream *s);

#endif
