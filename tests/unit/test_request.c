/* SPDX-License-Identifier: BSD-3-Clause */
/* A VM's request, from its arrival to its answer: which errors it sees, which
 * routes it takes, and which writes count as still under way.
 *
 * The gate is the real one.  The LUN, the session and the router are played
 * here: a script of answers, and of the routes that are opened when one is
 * reported broken. */
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

static void
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

static void
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

static const struct answer *
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
static void
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

static int
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

static int
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

static int
run(enum lun_op op, uint64_t offset, uint64_t count)
{
    struct request q = {.op = op, .offset = offset, .count = count};

    q.data = buffer;
    return request_run(router, &q, 0);
}

/* Exactly these reports came; each of an own opening, dirty as told. */
static void
assert_report(size_t i, enum route_event_kind kind, bool dirty)
{
    assert_true(i < t.nreports);
    assert_int_equal(t.reports[i].kind, kind);
    assert_int_equal(t.reports[i].dirty, dirty);
    assert_int_equal(t.reports[i].serial, i + 1);
}

/* ---- own paths ---------------------------------------------------------- */

static void
test_request_local_data_goes_through(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL);
    assert_int_equal(run(LUN_READ, 4096, 8192), 0);
    assert_memory_equal(buffer, t.disk + 4096, 8192);
    memset(buffer, 'w', 1024);
    assert_int_equal(run(LUN_WRITE, 512, 1024), 0);
    assert_memory_equal(t.disk + 512, buffer, 1024);
    assert_int_equal(run(LUN_FLUSH, 0, 0), 0);
    assert_int_equal(t.ios[2].op, LUN_FLUSH);
    assert_int_equal(t.nreports, 0);
    assert_int_equal(t.queues_made, 1);
}

static void
test_request_writes_name_their_registration(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL);
    run(LUN_READ, 0, 512);
    run(LUN_WRITE, 0, 512);
    run(LUN_TRIM, 0, 512);
    run(LUN_ZERO, 0, 512);
    run(LUN_FLUSH, 0, 0);
    assert_int_equal(t.ios[0].registration_no, 0);
    for (int i = 1; i < 4; i++)
        assert_int_equal(t.ios[i].registration_no, 41);
    assert_int_equal(t.ios[4].registration_no, 0);
}

static void
test_request_misaligned_never_leaves(void **state)
{
    (void)state;
    t.block_size = 4096;
    ROUTES(GATE_LOCAL);
    assert_int_equal(run(LUN_WRITE, 512, 4096), -EINVAL);
    assert_int_equal(run(LUN_READ, 4096, 512), -EINVAL);
    assert_int_equal(t.nios, 0);
}

static void
test_request_lun_and_request_errors_are_passed_at_once(void **state)
{
    static const int errors[] = {ENODATA, EREMOTEIO, EILSEQ, ENOSPC,
                                 EINVAL,  EROFS,     EPERM};

    (void)state;
    ROUTES(GATE_LOCAL);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        t.next_answer = 0;
        ANSWERS({.error = -errors[i]});
        assert_int_equal(run(LUN_WRITE, 0, 512), -errors[i]);
    }
    assert_int_equal(t.nreports, 0);
    assert_false(gate_dirty(&t.gate));
}

static void
test_request_path_error_goes_to_a_peer(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER);
    ANSWERS({.error = -ENOLINK});
    memset(buffer, 'p', 512);
    assert_int_equal(run(LUN_WRITE, 512, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_LOCAL_ERROR, true);
    assert_int_equal(t.commands[0].op, LINK_WRITE);
    assert_memory_equal(t.disk + 512, buffer, 512);
}

/* This process has no room for it; the LUN has said nothing. */
static void
test_request_without_a_queue_goes_to_a_peer(void **state)
{
    (void)state;
    t.no_queues = 1;
    ROUTES(GATE_LOCAL, GATE_PEER);
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_LOCAL_ERROR, false);
    assert_int_equal(t.ncommands, 1);
}

/* What proves that our own paths carry: an answer, but no path error, and no
 * refusal that may come from ourselves. */
