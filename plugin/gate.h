/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the VMs' requests wait for a route, enter it and leave it.
 *
 * Three rules are kept here.  A request enters only while the gate is open,
 * and the route may change only when everybody who entered has left.  A
 * write, trim or zero waits until every older one that overlaps it has been
 * answered, so that a request of a connection that is gone cannot take
 * effect after a newer one of the connection that replaced it (docs/design.md
 * section 3, "No ghost").  And without reservations it waits until no orphan
 * (orphans.h) overlaps it, its own from an earlier try included: other hosts
 * may write after its answer, and must not be overwritten by that orphan.
 */
#ifndef DETOUR_PLUGIN_GATE_H
#define DETOUR_PLUGIN_GATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "health/slow.h"
#include "lun/lun.h"
#include "plugin/orphans.h"

struct session; /* peers.h */

enum gate_where {
    GATE_HELD,
    GATE_LOCAL,
    GATE_PEER,
    GATE_CLOSED
};

/* What the gate is open to. */
struct gate_route {
    enum gate_where where;
    uint64_t serial;          /* grows with every opening; never 0 */
    uint64_t registration_no; /* GATE_LOCAL */
    struct session *session;  /* GATE_PEER */
    int peer;                 /* GATE_PEER: its index; else ROUTE_SELF */
};

/* One request of a VM, on its worker's stack. */
struct gate_request {
    /* set by the caller before gate_enter, first time zeroed */
    bool writes; /* WRITE, TRIM, ZERO */
    uint64_t offset, count;
    unsigned look_ms; /* 0, or how long gate_enter may wait at once */
    /* fence = drain, and it writes: what becomes of it when gate_leave is told
     * that it is dirty, and then belongs to the gate; else NULL */
    struct orphan *orphan;
    /* the gate's own, guarded by its lock */
    struct gate_request *next, *prev;   /* all that entered, oldest first */
    struct gate_request *wnext, *wprev; /* writes, oldest first */
    bool listed, inside;
    uint64_t begun_ms;       /* first gate_enter: how long the VM waits */
    uint64_t entered_ms;     /* last entry into the route */
    struct lun_queue *queue; /* where it waits for the LUN, or NULL */
    /* read by the caller after gate_enter */
    struct gate_route route;
    bool waited; /* it was held, or had been inside before */
};

struct gate {
    pthread_mutex_t lock;
    pthread_cond_t moved;   /* opened, closed, or a write was answered */
    pthread_cond_t drained; /* nobody is inside; sealed: one less goes on */
    /* guarded by lock */
    struct gate_route route;
    struct gate_request *first, *last;   /* every request of a VM */
    struct gate_request *wfirst, *wlast; /* the writes among them */
    struct orphans orphans;
    unsigned inside, held;
    bool dirty; /* since the last opening a write was not answered */
    bool cut;   /* since the last opening: whoever waits shall give up */
    bool sealed;
    uint64_t longest_wait_ms; /* of any request, ever */
    unsigned long answered;
    /* by itself */
    atomic_uint_fast64_t local_answer_ms;          /* 0: never */
    atomic_uint_fast64_t local_took[SLOW_BUCKETS]; /* answers, by slow_bucket */
};

/* gate_init, gate_fini - held at first.  Nobody may wait at gate_fini. */
void gate_init(struct gate *g);
void gate_fini(struct gate *g);

/* gate_enter - wait for a route, for older overlapping writes and for
 * overlapping orphans; go inside.
 *
 * limit_ms: a request that was held longer than this since it began fails;
 *           0: never
 *
 * errors:  -EIO        limit_ms passed (the caller still owes gate_finish)
 *          -EAGAIN     rq->look_ms passed: it is still held; call again, or
 *                      give it up with gate_finish
 *          -ESHUTDOWN  the gate was closed
 * threads: any; rq belongs to the gate until gate_finish
 */
int gate_enter(struct gate *g, struct gate_request *rq, unsigned limit_ms);

/* gate_wait_on - rq is going to wait on q inside the route, or (NULL) no
 * longer.  Between the two calls q may be interrupted.
 *
 * returns: false: the route is being cut; do not start
 */
