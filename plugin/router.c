/* SPDX-License-Identifier: BSD-3-Clause */
/* Steps the route: what happened, what follows, who is told.
 *
 * Threads.  The router's own thread is the only one that steps the route,
 * opens and closes sessions and moves the gate forward.  The registrar thread
 * gets the right to write back while we are redirected, so that the return is
 * quick.  Workers, the monitor, links and the status socket post events and
 * read the copies under lock.
 */
#include "plugin/router_impl.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/point.h"

#define REST_MS 5000 /* between two looks without news, when all is well */

/* ---- small helpers ----------------------------------------------------- */

struct gate *
router_gate(struct router *r)
{
    return &r->gate;
}

struct latency *
router_latency(struct router *r)
{
    return &r->latency;
}

bool
router_by_range(const struct router *r)
{
    return !r->route_opt.reservations;
}

struct lun *
router_own_lun(struct router *r)
{
    return r->lun;
}

void
router_post(struct router *r, const struct posted *ev)
{
    size_t i = 0;

    pthread_mutex_lock(&r->lock);
    while (i < r->nevents && r->events[i].serial != ev->serial)
        i++;
    if (i < EVENTS_MAX)
        r->events[i] = *ev;
    if (i == r->nevents && i < EVENTS_MAX)
        r->nevents++;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
}

void
router_report_error(struct router *r, enum route_event_kind kind,
                    uint64_t serial, int error)
{
    struct posted ev = {.kind = kind, .serial = serial, .peer = ROUTE_SELF};

    if (kind == ROUTE_EV_LOCAL_ERROR)
        monitor_path_error(r->monitor, error);
    if (!gate_hold_serial(&r->gate, serial))
        return;
    peers_yield(r->peers, true);
    switch (kind) {
    case ROUTE_EV_LOCAL_ERROR:
        snprintf(ev.why, sizeof ev.why, "path error: %s", strerror(-error));
        break;
    case ROUTE_EV_FENCED:
        snprintf(ev.why, sizeof ev.why, "reservation conflict");
        break;
    case ROUTE_EV_PEER_DRAINS:
        snprintf(ev.why, sizeof ev.why, "the peer is draining");
        break;
    case ROUTE_EV_PEER_ERROR:
        snprintf(ev.why, sizeof ev.why, "the peer met: %s", strerror(-error));
        break;
    default:
        snprintf(ev.why, sizeof ev.why, "connection to the peer lost");
        break;
    }
    router_post(r, &ev);
}

bool
router_is_closing(struct router *r)
{
    bool closing;

    pthread_mutex_lock(&r->lock);
    closing = r->closing;
    pthread_mutex_unlock(&r->lock);
    return closing;
}

/* ---- the router's thread ----------------------------------------------- */

/* Since when our own paths are good, and not slow; 0: they are not. */
static uint64_t
quick_ms(const struct verdict *v)
{
    if (v->state == VERDICT_SLOW || v->good_ms == 0)
        return 0;
    return v->slow_ms > v->good_ms ? v->slow_ms : v->good_ms;
}

static void
look(struct router *r, struct route_view *view, struct route_peer *peers,
     struct monitor_status *m)
{
    bool slow;

    monitor_get(r->monitor, m);
    router_learn(r, &m->lun);
    peers_tend(r->peers, &r->want, router_peers_to_keep(r));
    peers_view(r->peers, &r->want, peers);
    slow = r->opt.lun->redirect_when_slow;
    *view = (struct route_view){
        .local_usable =
            verdict_usable(&m->verdict) && m->lun.known && !m->lun.wrong_id,
        .local_lost = m->verdict.state == VERDICT_LOST,
        .local_fenced = m->lun.registration == LUN_FENCED,
        .local_slow = slow && m->verdict.state == VERDICT_SLOW,
        .local_good_ms = slow ? quick_ms(&m->verdict) : m->verdict.good_ms,
        .local_orphans = m->lun.orphans,
        .local_registered = m->lun.registration == LUN_REGISTERED,
        .held = gate_is_held(&r->gate),
        .peers = peers,
    };
}

static void
tell(struct router *r, enum route_phase before)
{
    const struct route *t = &r->route;
    const char *peer =
        t->peer == ROUTE_SELF ? "" : peers_host(r->peers, t->peer)->name;

    if (t->phase != before)
        log_info("lun %s: route %s -> %s%s%s (%s), generation %llu",
                 router_lun_name(r), route_phase_name(before),
                 route_phase_name(t->phase), peer[0] ? " via " : "", peer,
                 t->reason, (unsigned long long)t->generation);
}

