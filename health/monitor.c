/* SPDX-License-Identifier: BSD-3-Clause */
/* Gathers samples of one LUN, lets verdict.c judge them, tells the owner.
 *
 * Threads: "watch" sends probes, judges and calls the owner; it waits only for
 * probes, and a kick interrupts that.  "check" looks for our registration about
 * once a second and may hang in there up to CHECK_TIMEOUT_MS.  Any thread may
 * kick and get.  No callback and no call into lun/ is made under the lock. */
#include "health/monitor.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "health/prober.h"
#include "lun/error.h"

#define CHECK_INTERVAL_MS 1000
#define CHECK_TIMEOUT_MS  500
/* When something happened while the LUN is not usable, a probe goes out
 * before its time, but not sooner after another than this. */
#define SOONEST_PROBE_MS 10
/* Without a path a probe fails at once, with lines in the kernel's log, and
 * tells nothing; but a word of the kernel's alone is not believed for ever. */
#define RARE_PROBE_MS 30000

struct monitor {
    /* fixed after monitor_start */
    struct lun *lun;
    struct monitor_options opt; /* name is our copy */
    char *name;
    pthread_t watch_thread, check_thread;

    /* any thread */
    atomic_bool kicked, stopping;
    atomic_int path_error; /* -errno; 0: none since the last judgement */

    /* watch thread only */
    struct prober prober;
    uint64_t next_probe_ms;
    bool given_up; /* lun/ was told that the own paths are */
    struct slow slow;
    struct monitor_status now; /* what the next judgement begins with */

    pthread_mutex_t lock;
    /* guarded by lock */
    struct monitor_status published;
    bool check_now;
    pthread_cond_t check_wake;
};

/* ---- judging ------------------------------------------------------------- */

static void
log_change(struct monitor *m, enum verdict_state before)
{
    const struct verdict *v = &m->now.verdict;
    const char *from = verdict_state_name(before);
    const char *to = verdict_state_name(v->state);

    if (v->state == VERDICT_LOST || v->state == VERDICT_DEGRADED ||
        v->state == VERDICT_SLOW)
        log_warning("lun %s: verdict %s -> %s: %s", m->name, from, to,
                    v->reason);
    else
        log_info("lun %s: verdict %s -> %s: %s", m->name, from, to, v->reason);
}

static uint64_t
ask_owner(const struct monitor *m, uint64_t (*question)(void *opaque))
{
    return question ? question(m->opt.opaque) : 0;
}

/* Only of a device that answers: one that is lost is not slow, nor are those
 * probes that waited for it to come back. */
static void
judge_pace(struct monitor *m)
{
    uint64_t now_ms = clock_ms(), newest = prober_newest_ms(&m->prober);
    uint64_t counts[SLOW_BUCKETS];
    uint64_t pending_us =
        newest && newest < now_ms ? (now_ms - newest) * 1000 : 0;

    if (!verdict_usable(&m->now.verdict)) {
        slow_pause(&m->slow, now_ms);
        return;
    }
    if (!slow_due(&m->slow, &m->opt.slow, now_ms))
        return;
    if (m->opt.durations)
        m->opt.durations(m->opt.opaque, counts);
    slow_step(&m->slow, &m->opt.slow, m->opt.durations ? counts : NULL,
              pending_us, now_ms);
    m->now.recent_us = m->slow.recent_us;
    m->now.usual_us = m->slow.usual_us;
}

