/* SPDX-License-Identifier: BSD-3-Clause */
/* The data path of one connection.
 *
 * One thread runs it.  Others reach it through *order and wake_fd, and the
 * extents' worker through answered, under status_lock.
 *
 * A job is in one place at a time: free, taking its payload, under way at
 * the LUN (running, oldest first) or at the extents' worker, or in the
 * outbox.  A request whose error is the path's is never answered: the
 * connection ends instead, and the client asks elsewhere.  An error that may be
 * the LUN's own is answered once our paths have proved to work: the LUN's first
 * block is read for that, in the request's place.
 */
#include "proxy/transmit.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/point.h"
#include "lun/error.h"
#include "proxy/nbd.h"
#include "proxy/outbox.h"

#define IN_SIZE TRANSMIT_EARLY_MAX
/* Payloads of one connection, besides one request more. */
#define HELD_MAX (32u << 20)
/* Reads of the stream before replies get their turn. */
#define READS_IN_A_ROW 64
#define REAP_AT_ONCE   64
/* A client that says nothing this long in a drain is let go, and one that goes
 * on asking after so long. */
#define DRAIN_GRACE_MS 500
#define DRAIN_MAX_MS   2000

struct job {
    struct request r;
    struct outbox_reply reply; /* in the outbox */
    struct lun_io *io;         /* ours unless running; or NULL */
    struct lun_io *doubted;    /* ours: its error is doubted, io reads the
                                  first block meanwhile; or NULL */
    struct extents_job *status;
    uint64_t sent_ms; /* to the LUN; valid while running */
    uint32_t done;    /* bytes, of a range that goes in parts */
    bool running;
    struct job *next, *prev; /* of running; next also of free and answered */
    struct transmit *transmit;
};

struct transmit {
    const struct transmit_options *opt;
    struct lun_queue *queue;
    char *why;
    size_t whylen;
    enum transmit_end end;
    bool ended;

    struct job *jobs, *free;
    struct job *oldest, *newest; /* running at the LUN */
    unsigned busy;               /* not free */
    unsigned running;            /* at the LUN */
    uint64_t held;               /* bytes of payloads */

    bool readable;        /* the stream may have more */
    bool quitting;        /* DISC came: answer what is left, then go */
    uint64_t drain_ms;    /* since when we drain; 0: we do not */
    uint64_t received_ms; /* last request */
    struct job *writing;  /* takes its payload */
    size_t writing_got;
    struct job *skipping; /* will be answered with skip_error ... */
    int skip_error;
    uint64_t skip; /* ... after so many bytes of payload */

    pthread_mutex_t status_lock;
    struct job *answered; /* guarded by status_lock */

    size_t in_start, in_stop;
    uint8_t in[IN_SIZE];
    struct outbox outbox;
};

