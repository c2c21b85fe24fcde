/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests: enter the route, do it there, and again elsewhere when the route
 * was to blame.
 *
 * Threads: nbdkit's workers.  Each keeps a lun_queue, made at its first
 * request and again after one was abandoned on it; and with fence = drain an
 * orphan, in case its next write becomes one.
 */
#include "plugin/request.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/link.h"
#include "common/rules.h"
#include "lun/error.h"
#include "plugin/orphans.h"
#include "plugin/peers.h"

/* An EIO may be the LUN's word or that of paths that die.  A peer's counts for
 * more, since its proxy reads the LUN's first block before it says so: it is
 * believed the second time, or after one of our own paths.  Without a peer our
 * own paths are believed after this many tries, each of them on a route that
 * was opened anew, which a probe that succeeded goes before. */
#define DOUBTS_MAX      5
#define DOUBTS_MAX_PEER 2

#define EXTENTS_MS 500 /* then a range counts as allocated */

#define LIMIT_LOOK_MS 100 /* once the limit has passed: has the route gone? */

#define CLIENT_LOOK_MS 1000 /* of one that is held: is its client there? */

/* What came of one piece on our own paths, where it is no error. */
#define NOT_BEGUN 1 /* the route is being left */
#define ABANDONED 2 /* the same, and it may still take effect */

/* What came of one try. */
enum outcome {
    ANSWERED, /* the VM gets r->answer */
    AGAIN,    /* the route was to blame, or was left */
};

struct attempt {
    struct router *router;
    const struct request *q;
    struct gate_request rq;
    int answer;
    unsigned limit_ms;
    unsigned doubts; /* how often a route said EIO, or the like */
};

/* What a worker keeps from one request to the next; each or NULL. */
struct own {
    struct lun_queue *queue;
    struct orphan *orphan; /* for the next write that may become one */
};

static pthread_key_t own_key;

static pthread_mutex_t own_lock = PTHREAD_MUTEX_INITIALIZER;
static bool handed_over; /* guarded by own_lock */

static void
drop_own(void *opaque)
{
    struct own *o = opaque;

    if (!o)
        return;
    pthread_mutex_lock(&own_lock);
    if (!handed_over) /* or the LUN may be gone */
        lun_queue_destroy(o->queue);
    pthread_mutex_unlock(&own_lock);
    orphan_destroy(o->orphan);
    free(o);
}

int
request_thread_init(void)
{
    return -pthread_key_create(&own_key, drop_own);
}

void
request_thread_fini(void)
{
    request_thread_end();
    pthread_key_delete(own_key);
}

void
request_hand_over(void)
{
    pthread_mutex_lock(&own_lock);
    handed_over = true;
    pthread_mutex_unlock(&own_lock);
}

void
request_thread_end(void)
{
    struct own *o = pthread_getspecific(own_key);

    pthread_setspecific(own_key, NULL);
    drop_own(o);
}

static struct own *
thread_own(void)
{
    struct own *o = pthread_getspecific(own_key);

    if (!o) {
        o = calloc(1, sizeof *o);
        pthread_setspecific(own_key, o);
    }
    return o;
}

static struct lun_queue *
thread_queue(struct router *r)
{
    struct own *o = thread_own();

    if (o && !o->queue)
        o->queue = lun_queue_create(router_own_lun(r));
    return o ? o->queue : NULL;
}

static void
forget_queue(struct lun_queue *q)
{
    thread_own()->queue = NULL;
    lun_queue_destroy(q);
}

/* Without reservations: what becomes of a write that is not answered, made
 * while it can still fail.  false: no memory. */
static bool
lend_orphan(struct attempt *a)
{
    struct own *o;

    if (!a->rq.writes || !router_by_range(a->router))
        return true;
    o = thread_own();
    if (o && !o->orphan)
        o->orphan = orphan_create();
    a->rq.orphan = o ? o->orphan : NULL;
    return a->rq.orphan != NULL;
}

/* The gate has it, or it serves the next write. */
static void
take_orphan_back(struct attempt *a)
{
    if (a->rq.writes && router_by_range(a->router))
        thread_own()->orphan = a->rq.orphan;
    a->rq.orphan = NULL;
}

