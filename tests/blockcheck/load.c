/* SPDX-License-Identifier: BSD-3-Clause */
/* Workers: each has a thread, a connection and a history of its own, and keeps
 * depth requests under way.  Only struct load is shared, read-only but for its
 * atomics.  libnbd calls back in the worker's own thread.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/blockcheck/load.h"

#define SCAN_UNITS 128u /* in one request; most units of any */
#define HOT_WRITES 4096 /* the hot part of the range moves after so many */
#define CONNECT_NS UINT64_C(5000000000)
#define SECOND_NS  UINT64_C(1000000000)

struct slot {
    struct worker *worker;
    struct request request;
    char *data;
    bool busy, done;
};

struct worker {
    struct load *load;
    struct trace *history;
    struct load_result result;
    struct nbd_handle *nbd;
    pthread_t thread;
    struct slot slots[LOAD_DEPTH];
    char *data;
    uint64_t *values; /* of one read */
    unsigned inflight;
    uint16_t lane;
    uint64_t random;
    uint64_t due_ns;   /* when the rate allows the next request */
    uint64_t drain_ns; /* when no more answers are waited for; 0: not yet */
    bool scanning;
    uint64_t scan_at; /* offset of what is read next */
    int error;        /* -ENOMEM: the history is not whole */
};

static uint64_t
below(struct worker *w, uint64_t n)
{
    w->random = stamp_mix(w->random);
    return w->random % n;
}

/* ---- answers
 * ----------------------------------------------------------------- */

/* libnbd holds the connection's lock here: only note it. */
static int
answered(void *opaque, int *error)
{
    struct slot *s = opaque;

    if (!s->busy)
        return 1;
    s->request.end_ns = conn_now_ns();
    /* not an NBD error: libnbd's own when a connection breaks */
    s->request.error = *error == ENOTCONN ? ERROR_LOST : (uint32_t)*error;
    s->done = true;
    return 1;
}

static int
note_values(struct worker *w, const struct slot *s)
{
    const struct request *r = &s->request;
    uint32_t unit = w->load->unit;
    char note[120];
    int rc = 0;

    for (uint32_t i = 0; i < r->count / unit && rc == 0; i++) {
        note[0] = '\0';
        w->values[i] =
            stamp_read(s->data + (size_t)i * unit, unit,
                       r->offset + (uint64_t)i * unit, note, sizeof note);
        rc = trace_note(w->history, w->values[i], note);
    }
    return rc < 0 ? rc : trace_add_read(w->history, r, w->values);
}

/* What a broken connection cost is read again. */
static void
scan_answered(struct worker *w, const struct request *r)
{
    w->drain_ns = 0;
    if (request_ok(r))
        return;
    if (r->end_ns == NEVER || r->error != ERROR_LOST ||
        w->load->reconnect_ns == 0)
        w->result.unread += r->count;
    else if (r->offset < w->scan_at)
        w->scan_at = r->offset;
}

static void
finish(struct worker *w, struct slot *s)
{
    struct request *r = &s->request;
    int rc;

    if (r->kind == REQUEST_READ && request_ok(r))
        rc = note_values(w, s);
    else
        rc = trace_add(w->history, r);
    if (rc < 0)
        w->error = rc;
    s->busy = false;
    w->inflight--;
    if (w->scanning)
        scan_answered(w, r);
}

static void
reap(struct worker *w)
{
    for (unsigned i = 0; i < w->load->depth; i++)
        if (w->slots[i].busy && w->slots[i].done)
            finish(w, &w->slots[i]);
}

/* Nothing under way will be answered any more. */
static void
give_up(struct worker *w, uint64_t now_ns)
{
    for (unsigned i = 0; i < w->load->depth; i++) {
        struct slot *s = &w->slots[i];

        if (!s->busy)
            continue;
        if (!s->done) {
            s->request.end_ns = now_ns;
            s->request.error = ERROR_LOST;
        }
        finish(w, s);
    }
}

/* ---- requests
 * ---------------------------------------------------------------- */

/* Requests meet where it is hot: a small part of the range, the same for all
 * threads, another one after some time. */
static uint64_t
hot_unit(struct worker *w, uint64_t units, uint64_t count)
{
    struct load *l = w->load;
    uint64_t hot = units / 64 > 4 * SCAN_UNITS ? units / 64 : 4 * SCAN_UNITS;
    uint64_t turn = atomic_load(&l->seq) / HOT_WRITES;

    if (hot > units)
        hot = units;
    if (count > hot)
        count = hot;
    return stamp_mix(l->seed ^ stamp_mix(turn)) % (units - hot + 1) +
           below(w, hot - count + 1);
}

static void
choose_range(struct worker *w, struct request *r)
{
    struct load *l = w->load;
    uint64_t units = l->size / l->unit;
    uint64_t most = below(w, 8) == 0 ? SCAN_UNITS : 16;
    uint64_t count = 1 + below(w, most < units ? most : units);
    uint64_t first;

    if (below(w, 4) != 0)
        first = hot_unit(w, units, count);
    else
        first = below(w, units - count + 1);
    r->count = (uint32_t)(count * l->unit);
    r->offset = l->offset + first * l->unit;
}

