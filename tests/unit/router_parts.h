/* SPDX-License-Identifier: BSD-3-Clause */
/* A router for tests of how it performs the route's decisions.
 *
 * The route, the gate and the threads are real; the LUN, the monitor, the
 * peers and the disk are played. */
#ifndef DETOUR_TESTS_ROUTER_PARTS_H
#define DETOUR_TESTS_ROUTER_PARTS_H

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
#include "common/tlsdir.h"
#include "health/monitor.h"
#include "health/report.h"
#include "lun/backend.h"
#include "plugin/drainer.h"
#include "plugin/peers.h"
#include "plugin/router.h"
#include "plugin/state.h"
#define PATIENCE_MS 10000
#include "tests/unit/eventually.h"

#define GIB (UINT64_C(1) << 30)

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
    unsigned saves;
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
    bool open_hangs; /* until it is taken back */
    bool yield;      /* what hangs need not be waited for */
    unsigned opens, closes;
    bool session_broken;
    int where_closed;    /* what the gate was open to at the last close */
    unsigned complaints; /* lines of log_error */
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
    LOCKED(t.saves++; r = t.save_result; if (r == 0) t.on_disk = *s);
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
    while (hangs && clock_ms() < deadline_ms) {
        usleep(1000);
        LOCKED(hangs = t.register_hangs);
    }
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
void __wrap_peers_yield(struct peers *p, bool yield);
json_t *__wrap_peers_report(struct peers *p, const struct peers_lun *want);
void __wrap_session_grow(struct session *s);
bool __wrap_session_broken(struct session *s, char *why, size_t whylen);
uint64_t __wrap_session_oldest_ms(struct session *s);
void __wrap_session_break(struct session *s);
void __wrap_session_retire(struct session *s);
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
    bool hangs;
    int r;

    (void)p;
    (void)why;
    (void)whylen;
    LOCKED(t.asked = *rq; t.saved_at_open = t.on_disk; t.opens++;
           hangs = t.open_hangs);
    while (hangs && clock_ms() < rq->deadline_ms) {
        usleep(1000);
        LOCKED(hangs = t.open_hangs && !(rq->yields && t.yield));
    }
    LOCKED(r = t.open_hangs ? -ETIMEDOUT : t.open_result);
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

void
__wrap_peers_yield(struct peers *p, bool yield)
{
    (void)p;
    LOCKED(t.yield = yield);
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
    bool broken;

    (void)s;
    snprintf(why, whylen, "broken");
    LOCKED(broken = t.session_broken);
    return broken;
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
__wrap_session_retire(struct session *s)
{
    (void)s;
}

static enum gate_where where(void);

void
__wrap_session_close(struct session *s)
{
    if (s)
        LOCKED(t.closes++; t.where_closed = (int)where());
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

static inline int
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
    lun.timers.io_timeout = lun.timers.open_timeout = 1000;
    lun.redirect_when_slow = false;
    router = NULL;
    return 0;
}

static inline int
teardown(void **state)
{
    (void)state;
    router_stop(router);
    return 0;
}

static inline void
start(void)
{
    struct router_options opt = {&cfg, &lun, "main"};
    char err[256];

    router = router_start(&opt, err, sizeof err);
    assert_non_null(router);
}

static inline void
news(void)
{
    t.changed(t.opaque);
}

static inline enum gate_where
where(void)
{
    struct gate *g = router_gate(router);
    enum gate_where w;

    pthread_mutex_lock(&g->lock);
    w = g->route.where;
    pthread_mutex_unlock(&g->lock);
    return w;
}

static inline unsigned
count(const unsigned *n)
{
    unsigned c;

    LOCKED(c = *n);
    return c;
}

static inline uint64_t
kept(void)
{
    uint64_t k;

    LOCKED(k = t.kept);
    return k;
}

static inline bool
saved_local(void)
{
    bool local;

    LOCKED(local = t.on_disk.local);
    return local;
}

/* A request that went in; what it left with is told to the router. */
static inline void
fail_request(bool writes, bool dirty, enum route_event_kind kind, int error)
{
    struct gate_request rq = {.writes = writes, .count = 512};
    struct gate *g = router_gate(router);

    assert_int_equal(gate_enter(g, &rq, 0), 0);
    gate_leave(g, &rq, dirty);
    router_report_error(router, kind, rq.route.serial, error);
    gate_finish(g, &rq);
}

/* Until router_return. */
static inline int
redirect(const char *peer, char *err, size_t len)
{
    const struct router_order order = {.peer = peer};

    return router_redirect(router, &order, err, len);
}

static inline unsigned
orphans(void)
{
    struct gate_stats st;

    gate_get_stats(router_gate(router), &st);
    return st.orphans;
}

static inline bool
on_disk(const char *host)
{
    bool found = false;

    pthread_mutex_lock(&t.lock);
    for (size_t i = 0; i < t.on_disk.npeers; i++)
        found = found || strcmp(t.on_disk.peers[i], host) == 0;
    pthread_mutex_unlock(&t.lock);
    return found;
}

/* Until what was just changed is what the router decides by. */
static inline void
look_again(void)
{
    unsigned before = count(&t.views);

    eventually((news(), count(&t.views) >= before + 2 * PEERS));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
