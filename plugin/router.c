/* SPDX-License-Identifier: BSD-3-Clause */
/* Performs the route's decisions: leaves one route, opens the next.
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
#include "common/rules.h"
#include "common/timers.h"

/* Bounds of what the router's thread waits for, so that a stop is quick. */
#define CLOSING_MS 1000 /* for what is under way, once we are told to end */
#define REST_MS    5000 /* between two looks without news, when all is well */

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

/* ---- leaving a route --------------------------------------------------- */

bool
router_is_closing(struct router *r)
{
    bool closing;

    pthread_mutex_lock(&r->lock);
    closing = r->closing;
    pthread_mutex_unlock(&r->lock);
    return closing;
}

/* How long what is under way may take to finish. */
static uint64_t
drain_deadline_ms(struct router *r, uint64_t begun_ms)
{
    uint64_t deadline = begun_ms + r->opt.lun->timers.io_timeout, closing;

    pthread_mutex_lock(&r->lock);
    closing = r->closing_ms + CLOSING_MS;
    if (r->closing && closing < deadline)
        deadline = closing;
    pthread_mutex_unlock(&r->lock);
    return deadline;
}

static bool
drain(struct router *r)
{
    uint64_t begun = clock_ms(), now = begun, until;

    do {
        until = drain_deadline_ms(r, begun);
        if (gate_drain(&r->gate, until < now + 100 ? until : now + 100))
            return true;
        now = clock_ms();
    } while (now < until);
    return false;
}

static void
set_session_size(struct router *r, uint64_t size)
{
    pthread_mutex_lock(&r->lock);
    r->session_size = size;
    pthread_mutex_unlock(&r->lock);
}

/* The last route's connections take their time over the farewell. */
static void
close_retired(struct router *r)
{
    session_close(r->retired);
    r->retired = NULL;
}

/* Nobody is inside any more when this returns. */
static void
leave(struct router *r)
{
    bool drained = false;

    if (r->outside)
        return;
    gate_hold(&r->gate);
    if (r->route.leave_clean)
        drained = drain(r);
    while (!drained) {
        gate_cut(&r->gate);
        if (r->session)
            session_break(r->session);
        drained = gate_drain(&r->gate, clock_ms() + 20);
    }
    route_left(&r->route, gate_dirty(&r->gate));
    close_retired(r);
    session_retire(r->session);
    if (!r->session)
        lun_release(r->lun);
    r->retired = r->session;
    r->session = NULL;
    set_session_size(r, UINT64_MAX);
    r->outside = true;
}

/* ---- performing -------------------------------------------------------- */

struct outcome {
    struct route_event ev;
    char why[320];
};

