/* SPDX-License-Identifier: BSD-3-Clause */
/* Replies on their way to the peer: small ones are gathered, so that many
 * leave in one record; large payloads leave from where they lie. */
#ifndef DETOUR_PROXY_OUTBOX_H
#define DETOUR_PROXY_OUTBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proxy/request.h"
#include "proxy/stream.h"

#define OUTBOX_SIZE 65536

struct outbox_reply {
    uint8_t head[REQUEST_REPLY_MAX];
    size_t head_len;
    const void *data; /* goes behind head; the owner's until done */
    size_t len;
    struct outbox_reply *next;
};

struct outbox {
    struct stream *stream;
    /* The reply's bytes are not needed any more. */
    void (*done)(void *opaque, struct outbox_reply *r);
    void *opaque;
    /* the outbox's own */
    struct outbox_reply *first, **end; /* not begun */
    struct outbox_reply *current;      /* data partly sent, or NULL */
    const uint8_t *rest;               /* of current's data */
    size_t rest_len;
    bool blocked;       /* the stream said -EAGAIN */
    size_t start, stop; /* what is unsent of bytes */
    uint8_t bytes[OUTBOX_SIZE];
};

/* outbox_init - all but bytes is set. */
void outbox_init(struct outbox *o, struct stream *s,
                 void (*done)(void *opaque, struct outbox_reply *r),
                 void *opaque);

/* outbox_add - r is sent behind all others; it must stay until done. */
void outbox_add(struct outbox *o, struct outbox_reply *r);

/* outbox_flush - send what the stream takes now.
 *
 * errors:  0, also when something is left (o->blocked); as stream_write
 */
int outbox_flush(struct outbox *o);

/* outbox_empty - all has been handed to the stream. */
bool outbox_empty(const struct outbox *o);

#endif
