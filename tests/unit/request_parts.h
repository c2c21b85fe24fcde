/* SPDX-License-Identifier: BSD-3-Clause */
/* A world for tests of VMs' requests.
 *
 * The gate is the real one.  The LUN, the session and the router are played
 * here: a script of answers, and of the routes that are opened when one is
 * reported broken. */
#ifndef DETOUR_TESTS_REQUEST_PARTS_H
#define DETOUR_TESTS_REQUEST_PARTS_H

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "lun/backend.h"
#include "plugin/peers.h"
#include "plugin/request.h"

#define KiB  1024u
#define DISK (256 * KiB)
#define MANY 32

/* What happens to the next request that reaches the LUN or the session. */
struct answer {
    int error;
    bool unsent; /* session: with -ENOTCONN */
};

/* What was reported to the router. */
struct report {
    enum route_event_kind kind;
    uint64_t serial;
    int error;
    bool dirty;
};

static struct {
    struct gate gate;
    char disk[DISK];
    uint32_t block_size, max_io;
    struct session_limits limits;

    struct answer answers[MANY];
    size_t nanswers, next_answer;
    enum gate_where routes[MANY]; /* opened one after the other */
    size_t nroutes, next_route;
    struct report reports[MANY];
    size_t nreports;

    struct lun_io ios[MANY]; /* as submitted, without data */
    size_t nios;
    struct link_command commands[MANY];
    size_t ncommands;
    unsigned queues_made, queues_gone, ios_out, abandoned;
    unsigned no_queues;    /* so many times none can be made */
    bool hold_after_first; /* the gate, when a request has come back */
    unsigned stray_interrupts;
    bool extents_inside;
    int extents_result;
    bool by_range;
    struct lun_io left; /* the last that was abandoned */
} t;

static atomic_uint hanging; /* requests that hang and are waited for */

static struct router *const router = (struct router *)(void *)&t;
static struct session *const the_session = (struct session *)(void *)&t.disk;

struct lun_queue {
    struct lun_io *done;
    bool hangs, interrupted;
    pthread_mutex_t lock;
    pthread_cond_t cond;
};

/* ---- the router --------------------------------------------------------- */

bool __wrap_router_by_range(const struct router *r);
struct latency *__wrap_router_latency(struct router *r);
struct gate *__wrap_router_gate(struct router *r);
struct lun *__wrap_router_own_lun(struct router *r);
uint32_t __wrap_router_block_size(struct router *r);
void __wrap_router_report_error(struct router *r, enum route_event_kind kind,
                                uint64_t serial, int error);

struct gate *
__wrap_router_gate(struct router *r)
{
    assert_ptr_equal(r, router);
    return &t.gate;
}

bool
__wrap_router_by_range(const struct router *r)
{
    assert_ptr_equal(r, router);
    return t.by_range;
}

struct latency *
__wrap_router_latency(struct router *r)
{
    static struct latency latency;

    (void)r;
    return &latency;
}

struct lun *
__wrap_router_own_lun(struct router *r)
{
    (void)r;
    return NULL;
}

uint32_t
__wrap_router_block_size(struct router *r)
{
    (void)r;
    return t.block_size;
}

static inline void
open_next(void)
{
    enum gate_where where = t.routes[t.next_route++];

    if (where == GATE_CLOSED)
        gate_close(&t.gate);
    else if (where == GATE_LOCAL)
        gate_open_local(&t.gate, 40 + t.next_route);
    else
        gate_open_peer(&t.gate, 0, the_session);
}

void
__wrap_router_report_error(struct router *r, enum route_event_kind kind,
                           uint64_t serial, int error)
{
    (void)r;
    assert_true(t.nreports < MANY);
    t.reports[t.nreports++] =
        (struct report){kind, serial, error, gate_dirty(&t.gate)};
    assert_true(gate_drain(&t.gate, 1)); /* who reports has left */
    if (gate_hold_serial(&t.gate, serial) && t.next_route < t.nroutes)
        open_next();
}

/* ---- the LUN ------------------------------------------------------------ */