static uint8_t
choose_kind(struct worker *w)
{
    const struct conn_info *can = &w->load->can;
    uint64_t dice = below(w, 100);

    if (can->read_only || dice < 42)
        return REQUEST_READ;
    if (dice < 47 && can->zero)
        return REQUEST_ZERO;
    if (dice < 51 && can->trim)
        return REQUEST_TRIM;
    if (dice < 53 && can->flush)
        return REQUEST_FLUSH;
    return REQUEST_WRITE;
}

static void
choose(struct worker *w, struct slot *s, uint64_t now_ns)
{
    struct load *l = w->load;
    struct request *r = &s->request;

    *r = (struct request){.lane = w->lane, .end_ns = NEVER};
    r->kind = choose_kind(w);
    if (r->kind != REQUEST_FLUSH)
        choose_range(w, r);
    if (r->kind != REQUEST_READ && r->kind != REQUEST_FLUSH && l->can.fua &&
        below(w, 8) == 0)
        r->flags = REQUEST_FUA;
    if (r->kind != REQUEST_WRITE)
        return;
    r->value = value_make(l->writer, atomic_fetch_add(&l->seq, 1) + 1);
    for (uint32_t at = 0; at < r->count; at += l->unit)
        stamp_fill(s->data + at, l->unit, r->value, r->offset + at, now_ns);
}

static void
choose_scan(struct worker *w, struct slot *s)
{
    struct load *l = w->load;
    uint64_t end = l->offset + l->size, most = SCAN_UNITS * l->unit;
    uint64_t count = end - w->scan_at < most ? end - w->scan_at : most;

    s->request = (struct request){.kind = REQUEST_READ,
                                  .lane = w->lane,
                                  .end_ns = NEVER,
                                  .offset = w->scan_at,
                                  .count = (uint32_t)count};
    w->scan_at += count;
}

static int64_t
hand_over(struct worker *w, struct slot *s)
{
    const nbd_completion_callback cb = {.callback = answered, .user_data = s};
    const struct request *r = &s->request;
    uint32_t fua = r->flags & REQUEST_FUA ? LIBNBD_CMD_FLAG_FUA : 0;

    switch (r->kind) {
    case REQUEST_READ:
        return nbd_aio_pread(w->nbd, s->data, r->count, r->offset, cb, 0);
    case REQUEST_WRITE:
        return nbd_aio_pwrite(w->nbd, s->data, r->count, r->offset, cb, fua);
    case REQUEST_ZERO:
        if (below(w, 2) == 0)
            fua |= LIBNBD_CMD_FLAG_NO_HOLE;
        return nbd_aio_zero(w->nbd, r->count, r->offset, cb, fua);
    case REQUEST_TRIM:
        return nbd_aio_trim(w->nbd, r->count, r->offset, cb, fua);
    default:
        return nbd_aio_flush(w->nbd, cb, 0);
    }
}

static int
submit(struct worker *w, struct slot *s)
{
    s->busy = true;
    s->done = false;
    s->worker = w;
    w->inflight++;
    s->request.start_ns = conn_now_ns();
    if (hand_over(w, s) != -1 || s->done)
        return 0;
    s->request.end_ns = conn_now_ns();
    s->request.error = ERROR_LOST;
    s->done = true;
    return -ENOTCONN;
}

static bool
may_begin(struct worker *w, uint64_t now_ns)
{
    struct load *l = w->load;

    if (w->scanning)
        return w->scan_at < l->offset + l->size;
    if (atomic_load(&l->stop) || (l->rate && w->due_ns > now_ns))
        return false;
    return !l->most || atomic_fetch_add(&l->n, 1) < l->most;
}

static void
begin_some(struct worker *w, uint64_t now_ns)
{
    struct load *l = w->load;

    if (w->due_ns + SECOND_NS / 20 < now_ns) /* never catch up more */
        w->due_ns = now_ns - SECOND_NS / 20;
    for (unsigned i = 0; i < l->depth && w->inflight < l->depth; i++) {
        struct slot *s = &w->slots[i];

        if (s->busy)
            continue;
        if (!may_begin(w, now_ns))
            return;
        if (w->scanning)
            choose_scan(w, s);
        else
            choose(w, s, now_ns);
        if (l->rate)
            w->due_ns += SECOND_NS * l->threads / l->rate;
        if (submit(w, s) < 0)
            return;
    }
}

/* ---- the connection
 * ------------------------------------------------------------ */

/* Tries once, or for as long as it is allowed to.  The end of the load ends
 * that, but not for a scan: the final content is to be read. */
static bool
connect_worker(struct worker *w)
{
    struct load *l = w->load;
    uint64_t most_ns = l->reconnect_ns ? l->reconnect_ns : CONNECT_NS;
    uint64_t deadline = conn_now_ns() + most_ns;

    while (true) {
        w->nbd =
            conn_open(l->uri, deadline, w->result.lost, sizeof w->result.lost);
        if (w->nbd) {
            w->result.lost[0] = '\0';
            return true;
        }
        if (l->reconnect_ns == 0 || conn_now_ns() > deadline)
            return false;
        if (!w->scanning && atomic_load(&l->stop)) {
            w->result.lost[0] = '\0'; /* it was to end anyway */
            return false;
        }
        conn_nap(50);
    }
}

