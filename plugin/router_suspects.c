/* SPDX-License-Identifier: BSD-3-Clause */
/* Through whom writes of ours may still travel: kept on disk, fenced, asked,
 * waited for, or forgotten on somebody's word. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/point.h"
#include "common/rules.h"
#include "common/timers.h"
#include "plugin/router_impl.h"

#define DRAIN_RETRY_MS 1000 /* between two questions to peers */

static bool
suspected(const struct router *r, int peer)
{
    return r->route.suspect_peers >> peer & 1;
}

bool
router_has_suspects(const struct router *r)
{
    return r->route.suspect_self || r->route.suspect_peers || r->nstrays > 0;
}

/* ---- on disk ----------------------------------------------------------- */

static int
add_name(struct state *s, const char *name)
{
    if (s->npeers == STATE_HOSTS_MAX)
        return -E2BIG;
    snprintf(s->peers[s->npeers++], STATE_NAME_MAX, "%s", name);
    return 0;
}

int
router_save(struct router *r, bool local, uint64_t peers)
{
    struct state *s = &r->state;
    int e = 0;

    s->generation = r->route.generation;
    s->local = local || r->route.suspect_self;
    s->npeers = 0;
    for (int i = 0; e == 0 && i < (int)peers_count(r->peers); i++) {
        if ((peers & router_bit(i)) || suspected(r, i))
            e = add_name(s, peers_host(r->peers, i)->name);
    }
    for (size_t i = 0; e == 0 && i < r->nstrays; i++)
        e = add_name(s, r->strays[i].name);
    if (e == 0)
        e = state_save(r->state_file, s);
    /* tried with each peer, again and again */
    if (e < 0 && e != r->save_error)
        log_error("lun %s: cannot save the route's state in %s: %s; no route "
                  "is opened without it",
                  router_lun_name(r), r->opt.cfg->statedir, strerror(-e));
    r->save_error = e;
    return e;
}

/* Who carries the I/O now, whatever the route is about to do: while requests
 * are held, writes may still be inside the route that was not left yet. */
static int
save_now(struct router *r)
{
    int carrier = r->route.served_by;

    if (r->route.left)
        return router_save(r, false, 0);
    return router_save(r, carrier == ROUTE_SELF, router_bit(carrier));
}

void
router_arrived(struct router *r)
{
    /* They were fenced: without reservations there is no way past them. */
    pthread_mutex_lock(&r->lock);
    r->nstrays = 0;
    pthread_mutex_unlock(&r->lock);
    point_pass(POINT_FORGET);
    save_now(r);
    point_pass(POINT_FORGOTTEN);
}

void
router_stayed(struct router *r)
{
    save_now(r);
}

/* ---- hosts that are no peers any more ----------------------------------- */

/* Does one of them keep us from opening any route?  Says so as the reason. */
static void
judge_strays(struct router *r)
{
    r->route.stray = false;
    for (size_t i = 0; i < r->nstrays; i++) {
        const struct stray *s = &r->strays[i];

        if (s->host && r->route_opt.reservations)
            continue;
        r->route.stray = true;
        snprintf(r->route.reason, sizeof r->route.reason,
                 "host %.64s may hold writes of ours and is no peer any more: "
                 "see confirm-dead in detourctl(8)",
                 s->name);
    }
}

static void
add_stray(struct router *r, const char *name)
{
    struct stray *s = &r->strays[r->nstrays++];

    snprintf(s->name, sizeof s->name, "%s", name);
    s->host = config_host(r->opt.cfg, name);
    if (s->host && r->route_opt.reservations)
        log_warning("lun %s: host %s may hold writes of ours and is no peer "
                    "any more: it will be fenced",
                    router_lun_name(r), name);
    else
        log_error("lun %s: host %s may hold writes of ours and can neither be "
                  "fenced nor asked: nothing is served before it is a peer "
                  "again, or is powered off and 'detourctl confirm-dead %s' "
                  "says so",
                  router_lun_name(r), name, name);
}

void
router_inherit_suspects(struct router *r)
{
    const struct state *s = &r->state;

    r->route.suspect_self = r->route.unknown_self = s->local;
    for (size_t i = 0; i < s->npeers && rule_kept(RULE_DISK_SUSPECTS); i++) {
        int peer = peers_find(r->peers, s->peers[i]);

        if (peer != ROUTE_SELF)
            r->route.suspect_peers |= UINT64_C(1) << peer;
        else if (strcmp(s->peers[i], r->opt.cfg->self->name) == 0)
            r->route.suspect_self = r->route.unknown_self = true;
        else
            add_stray(r, s->peers[i]);
    }
    r->route.unknown_peers = r->route.suspect_peers;
    judge_strays(r);
}

/* ---- with reservations: fence ------------------------------------------- */

static int
add_fence(struct peers_request *rq, const struct config_host *host)
{
    if (rq->nfence == EXPORT_FENCE_MAX)
        return -E2BIG;
    rq->fence[rq->nfence++] = host;
    return 0;
}

