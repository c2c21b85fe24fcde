/* SPDX-License-Identifier: BSD-3-Clause */
/* The route's decisions: no I/O, no clock, no thread.
 *
 *  phase       event                guard             next
 *  ----------  -------------------  ----------------  ------------------------
 *  QUEUEING    tick, any order      next_route()      OPENING, RETURNING
 *  OPENING     opened                                 REDIRECTED
 *              refused              next_route()      OPENING (another peer),
 *                                                     RETURNING, QUEUEING
 *  REDIRECTED  peer lost            next_route()      as refused, the same
 *                                                     peer first
 *              peer drains, failed  next_route()      as refused, the same
 *                                                     peer in the next round
 *              tick                 may_return()      RETURNING
 *              tick, order is over  may_go_home(),
 *                                   latch is open     RETURNING
 *              order to redirect    another is ready  OPENING
 *              order to return      may_go_home()     RETURNING
 *  RETURNING   home                                   LOCAL
 *              home failed          next_route()      as refused
 *  these two   refused, failed      still_served()    another peer, or the
 *                                                     route as it was
 *  LOCAL       path error           next_route()      as refused, home in the
 *                                                     next round
 *              tick                 paths are lost    the same
 *              tick, fenced         fenced            RETURNING
 *              tick                 slow, for long    as refused, home in the
 *                                   enough at home,   same round, and only by
 *                                   a better peer     peers that are not slow
 *              order to redirect    a peer is ready   OPENING
 *
 * OPENING has the action ROUTE_DO_OPEN, RETURNING ROUTE_DO_HOME.  On a clean
 * move the route that is left may serve until the next one is ready.
 * Whatever is not listed changes nothing: results of actions cannot come in
 * other phases, and reports about a route that was left are late.
 */
#include "plugin/route.h"

#include <stdio.h>
#include <string.h>

#include "common/rules.h"

static const char *const phase_names[] = {
    [ROUTE_QUEUEING] = "queueing",     [ROUTE_OPENING] = "opening",
    [ROUTE_REDIRECTED] = "redirected", [ROUTE_RETURNING] = "returning",
    [ROUTE_LOCAL] = "local",
};

static const char *const event_names[ROUTE_EVENTS] = {
    [ROUTE_EV_TICK] = "paths",
    [ROUTE_EV_LOCAL_ERROR] = "local_error",
    [ROUTE_EV_FENCED] = "fenced",
    [ROUTE_EV_PEER_LOST] = "peer_lost",
    [ROUTE_EV_PEER_ERROR] = "peer_error",
    [ROUTE_EV_PEER_DRAINS] = "peer_drains",
    [ROUTE_EV_OPENED] = "opened",
    [ROUTE_EV_REFUSED] = "refused",
    [ROUTE_EV_HOME] = "home",
    [ROUTE_EV_HOME_FAILED] = "home_failed",
    [ROUTE_EV_REDIRECT] = "ordered_redirect",
    [ROUTE_EV_RETURN] = "ordered_return",
};

const char *
route_event_name(enum route_event_kind k)
{
    return event_names[k];
}

const char *
route_phase_name(enum route_phase p)
{
    return phase_names[p];
}

bool
route_holds(enum route_phase p)
{
    return p != ROUTE_LOCAL && p != ROUTE_REDIRECTED;
}

static uint64_t
bit(int peer)
{
    return peer < 0 ? 0 : UINT64_C(1) << peer;
}

void
route_init(struct route *r, const struct route_options *opt, uint64_t now_ms)
{
    memset(r, 0, sizeof *r);
    r->phase = ROUTE_QUEUEING;
    r->since_ms = r->started_ms = now_ms;
    r->peer = r->served_by = r->wanted = ROUTE_SELF;
    r->left = true;
    r->hold_down_ms = opt->failback_after_ms;
    snprintf(r->reason, sizeof r->reason, "starting");
}

uint64_t
route_hold_down_ms(const struct route *r, const struct route_options *opt)
{
    return r->hold_down_ms + opt->failback_jitter_ms;
}