/* ---- on our own paths -------------------------------------------------- */

static bool
has_data(const struct request *q)
{
    return q->op == LUN_READ || q->op == LUN_WRITE;
}

/* Wait for io until it is done or the route is cut.  An interrupt that was
 * meant for an earlier request is passed over.  A route that was lost is not
 * cut before there is another one; so the limit of those who are held counts
 * here too. */
static bool
wait_local(struct attempt *a, struct lun_queue *queue)
{
    struct gate *g = router_gate(a->router);
    uint64_t until = a->limit_ms ? a->rq.begun_ms + a->limit_ms : CLOCK_NEVER;
    struct lun_io *done;

    while (lun_reap(queue, &done, 1, until) == 0) {
        if (gate_is_cut(g))
            return false;
        if (clock_ms() < until)
            continue;
        if (gate_is_held(g))
            return false;
        until = clock_ms() + LIMIT_LOOK_MS;
    }
    return true;
}

/* 0, -errno, NOT_BEGUN or ABANDONED. */
static int
run_piece(struct attempt *a, struct lun_queue *queue, uint64_t done,
          uint64_t count)
{
    const struct request *q = a->q;
    struct gate *g = router_gate(a->router);
    struct lun_io *io = lun_io_get(queue, has_data(q) ? count : 0);
    int e;

    if (!io)
        return -ENOMEM;
    io->op = q->op;
    io->flags = q->flags;
    io->offset = q->offset + done;
    io->count = count;
    io->registration_no = a->rq.writes ? a->rq.route.registration_no : 0;
    io->tally = a->rq.orphan ? a->rq.orphan->tally : NULL;
    if (q->op == LUN_WRITE)
        memcpy(io->data, q->data + done, count);
    if (!gate_wait_on(g, &a->rq, queue)) {
        lun_io_put(io);
        return NOT_BEGUN;
    }
    lun_submit(queue, io);
    if (!wait_local(a, queue)) {
        lun_abandon(io);
        return ABANDONED;
    }
    e = io->error;
    if (e == 0 && q->op == LUN_READ)
        memcpy(q->data + done, io->data, count);
    lun_io_put(io);
    return e;
}

static int
run_pieces(struct attempt *a, struct lun_queue *queue)
{
    uint32_t max_io = lun_max_io(router_own_lun(a->router));
    uint64_t most = a->q->count, n;
    int e = 0;

    if (max_io != 0 && most > max_io)
        most = max_io;
    if (a->q->count == 0)
        return run_piece(a, queue, 0, 0);
    for (uint64_t done = 0; e == 0 && done < a->q->count; done += n) {
        n = a->q->count - done < most ? a->q->count - done : most;
        e = run_piece(a, queue, done, n);
    }
    return e;
}

static enum outcome
answer(struct attempt *a, int e)
{
    a->answer = e;
    return ANSWERED;
}

static enum outcome
judge_local(struct attempt *a, int e)
{
    struct gate *g = router_gate(a->router);
    uint64_t serial = a->rq.route.serial;

    switch (lun_error_class(e)) {
    case LUN_CLASS_OK:
    case LUN_CLASS_LUN:
        gate_note_answer(g, &a->rq);
        return answer(a, e); /* gate_finish leaves the route as well */
    case LUN_CLASS_REQUEST:  /* perhaps the library's own word */
        return answer(a, e);
    case LUN_CLASS_FENCED:
        /* Refused by the target, or before it left: not carried out. */
        gate_leave(g, &a->rq, false);
        router_report_error(a->router, ROUTE_EV_FENCED, serial, e);
        return AGAIN;
    case LUN_CLASS_PATH:
        break;
    }
    gate_leave(g, &a->rq, a->rq.writes);
    /* The route is left in any case: what failed may still take effect. */
    router_report_error(a->router, ROUTE_EV_LOCAL_ERROR, serial, e);
    if (lun_error_doubtful(e) && ++a->doubts == DOUBTS_MAX)
        return answer(a, -EIO);
    return AGAIN;
}

