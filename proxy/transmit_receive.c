/* SPDX-License-Identifier: BSD-3-Clause */
/* From the stream to jobs: requests and their payloads. */
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "proxy/nbd.h"
#include "proxy/transmit_impl.h"

/* Payloads of one connection, besides one request more. */
#define HELD_MAX (32u << 20)
/* Payloads of all connections of one host: with more than this each of them
 * has one request at a time, and one that would need more than the other ends.
 * A host may have a thousand connections; what they could hold together is
 * memory that our VMs would miss. */
#define HOST_HELD_MAX (256u << 20)
#define HOST_HELD_END (1024u << 20)
/* Reads of the stream before replies get their turn. */
#define READS_IN_A_ROW 64

/* ---- requests ---------------------------------------------------------- */

static void
refuse(struct transmit *t, struct job *j, int error)
{
    t->skip = request_payload(&j->r);
    if (t->skip == 0) {
        transmit_job_answer(t, j, error);
        return;
    }
    t->skipping = j;
    t->skip_error = error;
}

static unsigned
lun_flags(const struct request *r)
{
    unsigned flags = 0;

    if (r->flags & NBD_CMD_FLAG_FUA)
        flags |= LUN_FUA;
    if (r->flags & NBD_CMD_FLAG_NO_HOLE)
        flags |= LUN_NO_HOLE;
    return flags;
}

static void
begin_io(struct transmit *t, struct job *j)
{
    static const enum lun_op ops[] = {
        [NBD_CMD_READ] = LUN_READ,         [NBD_CMD_WRITE] = LUN_WRITE,
        [NBD_CMD_FLUSH] = LUN_FLUSH,       [NBD_CMD_TRIM] = LUN_TRIM,
        [NBD_CMD_WRITE_ZEROES] = LUN_ZERO,
    };
    bool change = j->r.type != NBD_CMD_READ && j->r.type != NBD_CMD_FLUSH;
    struct lun_io *io;

    if (transmit_job_charge(t, j) > HOST_HELD_END) {
        transmit_stop(t, TRANSMIT_RESOURCE,
                      "its host has more than %u MiB under way",
                      HOST_HELD_END >> 20);
        return;
    }
    io = lun_io_get(t->queue, transmit_payload(&j->r));
    if (!io) {
        refuse(t, j, -ENOMEM);
        return;
    }
    j->io = io;
    io->op = ops[j->r.type];
    io->flags = change ? lun_flags(&j->r) : 0;
    io->offset = io->op == LUN_FLUSH ? 0 : j->r.offset;
    io->count = io->op == LUN_FLUSH ? 0 : j->r.count;
    io->registration_no = change ? t->opt->registration_no : 0;
    io->tally = t->opt->tally;
    io->opaque = j;
    if (io->op == LUN_WRITE) {
        t->writing = j;
        t->writing_got = 0;
    } else if (io->op == LUN_TRIM || io->op == LUN_ZERO) {
        transmit_lun_next_part(t, j);
    } else {
        transmit_lun_run(t, j);
    }
}

static void
begin(struct transmit *t, const struct request *r)
{
    struct job *j;
    int error;

    atomic_fetch_add(&t->opt->member->requests, 1);
    t->received_ms = t->drain_ms ? clock_ms() : 0;
    if (r->type == NBD_CMD_DISC) {
        t->quitting = true;
        return;
    }
    if (request_payload(r) > REQUEST_PAYLOAD_MAX) {
        transmit_stop(t, TRANSMIT_BROKEN, "write of %u bytes", r->count);
        return;
    }
    j = transmit_job_take(t, r);
    error = t->drain_ms ? -ESHUTDOWN : request_check(r, &t->opt->export);
    if (error)
        refuse(t, j, error);
    else if (r->type == NBD_CMD_CACHE)
        transmit_job_answer(t, j, 0); /* there is no cache to fill */
    else if (r->type == NBD_CMD_BLOCK_STATUS)
        transmit_status_ask(t, j);
    else
        begin_io(t, j);
}

/* ---- the stream -------------------------------------------------------- */