static bool
reconnect(struct worker *w)
{
    nbd_close(w->nbd);
    w->nbd = NULL;
    if (w->load->reconnect_ns == 0) {
        snprintf(w->result.lost, sizeof w->result.lost,
                 "the connection was lost");
        return false;
    }
    w->result.reconnects++;
    return connect_worker(w);
}

/* Is there nothing more to ask? */
static bool
asked_all(struct worker *w)
{
    struct load *l = w->load;

    if (w->scanning)
        return w->scan_at >= l->offset + l->size;
    return atomic_load(&l->stop) || (l->most && atomic_load(&l->n) >= l->most);
}

/* All asked and answered, or no more answers are waited for?  A scan waits for
 * each, the load only for its last ones: until then a stall is news. */
static bool
over(struct worker *w, uint64_t now_ns)
{
    bool all = asked_all(w);

    if (all && w->inflight == 0)
        return true;
    if (!all && !w->scanning)
        return false;
    if (w->drain_ns == 0)
        w->drain_ns = now_ns + w->load->patience_ns;
    return now_ns > w->drain_ns;
}

static void
work(struct worker *w)
{
    struct load *l = w->load;

    while (w->error == 0) {
        uint64_t now_ns = conn_now_ns();
        bool waits = w->inflight < l->depth && l->rate > 0;

        reap(w);
        if (conn_lost(w->nbd)) {
            give_up(w, conn_now_ns());
            if (over(w, now_ns) || !reconnect(w))
                return;
            continue;
        }
        if (over(w, now_ns))
            return;
        begin_some(w, now_ns);
        if (w->inflight > 0)
            nbd_poll(w->nbd, waits ? 2 : 100); /* -1: conn_lost tells */
        else
            conn_nap(2);
    }
}

/* What is still under way stays so for ever. */
static void
note_unanswered(struct worker *w)
{
    for (unsigned i = 0; i < w->load->depth; i++) {
        struct slot *s = &w->slots[i];

        if (!s->busy)
            continue;
        if (!s->done)
            s->request.end_ns = NEVER;
        finish(w, s);
    }
}

static void *
worker_main(void *arg)
{
    struct worker *w = arg;
    struct load *l = w->load;
    bool clean;

    if (connect_worker(w))
        work(w);
    clean = w->inflight == 0;
    note_unanswered(w);
    if (w->scanning && w->scan_at < l->offset + l->size)
        w->result.unread += l->offset + l->size - w->scan_at;
    if (w->nbd && clean)
        conn_part(w->nbd);
    nbd_close(w->nbd);
    w->nbd = NULL;
    atomic_fetch_sub(&l->busy, 1);
    return NULL;
}

/* ---- begin and end
 * --------------------------------------------------------------- */

static void
worker_destroy(struct worker *w)
{
    if (!w)
        return;
    free(w->data);
    free(w->values);
    free(w);
}

static struct worker *
worker_create(struct load *l, unsigned thread, struct trace *h)
{
    struct worker *w = calloc(1, sizeof *w);
    size_t room = (size_t)SCAN_UNITS * l->unit;
    int lane = w ? trace_lane(h, l->writer, thread) : -ENOMEM;

    if (lane < 0) {
        errno = -lane;
        free(w);
        return NULL;
    }
    w->load = l;
    w->history = h;
    w->lane = (uint16_t)lane;
    w->random = stamp_mix(l->seed ^ stamp_mix(thread));
    w->data = malloc(room * l->depth);
    w->values = calloc(SCAN_UNITS, sizeof *w->values);
    if (!w->data || !w->values) {
        worker_destroy(w);
        errno = ENOMEM;
        return NULL;
    }
    for (unsigned i = 0; i < l->depth; i++)
        w->slots[i].data = w->data + i * room;
    return w;
}

struct worker *
worker_start(struct load *l, unsigned thread, struct trace *h)
{
    struct worker *w = worker_create(l, thread, h);
    int r;

    if (!w)
        return NULL;
    atomic_fetch_add(&l->busy, 1);
    r = pthread_create(&w->thread, NULL, worker_main, w);
    if (r == 0)
        return w;
    atomic_fetch_sub(&l->busy, 1);
    worker_destroy(w);
    errno = r;
    return NULL;
}

void
worker_join(struct worker *w, struct load_result *result)
{
    pthread_join(w->thread, NULL);
    *result = w->result;
    if (w->error != 0)
        snprintf(result->lost, sizeof result->lost, "no memory");
    worker_destroy(w);
}

int
load_scan(struct load *l, struct trace *h, struct load_result *result)
{
    struct worker *w = worker_create(l, 0, h);

    if (!w)
        return -errno;
    w->scanning = true;
    w->scan_at = l->offset;
    atomic_fetch_add(&l->busy, 1);
    worker_main(w);
    *result = w->result;
    worker_destroy(w);
    return 0;
}
