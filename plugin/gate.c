/* SPDX-License-Identifier: BSD-3-Clause */
/* The gate: one lock, two lists in order of age, no I/O.
 *
 * Threads: nbdkit's workers enter, leave and finish; the router opens, holds,
 * cuts and drains; the monitor asks for the oldest.
 */
#include "plugin/gate.h"

#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "plugin/route.h"

void
gate_init(struct gate *g)
{
    pthread_condattr_t attr;

    memset(g, 0, sizeof *g);
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->moved, &attr);
    pthread_cond_init(&g->drained, &attr);
    pthread_condattr_destroy(&attr);
}

void
gate_fini(struct gate *g)
{
    orphans_fini(&g->orphans);
    pthread_cond_destroy(&g->drained);
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->lock);
}

/* Wait on c up to deadline_ms (CLOCK_NEVER: for ever); false: it came. */
static bool
wait_locked(struct gate *g, pthread_cond_t *c, uint64_t deadline_ms)
{
    struct timespec ts;

    if (deadline_ms == CLOCK_NEVER) {
        pthread_cond_wait(c, &g->lock);
        return true;
    }
    ts.tv_sec = (time_t)(deadline_ms / 1000);
    ts.tv_nsec = (long)(deadline_ms % 1000) * 1000000;
    return pthread_cond_timedwait(c, &g->lock, &ts) != ETIMEDOUT;
}

static void
list_locked(struct gate *g, struct gate_request *rq)
{
    rq->listed = true;
    rq->prev = g->last;
    rq->next = NULL;
    if (g->last)
        g->last->next = rq;
    else
        g->first = rq;
    g->last = rq;
    if (!rq->writes)
        return;
    rq->wprev = g->wlast;
    rq->wnext = NULL;
    if (g->wlast)
        g->wlast->wnext = rq;
    else
        g->wfirst = rq;
    g->wlast = rq;
}

static void
unlist_locked(struct gate *g, struct gate_request *rq)
{
    rq->listed = false;
    *(rq->prev ? &rq->prev->next : &g->first) = rq->next;
    *(rq->next ? &rq->next->prev : &g->last) = rq->prev;
    if (!rq->writes)
        return;
    *(rq->wprev ? &rq->wprev->wnext : &g->wfirst) = rq->wnext;
    *(rq->wnext ? &rq->wnext->wprev : &g->wlast) = rq->wprev;
}

/* An older write, or an orphan, that overlaps rq and may still change what it
 * writes? */
static bool
overlapped_locked(const struct gate *g, const struct gate_request *rq)
{
    if (!rq->writes)
        return false;
    if (orphans_overlap(&g->orphans, rq->offset, rq->count))
        return true;
    for (const struct gate_request *o = rq->wprev; o; o = o->wprev) {
        if (o->offset < rq->offset + rq->count &&
            rq->offset < o->offset + o->count)
            return true;
    }
    return false;
}

static void
stay_if_sealed_locked(struct gate *g)
{
    while (g->sealed)
        pthread_cond_wait(&g->moved, &g->lock);
}

static int
wait_for_route_locked(struct gate *g, struct gate_request *rq,
                      unsigned limit_ms)
{
    uint64_t limit = limit_ms ? rq->begun_ms + limit_ms : CLOCK_NEVER;
    uint64_t look = rq->look_ms ? clock_ms() + rq->look_ms : CLOCK_NEVER;

    for (;;) {
        stay_if_sealed_locked(g);
        if (g->route.where == GATE_CLOSED)
            return -ESHUTDOWN;
        if (g->route.where != GATE_HELD && !overlapped_locked(g, rq))
            return 0;
        rq->waited = true;
        if (!wait_locked(g, &g->moved, look < limit ? look : limit))
            return look < limit ? -EAGAIN : -EIO;
    }
}

int
gate_enter(struct gate *g, struct gate_request *rq, unsigned limit_ms)
{
    int r;

    pthread_mutex_lock(&g->lock);
    rq->waited = rq->listed;
    if (!rq->listed) {
        rq->begun_ms = clock_ms();
        list_locked(g, rq);
    }
    g->held++;
    if (g->sealed)
        pthread_cond_broadcast(&g->drained);
    r = wait_for_route_locked(g, rq, limit_ms);
    g->held--;
    if (r == 0) {
        g->inside++;
        rq->inside = true;
        rq->entered_ms = clock_ms();
        rq->route = g->route;
    }
    pthread_mutex_unlock(&g->lock);
    return r;
}

