/* SPDX-License-Identifier: BSD-3-Clause */
/* Queues of the iscsi backend: where owners submit, reap and abandon. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lun/iscsi_impl.h"

/* Requests kept for the next io_get, so that busy owners need no malloc: 32
 * of 128 KiB, or more of smaller ones. */
#define SPARE_MAX   64
#define SPARE_BYTES (4u << 20)
/* A spare buffer serves smaller requests down to this share of it. */
#define SPARE_WASTE 8

static struct iscsi_request *
request_of(struct lun_io *io)
{
    return (struct iscsi_request *)io; /* its first member */
}

/* ---- queues ------------------------------------------------------------- */

void *
iscsi_queue_create(void *b)
{
    struct iscsi_queue *q = calloc(1, sizeof(*q));

    if (!q)
        return NULL;
    q->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->fd < 0) {
        free(q);
        return NULL;
    }
    q->lun = b;
    TAILQ_INIT(&q->done);
    TAILQ_INIT(&q->spare);
    return q;
}

void
iscsi_queue_wake_locked(struct iscsi_queue *q)
{
    /* can only fail when the counter is full, and then it is readable */
    eventfd_write(q->fd, 1);
}

int
iscsi_queue_fd(void *q)
{
    return ((struct iscsi_queue *)q)->fd;
}

void
iscsi_queue_interrupt(void *opaque)
{
    struct iscsi_queue *q = opaque;

    pthread_mutex_lock(&q->lun->lock);
    q->interrupted = true;
    iscsi_queue_wake_locked(q);
    pthread_mutex_unlock(&q->lun->lock);
}

/* ---- memory ------------------------------------------------------------- */

void
iscsi_queue_free(struct iscsi_request *r)
{
    free(r->ghost);
    free(r->io.data);
    free(r);
}

static struct iscsi_request *
allocate(size_t room)
{
    struct iscsi_request *r = calloc(1, sizeof(*r));
    void *data = NULL;

    if (!r)
        return NULL;
    r->ghost = calloc(1, sizeof(*r->ghost));
    if (!r->ghost ||
        (room > 0 && posix_memalign(&data, LUN_BUFFER_ALIGN, room) != 0)) {
        iscsi_queue_free(r);
        errno = ENOMEM;
        return NULL;
    }
    r->io.data = data;
    r->room = room;
    return r;
}

static struct iscsi_request *
take_spare(struct iscsi_queue *q, size_t room)
{
    struct iscsi_request *r;

    TAILQ_FOREACH(r, &q->spare, link)
    {
        if (r->room < room || r->room / SPARE_WASTE > room)
            continue;
        TAILQ_REMOVE(&q->spare, r, link);
        q->nspare--;
        q->spare_bytes -= r->room;
        return r;
    }
    return NULL;
}

struct lun_io *
iscsi_queue_io_get(void *opaque, size_t room)
{
    struct iscsi_queue *q = opaque;
    struct iscsi_request *r = take_spare(q, room);
    struct iscsi_ghost *ghost;
    char *data;

    if (!r) {
        /* whole pages: the next request fits more often */
        size_t rounded =
            (room + LUN_BUFFER_ALIGN - 1) / LUN_BUFFER_ALIGN * LUN_BUFFER_ALIGN;

        r = allocate(rounded);
        return r ? &r->io : NULL;
    }
    data = r->io.data;
    ghost = r->ghost;
    room = r->room;
    memset(r, 0, sizeof(*r));
    r->io.data = data;
    r->ghost = ghost;
    r->room = room;
    return &r->io;
}

void
iscsi_queue_io_put(void *opaque, struct lun_io *io)
{
    struct iscsi_queue *q = opaque;
    struct iscsi_request *r = request_of(io);

    /* without its ghost (left behind with a nexus) it cannot serve again */
    if (q->nspare >= SPARE_MAX || r->room > SPARE_BYTES - q->spare_bytes ||
        !r->ghost) {
        iscsi_queue_free(r);
        return;
    }
    TAILQ_INSERT_HEAD(&q->spare, r, link);
    q->nspare++;
    q->spare_bytes += r->room;
}

/* ---- requests ----------------------------------------------------------- */

