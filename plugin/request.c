/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests: enter the route, do it there, and again elsewhere when the route
 * was to blame.
 *
 * Threads: nbdkit's workers.  Each keeps a lun_queue, made at its first
 * request and again after one was abandoned on it.
 */
#include "plugin/request.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "common/clock.h"
#include "lun/error.h"
#include "plugin/link.h"
#include "plugin/peers.h"

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
    /* An error that may be the path's or the LUN's: the same one on two
     * routes is the LUN's. */
    int doubt;
    uint64_t doubt_serial;
};

static pthread_key_t queue_key;

static void
drop_queue(void *q)
{
    lun_queue_destroy(q);
}

int
request_thread_init(void)
{
    return -pthread_key_create(&queue_key, drop_queue);
}

void
request_thread_fini(void)
{
    drop_queue(pthread_getspecific(queue_key));
    pthread_setspecific(queue_key, NULL);
    pthread_key_delete(queue_key);
}

static struct lun_queue *
thread_queue(struct router *r)
{
    struct lun_queue *q = pthread_getspecific(queue_key);

    if (!q) {
        q = lun_queue_create(router_own_lun(r));
        pthread_setspecific(queue_key, q);
    }
    return q;
}

static void
forget_queue(struct lun_queue *q)
{
    pthread_setspecific(queue_key, NULL);
    lun_queue_destroy(q);
}

/* ---- on our own paths -------------------------------------------------- */

static bool
has_data(const struct request *q)
{
    return q->op == LUN_READ || q->op == LUN_WRITE;
}

/* Wait for io until it is done or the route is cut.  An interrupt that was
 * meant for an earlier request is passed over. */
static bool
wait_local(struct gate *g, struct lun_queue *queue)
{
    struct lun_io *done;

    while (lun_reap(queue, &done, 1, CLOCK_NEVER) == 0) {
        if (gate_is_cut(g))
            return false;
    }
    return true;
}

/* One piece; 1: abandoned or not begun since the route is being left, else
 * 0 or -errno. */
static int
run_piece(struct attempt *a, struct lun_queue *queue, uint64_t done,
          uint64_t count, bool *begun)
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
    io->tally = NULL;
    if (q->op == LUN_WRITE)
        memcpy(io->data, q->data + done, count);
    if (!gate_wait_on(g, &a->rq, queue)) {
        lun_io_put(io);
        return 1;
    }
    *begun = true;
    lun_submit(queue, io);
    if (!wait_local(g, queue)) {
        lun_abandon(io);
        return 1;
    }
    e = io->error;
    if (e == 0 && q->op == LUN_READ)
        memcpy(q->data + done, io->data, count);
    lun_io_put(io);
    return e;
}

static int
run_pieces(struct attempt *a, struct lun_queue *queue, bool *begun)
{
    struct lun_status st;
    uint64_t most = a->q->count, n;
    int e = 0;

    lun_get_status(router_own_lun(a->router), &st);
    if (st.max_io != 0 && most > st.max_io)
        most = st.max_io;
    if (a->q->count == 0)
        return run_piece(a, queue, 0, 0, begun);
    for (uint64_t done = 0; e == 0 && done < a->q->count; done += n) {
        n = a->q->count - done < most ? a->q->count - done : most;
        e = run_piece(a, queue, done, n, begun);
    }
    return e;
}

static enum outcome
answer(struct attempt *a, int e)
{
    a->answer = e;
    return ANSWERED;
}

/* May this error be the LUN's own as well as the path's? */
static bool
doubtful(int e)
{
    switch (e) {
    case -ENOLINK:
    case -ETIMEDOUT:
    case -ENODEV:
    case -ENXIO:
    case -EAGAIN:
    case -ESTALE:
    case -ENOTCONN:
    case -ENOMEM:
        return false;
    default:
        return true;
    }
}

/* Was the same doubtful error met on another route before? */
static bool
confirmed(struct attempt *a, int e)
{
    if (!doubtful(e))
        return false;
    if (a->doubt == e && a->doubt_serial != a->rq.route.serial)
        return true;
    a->doubt = e;
    a->doubt_serial = a->rq.route.serial;
    return false;
}