bool
gate_wait_on(struct gate *g, struct gate_request *rq, struct lun_queue *q)
{
    bool go;

    pthread_mutex_lock(&g->lock);
    rq->queue = q;
    go = g->route.where == rq->route.where;
    pthread_mutex_unlock(&g->lock);
    return go;
}

static void
keep_orphan_locked(struct gate *g, struct gate_request *rq)
{
    struct orphan *o = rq->orphan;

    if (rq->route.peer == ROUTE_SELF && lun_tally_count(o->tally) == 0)
        return; /* it came back, though with a path error */
    rq->orphan = NULL;
    o->offset = rq->offset;
    o->count = rq->count;
    o->carrier = rq->route.peer;
    o->serial = rq->route.serial;
    orphans_add(&g->orphans, o);
}

static void
leave_locked(struct gate *g, struct gate_request *rq, bool dirty)
{
    rq->inside = false;
    rq->queue = NULL;
    if (dirty)
        g->dirty = true;
    if (dirty && rq->orphan)
        keep_orphan_locked(g, rq);
    if (--g->inside == 0)
        pthread_cond_broadcast(&g->drained);
}

void
gate_leave(struct gate *g, struct gate_request *rq, bool dirty)
{
    pthread_mutex_lock(&g->lock);
    leave_locked(g, rq, dirty);
    pthread_mutex_unlock(&g->lock);
}

void
gate_finish(struct gate *g, struct gate_request *rq)
{
    uint64_t waited;

    pthread_mutex_lock(&g->lock);
    if (rq->inside)
        leave_locked(g, rq, false);
    if (rq->listed) {
        unlist_locked(g, rq);
        waited = clock_ms() - rq->begun_ms;
        if (waited > g->longest_wait_ms)
            g->longest_wait_ms = waited;
        g->answered++;
        if (rq->writes && g->held > 0)
            pthread_cond_broadcast(&g->moved);
        if (g->sealed)
            pthread_cond_broadcast(&g->drained);
    }
    pthread_mutex_unlock(&g->lock);
}

static void
open_to(struct gate *g, const struct gate_route *to)
{
    pthread_mutex_lock(&g->lock);
    if (g->route.where != GATE_CLOSED && !g->sealed) {
        uint64_t serial = g->route.serial + 1;

        g->route = *to;
        g->route.serial = serial;
        g->dirty = g->cut = false;
        pthread_cond_broadcast(&g->moved);
    }
    pthread_mutex_unlock(&g->lock);
}

void
gate_open_local(struct gate *g, uint64_t registration_no)
{
    open_to(g, &(struct gate_route){.where = GATE_LOCAL,
                                    .registration_no = registration_no,
                                    .peer = ROUTE_SELF});
}

void
gate_open_peer(struct gate *g, int peer, struct session *session)
{
    open_to(g, &(struct gate_route){
                   .where = GATE_PEER, .session = session, .peer = peer});
}

uint64_t
gate_serial(struct gate *g)
{
    uint64_t serial;

    pthread_mutex_lock(&g->lock);
    serial = g->route.serial;
    pthread_mutex_unlock(&g->lock);
    return serial;
}

unsigned
gate_settle(struct gate *g)
{
    unsigned left;

    pthread_mutex_lock(&g->lock);
    if (orphans_settle(&g->orphans) > 0)
        pthread_cond_broadcast(&g->moved);
    left = orphans_count(&g->orphans, ROUTE_SELF);
    pthread_mutex_unlock(&g->lock);
    return left;
}

unsigned
gate_clear(struct gate *g, int peer, uint64_t serial)
{
    unsigned left;

    pthread_mutex_lock(&g->lock);
    if (orphans_clear(&g->orphans, peer, serial) > 0)
        pthread_cond_broadcast(&g->moved);
    left = orphans_count(&g->orphans, peer);
    pthread_mutex_unlock(&g->lock);
    return left;
}

void
gate_hold(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    if (g->route.where != GATE_CLOSED)
        g->route.where = GATE_HELD;
    pthread_mutex_unlock(&g->lock);
}

bool
gate_hold_serial(struct gate *g, uint64_t serial)
{
    bool held;

    pthread_mutex_lock(&g->lock);
    held = g->route.serial == serial && g->route.where != GATE_CLOSED &&
           g->route.where != GATE_HELD;
    if (held)
        g->route.where = GATE_HELD;
    pthread_mutex_unlock(&g->lock);
    return held;
}