static void end(struct transmit *t, enum transmit_end how, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* The first reason counts. */
static void
end(struct transmit *t, enum transmit_end how, const char *fmt, ...)
{
    va_list ap;

    if (t->ended)
        return;
    t->ended = true;
    t->end = how;
    va_start(ap, fmt);
    vsnprintf(t->why, t->whylen, fmt, ap);
    va_end(ap);
}

/* ---- jobs -------------------------------------------------------------- */

static uint32_t
payload_of(const struct request *r)
{
    return r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE ? r->count : 0;
}

static struct job *
job_take(struct transmit *t, const struct request *r)
{
    struct job *j = t->free;

    t->free = j->next;
    *j = (struct job){.r = *r, .transmit = t};
    t->busy++;
    t->held += payload_of(r);
    atomic_store(&t->opt->member->inflight, t->busy);
    return j;
}

static void
job_free(struct transmit *t, struct job *j)
{
    lun_io_put(j->io);
    free(j->status);
    t->busy--;
    t->held -= payload_of(&j->r);
    j->io = NULL;
    j->status = NULL;
    j->next = t->free;
    t->free = j;
    atomic_store(&t->opt->member->inflight, t->busy);
}

static void
reply_gone(void *opaque, struct outbox_reply *r)
{
    struct job *j = (struct job *)((char *)r - offsetof(struct job, reply));

    job_free(opaque, j);
}

static void
answer(struct transmit *t, struct job *j, int error)
{
    j->reply.head_len =
        request_reply(&j->r, &t->opt->export, error, j->reply.head);
    if (!error && j->r.type == NBD_CMD_READ) {
        j->reply.data = j->io->data;
        j->reply.len = j->r.count;
        atomic_fetch_add(&t->opt->member->bytes_read, j->r.count);
    } else {
        /* the payload's memory is not needed while the reply waits */
        lun_io_put(j->io);
        j->io = NULL;
    }
    outbox_add(&t->outbox, &j->reply);
}

/* ---- the LUN ----------------------------------------------------------- */

static void
tell_oldest(struct transmit *t)
{
    atomic_store(&t->opt->member->oldest_ms,
                 t->oldest ? t->oldest->sent_ms : 0);
}

static void
run(struct transmit *t, struct job *j)
{
    j->running = true;
    j->sent_ms = clock_ms();
    j->next = NULL;
    j->prev = t->newest;
    if (t->newest)
        t->newest->next = j;
    else
        t->oldest = j;
    t->newest = j;
    t->running++;
    if (t->oldest == j)
        tell_oldest(t);
    lun_submit(t->queue, j->io);
    if (j->r.type == NBD_CMD_WRITE)
        point_pass(POINT_WRITE_SENT);
}

static void
came_back(struct transmit *t, struct job *j)
{
    bool was_oldest = t->oldest == j;

    if (j->prev)
        j->prev->next = j->next;
    else
        t->oldest = j->next;
    if (j->next)
        j->next->prev = j->prev;
    else
        t->newest = j->prev;
    t->running--;
    j->running = false;
    if (was_oldest)
        tell_oldest(t);
}

static bool
is_answer(int error)
{
    enum lun_class class = lun_error_class(error);

    return class != LUN_CLASS_PATH && class != LUN_CLASS_FENCED;
}

static void
device_failed(struct transmit *t, const struct job *j, int error)
{
    t->opt->path_error(t->opt->opaque, error);
    end(t, TRANSMIT_DEVICE, "request at %" PRIu64 ": %s (%s)", j->r.offset,
        strerror(-error), lun_class_name(lun_error_class(error)));
}

/* Read the first block; a read that hangs makes the monitor's probes hang as
 * well, and then we are told to end. */
static void
doubt(struct transmit *t, struct job *j)
{
    uint32_t count = t->opt->export.block_size;
    struct lun_io *io = lun_io_get(t->queue, count);

    if (!io) {
        device_failed(t, j, j->io->error);
        return;
    }
    j->doubted = j->io;
    j->io = io;
    io->op = LUN_READ;
    io->flags = 0;
    io->offset = 0;
    io->count = count;
    io->registration_no = 0;
    io->tally = NULL;
    io->opaque = j;
    run(t, j);
}

static void
failed(struct transmit *t, struct job *j)
{
    int error = j->io->error;

    if (lun_error_doubtful(error)) {
        doubt(t, j);
        return;
    }
    if (!is_answer(error)) {
        device_failed(t, j, error);
        return;
    }
    log_debug("%s: request at %" PRIu64 ": %s", t->opt->id, j->r.offset,
              strerror(-error));
    answer(t, j, error);
}

/* The first block was read, or not. */
static void
resolve(struct transmit *t, struct job *j)
{
    bool paths_work = is_answer(j->io->error);
    int error = j->doubted->error;

    lun_io_put(j->io);
    j->io = j->doubted;
    j->doubted = NULL;
    if (!paths_work) {
        device_failed(t, j, error);
        return;
    }
    log_debug("%s: request at %" PRIu64 ": %s, and paths work", t->opt->id,
              j->r.offset, strerror(-error));
    answer(t, j, error);
}

/* Trims and zeroes may be longer than what the LUN takes at once. */
static bool
next_part(struct transmit *t, struct job *j)
{
    uint32_t left = j->r.count - j->done;

    if (left == 0)
        return false;
    if (left > t->opt->export.max_io)
        left = t->opt->export.max_io;
    j->io->offset = j->r.offset + j->done;
    j->io->count = left;
    j->done += left;
    run(t, j);
    return true;
}

static void
succeeded(struct transmit *t, struct job *j)
{
    if (j->r.type == NBD_CMD_WRITE)
        point_pass(POINT_WRITE_DONE);
    answer(t, j, 0);
}

/* Returns how many came back. */
static size_t
collect(struct transmit *t)
{
    struct lun_io *ios[REAP_AT_ONCE];
    size_t n = lun_reap(t->queue, ios, REAP_AT_ONCE, 0);

    if (n > 0)
        atomic_store(&t->opt->member->answered_ms, clock_ms());
    for (size_t i = 0; i < n; i++)
        came_back(t, ios[i]->opaque);
    for (size_t i = 0; i < n && !t->ended; i++) {
        struct job *j = ios[i]->opaque;
        bool whole =
            j->r.type != NBD_CMD_TRIM && j->r.type != NBD_CMD_WRITE_ZEROES;

        if (j->doubted)
            resolve(t, j);
        else if (ios[i]->error)
            failed(t, j);
        else if (whole || !next_part(t, j))
            succeeded(t, j);
    }
    return n;
}

/* ---- block status ------------------------------------------------------ */

/* From the extents' worker. */
static void
status_done(struct extents_job *e)
{
    struct transmit *t = e->owner;
    struct job *j = e->opaque;
    uint64_t one = 1;

    pthread_mutex_lock(&t->status_lock);
    j->next = t->answered;
    t->answered = j;
    pthread_mutex_unlock(&t->status_lock);
    (void)!write(t->opt->wake_fd, &one, sizeof one);
}

static void
ask_status(struct transmit *t, struct job *j)
{
    /* Behind the question's memory the reply is put together. */
    struct extents_job *e = malloc(sizeof *e + REQUEST_STATUS_MAX);

    if (!e) {
        answer(t, j, -ENOMEM);
        return;
    }
    e->offset = j->r.offset;
    e->count = j->r.count;
    e->owner = t;
    e->opaque = j;
    e->done = status_done;
    j->status = e;
    extents_ask(t->opt->extents, e);
}

static void
answer_status(struct transmit *t)
{
    struct job *j, *next;

    pthread_mutex_lock(&t->status_lock);
    j = t->answered;
    t->answered = NULL;
    pthread_mutex_unlock(&t->status_lock);
    for (; j; j = next) {
        uint8_t *bytes = (uint8_t *)(j->status + 1);

        next = j->next;
        j->reply.head_len = 0;
        j->reply.data = bytes;
        j->reply.len =
            request_status(&j->r, j->status->extents, j->status->n, bytes);
        outbox_add(&t->outbox, &j->reply);
    }
}

/* ---- requests ---------------------------------------------------------- */

static void
refuse(struct transmit *t, struct job *j, int error)
{
    t->skip = request_payload(&j->r);
    if (t->skip == 0) {
        answer(t, j, error);
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
    struct lun_io *io = lun_io_get(t->queue, payload_of(&j->r));

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
        next_part(t, j);
    } else {
        run(t, j);
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
        end(t, TRANSMIT_BROKEN, "write of %u bytes", r->count);
        return;
    }
    j = job_take(t, r);
    error = t->drain_ms ? -ESHUTDOWN : request_check(r, &t->opt->export);
    if (error)
        refuse(t, j, error);
    else if (r->type == NBD_CMD_CACHE)
        answer(t, j, 0); /* there is no cache to fill */
    else if (r->type == NBD_CMD_BLOCK_STATUS)
        ask_status(t, j);
    else
        begin_io(t, j);
}

/* ---- receiving --------------------------------------------------------- */

static void
payload_came(struct transmit *t, size_t n)
{
    struct job *j = t->writing;

    t->writing_got += n;
    if (t->writing_got < j->r.count)
        return;
    t->writing = NULL;
    atomic_fetch_add(&t->opt->member->bytes_written, j->r.count);
    run(t, j);
}

static void
skip(struct transmit *t, size_t n)
{
    t->skip -= n;
    if (t->skip > 0)
        return;
    answer(t, t->skipping, t->skip_error);
    t->skipping = NULL;
}

/* May another request be taken on? */
static bool
has_room(const struct transmit *t)
{
    return t->free && t->held < HELD_MAX;
}

static bool
wants_more(const struct transmit *t)
{
    return !t->ended && !t->quitting &&
           (t->writing || t->skipping || has_room(t));
}

/* Use up what is in the buffer; stops where more is needed, or no more may
 * be taken on. */
static void
parse(struct transmit *t)
{
    while (wants_more(t) && t->in_start < t->in_stop) {
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
            end(t, TRANSMIT_BROKEN, "bad request magic");
        } else {
            t->in_start += NBD_REQUEST_SIZE;
            begin(t, &r);
        }
    }
    if (t->in_start == t->in_stop)
        t->in_start = t->in_stop = 0;
}