static enum outcome
run_local(struct attempt *a)
{
    struct gate *g = router_gate(a->router);
    struct lun_queue *queue = thread_queue(a->router);
    int e;

    if (!queue) { /* the LUN has said nothing: another route may do better */
        gate_leave(g, &a->rq, false);
        router_report_error(a->router, ROUTE_EV_LOCAL_ERROR, a->rq.route.serial,
                            -ENOMEM);
        return AGAIN;
    }
    e = run_pieces(a, queue);
    if (e <= 0)
        return judge_local(a, e);
    /* Nobody may interrupt the queue while it goes. */
    gate_wait_on(g, &a->rq, NULL);
    if (e == ABANDONED)
        forget_queue(queue);
    gate_leave(g, &a->rq, e == ABANDONED && a->rq.writes);
    return AGAIN;
}

/* ---- through a peer ---------------------------------------------------- */

/* It came back to the proxy with EIO: no range to wait for, but a carrier to be
 * fenced before another one takes over, as after an error of our own paths. */
static enum outcome
doubt_peer(struct attempt *a, int e)
{
    struct orphan *unused = a->rq.orphan;

    a->rq.orphan = NULL;
    gate_leave(router_gate(a->router), &a->rq, a->rq.writes);
    a->rq.orphan = unused;
    return ++a->doubts < DOUBTS_MAX_PEER ? AGAIN : answer(a, e);
}

static enum outcome
judge_peer(struct attempt *a, int e, bool sent)
{
    struct gate *g = router_gate(a->router);
    uint64_t serial = a->rq.route.serial;

    if (e == -EIO)
        return doubt_peer(a, e);
    gate_leave(g, &a->rq, e == -ENOTCONN && sent && a->rq.writes);
    switch (e) {
    case -ENOTCONN:
        router_report_error(a->router, ROUTE_EV_PEER_LOST, serial, e);
        return AGAIN;
    case -ESHUTDOWN:
        router_report_error(a->router, ROUTE_EV_PEER_DRAINS, serial, e);
        return AGAIN;
    case -ENOMEM:
        router_report_error(a->router, ROUTE_EV_PEER_ERROR, serial, e);
        return AGAIN;
    default: /* done, or an error that leaves nothing open */
        return answer(a, e);
    }
}

/* Which errno says that the peer cannot do it; 0: it can. */
static int
lacking(const struct session_limits *most, enum lun_op op)
{
    bool can = op == LUN_TRIM   ? most->can_trim
               : op == LUN_ZERO ? most->can_zero
                                : true;

    return can ? 0 : -EOPNOTSUPP;
}

static enum outcome
run_peer(struct attempt *a)
{
    static const enum link_op ops[] = {
        [LUN_READ] = LINK_READ,   [LUN_WRITE] = LINK_WRITE,
        [LUN_FLUSH] = LINK_FLUSH, [LUN_TRIM] = LINK_TRIM,
        [LUN_ZERO] = LINK_ZERO,
    };
    const struct request *q = a->q;
    struct session *session = a->rq.route.session;
    const struct session_limits *most = session_limits(session);
    struct link_command c = {
        .op = ops[q->op],
        .flags = ((q->flags & LUN_FUA) ? LINK_FUA : 0) |
                 ((q->flags & LUN_NO_HOLE) ? LINK_NO_HOLE : 0),
    };
    uint64_t done = 0;
    bool sent = false;
    int e = lacking(most, q->op);

    while (e == 0) {
        c.offset = q->offset + done;
        c.count = q->count - done;
        c.data = has_data(q) ? q->data + done : NULL;
        if (has_data(q) && c.count > most->max_io)
            c.count = most->max_io;
        e = session_run(session, &c, &sent);
        done += c.count;
        if (done >= q->count)
            break;
    }
    return judge_peer(a, e, sent);
}

/* ---- all of it --------------------------------------------------------- */

static int
check(struct router *r, const struct request *q)
{
    uint32_t block_size = router_block_size(r);

    /* nothing known yet: the LUN will tell */
    if (q->op == LUN_FLUSH || block_size == 0)
        return 0;
    if (q->offset % block_size || q->count % block_size)
        return -EINVAL;
    return 0;
}