/* The one place that changes the phase. */
static enum route_do
enter(struct route *r, enum route_phase phase, const char *why,
      enum route_do act, uint64_t now_ms)
{
    if (!route_holds(r->phase)) {
        r->stayed_since_ms = r->since_ms;
        r->stayed_redirected_ms = r->redirected_ms;
    }
    if (phase != r->phase) {
        if (r->phase == ROUTE_REDIRECTED)
            r->redirected_ms += now_ms - r->since_ms;
        r->since_ms = now_ms;
        r->changes++;
    }
    if (why)
        snprintf(r->reason, sizeof r->reason, "%s", why);
    r->phase = phase;
    return act;
}

static enum route_do
open_peer(struct route *r, int peer, const char *why, uint64_t now_ms)
{
    r->peer = peer;
    r->tried |= bit(peer);
    r->generation++;
    return enter(r, ROUTE_OPENING, why, ROUTE_DO_OPEN, now_ms);
}

static enum route_do
go_home(struct route *r, const char *why, uint64_t now_ms)
{
    r->tried_home = true;
    r->quiet = r->phase == ROUTE_REDIRECTED;
    /* To our own paths from our own paths: they work again, so that what is
     * still under way there may finish. */
    if (r->served_by == ROUTE_SELF)
        r->leave_clean = true;
    return enter(r, ROUTE_RETURNING, why, ROUTE_DO_HOME, now_ms);
}

/* Without reservations nobody can be fenced.  Writes whose ranges are known
 * are waited for by the gate; for those of a predecessor the route waits here:
 * until they have come back (ours), or for the very proxy that may hold them.
 * Home goes nobody while our own paths still hold a write: it was perhaps
 * they that hung.  peer ROUTE_SELF: going home. */
static bool
suspects_allow(const struct route *r, const struct route_options *opt,
               const struct route_view *view, int peer)
{
    if (r->stray)
        return false;
    if (opt->reservations)
        return true;
    if (view->local_orphans > 0 &&
        (r->unknown_self || (r->suspect_self && peer == ROUTE_SELF)))
        return false;
    return (r->unknown_peers & ~bit(peer)) == 0;
}

bool
route_still_right(const struct route *r, const struct route_options *opt,
                  const struct route_view *view)
{
    return suspects_allow(r, opt, view,
                          r->phase == ROUTE_OPENING ? r->peer : ROUTE_SELF);
}

static bool
may_open(const struct route *r, const struct route_options *opt,
         const struct route_view *view, int peer)
{
    return view->peers[peer].ready && !(r->tried & bit(peer)) &&
           !(r->pace && view->peers[peer].slow) &&
           suspects_allow(r, opt, view, peer);
}

/* The peer to ask next, or ROUTE_SELF: the one that was ordered; one that
 * may hold orphans of ours, since opening there fences nobody; the least
 * loaded. */
static int
choose_peer(const struct route *r, const struct route_options *opt,
            const struct route_view *view)
{
    int best = ROUTE_SELF;

    if (r->wanted != ROUTE_SELF && may_open(r, opt, view, r->wanted))
        return r->wanted;
    for (int i = 0; i < (int)opt->npeers; i++) {
        if (!may_open(r, opt, view, i))
            continue;
        if ((r->suspect_peers & bit(i)) || i == r->served_by)
            return i;
        if (best == ROUTE_SELF || view->peers[i].load < view->peers[best].load)
            best = i;
    }
    return best;
}

static bool
home_possible(const struct route *r, const struct route_options *opt,
              const struct route_view *view)
{
    if (r->tried_home || !view->local_usable)
        return false;
    return suspects_allow(r, opt, view, ROUTE_SELF);
}

static void
begin_round(struct route *r)
{
    r->tried = 0;
    r->tried_home = r->pace = false;
}

/* Requests wait: find them somewhere to go.  prefer_home: our own paths are
 * as good a place as a peer. */
static enum route_do
next_route(struct route *r, const struct route_options *opt,
           const struct route_view *view, const char *why, bool prefer_home,
           uint64_t now_ms)
{
    int peer;

    if (!home_possible(r, opt, view))
        r->pace = false; /* slow is better than nobody */
    peer = choose_peer(r, opt, view);
    if (prefer_home && home_possible(r, opt, view) &&
        (peer == ROUTE_SELF || !(r->suspect_peers & bit(peer))))
        return go_home(r, why, now_ms);
    if (peer != ROUTE_SELF)
        return open_peer(r, peer, why, now_ms);
    if (home_possible(r, opt, view))
        return go_home(r, why, now_ms);
    /* Not with each tick: under a stream of news the next round would never
     * begin. */
    if (r->phase != ROUTE_QUEUEING || now_ms >= r->retry_at_ms)
        r->retry_at_ms = now_ms + opt->retry_ms;
    r->peer = ROUTE_SELF;
    /* The first reason is the one to tell, not that of the last refusal. */
    return enter(r, ROUTE_QUEUEING, r->phase == ROUTE_QUEUEING ? NULL : why,
                 ROUTE_DO_NOTHING, now_ms);
}