static void
test_request_answers_of_own_paths_are_noted(void **state)
{
    static const struct {
        int error;
        bool noted;
    } rows[] = {{0, true},
                {-ENODATA, true},
                {-EINVAL, false},
                {-EBADE, false},
                {-ENOLINK, false}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        gate_fini(&t.gate);
        gate_init(&t.gate);
        t.next_route = t.nreports = t.next_answer = 0;
        ROUTES(GATE_LOCAL, GATE_PEER);
        ANSWERS({.error = rows[i].error});
        assert_int_equal(gate_answered_ms(&t.gate), 0);
        run(LUN_READ, 0, 512);
        assert_int_equal(gate_answered_ms(&t.gate) != 0, rows[i].noted);
    }
}

static void
test_request_failed_read_leaves_nothing_behind(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER);
    ANSWERS({.error = -ENOLINK});
    assert_int_equal(run(LUN_READ, 0, 512), 0);
    assert_report(0, ROUTE_EV_LOCAL_ERROR, false);
    assert_memory_equal(buffer, t.disk, 512);
}

static void
test_request_fenced_write_was_not_carried_out(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_LOCAL);
    ANSWERS({.error = -EBADE});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_FENCED, false);
    assert_int_equal(t.ios[1].registration_no, 42);
}

/* ---- whose error is it? -------------------------------------------------- */

static void
test_request_error_of_own_paths_and_peer_is_the_luns(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER);
    ANSWERS({.error = -EIO}, {.error = -EIO});
    assert_int_equal(run(LUN_READ, 0, 512), -EIO);
    assert_int_equal(t.nreports, 1); /* the peer's word: no other route */
}

/* Both of our paths failed once each: that is not the LUN's error. */
static void
test_request_error_of_own_paths_twice_is_doubted(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_LOCAL, GATE_LOCAL);
    ANSWERS({.error = -EIO}, {.error = -EIO});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 2);
}

static void
test_request_error_of_own_paths_is_believed_in_the_end(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_LOCAL, GATE_LOCAL, GATE_LOCAL, GATE_LOCAL,
           GATE_LOCAL);
    ANSWERS({.error = -EIO}, {.error = -EIO}, {.error = -EIO}, {.error = -EIO},
            {.error = -EIO});
    assert_int_equal(run(LUN_WRITE, 0, 512), -EIO);
    /* also the last of them was left: what failed may still take effect */
    assert_int_equal(t.nreports, 5);
    assert_report(4, ROUTE_EV_LOCAL_ERROR, true);
}

static void
test_request_pure_path_errors_never_reach_the_vm(void **state)
{
    static const int errors[] = {ENOLINK, ETIMEDOUT, ENODEV, ENXIO,
                                 EAGAIN,  ENOTCONN,  ESTALE, EBUSY};

    (void)state;
    for (size_t i = 0; i < 15; i++)
        t.routes[i] = GATE_LOCAL;
    t.routes[15] = GATE_PEER;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        for (size_t j = 0; j < 15; j++)
            t.answers[j].error = -errors[i];
        t.nroutes = 16;
        t.nanswers = 15;
        t.next_route = t.next_answer = t.nreports = t.nios = 0;
        open_next();
        assert_int_equal(run(LUN_WRITE, 0, 512), 0);
        assert_int_equal(t.nreports, 15);
        gate_hold(&t.gate);
    }
}

/* ---- without reservations ------------------------------------------------ */

static unsigned
orphans(void)
{
    struct gate_stats st;

    gate_get_stats(&t.gate, &st);
    return st.orphans;
}

static void
test_request_with_reservations_leaves_no_range(void **state)
{
    (void)state;
    ROUTES(GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(orphans(), 0);
    assert_null(t.ios[0].tally);
}

/* Only its own next try waits for it, and that in vain: the limit passes. */
static void
test_request_lost_at_a_peer_leaves_its_range(void **state)
{
    struct request q = {
        .op = LUN_WRITE, .offset = 4096, .count = 8192, .data = buffer};

    (void)state;
    t.by_range = true;
    ROUTES(GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(request_run(router, &q, 20), -EIO);
    assert_int_equal(t.nios, 0);
    assert_int_equal(orphans(), 1);
    q.offset = 0;
    q.count = 4096;
    assert_int_equal(request_run(router, &q, 20), 0);
    assert_non_null(t.ios[0].tally); /* a new one: the gate has the other */
    assert_int_equal(gate_clear(&t.gate, 0, 1), 0);
    q.offset = 4096;
    q.count = 8192;
    assert_int_equal(request_run(router, &q, 20), 0);
}

static void
test_request_reads_and_unsent_writes_leave_no_range(void **state)
{
    (void)state;
    t.by_range = true;
    ROUTES(GATE_PEER, GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOTCONN}, {.error = -ENOTCONN, .unsent = true});
    assert_int_equal(run(LUN_READ, 0, 512), 0);
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 2);
    assert_int_equal(orphans(), 0);
}

