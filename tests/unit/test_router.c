/* SPDX-License-Identifier: BSD-3-Clause */
/* Performing the route's decisions: what is registered, fenced, saved and
 * asked for, in which order, and how it ends.
 *
 * The route, the gate and the threads are real; the LUN, the monitor, the
 * peers and the disk are played. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "health/monitor.h"
#include "health/report.h"
#include "lun/backend.h"
#include "plugin/drainer.h"
#include "plugin/peers.h"
#include "plugin/router.h"
#include "plugin/state.h"
#include "common/tlsdir.h"

#define GIB         (UINT64_C(1) << 30)
#define PATIENCE_MS 10000

#define eventually(condition)                                                  \
    do {                                                                       \
        uint64_t until_ = clock_ms() + PATIENCE_MS;                            \
        while (!(condition)) {                                                 \
            if (clock_ms() > until_)                                           \
                fail_msg("never came true: %s", #condition);                   \
            usleep(1000);                                                      \
        }                                                                      \
    } while (0)

static struct config_host hosts[] = {{.name = (char *)"a", .number = 1},
                                     {.name = (char *)"b", .number = 2},
                                     {.name = (char *)"c", .number = 3},
                                     {.name = (char *)"d", .number = 4}};
#define PEERS 2 /* b and c; d is a host that has nothing to do with the LUN */

/* What the parts do and have been told; guarded by lock. */
static struct {
    pthread_mutex_t lock;
    struct state on_disk;
    int save_result;
    struct state saved_at_open; /* what was on disk when a peer was asked */
    bool local_usable, local_slow;
    struct lun_status lun;
    int register_result;
    bool register_hangs;
    unsigned registers, fenced, releases;
    bool ready[PEERS];
    int open_result;
    uint64_t kept;  /* of the last peers_tend */
    unsigned views; /* times the router looked at them */
    bool answers[PEERS];
    struct peers_request drained; /* of the last peers_take */
    unsigned drains;              /* times somebody was asked aside */
    bool drain_pending, drain_answered;
    int drain_result;
    struct peers_request asked;
    unsigned opens, closes;
    unsigned complaints;          /* lines of log_error */
    struct session_limits limits; /* of the session */
    struct monitor_options monitor;
    void (*changed)(void *opaque);
    void *opaque;
} t = {.lock = PTHREAD_MUTEX_INITIALIZER};

#define LOCKED(statement)                                                      \
    do {                                                                       \
        pthread_mutex_lock(&t.lock);                                           \
        statement;                                                             \
        pthread_mutex_unlock(&t.lock);                                         \
    } while (0)

/* ---- the disk ----------------------------------------------------------- */

struct state_file *__wrap_state_open(const char *dir, const char *lun,
                                     const char *client, uint64_t deadline_ms,
                                     struct state *s, char *err, size_t errlen);
int __wrap_state_save(struct state_file *f, const struct state *s);
void __wrap_log_error(const char *fmt, ...)
    __attribute__((format(printf, 1, 2)));
void __wrap_state_close(struct state_file *f);
struct tlsdir *__wrap_tlsdir_create(const char *rundir,
                                    const struct tlsdir_files *f);
const char *__wrap_tlsdir_path(const struct tlsdir *d);
void __wrap_tlsdir_destroy(struct tlsdir *d);

struct state_file *
__wrap_state_open(const char *dir, const char *lun, const char *client,
                  uint64_t deadline_ms, struct state *s, char *err,
                  size_t errlen)
{
    (void)deadline_ms;
    (void)dir;
    (void)lun;
    (void)client;
    (void)err;
    (void)errlen;
    *s = t.on_disk;
    return (struct state_file *)(void *)&t;
}

int
__wrap_state_save(struct state_file *f, const struct state *s)
{
    int r;

    (void)f;
    LOCKED(r = t.save_result; if (r == 0) t.on_disk = *s);
    return r;
}

/* All that the router calls an error here is that nothing can be saved, or a
 * host that nobody can fence. */
void
__wrap_log_error(const char *fmt, ...)
{
    (void)fmt;
    LOCKED(t.complaints++);
}

void
__wrap_state_close(struct state_file *f)
{
    (void)f;
}

struct tlsdir *
__wrap_tlsdir_create(const char *rundir, const struct tlsdir_files *f)
{
    (void)rundir;
    (void)f;
    return (struct tlsdir *)(void *)&t;
}

const char *
__wrap_tlsdir_path(const struct tlsdir *d)
{
    (void)d;
    return "";
}