static void
slow_down(struct route *r, const struct route_options *opt)
{
    if (r->hold_down_ms * 2 < opt->failback_max_ms)
        r->hold_down_ms *= 2;
    else
        r->hold_down_ms = opt->failback_max_ms;
}

/* Our own paths failed: if soon after a return, be slower to return again. */
static void
damp(struct route *r, const struct route_options *opt, uint64_t now_ms)
{
    if (r->home_ms == 0)
        return;
    if (now_ms - r->home_ms >= opt->failback_max_ms)
        r->hold_down_ms = opt->failback_after_ms;
    else
        slow_down(r, opt);
}

static enum route_do
leave_local(struct route *r, const struct route_options *opt,
            const struct route_view *view, const char *why, uint64_t now_ms)
{
    damp(r, opt, now_ms);
    begin_round(r);
    /* That our paths work is older news than this error. */
    r->tried_home = view->local_usable;
    r->leave_clean = false;
    return next_route(r, opt, view, why, false, now_ms);
}

/* Our own paths are slow.  They still serve: what is under way may finish, and
 * they are as good as before when nobody who is better serves us.  Not before
 * they have had their hold-down at home, or two slow hosts would throw the I/O
 * to and fro. */
static enum route_do
leave_slow(struct route *r, const struct route_options *opt,
           const struct route_view *view, const char *why, uint64_t now_ms)
{
    int peer;

    if (now_ms < r->home_ms + route_hold_down_ms(r, opt))
        return ROUTE_DO_NOTHING;
    begin_round(r);
    r->pace = true;
    peer = choose_peer(r, opt, view);
    if (peer == ROUTE_SELF)
        return ROUTE_DO_NOTHING;
    damp(r, opt, now_ms);
    r->leave_clean = true;
    return open_peer(r, peer, why, now_ms);
}

static enum route_do
leave_peer(struct route *r, const struct route_options *opt,
           const struct route_view *view, bool clean, const char *why,
           uint64_t now_ms)
{
    begin_round(r);
    r->leave_clean = clean;
    if (clean) /* it told us to go: ask it last */
        r->tried |= bit(r->peer);
    return next_route(r, opt, view, why, false, now_ms);
}

/* An order to redirect holds from now on, in place of the one before. */
static void
hold_order(struct route *r, const struct route_event *ev, uint64_t now_ms)
{
    r->manual = true;
    r->manual_until_ms = ev->for_ms ? now_ms + ev->for_ms : 0;
}

static void
drop_order(struct route *r)
{
    r->manual = false;
    r->manual_until_ms = 0;
    r->wanted = ROUTE_SELF;
}

static bool
order_is_over(const struct route *r, uint64_t now_ms)
{
    return r->manual && r->manual_until_ms != 0 && now_ms >= r->manual_until_ms;
}

static enum route_do
order_redirect(struct route *r, const struct route_options *opt,
               const struct route_view *view, const struct route_event *ev,
               uint64_t now_ms)
{
    bool there = r->phase == ROUTE_REDIRECTED;
    int peer;

    r->wanted = ev->peer;
    if (there)
        hold_order(r, ev, now_ms);
    if (there && (ev->peer == ROUTE_SELF || ev->peer == r->peer))
        return ROUTE_DO_NOTHING;
    begin_round(r);
    peer = choose_peer(r, opt, view);
    if (peer == ROUTE_SELF || (there && peer == r->peer))
        return ROUTE_DO_NOTHING;
    hold_order(r, ev, now_ms);
    r->leave_clean = true;
    return open_peer(r, peer, ev->why, now_ms);
}

/* Would a return be short?  VMs wait while it is under way. */
static bool
may_go_home(const struct route_view *view)
{
    return view->local_usable && view->local_orphans == 0;
}