/* Replies that have gone made room for what is in the buffer. */
static bool
can_parse(const struct transmit *t)
{
    size_t n = t->in_stop - t->in_start;

    return wants_more(t) && n > 0 &&
           (t->skipping || t->writing || n >= NBD_REQUEST_SIZE);
}

static void
read_failed(struct transmit *t, ssize_t n)
{
    t->readable = false;
    if (n == 0)
        end(t, TRANSMIT_BROKEN, "closed without NBD_CMD_DISC");
    else if (n != -EAGAIN)
        end(t, TRANSMIT_BROKEN, "%s", t->opt->stream->error);
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
        room = IN_SIZE - t->in_stop;
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

static void
receive(struct transmit *t)
{
    parse(t);
    for (unsigned i = 0; i < READS_IN_A_ROW && t->readable && wants_more(t);
         i++) {
        read_some(t);
        parse(t);
    }
}

/* ---- the loop ---------------------------------------------------------- */

static void
obey(struct transmit *t)
{
    switch (atomic_load(t->opt->order)) {
    case SESSION_RUN:
        t->drain_ms = 0;
        break;
    case SESSION_DRAIN:
        if (!t->drain_ms)
            t->drain_ms = t->received_ms = clock_ms();
        break;
    default:
        end(t, TRANSMIT_ORDERED, "told to");
    }
}

static bool
idle(const struct transmit *t)
{
    return t->busy == 0 && outbox_empty(&t->outbox);
}

/* When an idle connection is to be closed. */
static uint64_t
leave_ms(const struct transmit *t)
{
    uint64_t grace = t->received_ms + DRAIN_GRACE_MS;
    uint64_t most = t->drain_ms + DRAIN_MAX_MS;

    if (!t->drain_ms)
        return CLOCK_NEVER;
    return grace < most ? grace : most;
}

static void
take_leave(struct transmit *t)
{
    if (!idle(t))
        return;
    if (t->quitting)
        end(t, TRANSMIT_DISC, "client disconnected");
    else if (t->drain_ms && clock_ms() >= leave_ms(t))
        end(t, TRANSMIT_DRAINED, "drained");
}

static void
clear_wake(const struct transmit *t)
{
    uint64_t n;

    (void)!read(t->opt->wake_fd, &n, sizeof n);
}

static void
sleep_until_news(struct transmit *t)
{
    bool reading = wants_more(t) && !t->readable;
    struct pollfd fds[3] = {
        {.fd = t->opt->stream->fd},
        {.fd = t->opt->wake_fd, .events = POLLIN},
        {.fd = t->running ? lun_queue_fd(t->queue) : -1, .events = POLLIN},
    };
    int timeout = -1;

    if (reading)
        fds[0].events |= t->opt->stream->read_events;
    if (t->outbox.blocked)
        fds[0].events |= t->opt->stream->write_events;
    if (t->readable && wants_more(t))
        timeout = 0; /* only its turn was over */
    else if (idle(t))
        timeout = clock_left_ms(leave_ms(t), clock_ms());
    if (poll(fds, 3, timeout) <= 0)
        return;
    if (fds[1].revents)
        clear_wake(t);
    if (fds[0].revents & fds[0].events)
        t->readable |= reading;
    else if (fds[0].revents)
        end(t, TRANSMIT_BROKEN, "connection broke");
}

static void
loop(struct transmit *t)
{
    while (!t->ended) {
        size_t n;
        int rc;

        obey(t);
        answer_status(t);
        n = collect(t);
        receive(t);
        /* Fast devices are done by now; that saves a sleep. */
        if (!t->ended && t->running)
            n += collect(t);
        rc = outbox_flush(&t->outbox);
        if (rc)
            end(t, TRANSMIT_BROKEN, "%s", t->opt->stream->error);
        if (n > 0)
            point_pass(POINT_ANSWERED);
        take_leave(t);
        if (!t->ended && n == 0 && !can_parse(t))
            sleep_until_news(t);
    }
}

/* ---- the end ----------------------------------------------------------- */

/* Requests under way come back by themselves: that is better than to abandon
 * them, unless we are told so.  The peer need not wait for it. */
static void
let_finish(struct transmit *t)
{
    struct lun_io *ios[REAP_AT_ONCE];

    if (t->running)
        shutdown(t->opt->stream->fd, SHUT_RDWR);

    while (t->running && atomic_load(t->opt->order) != SESSION_ABANDON) {
        struct pollfd fds[2] = {
            {.fd = t->opt->wake_fd, .events = POLLIN},
            {.fd = lun_queue_fd(t->queue), .events = POLLIN},
        };
        size_t n = lun_reap(t->queue, ios, REAP_AT_ONCE, 0);

        for (size_t i = 0; i < n; i++)
            came_back(t, ios[i]->opaque);
        if (n == 0 && t->running && poll(fds, 2, -1) > 0 && fds[0].revents)
            clear_wake(t);
    }
}

static void
fini(struct transmit *t)
{
    if (t->opt->extents)
        extents_forget(t->opt->extents, t);
    for (unsigned i = 0; t->jobs && i < t->opt->max_requests; i++) {
        if (!t->jobs[i].running)
            lun_io_put(t->jobs[i].io);
        lun_io_put(t->jobs[i].doubted);
        free(t->jobs[i].status);
    }
    lun_queue_destroy(t->queue);
    free(t->jobs);
    pthread_mutex_destroy(&t->status_lock);
    atomic_store(&t->opt->member->inflight, 0);
    atomic_store(&t->opt->member->oldest_ms, 0);
    free(t);
}

static bool
init(struct transmit *t, const struct transmit_options *opt)
{
    t->opt = opt;
    pthread_mutex_init(&t->status_lock, NULL);
    outbox_init(&t->outbox, opt->stream, reply_gone, t);
    t->readable = true;
    if (opt->early_len > 0)
        memcpy(t->in, opt->early, opt->early_len);
    t->in_stop = opt->early_len;
    t->jobs = calloc(opt->max_requests, sizeof *t->jobs);
    for (unsigned i = 0; t->jobs && i < opt->max_requests; i++) {
        t->jobs[i].next = t->free;
        t->free = &t->jobs[i];
    }
    t->queue = t->jobs ? lun_queue_create(opt->lun) : NULL;
    return t->queue && lun_queue_fd(t->queue) >= 0;
}

enum transmit_end
transmit_run(const struct transmit_options *opt, char *why, size_t whylen)
{
    struct transmit *t = calloc(1, sizeof *t);
    enum transmit_end how;

    if (!t) {
        snprintf(why, whylen, "out of memory");
        return TRANSMIT_RESOURCE;
    }
    t->why = why;
    t->whylen = whylen;
    if (init(t, opt))
        loop(t);
    else
        end(t, TRANSMIT_RESOURCE, "no queue: %s", strerror(errno));
    how = t->end;
    if (t->queue && how != TRANSMIT_DEVICE)
        let_finish(t);
    fini(t);
    return how;
}
