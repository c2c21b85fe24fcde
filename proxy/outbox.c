/* SPDX-License-Identifier: BSD-3-Clause */
/* Replies on their way to the peer. */
#include "proxy/outbox.h"

#include <errno.h>
#include <string.h>

/* A TLS record carries this much: what is copied fills one up. */
#define RECORD 16384

void
outbox_init(struct outbox *o, struct stream *s,
            void (*done)(void *opaque, struct outbox_reply *r), void *opaque)
{
    o->stream = s;
    o->done = done;
    o->opaque = opaque;
    o->first = o->current = NULL;
    o->end = &o->first;
    o->rest = NULL;
    o->rest_len = 0;
    o->blocked = false;
    o->start = o->stop = 0;
}

void
outbox_add(struct outbox *o, struct outbox_reply *r)
{
    r->next = NULL;
    *o->end = r;
    o->end = &r->next;
}

bool
outbox_empty(const struct outbox *o)
{
    return o->start == o->stop && !o->current && !o->first && !o->blocked;
}

static void
copy(struct outbox *o, const void *data, size_t len)
{
    if (len > 0)
        memcpy(o->bytes + o->stop, data, len);
    o->stop += len;
}

/* How much of a payload of len bytes to copy: all, if it is small; of a large
 * one what fills the record that its head has begun. */
static size_t
to_copy(const struct outbox *o, size_t len)
{
    size_t used = o->stop - o->start, room = OUTBOX_SIZE - o->stop;
    size_t fill = RECORD - used % RECORD;

    if (len <= RECORD && len <= room)
        return len;
    if (fill > room)
        fill = room;
    return len < fill ? len : fill;
}

/* Gather replies until one's payload has to go by itself. */
static void
gather(struct outbox *o)
{
    if (o->start == o->stop)
        o->start = o->stop = 0;
    while (o->first && !o->current &&
           OUTBOX_SIZE - o->stop >= REQUEST_REPLY_MAX) {
        struct outbox_reply *r = o->first;
        size_t n;

        o->first = r->next;
        if (!o->first)
            o->end = &o->first;
        copy(o, r->head, r->head_len);
        n = to_copy(o, r->len);
        copy(o, r->data, n);
        if (n == r->len) {
            o->done(o->opaque, r);
            continue;
        }
        o->current = r;
        o->rest = (const uint8_t *)r->data + n;
        o->rest_len = r->len - n;
    }
}

static void
sent(struct outbox *o, size_t n)
{
    struct outbox_reply *r = o->current;

    if (o->start < o->stop) {
        o->start += n;
        return;
    }
    o->rest += n;
    o->rest_len -= n;
    if (o->rest_len > 0)
        return;
    o->current = NULL;
    o->done(o->opaque, r);
}

/* Write one piece; returns what stream_write did, 0 when nothing is left. */
static ssize_t
write_some(struct outbox *o)
{
    ssize_t n;

    gather(o);
    if (o->start < o->stop)
        n = stream_write(o->stream, o->bytes + o->start, o->stop - o->start);
    else if (o->current)
        n = stream_write(o->stream, o->rest, o->rest_len);
    else
        return 0;
    if (n > 0)
        sent(o, (size_t)n);
    return n;
}

int
outbox_flush(struct outbox *o)
{
    ssize_t n;

    do
        n = write_some(o);
    while (n > 0);
    if (n == 0)
        n = stream_flush(o->stream);
    o->blocked = n == -EAGAIN;
    return o->blocked ? 0 : (int)n;
}