struct lun_queue *__wrap_lun_queue_create(struct lun *l);
void __wrap_lun_queue_destroy(struct lun_queue *q);
void __wrap_lun_queue_interrupt(struct lun_queue *q);
struct lun_io *__wrap_lun_io_get(struct lun_queue *q, size_t room);
void __wrap_lun_io_put(struct lun_io *io);
void __wrap_lun_submit(struct lun_queue *q, struct lun_io *io);
size_t __wrap_lun_reap(struct lun_queue *q, struct lun_io **ios, size_t max,
                       uint64_t deadline_ms);
void __wrap_lun_abandon(struct lun_io *io);
uint32_t __wrap_lun_max_io(struct lun *l);
int __wrap_lun_extents(struct lun *l, uint64_t offset, uint64_t count,
                       struct lun_extent *extents, size_t max,
                       uint64_t deadline_ms);

struct lun_queue *
__wrap_lun_queue_create(struct lun *l)
{
    struct lun_queue *q;

    (void)l;
    if (t.no_queues > 0 && t.no_queues--)
        return NULL;
    q = calloc(1, sizeof *q);
    pthread_mutex_init(&q->lock, NULL);
    pthread_cond_init(&q->cond, NULL);
    t.queues_made++;
    return q;
}

void
__wrap_lun_queue_destroy(struct lun_queue *q)
{
    if (!q)
        return;
    pthread_cond_destroy(&q->cond);
    pthread_mutex_destroy(&q->lock);
    t.queues_gone++;
    free(q);
}

void
__wrap_lun_queue_interrupt(struct lun_queue *q)
{
    pthread_mutex_lock(&q->lock);
    q->interrupted = true;
    pthread_cond_signal(&q->cond);
    pthread_mutex_unlock(&q->lock);
}

struct lun_io *
__wrap_lun_io_get(struct lun_queue *q, size_t room)
{
    struct lun_io *io = calloc(1, sizeof *io);

    io->data = room ? malloc(room) : NULL;
    io->queue = q;
    t.ios_out++;
    return io;
}

static inline void
free_io(struct lun_io *io)
{
    free(io->data);
    free(io);
}

void
__wrap_lun_io_put(struct lun_io *io)
{
    t.ios_out--;
    free_io(io);
}

static inline const struct answer *
next_answer(void)
{
    static const struct answer good;

    return t.next_answer < t.nanswers ? &t.answers[t.next_answer++] : &good;
}

#define HANGS 1 /* an answer that does not come */

void
__wrap_lun_submit(struct lun_queue *q, struct lun_io *io)
{
    assert_true(t.nios < MANY);
    t.ios[t.nios++] = *io;
    lun_tally_begin(io);
    io->error = next_answer()->error;
    q->hangs = io->error == HANGS;
    if (io->error == 0 && io->op == LUN_WRITE)
        memcpy(t.disk + io->offset, io->data, io->count);
    if (io->error == 0 && io->op == LUN_READ)
        memcpy(io->data, t.disk + io->offset, io->count);
    q->done = io;
}

/* For an interrupt, or to look at the clock again. */
static inline void
wait_a_little(struct lun_queue *q)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_nsec += 5000000;
    ts.tv_sec += ts.tv_nsec / 1000000000;
    ts.tv_nsec %= 1000000000;
    pthread_cond_timedwait(&q->cond, &q->lock, &ts);
}

size_t
__wrap_lun_reap(struct lun_queue *q, struct lun_io **ios, size_t max,
                uint64_t deadline_ms)
{
    assert_int_equal(max, 1);
    if (t.stray_interrupts > 0 && t.stray_interrupts--)
        return 0;
    pthread_mutex_lock(&q->lock);
    atomic_fetch_add(&hanging, q->hangs);
    while (q->hangs && !q->interrupted && clock_ms() < deadline_ms)
        wait_a_little(q);
    q->interrupted = false;
    pthread_mutex_unlock(&q->lock);
    if (q->hangs)
        return 0;
    if (t.hold_after_first)
        gate_hold(&t.gate);
    lun_tally_end(q->done);
    *ios = q->done;
    return 1;
}