/* From a peer that serves well. */
static enum route_do
come_home(struct route *r, const char *why, uint64_t now_ms)
{
    begin_round(r);
    r->leave_clean = true;
    return go_home(r, why, now_ms);
}

static enum route_do
order_return(struct route *r, const struct route_view *view, const char *why,
             uint64_t now_ms)
{
    drop_order(r);
    latch_open(&r->latch);
    if (!may_go_home(view))
        return ROUTE_DO_NOTHING;
    return come_home(r, why, now_ms);
}

/* The earliest moment of a return without an order. */
static uint64_t
return_ms(const struct route *r, const struct route_options *opt,
          const struct route_view *view)
{
    uint64_t from = view->local_good_ms;

    if (r->home_failed_ms > from)
        from = r->home_failed_ms;
    return from + route_hold_down_ms(r, opt);
}

static bool
may_return(const struct route *r, const struct route_options *opt,
           const struct route_view *view, uint64_t now_ms)
{
    return !r->manual && !r->latch.shut && may_go_home(view) &&
           view->local_registered && view->local_good_ms != 0 &&
           now_ms >= return_ms(r, opt, view);
}

/* Fenced while our paths work: register anew, with nothing under way. */
static enum route_do
recover(struct route *r, uint64_t now_ms)
{
    begin_round(r);
    r->leave_clean = true; /* conflicts come back by themselves */
    return go_home(r, "fenced by another host", now_ms);
}

static enum route_do
step_local(struct route *r, const struct route_options *opt,
           const struct route_view *view, const struct route_event *ev,
           uint64_t now_ms)
{
    switch (ev->kind) {
    case ROUTE_EV_LOCAL_ERROR:
        return leave_local(r, opt, view, ev->why, now_ms);
    case ROUTE_EV_REDIRECT:
        return order_redirect(r, opt, view, ev, now_ms);
    case ROUTE_EV_TICK:
        if (view->local_lost)
            return leave_local(r, opt, view, ev->why, now_ms);
        if (view->local_fenced)
            return recover(r, now_ms);
        if (view->local_slow)
            return leave_slow(r, opt, view, ev->why, now_ms);
        return ROUTE_DO_NOTHING;
    case ROUTE_EV_FENCED:
        return recover(r, now_ms);
    case ROUTE_EV_RETURN: /* we are there: trust our own paths again */
        latch_open(&r->latch);
        return ROUTE_DO_NOTHING;
    default:
        return ROUTE_DO_NOTHING;
    }
}

static enum route_do
tick_redirected(struct route *r, const struct route_options *opt,
                const struct route_view *view, uint64_t now_ms)
{
    latch_tick(&r->latch, view->local_good_ms, now_ms);
    if (order_is_over(r, now_ms)) {
        drop_order(r);
        r->ordered = true;
        if (!r->latch.shut && may_go_home(view))
            return come_home(r, "the time of the order is over", now_ms);
    }
    if (may_return(r, opt, view, now_ms))
        return come_home(r, "own paths are good again", now_ms);
    return ROUTE_DO_NOTHING;
}

static enum route_do
step_redirected(struct route *r, const struct route_options *opt,
                const struct route_view *view, const struct route_event *ev,
                uint64_t now_ms)
{
    switch (ev->kind) {
    case ROUTE_EV_PEER_LOST:
        return leave_peer(r, opt, view, false, ev->why, now_ms);
    case ROUTE_EV_PEER_ERROR:
    case ROUTE_EV_PEER_DRAINS:
        return leave_peer(r, opt, view, true, ev->why, now_ms);
    case ROUTE_EV_REDIRECT:
        return order_redirect(r, opt, view, ev, now_ms);
    case ROUTE_EV_RETURN:
        return order_return(r, view, ev->why, now_ms);
    case ROUTE_EV_TICK:
        return tick_redirected(r, opt, view, now_ms);
    default:
        return ROUTE_DO_NOTHING;
    }
}

/* At start our own paths get a little time before a peer is asked, unless a
 * predecessor left orphans at one. */
static bool
still_settling(const struct route *r, const struct route_options *opt,
               const struct route_view *view, uint64_t now_ms)
{
    return r->home_ms == 0 && r->changes == 0 && !view->local_usable &&
           !view->local_lost && r->suspect_peers == 0 &&
           now_ms - r->started_ms < opt->settle_ms;
}

