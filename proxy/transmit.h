/* SPDX-License-Identifier: BSD-3-Clause */
/* The data path: requests in, replies out, on one granted connection. */
#ifndef DETOUR_PROXY_TRANSMIT_H
#define DETOUR_PROXY_TRANSMIT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proxy/extents.h"
#include "proxy/request.h"
#include "proxy/session.h"
#include "proxy/stream.h"

struct transmit_options {
    const char *id; /* for log lines */
    struct stream *stream;
    int wake_fd;        /* eventfd, written whenever *order changes */
    _Atomic int *order; /* enum session_order */
    struct lun *lun;
    struct extents *extents;
    struct request_export export;
    uint64_t registration_no;
    struct lun_tally *tally;
    struct session_member *member; /* whose counters are kept */
    unsigned max_requests;         /* under way on this connection */
    /* Bytes of payload that all connections of the peer's host hold. */
    _Atomic uint64_t *host_held;
    const void *early; /* bytes that were read ahead */
    size_t early_len;  /* at most TRANSMIT_EARLY_MAX */
    /* A request failed with -errno of class PATH or FENCED. */
    void (*path_error)(void *opaque, int error);
    void *opaque;
};

#define TRANSMIT_EARLY_MAX 32768

enum transmit_end {
    TRANSMIT_DISC,     /* the client took its leave; all is answered */
    TRANSMIT_DRAINED,  /* we took ours; nothing was unanswered */
    TRANSMIT_BROKEN,   /* the connection broke, or broke the protocol */
    TRANSMIT_DEVICE,   /* a request failed with a path or fencing error */
    TRANSMIT_ORDERED,  /* SESSION_FINISH or SESSION_ABANDON */
    TRANSMIT_RESOURCE, /* no memory, no descriptor */
};

/* transmit_run - serve one connection until it ends.
 *
 * When it returns nothing of it will be submitted any more, and what is
 * still under way has been abandoned; the socket is still open.
 *
 * returns: why it ended, in words in why
 * threads: one for each connection, which calls nothing else meanwhile
 */
enum transmit_end transmit_run(const struct transmit_options *opt, char *why,
                               size_t whylen);

#endif