/* Our own paths gave it back: it may be tried again at once. */
static void
test_request_that_came_back_with_an_error_leaves_no_range(void **state)
{
    (void)state;
    t.by_range = true;
    ROUTES(GATE_LOCAL, GATE_PEER);
    ANSWERS({.error = -ENOLINK});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_report(0, ROUTE_EV_LOCAL_ERROR, true);
    assert_int_equal(orphans(), 0);
}

static void *
write_a_little(void *opaque)
{
    struct request q = {.op = LUN_WRITE, .count = 512, .data = opaque};

    (void)request_run(router, &q, 0);
    request_thread_end();
    return NULL;
}

/* It hangs and is abandoned; once the device lets go of it, it goes on. */
static void
test_request_abandoned_leaves_its_range_until_it_returns(void **state)
{
    char data[512] = "x";
    struct gate_stats st;
    pthread_t thread;

    (void)state;
    t.by_range = true;
    ROUTES(GATE_LOCAL);
    ANSWERS({.error = HANGS});
    pthread_create(&thread, NULL, write_a_little, data);
    while (atomic_load(&hanging) == 0)
        usleep(1000);
    gate_cut(&t.gate);
    while (!gate_drain(&t.gate, clock_ms() + 5))
        gate_cut(&t.gate);
    assert_int_equal(gate_settle(&t.gate), 1);
    gate_open_peer(&t.gate, 0, the_session);
    do {
        usleep(1000);
        gate_get_stats(&t.gate, &st);
    } while (st.held == 0);
    assert_int_equal(gate_settle(&t.gate), 1);
    assert_int_equal(t.ncommands, 0);
    lun_tally_end(&t.left);
    assert_int_equal(gate_settle(&t.gate), 0);
    pthread_join(thread, NULL);
    assert_int_equal(t.ncommands, 1);
    assert_memory_equal(t.disk, data, 512);
}

/* ---- through a peer ----------------------------------------------------- */

static void
test_request_broken_connection_dirties_only_what_was_sent(void **state)
{
    (void)state;
    ROUTES(GATE_PEER, GATE_PEER, GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOTCONN, .unsent = true}, {.error = -ENOTCONN});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 2);
    assert_report(0, ROUTE_EV_PEER_LOST, false);
    assert_report(1, ROUTE_EV_PEER_LOST, true);

    t.next_answer = 0;
    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(run(LUN_READ, 0, 512), 0);
    assert_report(2, ROUTE_EV_PEER_LOST, false);
}

static void
test_request_draining_peer_did_not_carry_it_out(void **state)
{
    (void)state;
    ROUTES(GATE_PEER, GATE_PEER);
    ANSWERS({.error = -ESHUTDOWN});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_PEER_DRAINS, false);
}

static void
test_request_peer_without_memory_is_left(void **state)
{
    (void)state;
    ROUTES(GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOMEM});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_PEER_ERROR, false);
}

static void
test_request_peers_word_is_passed_at_once(void **state)
{
    static const int errors[] = {ENOSPC, EINVAL, EPERM, EOVERFLOW};

    (void)state;
    ROUTES(GATE_PEER);
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        t.next_answer = 0;
        ANSWERS({.error = -errors[i]});
        assert_int_equal(run(LUN_WRITE, 0, 512), -errors[i]);
    }
    assert_int_equal(t.nreports, 0);
    assert_false(gate_dirty(&t.gate));
}

/* One that was never on our own paths: the peer is asked twice. */
static void
test_request_peers_doubtful_word_is_believed_the_second_time(void **state)
{
    static const enum lun_op ops[] = {LUN_READ, LUN_WRITE, LUN_FLUSH, LUN_ZERO};

    (void)state;
    ROUTES(GATE_PEER);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        uint64_t count = ops[i] == LUN_FLUSH ? 0 : 512;

        t.next_answer = 0;
        ANSWERS({.error = -EIO});
        assert_int_equal(run(ops[i], 0, count), 0);
        ANSWERS({.error = -EIO}, {.error = -EIO});
        t.next_answer = 0;
        assert_int_equal(run(ops[i], 0, count), -EIO);
    }
    assert_int_equal(t.nreports, 0); /* the VMs' other requests go on there */
}