static enum route_do
step_queueing(struct route *r, const struct route_options *opt,
              const struct route_view *view, const struct route_event *ev,
              uint64_t now_ms)
{
    if (ev->kind == ROUTE_EV_REDIRECT)
        hold_order(r, ev, now_ms), r->wanted = ev->peer;
    else if (ev->kind == ROUTE_EV_RETURN)
        drop_order(r), latch_open(&r->latch);
    else if (ev->kind != ROUTE_EV_TICK)
        return ROUTE_DO_NOTHING;
    if (order_is_over(r, now_ms))
        drop_order(r);
    if (still_settling(r, opt, view, now_ms))
        return ROUTE_DO_NOTHING;
    if (now_ms >= r->retry_at_ms)
        begin_round(r);
    return next_route(r, opt, view,
                      r->changes == 0 ? NULL : "a way was found again",
                      !r->manual && !r->latch.shut, now_ms);
}

void
route_cleared(struct route *r, int peer)
{
    if (peer == ROUTE_SELF)
        r->suspect_self = r->unknown_self = false;
    r->suspect_peers &= ~bit(peer);
    r->unknown_peers &= ~bit(peer);
}

/* A fence ends every suspicion.  Without it the new route's own carrier was
 * waited for; what the others hold is the gate's to know. */
static void
arrived(struct route *r, const struct route_options *opt,
        const struct route_view *view, int carrier)
{
    r->left = false;
    begin_round(r);
    route_cleared(r, carrier);
    if (opt->reservations)
        r->suspect_peers = r->unknown_peers = 0;
    if (opt->reservations || view->local_orphans == 0)
        route_cleared(r, ROUTE_SELF);
}

/* Did the move fail while it was made ready, so that the I/O still flows?  On
 * own paths that were lost meanwhile it does not, and nothing is to finish. */
static bool
still_served(struct route *r, const struct route_view *view)
{
    if (r->left || !r->leave_clean)
        return false;
    r->leave_clean = r->served_by != ROUTE_SELF || !view->local_lost;
    return r->leave_clean;
}

/* The move has never been.  An order for it is over, unless the route is about
 * to be left for another reason. */
static enum route_do
stay(struct route *r, const struct route_view *view, const char *why,
     uint64_t now_ms)
{
    bool home = r->served_by == ROUTE_SELF;
    enum route_do act;

    r->peer = r->served_by;
    if (home && !view->held)
        drop_order(r);
    if (home && r->pace) /* slow, and not tried again at once */
        r->home_ms = now_ms;
    act = enter(r, home ? ROUTE_LOCAL : ROUTE_REDIRECTED, why, ROUTE_DO_NOTHING,
                now_ms);
    r->since_ms = r->stayed_since_ms;
    r->redirected_ms = r->stayed_redirected_ms;
    return act;
}

/* From home, another peer will do as well. */
static enum route_do
stay_or_open(struct route *r, const struct route_options *opt,
             const struct route_view *view, const char *why, uint64_t now_ms)
{
    int peer = ROUTE_SELF;

    if (r->served_by == ROUTE_SELF && !view->held)
        peer = choose_peer(r, opt, view);
    if (peer == ROUTE_SELF)
        return stay(r, view, why, now_ms);
    return open_peer(r, peer, why, now_ms);
}

static enum route_do
step_opening(struct route *r, const struct route_options *opt,
             const struct route_view *view, const struct route_event *ev,
             uint64_t now_ms)
{
    switch (ev->kind) {
    case ROUTE_EV_OPENED:
        arrived(r, opt, view, r->peer);
        /* not from a start, before which nothing is known */
        if (r->served_by == ROUTE_SELF && r->home_ms != 0 && !r->ordered)
            latch_switched(&r->latch, opt->switch_limit, true, now_ms);
        r->served_by = r->peer;
        return enter(r, ROUTE_REDIRECTED, NULL, ROUTE_DO_NOTHING, now_ms);
    case ROUTE_EV_REFUSED:
        if (still_served(r, view))
            return stay_or_open(r, opt, view, ev->why, now_ms);
        return next_route(r, opt, view, ev->why, false, now_ms);
    default:
        return ROUTE_DO_NOTHING;
    }
}