void
__wrap_lun_abandon(struct lun_io *io)
{
    t.abandoned++;
    t.left = *io;
    t.ios_out--;
    free_io(io);
}

uint32_t
__wrap_lun_max_io(struct lun *l)
{
    (void)l;
    return t.max_io;
}

int
__wrap_lun_extents(struct lun *l, uint64_t offset, uint64_t count,
                   struct lun_extent *extents, size_t max, uint64_t deadline_ms)
{
    struct gate_stats st;

    (void)l;
    (void)offset;
    (void)max;
    assert_true(deadline_ms != CLOCK_NEVER);
    gate_get_stats(&t.gate, &st);
    t.extents_inside = st.inside > 0;
    extents[0] = (struct lun_extent){.count = count, .hole = true};
    return t.extents_result;
}

/* ---- the session -------------------------------------------------------- */

int __wrap_session_run(struct session *s, struct link_command *c, bool *sent);
const struct session_limits *__wrap_session_limits(const struct session *s);

int
__wrap_session_run(struct session *s, struct link_command *c, bool *sent)
{
    const struct answer *a = next_answer();

    assert_ptr_equal(s, the_session);
    assert_true(t.ncommands < MANY);
    t.commands[t.ncommands++] = *c;
    *sent = !a->unsent;
    if (a->error == 0 && c->op == LINK_WRITE)
        memcpy(t.disk + c->offset, c->data, c->count);
    if (a->error == 0 && c->op == LINK_READ)
        memcpy(c->data, t.disk + c->offset, c->count);
    if (a->error == 0 && c->op == LINK_EXTENTS) {
        c->extents[0] = (struct link_extent){c->count / 2, 3};
        c->extents[1] = (struct link_extent){c->count / 2, 2};
        c->n_extents = 2;
    }
    return a->error;
}

const struct session_limits *
__wrap_session_limits(const struct session *s)
{
    assert_ptr_equal(s, the_session);
    return &t.limits;
}

/* ---- helpers ------------------------------------------------------------ */

static inline int
setup(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    atomic_store(&hanging, 0);
    gate_init(&t.gate);
    t.block_size = 512;
    t.limits = (struct session_limits){UINT64_MAX, 1u << 20, true, true};
    for (size_t i = 0; i < DISK; i++)
        t.disk[i] = (char)(i * 7 / 5);
    return request_thread_init();
}

static inline int
teardown(void **state)
{
    struct gate_stats st;

    (void)state;
    request_thread_fini();
    gate_get_stats(&t.gate, &st);
    assert_int_equal(st.inside, 0);
    assert_null(t.gate.first); /* every request was finished */
    assert_int_equal(t.ios_out, 0);
    assert_int_equal(t.queues_made, t.queues_gone);
    gate_fini(&t.gate);
    return 0;
}

#define ROUTES(...)                                                            \
    do {                                                                       \
        const enum gate_where list[] = {__VA_ARGS__};                          \
        memcpy(t.routes, list, sizeof list);                                   \
        t.nroutes = sizeof list / sizeof *list;                                \
        open_next();                                                           \
    } while (0)

#define ANSWERS(...)                                                           \
    do {                                                                       \
        const struct answer list[] = {__VA_ARGS__};                            \
        memcpy(t.answers, list, sizeof list);                                  \
        t.nanswers = sizeof list / sizeof *list;                               \
    } while (0)

static char buffer[DISK];

static inline int
run(enum lun_op op, uint64_t offset, uint64_t count)
{
    struct request q = {.op = op, .offset = offset, .count = count};

    q.data = buffer;
    return request_run(router, &q, 0);
}

/* Exactly these reports came; each of an own opening, dirty as told. */
static inline void
assert_report(size_t i, enum route_event_kind kind, bool dirty)
{
    assert_true(i < t.nreports);
    assert_int_equal(t.reports[i].kind, kind);
    assert_int_equal(t.reports[i].dirty, dirty);
    assert_int_equal(t.reports[i].serial, i + 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