void
iscsi_queue_submit(void *opaque, struct lun_io *io)
{
    struct iscsi_queue *q = opaque;
    struct iscsi_lun *l = q->lun;
    struct iscsi_request *r = request_of(io);
    bool write = lun_op_writes(io->op);

    if (!r->ghost && write) /* it was left behind the last time */
        r->ghost = calloc(1, sizeof(*r->ghost));
    r->done = r->step = r->sent_ms = r->resume_ms = 0;
    r->in_target = r->syncing = r->same = false;
    r->tries = 0;
    lun_tally_begin(io);
    pthread_mutex_lock(&l->lock);
    r->queue = q;
    l->inflight++;
    if (r->ghost || !write) {
        iscsi_route_locked(l, r);
    } else {
        lun_tally_end(io); /* finishing takes it that the ghost counts on */
        iscsi_route_finish_locked(l, r, -ENOMEM);
    }
    pthread_mutex_unlock(&l->lock);
}

/* Takes what is done; false: there was nothing and no interrupt. */
static bool
collect_locked(struct iscsi_queue *q, struct lun_io **ios, size_t max,
               size_t *n)
{
    struct iscsi_request *r;
    bool woken = q->interrupted;
    eventfd_t count;

    while (*n < max && (r = TAILQ_FIRST(&q->done))) {
        TAILQ_REMOVE(&q->done, r, link);
        r->place = ISCSI_FREE;
        q->lun->inflight--;
        ios[(*n)++] = &r->io;
    }
    q->interrupted = false;
    if (TAILQ_EMPTY(&q->done))
        eventfd_read(q->fd, &count);
    return woken || *n > 0;
}

size_t
iscsi_queue_reap(void *opaque, struct lun_io **ios, size_t max,
                 uint64_t deadline_ms)
{
    struct iscsi_queue *q = opaque;
    struct pollfd pfd = {.fd = q->fd, .events = POLLIN};
    size_t n = 0;

    for (;;) {
        int left = deadline_ms ? clock_left_ms(deadline_ms, clock_ms()) : 0;
        bool woken;

        pthread_mutex_lock(&q->lun->lock);
        woken = collect_locked(q, ios, max, &n);
        pthread_mutex_unlock(&q->lun->lock);
        if (woken || left == 0)
            return n;
        poll(&pfd, 1, left);
    }
}

/* Gives up a request wherever it is; freed now if nothing needs it. */
static void
abandon_locked(struct iscsi_queue *q, struct iscsi_request *r)
{
    struct iscsi_lun *l = q->lun;
    bool sent = r->place == ISCSI_SENT || r->place == ISCSI_LOST;

    r->queue = NULL;
    if (sent) {
        if (!lun_op_writes(r->io.op))
            l->abandoned_reads++;
        else
            l->abandoned_writes++;
        return;
    }
    if (r->place == ISCSI_DONE)
        TAILQ_REMOVE(&q->done, r, link);
    else if (r->place == ISCSI_INBOX)
        TAILQ_REMOVE(&r->path->inbox, r, link);
    else
        TAILQ_REMOVE(&l->held, r, link);
    if (r->place != ISCSI_DONE)
        lun_tally_end(&r->io);
    l->inflight--;
    iscsi_queue_free(r);
}

void
iscsi_queue_abandon(void *opaque, struct lun_io *io)
{
    struct iscsi_queue *q = opaque;

    pthread_mutex_lock(&q->lun->lock);
    abandon_locked(q, request_of(io));
    pthread_mutex_unlock(&q->lun->lock);
}

static void
abandon_list_locked(struct iscsi_queue *q, struct iscsi_requests *list)
{
    struct iscsi_request *r;
    struct iscsi_request *next;

    for (r = TAILQ_FIRST(list); r; r = next) {
        next = TAILQ_NEXT(r, link);
        if (r->queue == q)
            abandon_locked(q, r);
    }
}

void
iscsi_queue_destroy(void *opaque)
{
    struct iscsi_queue *q = opaque;
    struct iscsi_lun *l = q->lun;
    struct iscsi_nexus *n;
    struct iscsi_request *r;

    pthread_mutex_lock(&l->lock);
    abandon_list_locked(q, &q->done);
    abandon_list_locked(q, &l->held);
    for (size_t i = 0; i < l->npaths; i++) {
        abandon_list_locked(q, &l->paths[i].inbox);
        abandon_list_locked(q, &l->paths[i].sent);
    }
    TAILQ_FOREACH(n, &l->graves, link)
    abandon_list_locked(q, &n->lost);
    pthread_mutex_unlock(&l->lock);
    while ((r = TAILQ_FIRST(&q->spare))) {
        TAILQ_REMOVE(&q->spare, r, link);
        iscsi_queue_free(r);
    }
    close(q->fd);
    free(q);
}