static enum outcome
judge_local(struct attempt *a, int e)
{
    struct gate *g = router_gate(a->router);
    uint64_t serial = a->rq.route.serial;

    switch (lun_error_class(e)) {
    case LUN_CLASS_OK:
    case LUN_CLASS_LUN:
    case LUN_CLASS_REQUEST:
        gate_leave(g, &a->rq, false);
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
    if (confirmed(a, e))
        return answer(a, -EIO);
    router_report_error(a->router, ROUTE_EV_LOCAL_ERROR, serial, e);
    return AGAIN;
}

static enum outcome
run_local(struct attempt *a)
{
    struct gate *g = router_gate(a->router);
    struct lun_queue *queue = thread_queue(a->router);
    bool begun = false;
    int e;

    if (!queue) {
        gate_leave(g, &a->rq, false);
        return answer(a, -ENOMEM);
    }
    e = run_pieces(a, queue, &begun);
    if (e != 1)
        return judge_local(a, e);
    /* Abandoned: nobody may interrupt the queue while it goes. */
    gate_wait_on(g, &a->rq, NULL);
    forget_queue(queue);
    gate_leave(g, &a->rq, begun && a->rq.writes);
    return AGAIN;
}

/* ---- through a peer ---------------------------------------------------- */

static enum outcome
judge_peer(struct attempt *a, int e, bool sent)
{
    struct gate *g = router_gate(a->router);
    uint64_t serial = a->rq.route.serial;
    bool dirty = sent && a->rq.writes;

    switch (e) {
    case -ENOTCONN:
        gate_leave(g, &a->rq, dirty);
        router_report_error(a->router, ROUTE_EV_PEER_LOST, serial, e);
        return AGAIN;
    case -ESHUTDOWN:
        gate_leave(g, &a->rq, false);
        router_report_error(a->router, ROUTE_EV_PEER_DRAINS, serial, e);
        return AGAIN;
    case -EIO:
    case -ENOMEM:
        gate_leave(g, &a->rq, dirty);
        if (confirmed(a, e))
            return answer(a, e);
        router_report_error(a->router, ROUTE_EV_PEER_ERROR, serial, e);
        return AGAIN;
    default:
        gate_leave(g, &a->rq, false);
        return answer(a, e);
    }
}

static enum outcome
run_peer(struct attempt *a)
{
    static const enum link_op ops[] = {
        [LUN_READ] = LINK_READ,   [LUN_WRITE] = LINK_WRITE,
        [LUN_FLUSH] = LINK_FLUSH, [LUN_TRIM] = LINK_TRIM,
        [LUN_ZERO] = LINK_ZERO,
    };
    struct link_command c = {
        .op = ops[a->q->op],
        .flags = ((a->q->flags & LUN_FUA) ? LINK_FUA : 0) |
                 ((a->q->flags & LUN_NO_HOLE) ? LINK_NO_HOLE : 0),
        .offset = a->q->offset,
        .count = a->q->count,
        .data = a->q->data,
    };
    bool sent = false;
    int e = session_run(a->rq.route.session, &c, &sent);

    return judge_peer(a, e, sent);
}

/* ---- all of it --------------------------------------------------------- */

static int
check(struct router *r, const struct request *q)
{
    struct router_lun l;
    int e;

    if (q->op == LUN_FLUSH)
        return 0;
    e = router_get_lun(r, &l, 1);
    if (e < 0)
        return 0; /* nothing known yet: the LUN will tell */
    if (q->offset % l.block_size || q->count % l.block_size)
        return -EINVAL;
    return 0;
}

int
request_run(struct router *r, const struct request *q, unsigned limit_ms)
{
    struct attempt a = {.router = r, .q = q};
    struct gate *g = router_gate(r);
    enum outcome o;
    int e = check(r, q);

    if (e < 0)
        return e;
    a.rq.writes = q->op != LUN_READ && q->op != LUN_FLUSH;
    a.rq.offset = q->offset;
    a.rq.count = q->count;
    do {
        e = gate_enter(g, &a.rq, limit_ms);
        if (e < 0) {
            a.answer = e;
            break;
        }
        o = a.rq.route.where == GATE_LOCAL ? run_local(&a) : run_peer(&a);
    } while (o == AGAIN);
    gate_finish(g, &a.rq);
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
                struct lun_extent *extents, size_t max, unsigned limit_ms)
{
    struct gate_request rq = {.offset = offset, .count = count};
    struct gate *g = router_gate(r);
    int n = gate_enter(g, &rq, limit_ms);

    if (n == 0) {
        n = rq.route.where == GATE_LOCAL
                ? lun_extents(router_own_lun(r), offset, count, extents, max,
                              clock_ms() + 500)
                : extents_of_peer(rq.route.session, offset, count, extents,
                                  max);
        gate_leave(g, &rq, false);
    }
    gate_finish(g, &rq);
    if (n == -ESHUTDOWN || n > 0)
        return n;
    extents[0] = (struct lun_extent){.count = count, .hole = false};
    return 1;
}