void
__wrap_tlsdir_destroy(struct tlsdir *d)
{
    (void)d;
}

/* ---- the LUN and its monitor -------------------------------------------- */

struct lun *__wrap_lun_create(const struct lun_options *opt);
unsigned __wrap_lun_destroy(struct lun *l, uint64_t deadline_ms);
void __wrap_lun_get_status(struct lun *l, struct lun_status *st);
int __wrap_lun_register(struct lun *l, uint64_t deadline_ms);
void __wrap_lun_release(struct lun *l);
int __wrap_lun_fence(struct lun *l, unsigned host, uint64_t deadline_ms);
struct monitor *__wrap_monitor_start(struct lun *l,
                                     const struct monitor_options *opt);
void __wrap_monitor_stop(struct monitor *m);
void __wrap_monitor_kick(struct monitor *m);
void __wrap_monitor_path_error(struct monitor *m, int error);
void __wrap_monitor_get(struct monitor *m, struct monitor_status *st);
json_t *__wrap_report_lun(struct lun *l, const struct monitor_status *m);

struct lun *
__wrap_lun_create(const struct lun_options *opt)
{
    (void)opt;
    return (struct lun *)(void *)&t;
}

unsigned
__wrap_lun_destroy(struct lun *l, uint64_t deadline_ms)
{
    (void)l;
    (void)deadline_ms;
    return t.lun.orphans;
}

void
__wrap_lun_get_status(struct lun *l, struct lun_status *st)
{
    (void)l;
    LOCKED(*st = t.lun);
}

int
__wrap_lun_register(struct lun *l, uint64_t deadline_ms)
{
    bool hangs;
    int r;

    (void)l;
    LOCKED(t.registers++; hangs = t.register_hangs; r = t.register_result);
    while (hangs && clock_ms() < deadline_ms)
        usleep(1000);
    if (hangs)
        return -ETIMEDOUT;
    if (r == 0)
        LOCKED(t.lun.registration = LUN_REGISTERED; t.lun.registration_no++);
    return r;
}

void
__wrap_lun_release(struct lun *l)
{
    (void)l;
    LOCKED(t.releases++);
}

int
__wrap_lun_fence(struct lun *l, unsigned host, uint64_t deadline_ms)
{
    (void)l;
    (void)deadline_ms;
    LOCKED(t.fenced |= 1u << host);
    return 0;
}

struct monitor *
__wrap_monitor_start(struct lun *l, const struct monitor_options *opt)
{
    (void)l;
    t.monitor = *opt;
    return (struct monitor *)(void *)&t;
}

void
__wrap_monitor_stop(struct monitor *m)
{
    (void)m;
}

void
__wrap_monitor_kick(struct monitor *m)
{
    (void)m;
}

void
__wrap_monitor_path_error(struct monitor *m, int error)
{
    (void)m;
    (void)error;
    LOCKED(t.local_usable = false);
}

void
__wrap_monitor_get(struct monitor *m, struct monitor_status *st)
{
    (void)m;
    memset(st, 0, sizeof *st);
    LOCKED(st->lun = t.lun; st->verdict.state = t.local_slow     ? VERDICT_SLOW
                                                : t.local_usable ? VERDICT_GOOD
                                                                 : VERDICT_LOST;
           st->verdict.good_ms = t.local_usable);
}

json_t *
__wrap_report_lun(struct lun *l, const struct monitor_status *m)
{
    (void)l;
    (void)m;
    return json_object();
}

/* ---- the peers ---------------------------------------------------------- */

struct peers *__wrap_peers_create(const struct config *cfg,
                                  const struct config_lun *lun,
                                  const char *client, const char *tls_dir,
                                  void (*changed)(void *opaque), void *opaque);
void __wrap_peers_destroy(struct peers *p);
size_t __wrap_peers_count(const struct peers *p);
const struct config_host *__wrap_peers_host(const struct peers *p, int peer);
int __wrap_peers_find(const struct peers *p, const char *host);
void __wrap_peers_tend(struct peers *p, const struct peers_lun *want,
                       uint64_t keep);
void __wrap_peers_view(struct peers *p, const struct peers_lun *want,
                       struct route_peer *out);
bool __wrap_peers_learn(struct peers *p, const struct peers_lun *want,
                        uint64_t *size, uint32_t *block_size);
int __wrap_peers_open(struct peers *p, const struct peers_request *rq,
                      struct session **s, char *why, size_t whylen);
struct link *__wrap_peers_take(struct peers *p, const struct peers_request *rq,
                               char *name);