/* Judges once; done is a probe that finished, or NULL. */
static bool
judge(struct monitor *m, const struct prober_result *done)
{
    const struct verdict_options opt = {
        .probe_timeout_ms = m->opt.probe_timeout_ms,
        .io_timeout_ms = m->opt.io_timeout_ms,
    };
    const struct lun_status *lun = &m->now.lun;
    struct verdict_sample s = {
        .paths_good = lun->paths_good,
        .paths_known = lun->paths_known,
        .known = lun->known,
        .wrong_id = lun->wrong_id,
        .probe_done = done != NULL,
        .probe_sent_ms = prober_oldest_ms(&m->prober),
        .io_sent_ms = ask_owner(m, m->opt.oldest_ms),
        .io_done_ms = ask_owner(m, m->opt.answered_ms),
        .io_path_error = atomic_exchange(&m->path_error, 0) != 0,
    };
    enum verdict_state before = m->now.verdict.state;

    if (m->slow.is) {
        s.slow_us = m->slow.began_us;
        s.usual_us = m->slow.before_us;
    }
    if (done) {
        s.probe_error = done->error;
        s.done_sent_ms = done->sent_ms;
    }
    if (!verdict_step(&m->now.verdict, &opt, &s, clock_ms()))
        return false;
    log_change(m, before);
    return true;
}

/* Not looked at: what changes with each request. */
static bool
lun_differs(const struct lun_status *a, const struct lun_status *b)
{
    return a->known != b->known || a->wrong_id != b->wrong_id ||
           a->size != b->size || a->readonly != b->readonly ||
           a->paths_good != b->paths_good || a->paths_known != b->paths_known ||
           a->registration != b->registration ||
           a->registration_no != b->registration_no || a->key != b->key ||
           a->orphans != b->orphans || strcmp(a->id, b->id) != 0;
}

/* ---- probing ------------------------------------------------------------- */

/* A probe goes out at its time, unless one is under way that may still be
 * answered in time. */
static bool
probe_is_due(struct monitor *m, uint64_t now_ms)
{
    uint64_t newest = prober_newest_ms(&m->prober);

    return m->now.lun.known && now_ms >= m->next_probe_ms &&
           (newest == 0 || newest + m->opt.probe_timeout_ms <= now_ms);
}

static bool
is_pathless(const struct lun_status *l)
{
    return l->paths_known > 0 && l->paths_good == 0;
}

/* hurry: something happened. */
static void
send_probe(struct monitor *m, bool hurry)
{
    uint64_t now_ms = clock_ms(), soon;
    bool pathless = is_pathless(&m->now.lun);
    unsigned pause_ms = m->opt.probe_interval_ms;

    if (pathless && pause_ms < RARE_PROBE_MS)
        pause_ms = RARE_PROBE_MS;
    if (hurry && !pathless && !verdict_usable(&m->now.verdict)) {
        soon = now_ms + SOONEST_PROBE_MS;
        if (soon < m->next_probe_ms)
            m->next_probe_ms = soon;
    }
    if (!probe_is_due(m, now_ms))
        return;
    /* -EBUSY: both are stuck; -ENOMEM: the next interval tries again */
    prober_send(&m->prober, m->now.lun.block_size);
    m->next_probe_ms = now_ms + pause_ms;
}

/* ---- the watch thread ---------------------------------------------------- */

static void
earlier(uint64_t *wake_ms, uint64_t then_ms, uint64_t now_ms)
{
    if (then_ms > now_ms && then_ms < *wake_ms)
        *wake_ms = then_ms;
}

/* When time alone may change something: never later than one interval.  A
 * time that is 0, none, gives one that has long passed. */
static uint64_t
next_wake_ms(struct monitor *m)
{
    uint64_t now_ms = clock_ms();
    uint64_t wake_ms = now_ms + m->opt.probe_interval_ms;
    uint64_t newest = prober_newest_ms(&m->prober);
    uint64_t oldest = prober_oldest_ms(&m->prober);
    uint64_t answer = m->now.verdict.answer_ms;
    uint64_t io_sent = ask_owner(m, m->opt.oldest_ms);
    uint64_t io_done = ask_owner(m, m->opt.answered_ms);
    unsigned timeout_ms = m->opt.probe_timeout_ms;

    if (probe_is_due(m, now_ms))
        return 0;
    earlier(&wake_ms, m->next_probe_ms, now_ms);
    if (m->now.verdict.state == VERDICT_UNKNOWN)
        earlier(&wake_ms, m->now.verdict.since_ms + m->opt.io_timeout_ms,
                now_ms);
    earlier(&wake_ms, newest + timeout_ms, now_ms);
    if (oldest) {
        earlier(&wake_ms, oldest + timeout_ms, now_ms);
        earlier(&wake_ms, answer + timeout_ms, now_ms);
        earlier(&wake_ms, io_done + timeout_ms, now_ms);
    }
    earlier(&wake_ms, io_sent + m->opt.io_timeout_ms, now_ms);
    return wake_ms;
}

