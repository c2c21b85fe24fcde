/* SPDX-License-Identifier: BSD-3-Clause */
/* A move of the route: leaves one, opens the next; the router's thread only.
 *
 * A planned move, which has nobody to fence, is made ready first: both routes
 * on disk, and GO granted, or our right to write here.  Requests are then held
 * for the drain alone.  Any other move begins with the leaving, since only that
 * tells who has to be fenced. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/point.h"
#include "plugin/router_impl.h"

/* Bounds of what the router's thread waits for, so that a stop is quick. */
#define CLOSING_MS 1000 /* for what is under way, once we are told to end */

/* ---- leaving a route --------------------------------------------------- */

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

/* Did own paths fail while requests are still under way there, which may hang?
 * What a peer's broken connection carried has come back. */
static bool
is_lost(struct router *r)
{
    uint64_t serial = gate_serial(&r->gate);
    struct monitor_status m;
    bool told = false;

    if (r->session)
        return false;
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->nevents; i++)
        told = told || (r->events[i].serial == serial &&
                        r->events[i].kind == ROUTE_EV_LOCAL_ERROR);
    pthread_mutex_unlock(&r->lock);
    monitor_get(r->monitor, &m);
    return told || m.verdict.state == VERDICT_LOST;
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
    } while (now < until && !is_lost(r));
    return false;
}

static void
set_session_size(struct router *r, uint64_t size)
{
    pthread_mutex_lock(&r->lock);
    r->session_size = size;
    pthread_mutex_unlock(&r->lock);
}

void
router_close_retired(struct router *r)
{
    session_close(r->retired);
    r->retired = NULL;
}

void
router_leave(struct router *r)
{
    bool drained = false;

    if (r->route.left)
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
    router_close_retired(r);
    session_retire(r->session);
    if (!r->session)
        lun_release(r->lun);
    r->retired = r->session;
    r->session = NULL;
    set_session_size(r, UINT64_MAX);
}

/* ---- performing -------------------------------------------------------- */

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

    router_leave(r);
    lun_get_status(r->lun, &st);
    view.local_orphans = st.orphans;
    return route_still_right(&r->route, &r->route_opt, &view);
}

uint64_t
router_peers_to_keep(struct router *r)
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

bool
router_may_prepare(struct router *r, enum route_do act)
{
    if (r->route.left || !r->route.leave_clean || gate_is_held(&r->gate))
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
    int from = r->route.left ? to : r->route.served_by;
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
    rq.yields = !r->route.left;
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
    if (e == -ESHUTDOWN)
        return e; /* it is we that gave up */
    log_warning("lun %s: route to %s refused (generation %llu): %s",
                router_lun_name(r), host, (unsigned long long)rq.generation,
                o->why);
    return e;
}

/* One that never served: nothing is under way there to be waited for. */
static void
discard(struct session *s)
{
    if (s)
        session_break(s);
    session_close(s);
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
    discard(s);
    r->route.generation++;
    return NULL;
}

static void
perform_open(struct router *r, const struct route_view *view, struct outcome *o)
{
    struct session *s = NULL;

    peers_yield(r->peers, false); /* of what came before we know below */
    if (router_may_prepare(r, ROUTE_DO_OPEN) && !is_lost(r)) {
        if (ask_for_session(r, &s, o) < 0)
            return;
        /* others stand by in their place, should it have to be asked again */
        peers_tend(r->peers, &r->want, router_peers_to_keep(r));
    }
    if (!leave_for(r, view)) {
        discard(s);
        failed(o, ROUTE_EV_REFUSED,
               "a predecessor's writes are under way and there is no fence");
        return;
    }
    point_pass(POINT_LEFT);
    s = still_good(r, s);
    if (!s && ask_for_session(r, &s, o) < 0)
        return;
    r->session = s;
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
    bool prepared = router_may_prepare(r, ROUTE_DO_HOME);
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
    gate_open_local(&r->gate, st.registration_no);
    point_pass(POINT_HOME_OPENED);
    *o = (struct outcome){.ev = {.kind = ROUTE_EV_HOME}};
}

void
router_perform(struct router *r, enum route_do act,
               const struct route_view *view, struct outcome *o)
{
    if (act == ROUTE_DO_OPEN)
        perform_open(r, view, o);
    else
        perform_home(r, view, o);
}