bool __wrap_peers_answers(struct peers *p, int peer);
struct drainer *__wrap_drainer_create(void (*done)(void *opaque), void *opaque);
void __wrap_drainer_destroy(struct drainer *d);
int __wrap_drainer_ask(struct drainer *d, struct link *k, const char *name,
                       uint64_t deadline_ms);
bool __wrap_drainer_busy(const struct drainer *d);
bool __wrap_drainer_take(struct drainer *d, int *result);
void __wrap_drainer_interrupt(struct drainer *d);
void __wrap_peers_interrupt(struct peers *p);
json_t *__wrap_peers_report(struct peers *p, const struct peers_lun *want);
void __wrap_session_grow(struct session *s);
bool __wrap_session_broken(struct session *s, char *why, size_t whylen);
uint64_t __wrap_session_oldest_ms(struct session *s);
void __wrap_session_break(struct session *s);
void __wrap_session_close(struct session *s);
const struct session_limits *__wrap_session_limits(const struct session *s);

struct peers *
__wrap_peers_create(const struct config *cfg, const struct config_lun *lun,
                    const char *client, const char *tls_dir,
                    void (*changed)(void *opaque), void *opaque)
{
    (void)cfg;
    (void)lun;
    (void)client;
    (void)tls_dir;
    t.changed = changed;
    t.opaque = opaque;
    return (struct peers *)(void *)&t;
}

void
__wrap_peers_destroy(struct peers *p)
{
    (void)p;
}

size_t
__wrap_peers_count(const struct peers *p)
{
    (void)p;
    return PEERS;
}

const struct config_host *
__wrap_peers_host(const struct peers *p, int peer)
{
    (void)p;
    return &hosts[peer + 1];
}

int
__wrap_peers_find(const struct peers *p, const char *host)
{
    (void)p;
    for (int i = 0; i < PEERS; i++)
        if (strcmp(hosts[i + 1].name, host) == 0)
            return i;
    return ROUTE_SELF;
}

void
__wrap_peers_tend(struct peers *p, const struct peers_lun *want, uint64_t keep)
{
    (void)p;
    (void)want;
    LOCKED(t.kept = keep);
}

void
__wrap_peers_view(struct peers *p, const struct peers_lun *want,
                  struct route_peer *out)
{
    (void)p;
    (void)want;
    for (int i = 0; i < PEERS; i++)
        LOCKED(out[i] = (struct route_peer){.ready = t.ready[i]}; t.views++);
}

bool
__wrap_peers_learn(struct peers *p, const struct peers_lun *want,
                   uint64_t *size, uint32_t *block_size)
{
    (void)p;
    (void)want;
    (void)size;
    (void)block_size;
    return false;
}

int
__wrap_peers_open(struct peers *p, const struct peers_request *rq,
                  struct session **s, char *why, size_t whylen)
{
    int r;

    (void)p;
    (void)why;
    (void)whylen;
    LOCKED(t.asked = *rq; t.saved_at_open = t.on_disk; t.opens++;
           r = t.open_result);
    *s = (struct session *)(void *)&t;
    return r;
}

struct link *
__wrap_peers_take(struct peers *p, const struct peers_request *rq, char *name)
{
    (void)p;
    snprintf(name, EXPORT_NAME_MAX, "asked aside");
    LOCKED(t.drained = *rq; t.saved_at_open = t.on_disk);
    return (struct link *)(void *)&t;
}

bool
__wrap_peers_answers(struct peers *p, int peer)
{
    bool answers;

    (void)p;
    LOCKED(answers = t.answers[peer]);
    return answers;
}

struct drainer *
__wrap_drainer_create(void (*done)(void *opaque), void *opaque)
{
    (void)done;
    (void)opaque;
    return (struct drainer *)(void *)&t;
}

void
__wrap_drainer_destroy(struct drainer *d)
{
    (void)d;
}

int
__wrap_drainer_ask(struct drainer *d, struct link *k, const char *name,
                   uint64_t deadline_ms)
{
    (void)d;
    (void)deadline_ms;
    assert_ptr_equal(k, &t);
    assert_string_equal(name, "asked aside");
    LOCKED(t.drain_pending = true; t.drain_answered = false; t.drains++);
    return 0;
}

bool
__wrap_drainer_busy(const struct drainer *d)
{
    bool busy;

    (void)d;
    LOCKED(busy = t.drain_pending);
    return busy;
}

bool
__wrap_drainer_take(struct drainer *d, int *result)
{
    bool taken;

    (void)d;
    LOCKED(taken = t.drain_pending && t.drain_answered;
           if (taken) t.drain_pending = false; *result = t.drain_result);
    return taken;
}