/* Inside the route. */
static enum outcome
attempt(struct attempt *a)
{
    bool local = a->rq.route.where == GATE_LOCAL;
    enum outcome o;

    if (!lend_orphan(a)) { /* not begun: another try may find memory */
        gate_leave(router_gate(a->router), &a->rq, false);
        router_report_error(a->router,
                            local ? ROUTE_EV_LOCAL_ERROR : ROUTE_EV_PEER_ERROR,
                            a->rq.route.serial, -ENOMEM);
        return AGAIN;
    }
    o = local ? run_local(a) : run_peer(a);
    take_orphan_back(a);
    return o;
}

/* A VM that was killed may run on another host by now: what it has written
 * there is newer than what was held here. */
static bool
vanished(const struct attempt *a)
{
    return a->rq.waited && a->q->client_gone && rule_kept(RULE_VANISHED) &&
           a->q->client_gone();
}

static int
enter(struct attempt *a)
{
    struct gate *g = router_gate(a->router);
    int e;

    do {
        e = gate_enter(g, &a->rq, a->limit_ms);
        if ((e == 0 || e == -EAGAIN) && vanished(a))
            return -ECANCELED;
    } while (e == -EAGAIN);
    return e;
}

int
request_run(struct router *r, const struct request *q, unsigned limit_ms)
{
    struct attempt a = {.router = r, .q = q, .limit_ms = limit_ms};
    struct gate *g = router_gate(r);
    uint64_t begun_us = clock_us();
    enum outcome o;
    int e = check(r, q);

    if (e < 0)
        return e;
    a.rq.writes = q->op != LUN_READ && q->op != LUN_FLUSH;
    a.rq.offset = q->offset;
    a.rq.count = q->count;
    a.rq.look_ms = q->client_gone ? CLIENT_LOOK_MS : 0;
    do {
        e = enter(&a);
        if (e < 0) {
            a.answer = e;
            break;
        }
        o = attempt(&a);
    } while (o == AGAIN);
    gate_finish(g, &a.rq);
    /* The last words of a process that ends are not the LUN's: the VM asks its
     * successor. */
    if (a.answer < 0)
        gate_stay_if_sealed(g);
    if (e == 0)
        latency_note(router_latency(r), a.rq.route.where == GATE_PEER, q->op,
                     clock_us() - begun_us, a.answer < 0 ? 0 : q->count);
    /* A trim is advice: that a route cannot do it changes nothing. */
    if (q->op == LUN_TRIM && a.answer == -EOPNOTSUPP)
        a.answer = 0;
    return a.answer;
}

static int
extents_of_peer(struct session *s, uint64_t offset, uint64_t count,
                struct lun_extent *extents, size_t max)
{
    struct link_extent ext[64];
    struct link_command c = {
        .op = LINK_EXTENTS,
        .offset = offset,
        .count = count,
        .extents = ext,
        .max_extents = max < 64 ? max : 64,
    };
    bool sent;
    int e = session_run(s, &c, &sent);

    if (e < 0)
        return e;
    for (size_t i = 0; i < c.n_extents; i++) {
        extents[i].count = ext[i].count;
        /* NBD_STATE_HOLE and NBD_STATE_ZERO together: lun.h's hole */
        extents[i].hole = (ext[i].flags & 3) == 3;
    }
    return (int)c.n_extents;
}

int
request_extents(struct router *r, uint64_t offset, uint64_t count,
                struct lun_extent *extents, size_t max)
{
    struct gate_request rq = {.offset = offset, .count = count};
    struct gate *g = router_gate(r);
    int n = gate_enter(g, &rq, 1);

    if (n == 0 && rq.route.where == GATE_PEER) {
        n = extents_of_peer(rq.route.session, offset, count, extents, max);
        gate_leave(g, &rq, false);
    } else if (n == 0) {
        /* Not inside: it changes nothing, and nobody can interrupt it. */
        gate_leave(g, &rq, false);
        n = lun_extents(router_own_lun(r), offset, count, extents, max,
                        clock_ms() + EXTENTS_MS);
    }
    gate_finish(g, &rq);
    if (n == -ESHUTDOWN || n > 0)
        return n;
    extents[0] = (struct lun_extent){.count = count, .hole = false};
    return 1;
}