bool gate_wait_on(struct gate *g, struct gate_request *rq, struct lun_queue *q);

/* gate_leave - out of the route; dirty: it was not answered and may still
 * take effect.
 *
 * owns: rq->orphan, if any, is the gate's with dirty, and NULL afterwards;
 *       unless it came back over our own paths, with an error */
void gate_leave(struct gate *g, struct gate_request *rq, bool dirty);

/* gate_finish - the VM is answered; younger overlapping writes may go.
 *
 * Leaves the route as gate_leave does, dirty false, if rq is still inside. */
void gate_finish(struct gate *g, struct gate_request *rq);

/* gate_open_local, gate_open_peer - let requests in.  Nobody may be inside. */
void gate_open_local(struct gate *g, uint64_t registration_no);
void gate_open_peer(struct gate *g, int peer, struct session *session);

/* gate_serial - of the last opening; 0: there was none.  threads: any */
uint64_t gate_serial(struct gate *g);

/* gate_settle - see which orphans of our own paths have come back, and let in
 * who waited for them.
 *
 * returns: how many of ours are left */
unsigned gate_settle(struct gate *g);

/* gate_clear - nothing is under way any more that left by way of peer in the
 * opening serial or before; let in who waited for it.
 *
 * returns: how many of that peer are left */
unsigned gate_clear(struct gate *g, int peer, uint64_t serial);

/* gate_hold - let nobody in; returns at once. */
void gate_hold(struct gate *g);

/* gate_hold_serial - the same, if the opening is still the one of serial.
 *
 * returns: true: it was and it was open
 */
bool gate_hold_serial(struct gate *g, uint64_t serial);

/* gate_drain - wait until nobody is inside; false when deadline_ms came. */
bool gate_drain(struct gate *g, uint64_t deadline_ms);

/* gate_cut - hold, and interrupt everybody inside who waits for the LUN. */
void gate_cut(struct gate *g);

/* gate_is_cut - shall those who wait inside give up?  For telling a cut from
 * an interrupt that was meant for an earlier request on the same queue. */
bool gate_is_cut(struct gate *g);

/* gate_is_held - is nobody let in now?  Not when it is closed. */
bool gate_is_held(struct gate *g);

/* gate_dirty - was a write of the last opening left unanswered? */
bool gate_dirty(struct gate *g);

/* gate_close - for ever: whoever waits or comes gets -ESHUTDOWN.  Nothing where
 * it is sealed. */
void gate_close(struct gate *g);

/* gate_seal - for ever: whoever waits or comes waits until the process ends,
 * and gate_open_* do nothing.  Those inside go on. */
void gate_seal(struct gate *g);

/* gate_still - sealed: wait until every request is held or finished, inside or
 * not; false when deadline_ms came. */
bool gate_still(struct gate *g, uint64_t deadline_ms);

/* gate_stay_if_sealed - returns only where the gate is not sealed. */
void gate_stay_if_sealed(struct gate *g);

/* gate_oldest_ms - when the oldest request that is under way to our own LUN
 * entered; 0: none. */
uint64_t gate_oldest_ms(struct gate *g);

/* gate_note_answer - our own LUN answered rq, which is inside, and not with a
 * path error. */
void gate_note_answer(struct gate *g, const struct gate_request *rq);

/* gate_durations - how many of these answers took how long since the request
 * went inside; SLOW_BUCKETS counts. */
void gate_durations(struct gate *g, uint64_t *counts);

/* gate_answered_ms - when it last did; 0: never. */
uint64_t gate_answered_ms(struct gate *g);

struct gate_stats {
    unsigned inside, held;
    uint64_t oldest_inside_ms, oldest_held_ms; /* ages; 0: nobody */
    uint64_t longest_wait_ms;
    unsigned long answered;
    unsigned orphans; /* ranges that writes wait for */
};

/* gate_get_stats - how things are at this moment.  threads: any */
void gate_get_stats(struct gate *g, struct gate_stats *st);

#endif