bool
gate_drain(struct gate *g, uint64_t deadline_ms)
{
    bool drained;

    pthread_mutex_lock(&g->lock);
    while (g->inside > 0 && wait_locked(g, &g->drained, deadline_ms))
        ;
    drained = g->inside == 0;
    pthread_mutex_unlock(&g->lock);
    return drained;
}

void
gate_cut(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    if (g->route.where != GATE_CLOSED)
        g->route.where = GATE_HELD;
    g->cut = true;
    for (struct gate_request *rq = g->first; rq; rq = rq->next) {
        if (rq->inside && rq->queue)
            lun_queue_interrupt(rq->queue);
    }
    pthread_mutex_unlock(&g->lock);
}

bool
gate_is_cut(struct gate *g)
{
    bool cut;

    pthread_mutex_lock(&g->lock);
    cut = g->cut;
    pthread_mutex_unlock(&g->lock);
    return cut;
}

bool
gate_is_held(struct gate *g)
{
    bool held;

    pthread_mutex_lock(&g->lock);
    held = g->route.where == GATE_HELD;
    pthread_mutex_unlock(&g->lock);
    return held;
}

bool
gate_dirty(struct gate *g)
{
    bool dirty;

    pthread_mutex_lock(&g->lock);
    dirty = g->dirty;
    pthread_mutex_unlock(&g->lock);
    return dirty;
}

void
gate_close(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    if (!g->sealed)
        g->route.where = GATE_CLOSED;
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

void
gate_seal(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    g->sealed = true;
    if (g->route.where != GATE_CLOSED)
        g->route.where = GATE_HELD;
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
}

static bool
is_still_locked(const struct gate *g)
{
    unsigned listed = 0;

    for (const struct gate_request *rq = g->first; rq; rq = rq->next)
        listed++;
    return listed == g->held;
}

bool
gate_still(struct gate *g, uint64_t deadline_ms)
{
    bool still;

    pthread_mutex_lock(&g->lock);
    while (!is_still_locked(g) && wait_locked(g, &g->drained, deadline_ms))
        ;
    still = is_still_locked(g);
    pthread_mutex_unlock(&g->lock);
    return still;
}

void
gate_stay_if_sealed(struct gate *g)
{
    pthread_mutex_lock(&g->lock);
    stay_if_sealed_locked(g);
    pthread_mutex_unlock(&g->lock);
}

/* When the oldest request inside (or outside) began to wait there; 0: none. */
static uint64_t
oldest_locked(const struct gate *g, bool inside)
{
    uint64_t oldest = 0;

    for (const struct gate_request *rq = g->first; rq; rq = rq->next) {
        uint64_t t = inside ? rq->entered_ms : rq->begun_ms;

        if (rq->inside == inside && (oldest == 0 || t < oldest))
            oldest = t;
    }
    return oldest;
}

uint64_t
gate_oldest_ms(struct gate *g)
{
    uint64_t oldest = 0;

    pthread_mutex_lock(&g->lock);
    for (const struct gate_request *rq = g->first; rq; rq = rq->next) {
        if (rq->inside && rq->route.where == GATE_LOCAL &&
            (oldest == 0 || rq->entered_ms < oldest))
            oldest = rq->entered_ms;
    }
    pthread_mutex_unlock(&g->lock);
    return oldest;
}

void
gate_note_answer(struct gate *g, const struct gate_request *rq)
{
    uint64_t now = clock_ms();

    atomic_store_explicit(&g->local_answer_ms, now, memory_order_relaxed);
    atomic_fetch_add_explicit(&g->local_took[slow_bucket(now - rq->entered_ms)],
                              1, memory_order_relaxed);
}

void
gate_durations(struct gate *g, uint64_t *counts)
{
    for (unsigned i = 0; i < SLOW_BUCKETS; i++)
        counts[i] =
            atomic_load_explicit(&g->local_took[i], memory_order_relaxed);
}

uint64_t
gate_answered_ms(struct gate *g)
{
    return atomic_load_explicit(&g->local_answer_ms, memory_order_relaxed);
}

void
gate_get_stats(struct gate *g, struct gate_stats *st)
{
    uint64_t now = clock_ms(), in, out;

    pthread_mutex_lock(&g->lock);
    in = oldest_locked(g, true);
    out = oldest_locked(g, false);
    *st = (struct gate_stats){
        .inside = g->inside,
        .held = g->held,
        .oldest_inside_ms = in ? now - in : 0,
        .oldest_held_ms = out ? now - out : 0,
        .longest_wait_ms = g->longest_wait_ms,
        .answered = g->answered,
        .orphans = g->orphans.n,
    };
    pthread_mutex_unlock(&g->lock);
}