void
__wrap_drainer_interrupt(struct drainer *d)
{
    (void)d;
}

void
__wrap_peers_interrupt(struct peers *p)
{
    (void)p;
}

json_t *
__wrap_peers_report(struct peers *p, const struct peers_lun *want)
{
    (void)p;
    (void)want;
    return json_array();
}

void
__wrap_session_grow(struct session *s)
{
    (void)s;
}

bool
__wrap_session_broken(struct session *s, char *why, size_t whylen)
{
    (void)s;
    (void)why;
    (void)whylen;
    return false;
}

uint64_t
__wrap_session_oldest_ms(struct session *s)
{
    (void)s;
    return 0;
}

void
__wrap_session_break(struct session *s)
{
    (void)s;
}

void
__wrap_session_close(struct session *s)
{
    if (s)
        LOCKED(t.closes++);
}

const struct session_limits *
__wrap_session_limits(const struct session *s)
{
    (void)s;
    return &t.limits;
}

/* ---- helpers ------------------------------------------------------------ */

static struct config cfg = {.hosts = hosts, .nhosts = 4, .self = hosts};
static struct config_lun lun = {
    .name = (char *)"vm",
    .timers = {.io_timeout = 1000,
               .link_timeout = 1000,
               .open_timeout = 1000,
               .probe_interval = 50,
               .probe_timeout = 100,
               .failback_after = 3600000,
               .failback_max = 3600000},
};
static struct router *router;

static int
setup(void **state)
{
    pthread_mutex_t lock = t.lock;

    (void)state;
    memset(&t, 0, sizeof t);
    t.lock = lock;
    t.local_usable = true;
    t.lun = (struct lun_status){
        .known = true, .id = "naa.6001", .size = GIB, .block_size = 512};
    lun.fence = CONFIG_FENCE_PR;
    lun.timers.failback_after = 3600000;
    lun.redirect_when_slow = false;
    router = NULL;
    return 0;
}

static int
teardown(void **state)
{
    (void)state;
    router_stop(router);
    return 0;
}

static void
start(void)
{
    struct router_options opt = {&cfg, &lun, "main"};
    char err[256];

    router = router_start(&opt, err, sizeof err);
    assert_non_null(router);
}

static void
news(void)
{
    t.changed(t.opaque);
}

static enum gate_where
where(void)
{
    struct gate *g = router_gate(router);
    enum gate_where w;

    pthread_mutex_lock(&g->lock);
    w = g->route.where;
    pthread_mutex_unlock(&g->lock);
    return w;
}

static unsigned
count(const unsigned *n)
{
    unsigned c;

    LOCKED(c = *n);
    return c;
}

static uint64_t
kept(void)
{
    uint64_t k;

    LOCKED(k = t.kept);
    return k;
}

static bool
saved_local(void)
{
    bool local;

    LOCKED(local = t.on_disk.local);
    return local;
}

/* A request that went in; what it left with is told to the router. */
static void
fail_request(bool writes, bool dirty, enum route_event_kind kind, int error)
{
    struct gate_request rq = {.writes = writes, .count = 512};
    struct gate *g = router_gate(router);

    assert_int_equal(gate_enter(g, &rq, 0), 0);
    gate_leave(g, &rq, dirty);
    router_report_error(router, kind, rq.route.serial, error);
    gate_finish(g, &rq);
}

/* ---- tests -------------------------------------------------------------- */

static void
test_router_local_only_when_registered_and_saved(void **state)
{
    (void)state;
    t.save_result = -ENOSPC;
    start();
    eventually(count(&t.registers) > 1); /* tried again */
    assert_int_equal(where(), GATE_HELD);
    assert_int_equal(count(&t.complaints), 1);
    LOCKED(t.save_result = 0);
    eventually(where() == GATE_LOCAL);
    assert_true(saved_local());
}

static void
test_router_lost_write_fences_ourselves(void **state)
{
    (void)state;
    t.ready[0] = true;
    t.on_disk.generation = 41;
    start();
    eventually(where() == GATE_LOCAL);
    fail_request(true, true, ROUTE_EV_LOCAL_ERROR, -ENOLINK);
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.generation, 42);
    assert_int_equal(t.asked.nfence, 1);
    assert_ptr_equal(t.asked.fence[0], &hosts[0]);
    /* all of it was on disk before the peer was asked */
    assert_int_equal(t.saved_at_open.generation, 42);
    assert_true(t.saved_at_open.local);
    assert_string_equal(t.saved_at_open.peers[0], "b");
    assert_int_equal(count(&t.releases), 1);
}