static void
tell_latch(struct router *r, bool was_shut)
{
    const struct latch *l = &r->route.latch;

    if (l->shut && !was_shut)
        log_warning("lun %s: %u switches within an hour: the route stays where "
                    "it is, until its own paths were good for an hour or "
                    "detourctl return is given",
                    router_lun_name(r), latch_count(l, clock_ms()));
    else if (!l->shut && was_shut)
        log_info("lun %s: the route may come home again", router_lun_name(r));
}

static void
publish(struct router *r, const struct route_view *view)
{
    pthread_mutex_lock(&r->lock);
    r->shown = r->route;
    memcpy(r->shown_peers, view->peers,
           peers_count(r->peers) * sizeof *view->peers);
    pthread_cond_broadcast(&r->known);
    pthread_mutex_unlock(&r->lock);
}

/* One event and all that follows from it; view and m are as after it. */
static void
handle(struct router *r, const struct route_event *first,
       struct route_view *view, struct route_peer *peers,
       struct monitor_status *m)
{
    struct outcome o = {.ev = *first};

    for (;;) {
        enum route_phase before = r->route.phase;
        bool was_shut = r->route.latch.shut;
        enum route_do act =
            route_step(&r->route, &r->route_opt, view, &o.ev, clock_ms());
        bool arrived =
            o.ev.kind == ROUTE_EV_OPENED || o.ev.kind == ROUTE_EV_HOME;
        bool settled = route_holds(before) && !route_holds(r->route.phase);

        tell(r, before);
        tell_latch(r, was_shut);
        if (before == ROUTE_LOCAL && r->route.phase != before)
            point_pass(POINT_LOST);
        if (route_holds(r->route.phase) && !router_may_prepare(r, act))
            gate_hold(&r->gate);
        publish(r, view);
        if (arrived)
            router_arrived(r);
        else if (settled)
            router_stayed(r);
        if (act == ROUTE_DO_NOTHING || router_is_closing(r)) {
            router_close_retired(r);
            return;
        }
        router_perform(r, act, view, &o);
        look(r, view, peers, m);
    }
}

/* A peer that is there for TCP but answers nothing, neither our requests nor
 * NBD_OPT_INFO on a parked connection, is lost.  One that is only slow is
 * not: its proxy still answers INFO. */
static bool
peer_silent(struct router *r, const struct route_view *view)
{
    uint64_t oldest = session_oldest_ms(r->session);

    return oldest != 0 &&
           clock_ms() > oldest + r->opt.lun->timers.link_timeout &&
           !view->peers[r->route.peer].ready;
}

/* What the router's thread sees for itself. */
static bool
noticed(struct router *r, const struct route_view *view, struct route_event *ev,
        char *why, size_t whylen)
{
    if (r->route.phase != ROUTE_REDIRECTED)
        return false;
    session_grow(r->session);
    if (!session_broken(r->session, why, whylen)) {
        if (!peer_silent(r, view))
            return false;
        snprintf(why, whylen, "peer %s does not answer",
                 peers_host(r->peers, r->route.peer)->name);
    }
    *ev = (struct route_event){.kind = ROUTE_EV_PEER_LOST, .why = why};
    return true;
}

static bool
next_posted(struct router *r, struct posted *p)
{
    bool found;

    pthread_mutex_lock(&r->lock);
    found = r->nevents > 0;
    if (found) {
        *p = r->events[0];
        memmove(r->events, r->events + 1, --r->nevents * sizeof *p);
    }
    pthread_mutex_unlock(&r->lock);
    return found;
}

static bool
still_current(struct router *r, const struct posted *p)
{
    bool current;

    pthread_mutex_lock(&r->gate.lock);
    current = p->serial == 0 || p->serial == r->gate.route.serial;
    pthread_mutex_unlock(&r->gate.lock);
    return current && (p->serial == 0 || !r->route.left);
}

/* While we are redirected and our paths work, get the right to write back. */
static void
enlist_registrar(struct router *r, const struct route_view *view,
                 const struct monitor_status *m)
{
    bool want = r->route.phase == ROUTE_REDIRECTED && view->local_usable &&
                (m->lun.registration != LUN_REGISTERED || m->lun.orphans > 0);

    pthread_mutex_lock(&r->lock);
    want = want && clock_ms() >= r->register_next_ms;
    r->want_registration = want;
    if (want)
        pthread_cond_signal(&r->enlist);
    pthread_mutex_unlock(&r->lock);
}