static void failed(struct outcome *o, enum route_event_kind kind,
                   const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void
failed(struct outcome *o, enum route_event_kind kind, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(o->why, sizeof o->why, fmt, ap);
    va_end(ap);
    o->ev =
        (struct route_event){.kind = kind, .peer = ROUTE_SELF, .why = o->why};
}

/* Leave the present route.  May the action that was decided go on?  Leaving
 * has perhaps made orphans that the decision did not know of. */
static bool
leave_for(struct router *r, const struct route_view *before)
{
    struct route_view view = *before;
    struct lun_status st;

    leave(r);
    lun_get_status(r->lun, &st);
    view.local_orphans = st.orphans;
    return route_still_right(&r->route, &r->route_opt, &view);
}

/* Peers to stay connected to, whoever else is ready: without reservations
 * only a suspect itself can clear the suspicion, and an order names one. */
static uint64_t
peers_to_keep(struct router *r)
{
    uint64_t keep = r->route.suspect_peers;

    if (r->route.wanted != ROUTE_SELF)
        keep |= UINT64_C(1) << r->route.wanted;
    pthread_mutex_lock(&r->lock);
    if (r->asked_peer != ROUTE_SELF && clock_ms() < r->asked_ms + ASKED_MS)
        keep |= UINT64_C(1) << r->asked_peer;
    pthread_mutex_unlock(&r->lock);
    return keep;
}

/* May the next route be made ready while the present one serves?  Only for a
 * clean move, which leaves nothing behind that has to be fenced first.  To the
 * peer that serves now it may not: GO there closes the session it has. */
static bool
may_prepare(struct router *r, enum route_do act)
{
    if (r->outside || !r->route.leave_clean || gate_is_held(&r->gate))
        return false;
    if (act == ROUTE_DO_HOME)
        return r->session != NULL; /* nothing of ours is under way here */
    return act == ROUTE_DO_OPEN && !router_has_suspects(r) &&
           !gate_dirty(&r->gate) && r->route.served_by != r->route.peer;
}

/* Put on disk whom we are about to use (to), and whom we use still. */
static int
save_move(struct router *r, int to)
{
    int from = r->outside ? to : r->route.served_by;
    bool local = to == ROUTE_SELF || from == ROUTE_SELF;

    return router_save(r, local, router_bit(to) | router_bit(from));
}

/* GO for route.peer, with the suspects of this moment.  0, or -errno and *o. */
static int
ask_for_session(struct router *r, struct session **s, struct outcome *o)
{
    struct peers_request rq = {.peer = r->route.peer};
    const char *host = peers_host(r->peers, rq.peer)->name;
    char why[256] = "";
    int e;

    rq.generation = r->route.generation;
    rq.id = r->want.id; /* these are written by this thread only */
    rq.size = r->want.size;
    rq.deadline_ms = clock_ms() + r->opt.lun->timers.open_timeout;
    e = router_add_fences(r, &rq);
    point_pass(POINT_SAVE);
    if (e == 0)
        e = save_move(r, rq.peer);
    point_pass(POINT_SAVED);
    if (e == 0)
        e = peers_open(r->peers, &rq, s, why, sizeof why);
    if (e == 0)
        return 0;
    if (e != -EACCES)
        /* GO may have been granted and the answer lost: harmless, since
         * no write follows under this generation. */
        log_debug("lun %s: GO: %s", router_lun_name(r), strerror(-e));
    failed(o, ROUTE_EV_REFUSED, "peer %s: %s", host,
           why[0] ? why : strerror(-e));
    log_warning("lun %s: route to %s refused (generation %llu): %s",
                router_lun_name(r), host, (unsigned long long)rq.generation,
                o->why);
    return e;
}

/* A session that was made ready serves only if its GO, which fenced nobody,
 * had nobody to fence.  Else another generation has to ask. */
static struct session *
still_good(struct router *r, struct session *s)
{
    if (!s || !router_has_suspects(r))
        return s;
    log_info("lun %s: writes were left behind: asking %s once more",
             router_lun_name(r), peers_host(r->peers, r->route.peer)->name);
    session_close(s);
    r->route.generation++;
    return NULL;
}

static void
perform_open(struct router *r, const struct route_view *view, struct outcome *o)
{
    struct session *s = NULL;

    if (may_prepare(r, ROUTE_DO_OPEN)) {
        if (ask_for_session(r, &s, o) < 0)
            return;
        /* others stand by in their place, should it have to be asked again */
        peers_tend(r->peers, &r->want, peers_to_keep(r));
    }
    if (!leave_for(r, view)) {
        session_close(s);
        failed(o, ROUTE_EV_REFUSED,
               "a predecessor's writes are under way and there is no fence");
        return;
    }
    point_pass(POINT_LEFT);
    s = still_good(r, s);
    if (!s && ask_for_session(r, &s, o) < 0)
        return;
    r->session = s;
    r->outside = false;
    set_session_size(r, session_limits(s)->size);
    /* Its proxy has waited for what an older session had left there. */
    gate_clear(&r->gate, r->route.peer, gate_serial(&r->gate));
    gate_open_peer(&r->gate, r->route.peer, s);
    point_pass(POINT_OPENED);
    *o = (struct outcome){.ev = {.kind = ROUTE_EV_OPENED}};
}

static int
register_now(struct router *r)
{
    int e;

    pthread_mutex_lock(&r->register_lock);
    e = router_is_closing(r) ? -ESHUTDOWN
                             : lun_register(r->lun, clock_ms() + REGISTER_MS);
    pthread_mutex_unlock(&r->register_lock);
    return e;
}

/* These two: 0, or -errno and *o. */
static int
register_home(struct router *r, struct outcome *o)
{
    int e = register_now(r);

    if (e < 0)
        failed(o, ROUTE_EV_HOME_FAILED, "cannot register on the LUN: %s",
               strerror(-e));
    return e;
}

static int
save_home(struct router *r, struct outcome *o)
{
    int e = save_move(r, ROUTE_SELF);

    if (e < 0)
        failed(o, ROUTE_EV_HOME_FAILED, "cannot save state: %s", strerror(-e));
    return e;
}

static void
perform_home(struct router *r, const struct route_view *view, struct outcome *o)
{
    const struct config_host *suspect = NULL;
    struct lun_status st;
    bool prepared = may_prepare(r, ROUTE_DO_HOME);
    int e;

    if (prepared && (register_home(r, o) < 0 || save_home(r, o) < 0))
        return;
    if (!leave_for(r, view)) {
        failed(o, ROUTE_EV_HOME_FAILED,
               "writes over our own paths, or a predecessor's, are under way "
               "and there is no fence");
        return;
    }
    point_pass(POINT_HOME_LEFT);
    lun_get_status(r->lun, &st);
    /* A registration that is still ours is as good as a new one. */
    if (!(prepared && st.registration == LUN_REGISTERED) &&
        register_home(r, o) < 0)
        return;
    point_pass(POINT_HOME_REGISTERED);
    e = router_fence_suspects(r, &suspect);
    if (e < 0) {
        failed(o, ROUTE_EV_HOME_FAILED, "cannot fence host %s: %s",
               suspect->name, strerror(-e));
        return;
    }
    point_pass(POINT_HOME_FENCED);
    lun_get_status(r->lun, &st);
    if (st.registration != LUN_REGISTERED) {
        failed(o, ROUTE_EV_HOME_FAILED, "fenced again while coming home");
        return;
    }
    if (!prepared && save_home(r, o) < 0)
        return;
    point_pass(POINT_HOME_SAVED);
    r->outside = false;
    gate_open_local(&r->gate, st.registration_no);
    point_pass(POINT_HOME_OPENED);
    *o = (struct outcome){.ev = {.kind = ROUTE_EV_HOME}};
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
    peers_tend(r->peers, &r->want, peers_to_keep(r));
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

/* One event and all that follows from it. */
static void
handle(struct router *r, const struct route_event *first,
       struct route_view *view, struct route_peer *peers)
{
    struct outcome o = {.ev = *first};
    struct monitor_status m;

    for (;;) {
        enum route_phase before = r->route.phase;
        bool was_shut = r->route.latch.shut;
        enum route_do act =
            route_step(&r->route, &r->route_opt, view, &o.ev, clock_ms());
        bool arrived =
            o.ev.kind == ROUTE_EV_OPENED || o.ev.kind == ROUTE_EV_HOME;

        tell(r, before);
        tell_latch(r, was_shut);
        if (before == ROUTE_LOCAL && r->route.phase != before)
            point_pass(POINT_LOST);
        if (route_holds(r->route.phase) && !may_prepare(r, act))
            gate_hold(&r->gate);
        publish(r, view);
        if (arrived)
            router_arrived(r);
        if (act == ROUTE_DO_NOTHING || router_is_closing(r)) {
            close_retired(r);
            return;
        }
        if (act == ROUTE_DO_OPEN)
            perform_open(r, view, &o);
        else
            perform_home(r, view, &o);
        look(r, view, peers, &m);
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
    return current && (p->serial == 0 || !r->outside);
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
            handle(r, &ev, &view, peers);
        while (next_posted(r, &p)) {
            ev = (struct route_event){p.kind, p.peer, p.why, p.for_ms};
            if (still_current(r, &p))
                handle(r, &ev, &view, peers);
        }
        ev = (struct route_event){.kind = ROUTE_EV_TICK};
        if (view.local_lost || view.local_slow)
            ev.why = m.verdict.reason;
        handle(r, &ev, &view, peers);
        router_ask_suspects(r, &view);
        enlist_registrar(r, &view, &m);
    } while (wait_for_news(r, next_look(r, &view)));
    r->route.leave_clean = true;
    leave(r);
    close_retired(r);
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