/* The proxy's kernel may have given up a write that the target still has: the
 * peer is fenced before another route takes over. */
static void
test_request_peers_doubtful_word_leaves_a_suspect(void **state)
{
    (void)state;
    ROUTES(GATE_PEER);
    ANSWERS({.error = -EIO});
    assert_int_equal(run(LUN_READ, 0, 512), 0);
    assert_false(gate_dirty(&t.gate));
    t.next_answer = 0;
    ANSWERS({.error = -EIO});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_true(gate_dirty(&t.gate));
}

/* It has come back: nobody waits for its range. */
static void
test_request_peers_doubtful_word_leaves_no_range(void **state)
{
    (void)state;
    t.by_range = true;
    ROUTES(GATE_PEER);
    ANSWERS({.error = -EIO}, {.error = -EIO});
    assert_int_equal(run(LUN_WRITE, 0, 512), -EIO);
    assert_int_equal(orphans(), 0);
    assert_true(gate_dirty(&t.gate));
}

static void
test_request_flags_reach_the_peer(void **state)
{
    struct request q = {.op = LUN_ZERO, .flags = LUN_FUA, .count = 512};

    (void)state;
    ROUTES(GATE_PEER);
    assert_int_equal(request_run(router, &q, 0), 0);
    q.flags = LUN_NO_HOLE;
    assert_int_equal(request_run(router, &q, 0), 0);
    assert_int_equal(t.commands[0].op, LINK_ZERO);
    assert_int_equal(t.commands[0].flags, LINK_FUA);
    assert_int_equal(t.commands[1].flags, LINK_NO_HOLE);
}

/* ---- large ones --------------------------------------------------------- */

static void
test_request_large_ones_are_split(void **state)
{
    (void)state;
    t.max_io = 16 * KiB;
    t.limits.max_io = 24 * KiB;
    ROUTES(GATE_LOCAL);
    assert_int_equal(run(LUN_READ, 4 * KiB, 40 * KiB), 0);
    assert_memory_equal(buffer, t.disk + 4 * KiB, 40 * KiB);
    assert_int_equal(t.nios, 3);
    assert_int_equal(t.ios[2].offset, 36 * KiB);
    assert_int_equal(t.ios[2].count, 8 * KiB);

    gate_hold(&t.gate);
    gate_open_peer(&t.gate, 0, the_session);
    for (size_t i = 0; i < 60 * KiB; i++)
        buffer[i] = (char)(i * 3);
    assert_int_equal(run(LUN_WRITE, 8 * KiB, 60 * KiB), 0);
    assert_memory_equal(t.disk + 8 * KiB, buffer, 60 * KiB);
    assert_int_equal(t.ncommands, 3);
    assert_int_equal(t.commands[2].count, 12 * KiB);

    /* a trim carries nothing: it is not split */
    assert_int_equal(run(LUN_TRIM, 0, 128 * KiB), 0);
    assert_int_equal(t.ncommands, 4);
}

static void
test_request_stops_at_the_first_piece_that_fails(void **state)
{
    (void)state;
    t.max_io = 16 * KiB;
    ROUTES(GATE_LOCAL);
    ANSWERS({0}, {.error = -ENODATA});
    assert_int_equal(run(LUN_READ, 0, 64 * KiB), -ENODATA);
    assert_int_equal(t.nios, 2);
}

/* The route is left between two pieces: nothing is under way, nobody need be
 * fenced. */
static void
test_request_between_two_pieces_is_no_orphan(void **state)
{
    struct request q = {.op = LUN_WRITE, .count = 32 * KiB, .data = buffer};

    (void)state;
    t.max_io = 16 * KiB;
    t.hold_after_first = true;
    ROUTES(GATE_LOCAL);
    /* held then, with nobody to open: it gives up */
    assert_int_equal(request_run(router, &q, 20), -EIO);
    assert_int_equal(t.nios, 1);
    assert_false(gate_dirty(&t.gate));
    assert_int_equal(t.abandoned, 0);
    assert_int_equal(t.queues_gone, 0);
}