static enum route_do
step_returning(struct route *r, const struct route_options *opt,
               const struct route_view *view, const struct route_event *ev,
               uint64_t now_ms)
{
    switch (ev->kind) {
    case ROUTE_EV_HOME:
        arrived(r, opt, view, ROUTE_SELF);
        drop_order(r); /* perhaps no peer would serve: VMs go before orders */
        if (r->served_by != ROUTE_SELF && !r->ordered)
            latch_switched(&r->latch, opt->switch_limit, false, now_ms);
        latch_home(&r->latch);
        r->peer = r->served_by = ROUTE_SELF;
        r->home_ms = now_ms;
        return enter(r, ROUTE_LOCAL, NULL, ROUTE_DO_NOTHING, now_ms);
    case ROUTE_EV_HOME_FAILED:
        if (r->quiet) { /* the VMs were well where they were */
            slow_down(r, opt);
            r->home_failed_ms = now_ms;
        }
        if (still_served(r, view))
            return stay(r, view, ev->why, now_ms);
        return next_route(r, opt, view, ev->why, false, now_ms);
    default:
        return ROUTE_DO_NOTHING;
    }
}

static enum route_do
step(struct route *r, const struct route_options *opt,
     const struct route_view *view, const struct route_event *ev,
     uint64_t now_ms)
{
    switch (r->phase) {
    case ROUTE_LOCAL:
        return step_local(r, opt, view, ev, now_ms);
    case ROUTE_REDIRECTED:
        return step_redirected(r, opt, view, ev, now_ms);
    case ROUTE_OPENING:
        return step_opening(r, opt, view, ev, now_ms);
    case ROUTE_RETURNING:
        return step_returning(r, opt, view, ev, now_ms);
    case ROUTE_QUEUEING:
        return step_queueing(r, opt, view, ev, now_ms);
    }
    return ROUTE_DO_NOTHING;
}

enum route_do
route_step(struct route *r, const struct route_options *opt,
           const struct route_view *view, const struct route_event *ev,
           uint64_t now_ms)
{
    enum route_phase before = r->phase;
    enum route_do act;

    if (before != ROUTE_OPENING && before != ROUTE_RETURNING)
        r->ordered =
            ev->kind == ROUTE_EV_REDIRECT || ev->kind == ROUTE_EV_RETURN;
    act = step(r, opt, view, ev, now_ms);
    if (r->phase != before)
        r->entered[r->phase][ev->kind]++;
    return act;
}

void
route_left(struct route *r, bool dirty)
{
    r->left = true;
    if (!dirty)
        return;
    if (r->served_by == ROUTE_SELF)
        r->suspect_self = rule_kept(RULE_SUSPECT_SELF);
    else if (rule_kept(RULE_SUSPECT_PEER))
        r->suspect_peers |= bit(r->served_by);
}

/* A time that has passed was waited for with something else, which is looked
 * at as often as everything that is tried again. */
static uint64_t
after(const struct route_options *opt, uint64_t now_ms, uint64_t then_ms)
{
    return then_ms > now_ms ? then_ms : now_ms + opt->retry_ms;
}

uint64_t
route_next_ms(const struct route *r, const struct route_options *opt,
              const struct route_view *view, uint64_t now_ms)
{
    switch (r->phase) {
    case ROUTE_LOCAL:
        if (!view->local_slow)
            return UINT64_MAX;
        return after(opt, now_ms, r->home_ms + route_hold_down_ms(r, opt));
    case ROUTE_QUEUEING:
        if (still_settling(r, opt, view, now_ms))
            return r->started_ms + opt->settle_ms;
        return r->retry_at_ms > now_ms ? r->retry_at_ms
                                       : now_ms + opt->retry_ms;
    case ROUTE_REDIRECTED:
        if (r->manual)
            return r->manual_until_ms ? after(opt, now_ms, r->manual_until_ms)
                                      : UINT64_MAX;
        if (view->local_good_ms == 0)
            return UINT64_MAX;
        if (r->latch.shut)
            return after(opt, now_ms, view->local_good_ms + LATCH_WINDOW_MS);
        if (return_ms(r, opt, view) > now_ms)
            return return_ms(r, opt, view);
        return now_ms + opt->retry_ms; /* orphans keep us, or no key */
    default:
        return UINT64_MAX;
    }
}
