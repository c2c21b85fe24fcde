/* SPDX-License-Identifier: BSD-3-Clause */
/* The loop of one connection's data path, its beginning and its end. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/point.h"
#include "proxy/transmit_impl.h"

/* A client that says nothing this long in a drain is let go, and one that goes
 * on asking after so long. */
#define DRAIN_GRACE_MS 500
#define DRAIN_MAX_MS   2000

void
transmit_stop(struct transmit *t, enum transmit_end how, const char *fmt, ...)
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
        transmit_stop(t, TRANSMIT_ORDERED, "told to");
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
        transmit_stop(t, TRANSMIT_DISC, "client disconnected");
    else if (t->drain_ms && clock_ms() >= leave_ms(t))
        transmit_stop(t, TRANSMIT_DRAINED, "drained");
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
    bool reading = transmit_wants_more(t) && !t->readable;
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
    if (t->readable && transmit_wants_more(t))
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
        transmit_stop(t, TRANSMIT_BROKEN, "connection broke");
}

static void
loop(struct transmit *t)
{
    while (!t->ended) {
        size_t n;
        int rc;

        obey(t);
        transmit_status_answer(t);
        n = transmit_lun_collect(t);
        transmit_receive(t);
        /* Fast devices are done by now; that saves a sleep. */
        if (!t->ended && t->running)
            n += transmit_lun_collect(t);
        rc = outbox_flush(&t->outbox);
        if (rc)
            transmit_stop(t, TRANSMIT_BROKEN, "%s", t->opt->stream->error);
        if (n > 0)
            point_pass(POINT_ANSWERED);
        take_leave(t);
        if (!t->ended && n == 0 && !transmit_can_parse(t))
            sleep_until_news(t);
    }
}

/* ---- the end ----------------------------------------------------------- */

/* Requests under way come back by themselves: that is better than to abandon
 * them, unless we are told so.  The peer need not wait for it. */
static void
let_finish(struct transmit *t)
{
    struct lun_io *ios[TRANSMIT_REAP_AT_ONCE];

    if (t->running)
        shutdown(t->opt->stream->fd, SHUT_RDWR);

    while (t->running && atomic_load(t->opt->order) != SESSION_ABANDON) {
        struct pollfd fds[2] = {
            {.fd = t->opt->wake_fd, .events = POLLIN},
            {.fd = lun_queue_fd(t->queue), .events = POLLIN},
        };
        size_t n = lun_reap(t->queue, ios, TRANSMIT_REAP_AT_ONCE, 0);

        for (size_t i = 0; i < n; i++)
            transmit_lun_came_back(t, ios[i]->opaque);
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
        transmit_job_discharge(t, &t->jobs[i]);
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
    outbox_init(&t->outbox, opt->stream, transmit_job_gone, t);
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
        transmit_stop(t, TRANSMIT_RESOURCE, "no queue: %s", strerror(errno));
    how = t->end;
    if (t->queue && how != TRANSMIT_DEVICE)
        let_finish(t);
    fini(t);
    return how;
}