/* ---- what a route cannot do --------------------------------------------- */

static void
test_request_trim_is_advice(void **state)
{
    (void)state;
    t.limits.can_trim = false;
    ROUTES(GATE_LOCAL);
    ANSWERS({.error = -EOPNOTSUPP});
    assert_int_equal(run(LUN_TRIM, 0, 512), 0);
    gate_hold(&t.gate);
    gate_open_peer(&t.gate, 0, the_session);
    assert_int_equal(run(LUN_TRIM, 0, 512), 0);
    assert_int_equal(t.ncommands, 0);
}

/* nbdkit writes zeroes then. */
static void
test_request_zero_is_not(void **state)
{
    (void)state;
    t.limits.can_zero = false;
    ROUTES(GATE_PEER);
    assert_int_equal(run(LUN_ZERO, 0, 512), -EOPNOTSUPP);
    assert_int_equal(t.ncommands, 0);
    assert_int_equal(t.nreports, 0);
}

/* ---- a route that is cut ------------------------------------------------ */

struct late {
    pthread_t thread;
    enum lun_op op;
    unsigned limit_ms;
    int result;
};

static void *
run_late(void *opaque)
{
    struct late *l = opaque;

    struct request q = {.op = l->op, .count = 512, .data = buffer};

    l->result = request_run(router, &q, l->limit_ms);
    return NULL;
}

/* A request hangs on our own paths; the router cuts it off and opens the
 * next route. */
static void
cut_off(enum lun_op op, bool dirty)
{
    struct late l = {.op = op};

    ROUTES(GATE_LOCAL);
    ANSWERS({.error = HANGS});
    pthread_create(&l.thread, NULL, run_late, &l);
    while (atomic_load(&hanging) == 0)
        sched_yield();
    gate_cut(&t.gate);
    assert_true(gate_drain(&t.gate, clock_ms() + 10000));
    assert_int_equal(gate_dirty(&t.gate), dirty);
    assert_int_equal(t.abandoned, 1);
    assert_int_equal(t.queues_gone, 1);
    gate_open_peer(&t.gate, 0, the_session);
    pthread_join(l.thread, NULL);
    assert_int_equal(l.result, 0);
    assert_int_equal(t.ncommands, 1);
    assert_int_equal(t.nreports, 0);
}

static void
test_request_abandoned_write_may_still_take_effect(void **state)
{
    (void)state;
    cut_off(LUN_WRITE, true);
}

static void
test_request_abandoned_read_may_not(void **state)
{
    (void)state;
    cut_off(LUN_READ, false);
}

/* The route is lost and there is no other: the limit ends the wait also of
 * those whom it caught inside. */
static void
test_request_hanging_in_a_lost_route_ends_at_the_limit(void **state)
{
    struct late l = {.op = LUN_WRITE, .limit_ms = 50};

    (void)state;
    ROUTES(GATE_LOCAL);
    ANSWERS({.error = HANGS});
    pthread_create(&l.thread, NULL, run_late, &l);
    while (atomic_load(&hanging) == 0)
        sched_yield();
    gate_hold(&t.gate);
    pthread_join(l.thread, NULL);
    assert_int_equal(l.result, -EIO);
    assert_int_equal(t.abandoned, 1);
    assert_true(gate_dirty(&t.gate));
}

/* Slow is not dead. */
static void
test_request_slow_in_an_open_route_knows_no_limit(void **state)
{
    struct late l = {.op = LUN_WRITE, .limit_ms = 1};

    (void)state;
    ROUTES(GATE_LOCAL);
    ANSWERS({.error = HANGS});
    pthread_create(&l.thread, NULL, run_late, &l);
    while (atomic_load(&hanging) < 3) /* it looked at the gate twice */
        sched_yield();
    gate_cut(&t.gate);
    assert_true(gate_drain(&t.gate, clock_ms() + 10000));
    gate_open_peer(&t.gate, 0, the_session);
    pthread_join(l.thread, NULL);
    assert_int_equal(t.abandoned, 1);
}

static void
test_request_stray_interrupt_is_passed_over(void **state)
{
    (void)state;
    t.stray_interrupts = 3;
    ROUTES(GATE_LOCAL);
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.abandoned, 0);
    assert_int_equal(t.nios, 1);
}