static void
payload_came(struct transmit *t, size_t n)
{
    struct job *j = t->writing;

    t->writing_got += n;
    if (t->writing_got < j->r.count)
        return;
    t->writing = NULL;
    atomic_fetch_add(&t->opt->member->bytes_written, j->r.count);
    transmit_lun_run(t, j);
}

static void
skip(struct transmit *t, size_t n)
{
    t->skip -= n;
    if (t->skip > 0)
        return;
    transmit_job_answer(t, t->skipping, t->skip_error);
    t->skipping = NULL;
}

/* May another request be taken on?  That its host holds much stops only who
 * has an answer to wait for: that one wakes it, and nobody else does. */
static bool
has_room(const struct transmit *t)
{
    return t->free && t->held < HELD_MAX &&
           (t->held == 0 || atomic_load(t->opt->host_held) < HOST_HELD_MAX);
}

bool
transmit_wants_more(const struct transmit *t)
{
    return !t->ended && !t->quitting &&
           (t->writing || t->skipping || has_room(t));
}

/* Use up what is in the buffer; stops where more is needed, or no more may
 * be taken on. */
static void
parse(struct transmit *t)
{
    while (transmit_wants_more(t) && t->in_start < t->in_stop) {
        const uint8_t *p = t->in + t->in_start;
        size_t n = t->in_stop - t->in_start, want;
        struct request r;

        if (t->skipping) {
            want = t->skip < n ? (size_t)t->skip : n;
            t->in_start += want;
            skip(t, want);
        } else if (t->writing) {
            want = t->writing->r.count - t->writing_got;
            want = want < n ? want : n;
            memcpy(t->writing->io->data + t->writing_got, p, want);
            t->in_start += want;
            payload_came(t, want);
        } else if (n < NBD_REQUEST_SIZE) {
            break;
        } else if (request_parse(p, &r) < 0) {
            transmit_stop(t, TRANSMIT_BROKEN, "bad request magic");
        } else {
            t->in_start += NBD_REQUEST_SIZE;
            begin(t, &r);
        }
    }
    if (t->in_start == t->in_stop)
        t->in_start = t->in_stop = 0;
}

bool
transmit_can_parse(const struct transmit *t)
{
    size_t n = t->in_stop - t->in_start;

    return transmit_wants_more(t) && n > 0 &&
           (t->skipping || t->writing || n >= NBD_REQUEST_SIZE);
}

static void
read_failed(struct transmit *t, ssize_t n)
{
    t->readable = false;
    if (n == 0)
        transmit_stop(t, TRANSMIT_BROKEN, "closed without NBD_CMD_DISC");
    else if (n != -EAGAIN)
        transmit_stop(t, TRANSMIT_BROKEN, "%s", t->opt->stream->error);
}

/* One read: of a payload straight to where it is going, else to the buffer. */
static void
read_some(struct transmit *t)
{
    bool direct = t->writing && t->in_start == t->in_stop;
    uint8_t *to;
    size_t room;
    ssize_t n;

    if (direct) {
        to = (uint8_t *)t->writing->io->data + t->writing_got;
        room = t->writing->r.count - t->writing_got;
    } else {
        memmove(t->in, t->in + t->in_start, t->in_stop - t->in_start);
        t->in_stop -= t->in_start;
        t->in_start = 0;
        to = t->in + t->in_stop;
        room = sizeof t->in - t->in_stop;
    }
    n = stream_read(t->opt->stream, to, room);
    if (n <= 0) {
        read_failed(t, n);
        return;
    }
    /* A short read of an empty stream needs no second one to know. */
    if ((size_t)n < room && !stream_pending(t->opt->stream))
        t->readable = false;
    if (direct)
        payload_came(t, (size_t)n);
    else
        t->in_stop += (size_t)n;
}

void
transmit_receive(struct transmit *t)
{
    parse(t);
    for (unsigned i = 0;
         i < READS_IN_A_ROW && t->readable && transmit_wants_more(t); i++) {
        read_some(t);
        parse(t);
    }
}