/* The interrupt of a kick may have ended a look that had begun before it. */
static bool
wait_for_probe(struct monitor *m, struct prober_result *r)
{
    bool look = atomic_load(&m->kicked) || atomic_load(&m->stopping);

    return prober_collect(&m->prober, r, look ? 0 : next_wake_ms(m));
}

static void
publish(struct monitor *m, bool recovered)
{
    m->now.probes_stuck =
        prober_overdue(&m->prober, m->opt.probe_timeout_ms, clock_ms());
    pthread_mutex_lock(&m->lock);
    m->published = m->now;
    if (recovered) {
        m->check_now = true;
        pthread_cond_signal(&m->check_wake);
    }
    pthread_mutex_unlock(&m->lock);
}

/* What a multipath map queues for a path that may never come is wanted back:
 * it is to go another way. */
static void
tell_lun(struct monitor *m)
{
    bool lost = m->now.verdict.state == VERDICT_LOST;

    if (lost == m->given_up)
        return;
    m->given_up = lost;
    lun_fail_queued(m->lun, lost);
}

/* done: a probe that finished, or NULL. */
static void
look(struct monitor *m, const struct prober_result *done)
{
    bool was_usable = verdict_usable(&m->now.verdict);
    bool kicked = atomic_exchange(&m->kicked, false);
    struct lun_status before = m->now.lun;
    struct prober_result r;
    bool differs, news;

    lun_get_status(m->lun, &m->now.lun);
    news = differs = lun_differs(&before, &m->now.lun);
    while (done) {
        m->now.probe_ms = clock_ms();
        m->now.probe_us = done->us;
        if (lun_error_class(done->error) == LUN_CLASS_OK)
            slow_probe(&m->slow, done->us);
        news |= judge(m, done);
        done = prober_collect(&m->prober, &r, 0) ? &r : NULL;
    }
    judge_pace(m);
    news |= judge(m, NULL);
    tell_lun(m);
    send_probe(m, kicked || differs);
    publish(m, !was_usable && verdict_usable(&m->now.verdict));
    if (news && m->opt.changed)
        m->opt.changed(m->opt.opaque);
}

static void *
watch(void *arg)
{
    struct monitor *m = arg;
    struct prober_result r;
    bool done = false;

    while (!atomic_load(&m->stopping)) {
        look(m, done ? &r : NULL);
        done = wait_for_probe(m, &r);
    }
    return NULL;
}

/* ---- the check thread ---------------------------------------------------- */

static bool
worth_checking(const struct monitor_status *st)
{
    return st->lun.registration == LUN_REGISTERED &&
           verdict_usable(&st->verdict);
}

/* Returns holding the lock: at the next check's time, or when stopping. */
static void
wait_for_check_locked(struct monitor *m)
{
    uint64_t until_ms = clock_ms() + CHECK_INTERVAL_MS;
    const struct timespec until = {
        .tv_sec = (time_t)(until_ms / 1000),
        .tv_nsec = (long)(until_ms % 1000) * 1000000,
    };

    while (!atomic_load(&m->stopping) && !m->check_now && clock_ms() < until_ms)
        pthread_cond_timedwait(&m->check_wake, &m->lock, &until);
    m->check_now = false;
}