/* Sleep until something is posted or changed, or next_ms; false: stop. */
static bool
wait_for_news(struct router *r, uint64_t next_ms)
{
    struct timespec ts = {.tv_sec = (time_t)(next_ms / 1000),
                          .tv_nsec = (long)(next_ms % 1000) * 1000000};
    bool go_on;

    pthread_mutex_lock(&r->lock);
    while (!r->changed && !r->closing && r->nevents == 0) {
        if (pthread_cond_timedwait(&r->wake, &r->lock, &ts) == ETIMEDOUT)
            break;
    }
    r->changed = false;
    go_on = !r->closing;
    pthread_mutex_unlock(&r->lock);
    return go_on;
}

/* At home, and nobody has to be waited for: what happens then is told. */
static bool
is_at_rest(struct router *r, const struct route_view *view)
{
    unsigned ready = 0, most = (unsigned)peers_count(r->peers);

    for (unsigned i = 0; i < most; i++)
        ready += view->peers[i].ready;
    if (most > r->opt.lun->standby_peers)
        most = r->opt.lun->standby_peers;
    return r->route.phase == ROUTE_LOCAL && view->local_usable && ready >= most;
}

/* When to look again without any news. */
static uint64_t
next_look(struct router *r, const struct route_view *view)
{
    uint64_t now = clock_ms();
    uint64_t next = route_next_ms(&r->route, &r->route_opt, view, now);
    bool soon = r->route.phase == ROUTE_REDIRECTED || router_has_suspects(r);
    uint64_t idle = now + (soon ? 100 : is_at_rest(r, view) ? REST_MS : 1000);

    if (next < now + 1)
        next = now + 1;
    return next < idle ? next : idle;
}

void *
router_thread(void *opaque)
{
    struct router *r = opaque;
    struct route_peer peers[ROUTE_PEERS_MAX];
    struct route_view view;
    struct monitor_status m;

    do {
        struct route_event ev = {.kind = ROUTE_EV_TICK};
        struct posted p;
        char why[320];

        look(r, &view, peers, &m);
        router_tend_suspects(r);
        if (noticed(r, &view, &ev, why, sizeof why))
            handle(r, &ev, &view, peers, &m);
        while (next_posted(r, &p)) {
            ev = (struct route_event){p.kind, p.peer, p.why, p.for_ms};
            if (still_current(r, &p))
                handle(r, &ev, &view, peers, &m);
        }
        ev = (struct route_event){.kind = ROUTE_EV_TICK};
        if (view.local_lost || view.local_slow)
            ev.why = m.verdict.reason;
        handle(r, &ev, &view, peers, &m);
        router_ask_suspects(r, &view);
        enlist_registrar(r, &view, &m);
    } while (wait_for_news(r, next_look(r, &view)));
    r->route.leave_clean = true;
    router_leave(r);
    router_close_retired(r);
    return NULL;
}

/* Only while we are redirected: once the route goes home, writes may be under
 * way, and a registration must not be made anew beneath them. */
static int
register_aside(struct router *r)
{
    bool wanted;
    int e = -EAGAIN;

    pthread_mutex_lock(&r->register_lock);
    pthread_mutex_lock(&r->lock);
    wanted = r->shown.phase == ROUTE_REDIRECTED && !r->closing;
    pthread_mutex_unlock(&r->lock);
    if (wanted)
        e = lun_register(r->lun, clock_ms() + REGISTER_MS);
    if (e == 0)
        point_pass(POINT_ASIDE);
    pthread_mutex_unlock(&r->register_lock);
    return e;
}

void *
router_registrar(void *opaque)
{
    struct router *r = opaque;
    int before = 0;

    pthread_mutex_lock(&r->lock);
    while (!r->stopping) {
        int e;

        if (!r->want_registration) {
            pthread_cond_wait(&r->enlist, &r->lock);
            continue;
        }
        r->want_registration = false;
        pthread_mutex_unlock(&r->lock);
        e = register_aside(r);
        if (e != before && e != -EAGAIN)
            log_info("lun %s: registering while redirected: %s",
                     router_lun_name(r), e ? strerror(-e) : "done");
        before = e;
        pthread_mutex_lock(&r->lock);
        r->register_next_ms = clock_ms() + (e < 0 ? REGISTER_MS : 0);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}