/* Until router_return. */
static int
redirect(const char *peer, char *err, size_t len)
{
    const struct router_order order = {.peer = peer};

    return router_redirect(router, &order, err, len);
}

static void
test_router_clean_move_fences_nobody(void **state)
{
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect(NULL, err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.nfence, 0);
    assert_false(t.saved_at_open.local);
}

static void
test_router_lost_peer_is_fenced_on_the_way_home(void **state)
{
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect("b", err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    /* it may still look ready when the loss is noticed, and be asked again */
    LOCKED(t.ready[0] = false; t.open_result = -EACCES);
    fail_request(true, true, ROUTE_EV_PEER_LOST, -ENOTCONN);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(count(&t.fenced), 1u << hosts[1].number);
    assert_int_equal(count(&t.closes), 1);
}

/* It answered a write with EIO, and nothing else is wrong with it: a planned
 * return, but what its kernel gave up may still be on its way. */
static void
test_router_peer_that_failed_a_write_is_fenced_on_the_way_home(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect("b", err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    assert_int_equal(gate_enter(router_gate(router), &rq, 0), 0);
    gate_leave(router_gate(router), &rq, true);
    gate_finish(router_gate(router), &rq);
    router_return(router);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(count(&t.fenced), 1u << hosts[1].number);
}

static void
test_router_fenced_registers_anew(void **state)
{
    (void)state;
    start();
    eventually(where() == GATE_LOCAL);
    fail_request(true, false, ROUTE_EV_FENCED, -EBADE);
    eventually(count(&t.registers) == 2);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(router_gate(router)->route.registration_no, 2);
}

/* Nobody else can clear the suspicion, however many others are ready. */
static void
test_router_stays_connected_to_its_suspects(void **state)
{
    (void)state;
    lun.fence = CONFIG_FENCE_DRAIN;
    t.ready[0] = true;
    t.on_disk.npeers = 1;
    snprintf(t.on_disk.peers[0], STATE_NAME_MAX, "c");
    start();
    eventually(kept() == 1u << 1);
    assert_int_equal(where(), GATE_HELD);
    LOCKED(t.ready[1] = true);
    news();
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.peer, 1);
    eventually(kept() == 0);
}

/* ---- without reservations ------------------------------------------------ */

static unsigned
orphans(void)
{
    struct gate_stats st;

    gate_get_stats(router_gate(router), &st);
    return st.orphans;
}

/* A write of this range is sent, and never answered. */
static void
lose_write(uint64_t offset, enum route_event_kind kind, int error)
{
    struct gate_request rq = {.writes = true, .offset = offset, .count = 512};
    struct gate *g = router_gate(router);

    rq.orphan = orphan_create();
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    gate_leave(g, &rq, true);
    assert_null(rq.orphan);
    router_report_error(router, kind, rq.route.serial, error);
    gate_finish(g, &rq);
}

static bool
on_disk(const char *host)
{
    bool found = false;

    pthread_mutex_lock(&t.lock);
    for (size_t i = 0; i < t.on_disk.npeers; i++)
        found = found || strcmp(t.on_disk.peers[i], host) == 0;
    pthread_mutex_unlock(&t.lock);
    return found;
}

static int
asked_peer(void)
{
    int peer;

    LOCKED(peer = t.asked.peer);
    return peer;
}

/* Until what was just changed is what the router decides by. */
static void
look_again(void)
{
    unsigned before = count(&t.views);

    eventually((news(), count(&t.views) >= before + 2 * PEERS));
}

/* Through b, and b is lost with a write: on through c. */
static void
lose_b_with_a_write(void)
{
    lun.fence = CONFIG_FENCE_DRAIN;
    t.local_usable = false;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_PEER);
    LOCKED(t.ready[0] = false; t.ready[1] = true);
    look_again();
    lose_write(4096, ROUTE_EV_PEER_LOST, -ENOTCONN);
    eventually(asked_peer() == 1 && where() == GATE_PEER);
}

/* It would be the first to be asked for a route; and it is asked aside,
 * under a generation that is on disk, while the route stays with c. */
