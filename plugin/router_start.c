/* SPDX-License-Identifier: BSD-3-Clause */
/* The router's beginning and end: its parts, its threads, and what it hands
 * from its predecessor to its successor. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/rules.h"
#include "common/timers.h"
#include "health/configured.h"
#include "plugin/router_impl.h"

#define RETRY_MS   500 /* between two rounds of asking everybody */
#define ORPHANS_MS 200 /* for orphans, when everything else has ended */
#define STILL_MS   600 /* for questions about extents, once we hand over */

/* ---- what the parts tell and ask ----------------------------------------- */

static void
poke(void *opaque)
{
    struct router *r = opaque;

    pthread_mutex_lock(&r->lock);
    r->changed = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

static void
lun_news(void *opaque)
{
    struct router *r = opaque;

    pthread_mutex_lock(&r->lock);
    if (r->monitor) {
        monitor_kick(r->monitor);
    } else {
        r->changed = true;
        pthread_cond_signal(&r->wake);
    }
    pthread_mutex_unlock(&r->lock);
}

static uint64_t
oldest_local(void *opaque)
{
    struct router *r = opaque;

    return gate_oldest_ms(&r->gate);
}

static uint64_t
answered_local(void *opaque)
{
    struct router *r = opaque;

    return gate_answered_ms(&r->gate);
}

static void
durations_local(void *opaque, uint64_t *counts)
{
    struct router *r = opaque;

    gate_durations(&r->gate, counts);
}

/* ---- the parts ------------------------------------------------------------
 */

static struct lun *
start_lun(struct router *r)
{
    struct lun_options opt =
        configured_lun(r->opt.cfg, r->opt.lun, r->opt.client);

    opt.notify = lun_news;
    opt.opaque = r;
    /* Writes of a predecessor may be under way: only the LUN they went to. */
    if (!opt.expected_id && r->state.id[0] &&
        (r->state.local || r->state.npeers > 0))
        opt.expected_id = r->state.id;
    return lun_create(&opt);
}

static struct monitor *
start_monitor(struct router *r)
{
    struct monitor_options opt = configured_monitor(r->opt.lun);

    opt.oldest_ms = oldest_local;
    opt.answered_ms = answered_local;
    opt.durations = durations_local;
    opt.changed = poke;
    opt.opaque = r;
    return monitor_start(r->lun, &opt);
}

/* What the predecessor left: generation, suspects, the LUN's looks. */
static void
inherit(struct router *r)
{
    route_init(&r->route, &r->route_opt, clock_ms());
    r->route.generation =
        rule_kept(RULE_DISK_GENERATION) ? r->state.generation : 0;
    router_inherit_suspects(r);
    snprintf(r->want.id, sizeof r->want.id, "%s",
             r->state.id[0] ? r->state.id
                            : (r->opt.lun->wwid ? r->opt.lun->wwid : ""));
    r->want.size = r->state.size;
    r->want.readonly = r->opt.lun->readonly;
    r->want.block_size = r->state.block_size;
    r->shown = r->route;
}

static void
set_options(struct router *r)
{
    const struct config_lun *l = r->opt.lun;
    unsigned random = 0;

    if (getrandom(&random, sizeof random, GRND_NONBLOCK) < 0)
        random = (unsigned)getpid();
    r->route_opt = (struct route_options){
        .reservations = l->fence == CONFIG_FENCE_PR,
        .failback_after_ms = l->timers.failback_after,
        .failback_max_ms = l->timers.failback_max,
        .failback_jitter_ms = random % (l->timers.failback_jitter + 1),
        .settle_ms = l->timers.probe_interval + l->timers.probe_timeout,
        .retry_ms = RETRY_MS,
        .switch_limit = l->switch_limit,
    };
}

static void
init_locks(struct router *r)
{
    pthread_condattr_t attr;

    pthread_mutex_init(&r->lock, NULL);
    pthread_mutex_init(&r->register_lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &attr);
    pthread_cond_init(&r->known, &attr);
    pthread_cond_init(&r->enlist, &attr);
    pthread_condattr_destroy(&attr);
    gate_init(&r->gate);
}

/* 0, or -errno and a message. */
static int
start_parts(struct router *r, char *err, size_t errlen)
{
    const struct config *cfg = r->opt.cfg;
    const struct tlsdir_files files = {cfg->ca, cfg->cert, cfg->key, cfg->crl};

    r->state_file =
        state_open(cfg->statedir, router_lun_name(r), r->opt.client,
                   clock_ms() + STATE_PATIENCE_MS, &r->state, err, errlen);
    if (!r->state_file)
        return -errno;
    r->tls_dir = tlsdir_create(cfg->rundir, &files);
    if (!r->tls_dir) {
        snprintf(err, errlen, "%s: cannot make a folder for certificates: %m",
                 cfg->rundir);
        return -errno;
    }
    r->peers = peers_create(cfg, r->opt.lun, r->opt.client,
                            tlsdir_path(r->tls_dir), poke, r);
    if (!r->peers)
        return -errno;
    r->route_opt.npeers = peers_count(r->peers);
    inherit(r);
    r->lun = start_lun(r);
    if (!r->lun)
        return -errno;
    r->drainer = drainer_create(poke, r);
    if (!r->drainer)
        return -errno;
    pthread_mutex_lock(&r->lock);
    r->monitor = start_monitor(r);
    pthread_mutex_unlock(&r->lock);
    if (!r->monitor)
        return -errno;
    r->have_thread = pthread_create(&r->thread, NULL, router_thread, r) == 0;
    r->have_registrar =
        r->have_thread &&
        pthread_create(&r->registrar, NULL, router_registrar, r) == 0;
    return r->have_registrar ? 0 : -EAGAIN;
}

struct router *
router_start(const struct router_options *opt, char *err, size_t errlen)
{
    struct router *r = calloc(1, sizeof *r);
    int e;

    if (!r) {
        snprintf(err, errlen, "lun %s: %m", opt->lun->name);
        return NULL;
    }
    r->opt = *opt;
    r->started_ms = clock_ms();
    r->asked_peer = ROUTE_SELF;
    r->session_size = UINT64_MAX;
    init_locks(r);
    set_options(r);
    err[0] = '\0';
    e = start_parts(r, err, errlen);
    if (e < 0) {
        if (!err[0])
            snprintf(err, errlen, "lun %s: cannot start: %s", opt->lun->name,
                     strerror(-e));
        router_stop(r);
        errno = -e;
        return NULL;
    }
    return r;
}

void
router_close(struct router *r)
{
    pthread_mutex_lock(&r->lock);
    r->closing_ms = r->closing ? r->closing_ms : clock_ms();
    r->closing = true;
    pthread_cond_broadcast(&r->known);
    pthread_cond_broadcast(&r->wake);
    pthread_mutex_unlock(&r->lock);
    gate_close(&r->gate);
    if (r->peers)
        peers_interrupt(r->peers);
    if (r->drainer)
        drainer_interrupt(r->drainer);
}

static void
stop_threads(struct router *r)
{
    pthread_mutex_lock(&r->lock);
    r->stopping = true;
    pthread_cond_broadcast(&r->enlist);
    pthread_mutex_unlock(&r->lock);
    if (r->have_thread)
        pthread_join(r->thread, NULL);
    if (r->have_registrar)
        pthread_join(r->registrar, NULL);
}

/* Tell the successor whether anything may still be under way. */
static void
save_last(struct router *r, unsigned orphans)
{
    if (!r->state_file || !r->have_registrar)
        return;
    if (orphans > 0)
        r->route.suspect_self = true;
    router_save(r, false, 0);
}

/* All that may be under way comes to its end, or is noted. */
static void
wind_up(struct router *r)
{
    struct monitor *monitor;
    unsigned orphans = 0;

    pthread_mutex_lock(&r->lock);
    monitor = r->monitor;
    r->monitor = NULL; /* the LUN has news until it is destroyed */
    pthread_mutex_unlock(&r->lock);
    monitor_stop(monitor);
    if (r->lun)
        orphans = lun_destroy(r->lun, clock_ms() + ORPHANS_MS);
    save_last(r, orphans);
    drainer_destroy(r->drainer);
    peers_destroy(r->peers);
    state_close(r->state_file);
    tlsdir_destroy(r->tls_dir);
}

void
router_hand_over(struct router *r)
{
    gate_seal(&r->gate);
    router_close(r);
    stop_threads(r);
    /* Some ask the LUN outside of the route, for extents; if one of them hangs
     * the successor finds what it finds after a kill. */
    if (gate_still(&r->gate, clock_ms() + STILL_MS))
        wind_up(r);
}

void
router_stop(struct router *r)
{
    if (!r)
        return;
    router_close(r);
    stop_threads(r);
    wind_up(r);
    gate_fini(&r->gate);
    pthread_mutex_destroy(&r->register_lock);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->wake);
    pthread_cond_destroy(&r->known);
    pthread_cond_destroy(&r->enlist);
    free(r);
}