int
router_add_fences(struct router *r, struct peers_request *rq)
{
    int e = 0;

    if (!r->route_opt.reservations)
        return 0;
    if (r->route.suspect_self)
        e = add_fence(rq, r->opt.cfg->self);
    for (int i = 0; e == 0 && i < (int)peers_count(r->peers); i++) {
        /* Opening at a suspect drains it: it needs no naming. */
        if (i != rq->peer && suspected(r, i))
            e = add_fence(rq, peers_host(r->peers, i));
    }
    for (size_t i = 0; e == 0 && i < r->nstrays; i++)
        e = add_fence(rq, r->strays[i].host);
    return e;
}

static int
fence(struct router *r, const struct config_host *host)
{
    if (router_is_closing(r))
        return -ESHUTDOWN;
    log_warning("lun %s: fencing host %s: it may hold writes of ours",
                router_lun_name(r), host->name);
    return lun_fence(r->lun, host->number, clock_ms() + REGISTER_MS);
}

int
router_fence_suspects(struct router *r, const struct config_host **which)
{
    int e = 0;

    if (!r->route_opt.reservations || !rule_kept(RULE_HOME_FENCE))
        return 0;
    for (int i = 0; e == 0 && i < (int)peers_count(r->peers); i++) {
        if (suspected(r, i))
            e = fence(r, *which = peers_host(r->peers, i));
    }
    for (size_t i = 0; e == 0 && i < r->nstrays; i++)
        e = fence(r, *which = r->strays[i].host);
    return e;
}

/* ---- without: wait and ask ----------------------------------------------- */

/* Nothing of ours is under way at peer that left by the opening serial, or
 * before.  Of a predecessor's writes neither: they are older still. */
static void
cleared(struct router *r, int peer, uint64_t serial)
{
    unsigned left = gate_clear(&r->gate, peer, serial);

    r->route.unknown_peers &= ~(UINT64_C(1) << peer);
    if (left == 0)
        route_cleared(&r->route, peer);
    save_now(r);
}

static void
hear_answer(struct router *r)
{
    const char *host = peers_host(r->peers, r->drain.peer)->name;
    int e;

    if (!drainer_take(r->drainer, &e))
        return;
    r->drain.next_ms = clock_ms() + (e < 0 ? DRAIN_RETRY_MS : 0);
    if (e < 0) {
        log_debug("lun %s: writes of ours at %s: no answer: %s",
                  router_lun_name(r), host, strerror(-e));
        return;
    }
    log_info("lun %s: all writes of ours at %s have come back",
             router_lun_name(r), host);
    cleared(r, r->drain.peer, r->drain.serial);
}

/* Under a generation of its own, as if it were a new route; but the old one
 * goes on. */
static void
ask(struct router *r, int peer)
{
    struct peers_request rq = {
        .peer = peer,
        .generation = r->route.generation + 1,
        .id = r->want.id,
        .size = r->want.size,
    };
    char name[EXPORT_NAME_MAX + 1];
    struct link *k;

    r->drain.peer = peer;
    r->drain.serial = gate_serial(&r->gate);
    r->drain.next_ms = clock_ms() + DRAIN_RETRY_MS;
    r->route.generation++;
    if (save_now(r) < 0)
        return;
    k = peers_take(r->peers, &rq, name);
    if (k)
        drainer_ask(r->drainer, k, name,
                    clock_ms() + r->opt.lun->timers.open_timeout);
}

void
router_ask_suspects(struct router *r, const struct route_view *view)
{
    if (r->route_opt.reservations || drainer_busy(r->drainer) ||
        clock_ms() < r->drain.next_ms)
        return;
    for (int i = 1; i <= (int)peers_count(r->peers); i++) {
        int peer = (r->drain.peer + i) % (int)peers_count(r->peers);

        if (suspected(r, peer) && view->peers[peer].ready &&
            peer != r->route.peer) {
            ask(r, peer);
            return;
        }
    }
}

/* ---- confirm-dead -------------------------------------------------------- */

static void
forget_stray(struct router *r, const char *name)
{
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->nstrays; i++) {
        if (strcmp(r->strays[i].name, name) == 0)
            r->strays[i--] = r->strays[--r->nstrays];
    }
    pthread_mutex_unlock(&r->lock);
    if (r->route.stray)
        snprintf(r->route.reason, sizeof r->route.reason,
                 "host %.64s was confirmed dead", name);
    judge_strays(r);
}

static void
forget_dead(struct router *r)
{
    char name[STATE_NAME_MAX], by[sizeof r->dead_by];
    int peer;

    pthread_mutex_lock(&r->lock);
    snprintf(name, sizeof name, "%s", r->dead);
    snprintf(by, sizeof by, "%s", r->dead_by);
    r->dead[0] = '\0';
    pthread_mutex_unlock(&r->lock);
    if (!name[0])
        return;
    log_warning("lun %s: host %s is dead, says %s: it is believed to hold no "
                "writes of ours any more",
                router_lun_name(r), name, by);
    peer = peers_find(r->peers, name);
    if (peer == ROUTE_SELF)
        forget_stray(r, name);
    else
        cleared(r, peer, gate_serial(&r->gate));
    save_now(r);
}

void
router_tend_suspects(struct router *r)
{
    forget_dead(r);
    if (r->route_opt.reservations)
        return;
    /* Of a predecessor's no ranges are known: route_step judges those. */
    if (gate_settle(&r->gate) == 0 && r->route.suspect_self &&
        !r->route.unknown_self) {
        route_cleared(&r->route, ROUTE_SELF);
        save_now(r);
    }
    hear_answer(r);
}