static void
test_router_drain_asks_the_lost_peer_aside(void **state)
{
    (void)state;
    lose_b_with_a_write();
    assert_int_equal(orphans(), 1);
    assert_true(on_disk("b") && on_disk("c"));
    assert_int_equal(count(&t.drains), 0);

    LOCKED(t.ready[0] = true);
    news();
    eventually(count(&t.drains) == 1);
    assert_int_equal(t.drained.peer, 0);
    assert_int_equal(t.drained.nfence, 0);
    assert_true(t.drained.generation > t.asked.generation);
    assert_int_equal(t.saved_at_open.generation, t.drained.generation);
    assert_int_equal(orphans(), 1);
    LOCKED(t.drain_result = -ETIMEDOUT; t.drain_answered = true);
    news();
    eventually(count(&t.drains) == 2);
    assert_int_equal(orphans(), 1);
    assert_true(on_disk("b"));

    LOCKED(t.drain_result = 0; t.drain_answered = true);
    news();
    eventually(orphans() == 0);
    eventually(!on_disk("b"));
    assert_int_equal(where(), GATE_PEER);
    assert_int_equal(t.asked.peer, 1);
}

static void
test_router_drain_own_write_goes_by_range(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;
    struct lun_io io = {.op = LUN_WRITE};

    (void)state;
    lun.fence = CONFIG_FENCE_DRAIN;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    g = router_gate(router);
    rq.orphan = orphan_create();
    io.tally = rq.orphan->tally;
    lun_tally_begin(&io);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    LOCKED(t.lun.orphans = 1);
    gate_leave(g, &rq, true);
    router_report_error(router, ROUTE_EV_LOCAL_ERROR, rq.route.serial, -EIO);
    gate_finish(g, &rq);

    eventually(where() == GATE_PEER);
    assert_int_equal(orphans(), 1);
    assert_true(saved_local());
    LOCKED(t.lun.orphans = 0);
    lun_tally_end(&io);
    eventually(orphans() == 0); /* without any news */
    eventually(!saved_local());
}

/* ---- suspects for ever --------------------------------------------------- */

static void
leave_behind(const char *host)
{
    snprintf(t.on_disk.peers[t.on_disk.npeers++], STATE_NAME_MAX, "%s", host);
}

static void
test_router_stray_host_is_fenced_by_its_number(void **state)
{
    (void)state;
    leave_behind("d");
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(count(&t.fenced), 1u << 4);
    eventually(!on_disk("d"));
}

static void
test_router_stray_host_is_fenced_by_the_peer(void **state)
{
    (void)state;
    leave_behind("d");
    t.local_usable = false;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.nfence, 1);
    assert_string_equal(t.asked.fence[0]->name, "d");
    assert_true(t.saved_at_open.npeers == 2);
}

static void
refuses_to_forget(const char *host)
{
    char err[256];
    json_t *j;

    leave_behind(host);
    t.ready[0] = true;
    start();
    LOCKED(t.ready[1] = true);
    news();
    /* both of them are seen ready, and yet nobody is asked */
    eventually(redirect(NULL, err, sizeof err) == 0);
    look_again();
    assert_int_equal(where(), GATE_HELD);
    assert_int_equal(count(&t.opens) + count(&t.registers), 0);
    j = router_status(router);
    assert_string_equal(
        json_string_value(json_array_get(
            json_object_get(json_object_get(j, "route"), "suspects"), 0)),
        host);
    json_decref(j);

    assert_int_equal(
        router_confirm_dead(router, host, "a test", err, sizeof err), 0);
    eventually(where() != GATE_HELD);
    assert_false(on_disk(host));
}

static void
test_router_unknown_host_is_not_forgotten_silently(void **state)
{
    (void)state;
    refuses_to_forget("gone");
}

/* It has a number, but there are no reservations to fence it by. */
static void
test_router_drain_stray_host_is_not_forgotten_silently(void **state)
{
    (void)state;
    lun.fence = CONFIG_FENCE_DRAIN;
    refuses_to_forget("d");
}

static void
test_router_confirm_dead_ends_the_wait_for_a_peer(void **state)
{
    char err[256];

    (void)state;
    lose_b_with_a_write();
    LOCKED(t.answers[0] = true);
    assert_int_equal(router_confirm_dead(router, "b", "me", err, sizeof err),
                     -EBUSY);
    assert_string_equal(err, "b is not dead: its proxy answers");
    assert_int_equal(orphans(), 1);
    LOCKED(t.answers[0] = false);
    assert_int_equal(router_confirm_dead(router, "b", "me", err, sizeof err),
                     0);
    eventually(orphans() == 0);
    eventually(!on_disk("b"));
    assert_true(on_disk("c"));
}