static void *
check(void *arg)
{
    struct monitor *m = arg;
    int err;

    pthread_mutex_lock(&m->lock);
    for (;;) {
        wait_for_check_locked(m);
        if (atomic_load(&m->stopping))
            break;
        if (!worth_checking(&m->published))
            continue;
        pthread_mutex_unlock(&m->lock);
        err = lun_check_registration(m->lun, clock_ms() + CHECK_TIMEOUT_MS);
        if (err < 0) {
            log_debug("lun %s: looking for our registration: %s", m->name,
                      strerror(-err));
            monitor_kick(m);
        }
        pthread_mutex_lock(&m->lock);
    }
    pthread_mutex_unlock(&m->lock);
    return NULL;
}

/* ---- start and stop ------------------------------------------------------ */

static int
create_condition(pthread_cond_t *cond)
{
    pthread_condattr_t attr;
    int err = pthread_condattr_init(&attr);

    if (err)
        return -err;
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    err = pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
    return -err;
}

/* The program's signals are its other threads' business. */
static int
create_thread(pthread_t *thread, void *(*run)(void *), struct monitor *m)
{
    sigset_t all, old;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(thread, NULL, run, m);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -err;
}

static void
stop_watching(struct monitor *m)
{
    pthread_mutex_lock(&m->lock);
    atomic_store(&m->stopping, true);
    pthread_cond_signal(&m->check_wake);
    pthread_mutex_unlock(&m->lock);
    prober_interrupt(&m->prober);
    pthread_join(m->watch_thread, NULL);
}

static int
start_threads(struct monitor *m)
{
    int err = create_thread(&m->watch_thread, watch, m);

    if (err < 0 || !m->opt.check_registration)
        return err;
    err = create_thread(&m->check_thread, check, m);
    if (err < 0)
        stop_watching(m);
    return err;
}

/* Everything but the threads; what was not made is empty. */
static void
destroy(struct monitor *m)
{
    if (m->prober.queue)
        prober_fini(&m->prober);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->check_wake);
    free(m->name);
    free(m);
}

static int
prepare(struct monitor *m)
{
    m->name = strdup(m->opt.name);
    if (!m->name)
        return -errno;
    verdict_init(&m->now.verdict, clock_ms());
    slow_init(&m->slow, clock_ms());
    lun_get_status(m->lun, &m->now.lun);
    m->published = m->now;
    return prober_init(&m->prober, m->lun);
}

struct monitor *
monitor_start(struct lun *l, const struct monitor_options *opt)
{
    struct monitor *m = calloc(1, sizeof *m);
    int err;

    if (!m)
        return NULL;
    m->lun = l;
    m->opt = *opt;
    pthread_mutex_init(&m->lock, NULL);
    err = create_condition(&m->check_wake);
    if (err < 0) {
        pthread_mutex_destroy(&m->lock);
        free(m);
        errno = -err;
        return NULL;
    }
    err = prepare(m);
    if (err == 0)
        err = start_threads(m);
    if (err < 0) {
        destroy(m);
        errno = -err;
        return NULL;
    }
    return m;
}

void
monitor_stop(struct monitor *m)
{
    if (!m)
        return;
    stop_watching(m);
    if (m->opt.check_registration)
        pthread_join(m->check_thread, NULL);
    destroy(m);
}

/* ---- from outside -------------------------------------------------------- */

/* A kick that is not yet looked at will see this one's cause as well. */
void
monitor_kick(struct monitor *m)
{
    if (!atomic_exchange(&m->kicked, true))
        prober_interrupt(&m->prober);
}

void
monitor_path_error(struct monitor *m, int error)
{
    if (lun_error_class(error) != LUN_CLASS_PATH)
        return;
    atomic_store(&m->path_error, error);
    monitor_kick(m);
}

void
monitor_get(struct monitor *m, struct monitor_status *st)
{
    pthread_mutex_lock(&m->lock);
    *st = m->published;
    pthread_mutex_unlock(&m->lock);
    lun_get_status(m->lun, &st->lun);
}
