/* SPDX-License-Identifier: BSD-3-Clause */
/* One LUN as this host shares it with peers: its state and its keeper.
 *
 * Threads: the keeper (one for each share) steps the serving state and does
 * what it says; the monitor's and the LUN's threads kick it; connections come
 * through share_open.c; the control socket's thread reads and drains.
 */
#include "proxy/share.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/rules.h"
#include "health/configured.h"
#include "proxy/share_impl.h"

/* One call of lun_register; what it leaves under way goes on, and the next
 * call finds it.  Short, so that the process can end in time. */
#define REGISTER_MS 500

/* ---- what others tell -------------------------------------------------- */

static void
kick(struct share *s)
{
    pthread_mutex_lock(&s->lock);
    s->kicked = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void
monitor_changed(void *opaque)
{
    kick(opaque);
}

static void
lun_news(void *opaque)
{
    struct share *s = opaque;

    pthread_mutex_lock(&s->monitor_lock);
    if (s->monitor)
        monitor_kick(s->monitor);
    pthread_mutex_unlock(&s->monitor_lock);
    kick(s);
}

static uint64_t
oldest_ms(void *opaque)
{
    struct share *s = opaque;
    uint64_t oldest;

    pthread_mutex_lock(&s->lock);
    oldest = session_sweep(&s->sessions).oldest_ms;
    pthread_mutex_unlock(&s->lock);
    return oldest;
}

static uint64_t
answered_ms(void *opaque)
{
    struct share *s = opaque;
    uint64_t answered;

    pthread_mutex_lock(&s->lock);
    answered = session_sweep(&s->sessions).answered_ms;
    pthread_mutex_unlock(&s->lock);
    return answered;
}

void
share_path_error(struct share *s, int error)
{
    /* a member's connection calls this, so the monitor is there */
    monitor_path_error(s->monitor, error);
}

/* ---- the keeper -------------------------------------------------------- */

/* Gives the lock up for a moment: the monitor has one of its own. */
static void
look_locked(struct share *s, struct monitor_status *seen,
            struct serve_sample *w)
{
    struct session_counts n;
    struct lun_status st;

    pthread_mutex_unlock(&s->lock);
    monitor_get(s->monitor, seen);
    /* fresher than the monitor's copy: a registration of a moment ago */
    lun_get_status(s->lun, &st);
    pthread_mutex_lock(&s->lock);
    n = session_sweep(&s->sessions);
    s->slow = seen->verdict.state == VERDICT_SLOW;
    *w = (struct serve_sample){
        .usable = verdict_usable(&seen->verdict) && st.known && !st.wrong_id,
        .why = st.wrong_id ? "the device is another LUN" : seen->verdict.reason,
        .drain = s->drain,
        .arbiter = s->config->fence == CONFIG_FENCE_PR,
        .registration = st.registration,
        .registration_no = st.registration_no,
        .members = n.members,
        .pending = n.pending,
        .register_done = s->register_done,
        .register_error = s->register_error,
    };
}

/* A state that is tried again and again is told once. */
static void
tell_locked(struct share *s)
{
    char text[sizeof s->told];

    if (s->serve.state == SERVE_REGISTERING)
        return;
    snprintf(text, sizeof text, "%s (%s)", serve_state_name(s->serve.state),
             s->serve.reason);
    if (strcmp(text, s->told) == 0)
        return;
    strcpy(s->told, text);
    log_info("lun %s: %s", s->config->name, text);
}

static void
register_locked(struct share *s)
{
    int rc;

    pthread_mutex_unlock(&s->lock);
    rc = lun_register(s->lun, clock_ms() + REGISTER_MS);
    pthread_mutex_lock(&s->lock);
    s->register_done = true;
    s->register_error = rc;
    s->kicked = true;
}

static void
carry_out_locked(struct share *s, unsigned actions)
{
    if (actions & SERVE_CHANGED) {
        tell_locked(s);
        pthread_cond_broadcast(&s->changed);
    }
    if (actions & SERVE_CUT && rule_kept(RULE_CLOSE))
        session_order_all(&s->sessions, SESSION_ABANDON);
    if (actions & SERVE_WIND_DOWN)
        session_order_all(&s->sessions, SESSION_DRAIN);
    if (actions & SERVE_RESUME)
        session_order_all(&s->sessions, SESSION_RUN);
    if (actions & SERVE_RELEASE) {
        pthread_mutex_unlock(&s->lock);
        lun_release(s->lun);
        pthread_mutex_lock(&s->lock);
    }
    if (actions & SERVE_REGISTER)
        register_locked(s);
}

static void *
keep(void *arg)
{
    struct share *s = arg;

    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        struct monitor_status seen;
        struct serve_sample w;
        unsigned actions;

        s->kicked = false;
        look_locked(s, &seen, &w);
        s->register_done = false;
        actions = serve_step(&s->serve, &w, clock_ms());
        carry_out_locked(s, actions);
        if (!s->kicked && !actions)
            wait_cond(&s->changed, &s->lock,
                      serve_due_ms(&s->serve, clock_ms()));
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- beginning and end ------------------------------------------------- */

static struct lun *
create_lun(struct share *s, const struct config *c)
{
    struct lun_options opt = configured_lun(c, s->config, "proxy");

    opt.notify = lun_news;
    opt.opaque = s;
    return lun_create(&opt);
}

static int
start_monitor(struct share *s)
{
    struct monitor_options opt = configured_monitor(s->config);
    struct monitor *m;

    opt.oldest_ms = oldest_ms;
    opt.answered_ms = answered_ms;
    opt.changed = monitor_changed;
    opt.opaque = s;
    m = monitor_start(s->lun, &opt);
    pthread_mutex_lock(&s->monitor_lock);
    s->monitor = m;
    pthread_mutex_unlock(&s->monitor_lock);
    return m ? 0 : -errno;
}

static int
start(struct share *s, const struct config *c)
{
    int rc;

    s->lun = create_lun(s, c);
    if (!s->lun)
        return -errno;
    s->extents = extents_create(s->lun, s->config->timers.io_timeout);
    if (!s->extents)
        return -errno;
    rc = start_monitor(s);
    if (!rc)
        rc = -pthread_create(&s->keeper, NULL, keep, s);
    s->keeping = !rc;
    return rc;
}

struct share *
share_create(const struct config *c, const struct config_lun *l)
{
    struct share *s = calloc(1, sizeof *s);
    int rc;

    if (!s)
        return NULL;
    s->config = l;
    s->hosts = c;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->monitor_lock, NULL);
    wait_cond_init(&s->changed);
    serve_init(&s->serve, clock_ms());
    rc = start(s, c);
    if (rc) {
        log_error("lun %s: cannot be served: %s", l->name, strerror(-rc));
        share_destroy(s, 0);
        errno = -rc;
        return NULL;
    }
    return s;
}

void
share_destroy(struct share *s, uint64_t deadline_ms)
{
    struct monitor *m;
    unsigned lost;

    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    if (s->keeping)
        pthread_join(s->keeper, NULL);
    pthread_mutex_lock(&s->monitor_lock);
    m = s->monitor;
    s->monitor = NULL;
    pthread_mutex_unlock(&s->monitor_lock);
    monitor_stop(m);
    extents_destroy(s->extents);
    lost = lun_destroy(s->lun, deadline_ms);
    if (lost > 0)
        log_warning("lun %s: %u writes never came back", s->config->name, lost);
    session_table_fini(&s->sessions);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->monitor_lock);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- for others -------------------------------------------------------- */

const struct config_lun *
share_config(const struct share *s)
{
    return s->config;
}

struct lun *
share_lun(struct share *s)
{
    return s->lun;
}

struct extents *
share_extents(struct share *s)
{
    return s->extents;
}

void
share_drain(struct share *s, bool on)
{
    pthread_mutex_lock(&s->lock);
    s->drain = on;
    s->kicked = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void
share_order_all(struct share *s, enum session_order o)
{
    pthread_mutex_lock(&s->lock);
    session_order_all(&s->sessions, o);
    pthread_mutex_unlock(&s->lock);
}

void
share_get_status(struct share *s, struct share_status *st)
{
    monitor_get(s->monitor, &st->monitor);
    pthread_mutex_lock(&s->lock);
    st->serve = s->serve;
    st->drain = s->drain;
    st->counts = session_sweep(&s->sessions);
    st->fences = s->fences;
    st->fences_failed = s->fences_failed;
    pthread_mutex_unlock(&s->lock);
}

void
share_each_session(struct share *s,
                   void (*f)(void *opaque, const struct session *x),
                   void *opaque)
{
    pthread_mutex_lock(&s->lock);
    for (const struct session *x = s->sessions.sessions; x; x = x->next)
        f(opaque, x);
    pthread_mutex_unlock(&s->lock);
}

void
share_each_work(struct share *s,
                void (*f)(void *opaque, const struct session_client *c,
                          const struct session_work *w),
                void *opaque)
{
    pthread_mutex_lock(&s->lock);
    session_each_work(&s->sessions, f, opaque);
    pthread_mutex_unlock(&s->lock);
}