static void
test_router_confirm_dead_refuses_what_cannot_be(void **state)
{
    char err[256];

    (void)state;
    start();
    assert_int_equal(router_confirm_dead(router, "a", "me", err, sizeof err),
                     -EINVAL);
    assert_string_equal(err, "a is this very host");
    assert_int_equal(router_confirm_dead(router, "x", "me", err, sizeof err),
                     -ENOENT);
    assert_string_equal(err, "there is no host x");
    /* known, and nothing to forget */
    assert_int_equal(router_confirm_dead(router, "d", "me", err, sizeof err),
                     0);
}

static void
test_router_order_connects_to_the_peer_it_names(void **state)
{
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect("c", err, sizeof err), -EHOSTUNREACH);
    assert_non_null(strstr(err, "c is not ready to serve LUN vm"));
    eventually(kept() == 1u << 1);
    LOCKED(t.ready[1] = true);
    news();
    eventually(redirect("c", err, sizeof err) == 0);
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.peer, 1);
    assert_int_equal(redirect("x", err, sizeof err), -ENOENT);
}

static bool
manual(void)
{
    json_t *status = router_status(router);
    bool is = json_is_true(
        json_object_get(json_object_get(status, "route"), "manual"));

    json_decref(status);
    return is;
}

/* The order ends what another order began, also when nothing else can be done
 * about it yet. */
static void
test_router_return_without_paths_waits_for_them(void **state)
{
    char err[256];

    (void)state;
    lun.timers.failback_after = 50;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect(NULL, err, sizeof err), 0);
    eventually(manual() && where() == GATE_PEER);
    LOCKED(t.local_usable = false);
    news();
    router_return(router);
    eventually(!manual());
    assert_int_equal(where(), GATE_PEER);
    LOCKED(t.local_usable = true);
    news();
    eventually(where() == GATE_LOCAL);
}

static double
manual_left_s(void)
{
    json_t *status = router_status(router);
    double left = json_number_value(
        json_object_get(json_object_get(status, "route"), "manual_left_s"));

    json_decref(status);
    return left;
}

/* Nobody has to give a second order, nor to wait for the time. */
static void
test_router_order_for_a_time_ends_by_itself(void **state)
{
    const struct router_order hour = {.for_ms = 3600000};
    const struct router_order moment = {.for_ms = 50};
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    eventually(router_redirect(router, &hour, err, sizeof err) == 0);
    eventually(manual() && where() == GATE_PEER);
    assert_true(manual_left_s() > 3500 && manual_left_s() <= 3600);
    assert_int_equal(router_redirect(router, &moment, err, sizeof err), 0);
    eventually(where() == GATE_LOCAL);
    assert_false(manual());
}

static void
test_router_tells_the_monitor_of_answers(void **state)
{
    struct gate_request rq = {.entered_ms = clock_ms()};
    uint64_t counts[SLOW_BUCKETS];

    (void)state;
    start();
    assert_int_equal(t.monitor.answered_ms(t.monitor.opaque), 0);
    gate_note_answer(router_gate(router), &rq);
    assert_int_not_equal(t.monitor.answered_ms(t.monitor.opaque), 0);
    rq.entered_ms -= 1 << 15;
    gate_note_answer(router_gate(router), &rq);
    t.monitor.durations(t.monitor.opaque, counts);
    assert_int_equal(counts[16], 1);
}

static void
test_router_slow_paths_are_left_only_where_that_is_wanted(void **state)
{
    unsigned seen;

    (void)state;
    lun.timers.failback_after = 50;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    LOCKED(t.local_slow = true);
    seen = count(&t.views);
    eventually((news(), count(&t.views) >= seen + 3));
    assert_int_equal(where(), GATE_LOCAL);
    router_stop(router);
    router = NULL;

    lun.redirect_when_slow = true;
    LOCKED(t.local_slow = false);
    start();
    eventually(where() == GATE_LOCAL);
    LOCKED(t.local_slow = true);
    news();
    eventually(where() == GATE_PEER);
    LOCKED(t.local_slow = false);
    news();
    eventually(where() == GATE_LOCAL);
}

/* NBD, and nbdkit, want a power of two. */
static void
test_router_preferred_size_is_one_that_nbd_knows(void **state)
{
    static const struct {
        uint32_t block, device, told;
    } rows[] = {{512, 0, 4096},      {512, 512, 512},
                {4096, 1024, 4096},  {512, 196608, 131072},
                {512, 65536, 65536}, {512, UINT32_MAX, 32u << 20}};
    struct router_lun l;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        t.lun.block_size = rows[i].block;
        t.lun.preferred = rows[i].device;
        t.on_disk = (struct state){0};
        start();
        assert_int_equal(router_get_lun(router, &l, PATIENCE_MS), 0);
        assert_int_equal(l.preferred, rows[i].told);
        router_stop(router);
        router = NULL;
    }
}

