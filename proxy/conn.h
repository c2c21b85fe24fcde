/* SPDX-License-Identifier: BSD-3-Clause */
/* One peer's connection, from accept to close, on a thread of its own. */
#ifndef DETOUR_PROXY_CONN_H
#define DETOUR_PROXY_CONN_H

#include <stdatomic.h>
#include <stdint.h>
#include <sys/socket.h>

#include "proxy/negotiate.h"
#include "proxy/server.h"
#include "proxy/session.h"
#include "proxy/stream.h"

/* From accept until the certificate is known. */
#define CONN_HANDSHAKE_MS 10000
/* Between two options inside TLS; a parked connection asks each second. */
#define CONN_IDLE_MS 60000
/* Data that the peer's kernel does not acknowledge ends the connection. */
#define CONN_USER_TIMEOUT_MS 10000

enum conn_phase {
    CONN_PLAIN,   /* options before TLS */
    CONN_TLS,     /* handshake */
    CONN_OPTIONS, /* options inside TLS, perhaps parked for hours */
    CONN_LIVE,    /* an export was granted */
};

struct conn {
    /* fixed after conn_start_take_fd */
    struct server *server;
    uint64_t id;
    char ip[64];      /* of the peer */
    bool from_host;   /* ip is an address of a configured host */
    char address[80]; /* with its port */
    char name[32];    /* "conn 12", for log lines */
    int wake_fd;      /* eventfd */

    /* any thread */
    _Atomic int order; /* enum session_order; it never goes down from FINISH */
    _Atomic int phase; /* enum conn_phase; the connection's thread changes it */

    /* guarded by server->lock; the connection's thread may read them */
    struct conn *next;
    const struct config_host *peer; /* NULL: a stranger */
    X509 *cert;
    STACK_OF(X509) * chain; /* as the peer sent it, or NULL */

    /* the connection's thread only */
    struct stream stream;
    struct negotiate negotiate;
    struct buffer out;
    size_t in_len, used; /* of in; by the last option */
    uint8_t in[NEGOTIATE_INPUT_MAX];
    struct session_member member;
};

/* conn_start_take_fd - serve an accepted connection.
 *
 * owns:    fd, in any case; the rest ends by itself
 */
void conn_start_take_fd(struct server *s, int fd,
                        const struct sockaddr_storage *from);

/* conn_order - tell it what to do; never blocks.
 * threads: any that holds server->lock, or the share's lock for a member */
void conn_order(struct conn *c, enum session_order o);

/* conn_phase_name - one lower-case word, for log lines. */
const char *conn_phase_name(enum conn_phase p);

#endif