static void
test_request_closing_is_told(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_CLOSED);
    ANSWERS({.error = -ENOLINK});
    assert_int_equal(run(LUN_READ, 0, 512), -ESHUTDOWN);
}

/* ---- block status ------------------------------------------------------- */

static void
test_request_extents_do_not_wait_for_a_route(void **state)
{
    struct lun_extent e[4];

    (void)state;
    assert_int_equal(request_extents(router, 0, 8192, e, 4), 1);
    assert_int_equal(e[0].count, 8192);
    assert_false(e[0].hole);
}

/* The kernel may take its time over it: nobody leaves the route later for
 * that. */
static void
test_request_extents_of_own_paths_are_asked_outside(void **state)
{
    struct lun_extent e[4];

    (void)state;
    ROUTES(GATE_LOCAL);
    t.extents_result = 1;
    assert_int_equal(request_extents(router, 0, 8192, e, 4), 1);
    assert_true(e[0].hole);
    assert_false(t.extents_inside);

    t.extents_result = -ETIMEDOUT;
    assert_int_equal(request_extents(router, 0, 8192, e, 4), 1);
    assert_false(e[0].hole);
}

static void
test_request_extents_through_a_peer(void **state)
{
    struct lun_extent e[4];

    (void)state;
    ROUTES(GATE_PEER);
    assert_int_equal(request_extents(router, 4096, 8192, e, 4), 2);
    assert_true(e[0].hole);
    assert_false(e[1].hole); /* zeroes, but allocated */
    assert_int_equal(e[1].count, 4096);
    assert_int_equal(t.commands[0].offset, 4096);

    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(request_extents(router, 0, 8192, e, 4), 1);
    assert_int_equal(e[0].count, 8192);
    assert_false(e[0].hole);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_request_local_data_goes_through),
        TEST(test_request_writes_name_their_registration),
        TEST(test_request_misaligned_never_leaves),
        TEST(test_request_lun_and_request_errors_are_passed_at_once),
        TEST(test_request_path_error_goes_to_a_peer),
        TEST(test_request_without_a_queue_goes_to_a_peer),
        TEST(test_request_answers_of_own_paths_are_noted),
        TEST(test_request_failed_read_leaves_nothing_behind),
        TEST(test_request_fenced_write_was_not_carried_out),
        TEST(test_request_error_of_own_paths_and_peer_is_the_luns),
        TEST(test_request_error_of_own_paths_twice_is_doubted),
        TEST(test_request_error_of_own_paths_is_believed_in_the_end),
        TEST(test_request_pure_path_errors_never_reach_the_vm),
        TEST(test_request_with_reservations_leaves_no_range),
        TEST(test_request_lost_at_a_peer_leaves_its_range),
        TEST(test_request_reads_and_unsent_writes_leave_no_range),
        TEST(test_request_that_came_back_with_an_error_leaves_no_range),
        TEST(test_request_abandoned_leaves_its_range_until_it_returns),
        TEST(test_request_broken_connection_dirties_only_what_was_sent),
        TEST(test_request_draining_peer_did_not_carry_it_out),
        TEST(test_request_peer_without_memory_is_left),
        TEST(test_request_peers_word_is_passed_at_once),
        TEST(test_request_peers_doubtful_word_is_believed_the_second_time),
        TEST(test_request_peers_doubtful_word_leaves_a_suspect),
        TEST(test_request_peers_doubtful_word_leaves_no_range),
        TEST(test_request_flags_reach_the_peer),
        TEST(test_request_large_ones_are_split),
        TEST(test_request_stops_at_the_first_piece_that_fails),
        TEST(test_request_between_two_pieces_is_no_orphan),
        TEST(test_request_trim_is_advice),
        TEST(test_request_zero_is_not),
        TEST(test_request_abandoned_write_may_still_take_effect),
        TEST(test_request_abandoned_read_may_not),
        TEST(test_request_hanging_in_a_lost_route_ends_at_the_limit),
        TEST(test_request_slow_in_an_open_route_knows_no_limit),
        TEST(test_request_stray_interrupt_is_passed_over),
        TEST(test_request_closing_is_told),
        TEST(test_request_extents_do_not_wait_for_a_route),
        TEST(test_request_extents_of_own_paths_are_asked_outside),
        TEST(test_request_extents_through_a_peer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