static uint64_t
told_size(void)
{
    struct router_lun l;

    assert_int_equal(router_get_lun(router, &l, PATIENCE_MS), 0);
    return l.size;
}

/* What a session was not opened with, its peer refuses. */
static void
test_router_size_told_is_what_the_session_carries(void **state)
{
    const struct router_order anybody = {0};
    char err[256];

    (void)state;
    t.ready[0] = true;
    t.limits.size = GIB;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(router_redirect(router, &anybody, err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    LOCKED(t.lun.size = 2 * GIB);
    look_again();
    assert_int_equal(told_size(), GIB);
    router_return(router);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(told_size(), 2 * GIB);
}

/* ---- the end ------------------------------------------------------------ */

static void
stop_in_time(void)
{
    uint64_t begun = clock_ms();

    router_stop(router);
    router = NULL;
    assert_true(clock_ms() - begun < (getenv("VALGRIND") ? 10000 : 2000));
}

static void
test_router_stops_while_registering_hangs(void **state)
{
    (void)state;
    t.register_hangs = true;
    start();
    eventually(count(&t.registers) == 1);
    stop_in_time();
}

static void *
enter_and_fail(void *opaque)
{
    struct gate_request rq = {.count = 512};
    struct gate *g = router_gate(router);
    int *result = opaque;

    *result = gate_enter(g, &rq, 0);
    gate_finish(g, &rq);
    return NULL;
}

static void
test_router_close_lets_go_of_who_waits(void **state)
{
    struct gate_stats st;
    pthread_t thread;
    int result = 0;

    (void)state;
    t.register_result = -ENOLINK;
    start();
    pthread_create(&thread, NULL, enter_and_fail, &result);
    do
        gate_get_stats(router_gate(router), &st);
    while (st.held == 0);
    router_close(router);
    pthread_join(thread, NULL);
    assert_int_equal(result, -ESHUTDOWN);
    stop_in_time();
}

static void
test_router_successor_learns_of_orphans(void **state)
{
    (void)state;
    start();
    eventually(where() == GATE_LOCAL);
    LOCKED(t.lun.orphans = 1);
    stop_in_time();
    assert_true(t.on_disk.local);
}

static void
test_router_clean_end_leaves_no_suspicion(void **state)
{
    (void)state;
    start();
    eventually(where() == GATE_LOCAL);
    assert_true(saved_local());
    stop_in_time();
    assert_false(t.on_disk.local);
    assert_int_equal(t.on_disk.npeers, 0);
    assert_string_equal(t.on_disk.id, "naa.6001");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_router_local_only_when_registered_and_saved),
        TEST(test_router_lost_write_fences_ourselves),
        TEST(test_router_clean_move_fences_nobody),
        TEST(test_router_lost_peer_is_fenced_on_the_way_home),
        TEST(test_router_peer_that_failed_a_write_is_fenced_on_the_way_home),
        TEST(test_router_fenced_registers_anew),
        TEST(test_router_stays_connected_to_its_suspects),
        TEST(test_router_drain_asks_the_lost_peer_aside),
        TEST(test_router_drain_own_write_goes_by_range),
        TEST(test_router_stray_host_is_fenced_by_its_number),
        TEST(test_router_stray_host_is_fenced_by_the_peer),
        TEST(test_router_unknown_host_is_not_forgotten_silently),
        TEST(test_router_drain_stray_host_is_not_forgotten_silently),
        TEST(test_router_confirm_dead_ends_the_wait_for_a_peer),
        TEST(test_router_confirm_dead_refuses_what_cannot_be),
        TEST(test_router_order_connects_to_the_peer_it_names),
        TEST(test_router_return_without_paths_waits_for_them),
        TEST(test_router_order_for_a_time_ends_by_itself),
        TEST(test_router_tells_the_monitor_of_answers),
        TEST(test_router_slow_paths_are_left_only_where_that_is_wanted),
        TEST(test_router_preferred_size_is_one_that_nbd_knows),
        TEST(test_router_size_told_is_what_the_session_carries),
        TEST(test_router_stops_while_registering_hangs),
        TEST(test_router_close_lets_go_of_who_waits),
        TEST(test_router_successor_learns_of_orphans),
        TEST(test_router_clean_end_leaves_no_suspicion),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
