/* SPDX-License-Identifier: BSD-3-Clause */
/* The route's decisions: stories of events and results, and a long random
 * walk that checks what must hold whatever comes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "plugin/route.h"

#define PEERS 3
#define SELF  ROUTE_SELF
#define START 10000

#define QUEUEING   ROUTE_QUEUEING
#define OPENING    ROUTE_OPENING
#define REDIRECTED ROUTE_REDIRECTED
#define RETURNING  ROUTE_RETURNING
#define LOCAL      ROUTE_LOCAL

#define NOTHING ROUTE_DO_NOTHING
#define OPEN    ROUTE_DO_OPEN
#define HOME    ROUTE_DO_HOME

static const struct route_options normal = {
    .npeers = PEERS,
    .reservations = true,
    .failback_after_ms = 10000,
    .failback_max_ms = 300000,
    .failback_jitter_ms = 500,
    .settle_ms = 1000,
    .retry_ms = 500,
    .switch_limit = 10,
};

/* A route and the world around it. */
struct world {
    struct route_options opt;
    struct route r;
    struct route_peer peers[PEERS];
    struct route_view view;
    uint64_t now;
    uint64_t for_ms; /* of orders to redirect */
};

static void
setup(struct world *w)
{
    memset(w, 0, sizeof *w);
    w->opt = normal;
    w->now = START;
    w->view.peers = w->peers;
    route_init(&w->r, &w->opt, w->now);
}

static enum route_do
step(struct world *w, enum route_event_kind kind, int peer)
{
    struct route_event ev = {
        .kind = kind, .peer = peer, .why = "test", .for_ms = w->for_ms};

    return route_step(&w->r, &w->opt, &w->view, &ev, w->now);
}

static void
own_paths(struct world *w, bool work)
{
    w->view.local_usable = w->view.local_registered = work;
    w->view.local_lost = !work;
    w->view.local_good_ms = work ? w->now : 0;
}

static void
peers_ready(struct world *w, unsigned bits)
{
    for (int i = 0; i < PEERS; i++)
        w->peers[i].ready = bits >> i & 1;
}

/* What the router does with an action that ends well. */
static void
succeed(struct world *w, enum route_do act, bool dirty)
{
    if (act == ROUTE_DO_NOTHING)
        return;
    route_left(&w->r, dirty);
    assert_int_equal(
        step(w, act == ROUTE_DO_OPEN ? ROUTE_EV_OPENED : ROUTE_EV_HOME, SELF),
        NOTHING);
}

static void
go_local(struct world *w)
{
    own_paths(w, true);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    succeed(w, ROUTE_DO_HOME, false);
    assert_int_equal(w->r.phase, LOCAL);
}

/* Through peer, our own paths being lost. */
static void
go_redirected(struct world *w, int peer)
{
    own_paths(w, false);
    peers_ready(w, 1u << peer);
    w->now += w->opt.settle_ms;
    succeed(w, step(w, ROUTE_EV_TICK, SELF), false);
    assert_int_equal(w->r.phase, REDIRECTED);
    assert_int_equal(w->r.peer, peer);
}

/* ---- every phase and every event --------------------------------------- */

/* What an event leads to, all peers being ready and our own paths as told;
 * the route was through peer 1 where it was redirected. */
struct line {
    enum route_phase from;
    bool own;
    enum route_event_kind event;
    int peer; /* of the event */
    enum route_do act;
    enum route_phase to;
    int via;
};

/* clang-format off */
static const struct line lines[] = {
    {QUEUEING, 0, ROUTE_EV_TICK, SELF, OPEN, OPENING, 0},
    {QUEUEING, 1, ROUTE_EV_TICK, SELF, HOME, RETURNING, SELF},
    {QUEUEING, 0, ROUTE_EV_LOCAL_ERROR, SELF, NOTHING, QUEUEING, SELF},
    {QUEUEING, 0, ROUTE_EV_FENCED, SELF, NOTHING, QUEUEING, SELF},
    {QUEUEING, 0, ROUTE_EV_PEER_LOST, SELF, NOTHING, QUEUEING, SELF},
    {QUEUEING, 0, ROUTE_EV_PEER_ERROR, SELF, NOTHING, QUEUEING, SELF},
    {QUEUEING, 0, ROUTE_EV_PEER_DRAINS, SELF, NOTHING, QUEUEING, SELF},
    {QUEUEING, 0, ROUTE_EV_OPENED, SELF, NOTHING, QUEUEING, SELF},
    {QUEUEING, 0, ROUTE_EV_REFUSED, SELF, NOTHING, QUEUEING, SELF},
    {QUEUEING, 0, ROUTE_EV_HOME, SELF, NOTHING, QUEUEING, SELF},
    {QUEUEING, 0, ROUTE_EV_HOME_FAILED, SELF, NOTHING, QUEUEING, SELF},
    {QUEUEING, 1, ROUTE_EV_REDIRECT, 2, OPEN, OPENING, 2},
    {QUEUEING, 1, ROUTE_EV_RETURN, SELF, HOME, RETURNING, SELF},

    {OPENING, 0, ROUTE_EV_TICK, SELF, NOTHING, OPENING, 1},
    {OPENING, 0, ROUTE_EV_LOCAL_ERROR, SELF, NOTHING, OPENING, 1},
    {OPENING, 0, ROUTE_EV_FENCED, SELF, NOTHING, OPENING, 1},
    {OPENING, 0, ROUTE_EV_PEER_LOST, SELF, NOTHING, OPENING, 1},
    {OPENING, 0, ROUTE_EV_PEER_ERROR, SELF, NOTHING, OPENING, 1},
    {OPENING, 0, ROUTE_EV_PEER_DRAINS, SELF, NOTHING, OPENING, 1},
    {OPENING, 0, ROUTE_EV_OPENED, SELF, NOTHING, REDIRECTED, 1},
    {OPENING, 0, ROUTE_EV_REFUSED, SELF, OPEN, OPENING, 0},
    {OPENING, 0, ROUTE_EV_HOME, SELF, NOTHING, OPENING, 1},
    {OPENING, 0, ROUTE_EV_HOME_FAILED, SELF, NOTHING, OPENING, 1},
    {OPENING, 0, ROUTE_EV_REDIRECT, 2, NOTHING, OPENING, 1},
    {OPENING, 1, ROUTE_EV_RETURN, SELF, NOTHING, OPENING, 1},

    {REDIRECTED, 0, ROUTE_EV_TICK, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 1, ROUTE_EV_TICK, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 0, ROUTE_EV_LOCAL_ERROR, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 0, ROUTE_EV_FENCED, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 0, ROUTE_EV_PEER_LOST, SELF, OPEN, OPENING, 1},
    {REDIRECTED, 0, ROUTE_EV_PEER_ERROR, SELF, OPEN, OPENING, 0},
    {REDIRECTED, 0, ROUTE_EV_PEER_DRAINS, SELF, OPEN, OPENING, 0},
    {REDIRECTED, 0, ROUTE_EV_OPENED, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 0, ROUTE_EV_REFUSED, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 0, ROUTE_EV_HOME, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 0, ROUTE_EV_HOME_FAILED, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 0, ROUTE_EV_REDIRECT, 1, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 0, ROUTE_EV_REDIRECT, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 0, ROUTE_EV_REDIRECT, 2, OPEN, OPENING, 2},
    {REDIRECTED, 0, ROUTE_EV_RETURN, SELF, NOTHING, REDIRECTED, 1},
    {REDIRECTED, 1, ROUTE_EV_RETURN, SELF, HOME, RETURNING, 1},

    {RETURNING, 1, ROUTE_EV_TICK, SELF, NOTHING, RETURNING, SELF},
    {RETURNING, 1, ROUTE_EV_LOCAL_ERROR, SELF, NOTHING, RETURNING, SELF},
    {RETURNING, 1, ROUTE_EV_FENCED, SELF, NOTHING, RETURNING, SELF},
    {RETURNING, 1, ROUTE_EV_PEER_LOST, SELF, NOTHING, RETURNING, SELF},
    {RETURNING, 1, ROUTE_EV_PEER_ERROR, SELF, NOTHING, RETURNING, SELF},
    {RETURNING, 1, ROUTE_EV_PEER_DRAINS, SELF, NOTHING, RETURNING, SELF},
    {RETURNING, 1, ROUTE_EV_OPENED, SELF, NOTHING, RETURNING, SELF},
    {RETURNING, 1, ROUTE_EV_REFUSED, SELF, NOTHING, RETURNING, SELF},
    {RETURNING, 1, ROUTE_EV_HOME, SELF, NOTHING, LOCAL, SELF},
    {RETURNING, 1, ROUTE_EV_HOME_FAILED, SELF, OPEN, OPENING, 0},
    {RETURNING, 1, ROUTE_EV_REDIRECT, 2, NOTHING, RETURNING, SELF},
    {RETURNING, 1, ROUTE_EV_RETURN, SELF, NOTHING, RETURNING, SELF},

    {LOCAL, 1, ROUTE_EV_TICK, SELF, NOTHING, LOCAL, SELF},
    {LOCAL, 0, ROUTE_EV_TICK, SELF, OPEN, OPENING, 0},
    {LOCAL, 1, ROUTE_EV_LOCAL_ERROR, SELF, OPEN, OPENING, 0},
    {LOCAL, 1, ROUTE_EV_FENCED, SELF, HOME, RETURNING, SELF},
    {LOCAL, 1, ROUTE_EV_PEER_LOST, SELF, NOTHING, LOCAL, SELF},
    {LOCAL, 1, ROUTE_EV_PEER_ERROR, SELF, NOTHING, LOCAL, SELF},
    {LOCAL, 1, ROUTE_EV_PEER_DRAINS, SELF, NOTHING, LOCAL, SELF},
    {LOCAL, 1, ROUTE_EV_OPENED, SELF, NOTHING, LOCAL, SELF},
    {LOCAL, 1, ROUTE_EV_REFUSED, SELF, NOTHING, LOCAL, SELF},
    {LOCAL, 1, ROUTE_EV_HOME, SELF, NOTHING, LOCAL, SELF},
    {LOCAL, 1, ROUTE_EV_HOME_FAILED, SELF, NOTHING, LOCAL, SELF},
    {LOCAL, 1, ROUTE_EV_REDIRECT, SELF, OPEN, OPENING, 0},
    {LOCAL, 1, ROUTE_EV_REDIRECT, 2, OPEN, OPENING, 2},
    {LOCAL, 1, ROUTE_EV_RETURN, SELF, NOTHING, LOCAL, SELF},
};
/* clang-format on */

static void
reach(struct world *w, enum route_phase phase)
{
    setup(w);
    switch (phase) {
    case ROUTE_QUEUEING:
        own_paths(w, false);
        w->now += w->opt.settle_ms;
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
        return;
    case ROUTE_OPENING:
        own_paths(w, false);
        peers_ready(w, 2);
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
        return;
    case ROUTE_REDIRECTED:
        go_redirected(w, 1);
        return;
    case ROUTE_RETURNING:
        own_paths(w, true);
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
        return;
    case ROUTE_LOCAL:
        go_local(w);
        return;
    }
}

static void
test_route_every_phase_and_event(void **state)
{
    struct world w;
    struct route before;

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const struct line *l = &lines[i];
        enum route_do act;

        reach(&w, l->from);
        assert_int_equal(w.r.phase, l->from);
        before = w.r;
        peers_ready(&w, 7);
        own_paths(&w, l->own);
        act = step(&w, l->event, l->peer);
        if (act != l->act || w.r.phase != l->to || w.r.peer != l->via)
            fail_msg("line %zu, %s and event %d: action %d, %s via %d", i,
                     route_phase_name(l->from), l->event, act,
                     route_phase_name(w.r.phase), w.r.peer);
        assert_int_equal(w.r.generation,
                         before.generation + (act == ROUTE_DO_OPEN));
    }
}

/* ---- start -------------------------------------------------------------- */

static void
test_route_counts_what_led_where_and_for_how_long(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    peers_ready(&w, 1);
    for (unsigned i = 0; i < 2; i++) {
        w.now += 700;
        succeed(&w, step(&w, ROUTE_EV_REDIRECT, SELF), false);
        assert_int_equal(w.r.phase, REDIRECTED);
        w.now += 1500;
        assert_int_equal(w.r.redirected_ms, i * 1500);
        succeed(&w, step(&w, ROUTE_EV_RETURN, SELF), false);
        assert_int_equal(w.r.phase, LOCAL);
        assert_int_equal(w.r.redirected_ms, i * 1500 + 1500);
    }
    assert_int_equal(w.r.entered[OPENING][ROUTE_EV_REDIRECT], 2);
    assert_int_equal(w.r.entered[REDIRECTED][ROUTE_EV_OPENED], 2);
    assert_int_equal(w.r.entered[RETURNING][ROUTE_EV_RETURN], 2);
    assert_int_equal(w.r.entered[OPENING][ROUTE_EV_TICK], 0);
}

static void
test_route_start_gives_own_paths_time(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    peers_ready(&w, 7);
    w.now += w.opt.settle_ms - 1;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(route_next_ms(&w.r, &w.opt, &w.view, w.now),
                     START + w.opt.settle_ms);
    w.now++;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
}

static void
test_route_start_with_lost_paths_asks_at_once(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    peers_ready(&w, 7);
    own_paths(&w, false);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
}

/* The predecessor left writes at peer 2: opening there drains them, and
 * disturbs nobody; so that is better than our own good paths, and is not
 * waited for. */
static void
test_route_start_with_suspect_peer_asks_it_first(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.r.suspect_peers = 1u << 2;
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w.r.peer, 2);

    setup(&w);
    w.r.suspect_peers = 1u << 2;
    peers_ready(&w, 7);
    own_paths(&w, true);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w.r.peer, 2);
}

static void
test_route_start_with_silent_suspect_goes_home(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.r.suspect_peers = 1u << 2;
    peers_ready(&w, 3);
    own_paths(&w, true);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
    assert_int_equal(w.r.suspect_peers, 4);
    assert_int_equal(step(&w, ROUTE_EV_HOME, SELF), NOTHING);
    assert_int_equal(w.r.suspect_peers, 0);
}

static void
test_route_generation_goes_on_from_the_predecessor(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.r.generation = 41;
    go_redirected(&w, 0);
    assert_int_equal(w.r.generation, 42);
}

/* ---- suspects ----------------------------------------------------------- */

static void
test_route_dirty_leave_makes_the_carrier_a_suspect(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    own_paths(&w, false);
    peers_ready(&w, 3);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    route_left(&w.r, true);
    assert_true(w.r.suspect_self);
    assert_int_equal(w.r.suspect_peers, 0);
    /* refused: still suspected */
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_true(w.r.suspect_self);
    assert_int_equal(step(&w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_false(w.r.suspect_self);

    peers_ready(&w, 1);
    assert_int_equal(w.r.peer, 1);
    assert_int_equal(step(&w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    route_left(&w.r, true);
    assert_int_equal(w.r.suspect_peers, 2);
    assert_false(w.r.suspect_self);
}

static void
test_route_clean_leave_suspects_nobody(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_REDIRECT, SELF), OPEN);
    assert_true(w.r.leave_clean);
    route_left(&w.r, false);
    assert_false(w.r.suspect_self);
    assert_int_equal(w.r.suspect_peers, 0);
}

/* Without reservations our own orphans, of known range, keep us from going
 * home, and from nothing else. */
static void
test_route_drain_own_orphans_go_by_range(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.opt.reservations = false;
    go_local(&w);
    own_paths(&w, false);
    peers_ready(&w, 1);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    route_left(&w.r, true);
    w.view.local_orphans = 3; /* what leaving made */
    assert_true(route_still_right(&w.r, &w.opt, &w.view));
    assert_int_equal(step(&w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_int_equal(w.r.phase, REDIRECTED);
    assert_true(w.r.suspect_self); /* a successor shall know */

    own_paths(&w, true);
    peers_ready(&w, 0);
    assert_int_equal(step(&w, ROUTE_EV_PEER_LOST, SELF), NOTHING);
    assert_int_equal(w.r.phase, QUEUEING);
    w.view.local_orphans = 0;
    w.now += w.opt.retry_ms;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
    assert_int_equal(step(&w, ROUTE_EV_HOME, SELF), NOTHING);
    assert_false(w.r.suspect_self);
}

/* A lost peer's orphans are of known range: another one serves, and the
 * suspicion stays until it is cleared. */
static void
test_route_drain_peers_orphans_go_by_range(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.opt.reservations = false;
    go_redirected(&w, 1);
    peers_ready(&w, 5);
    assert_int_equal(step(&w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    route_left(&w.r, true);
    assert_true(route_still_right(&w.r, &w.opt, &w.view));
    assert_int_equal(step(&w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_int_equal(w.r.phase, REDIRECTED);
    assert_int_equal(w.r.suspect_peers, 2);
    own_paths(&w, true);
    w.now += route_hold_down_ms(&w.r, &w.opt);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
    assert_int_equal(step(&w, ROUTE_EV_HOME, SELF), NOTHING);
    assert_int_equal(w.r.suspect_peers, 2);
    route_cleared(&w.r, 1);
    assert_int_equal(w.r.suspect_peers, 0);
}

/* The peer that holds them has drained once it opens. */
static void
test_route_drain_opening_at_a_suspect_clears_it(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.opt.reservations = false;
    go_redirected(&w, 1);
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    assert_int_equal(w.r.peer, 1);
    route_left(&w.r, true);
    assert_int_equal(w.r.suspect_peers, 2);
    assert_int_equal(step(&w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_int_equal(w.r.suspect_peers, 0);
}

/* Of a predecessor's writes no range is known: only the suspect itself can
 * tell that it has drained, neither another peer nor our own paths will do. */
static void
test_route_drain_unknown_ranges_hold_everything(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.opt.reservations = false;
    w.r.suspect_peers = w.r.unknown_peers = 2;
    own_paths(&w, true);
    peers_ready(&w, 5);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    peers_ready(&w, 7);
    w.now += w.opt.retry_ms;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w.r.peer, 1);
    assert_true(route_still_right(&w.r, &w.opt, &w.view));
    assert_int_equal(step(&w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_int_equal(w.r.unknown_peers, 0);
}

/* Two of them, of whom neither vouches for the other: each is asked aside. */
static void
test_route_drain_unknown_ranges_at_two_peers(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.opt.reservations = false;
    w.r.suspect_peers = w.r.unknown_peers = 3;
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    route_cleared(&w.r, 0);
    w.now += w.opt.retry_ms;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w.r.peer, 1);
}

static void
test_route_drain_unknown_own_ranges_hold_everything(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.opt.reservations = false;
    w.r.suspect_self = w.r.unknown_self = true;
    w.view.local_orphans = 1;
    own_paths(&w, false);
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    w.view.local_orphans = 0;
    w.now += w.opt.retry_ms;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(step(&w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_false(w.r.suspect_self || w.r.unknown_self);
}

/* With reservations, too: nobody knows how to fence it. */
static void
test_route_stray_suspect_stops_everything(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.r.stray = true;
    own_paths(&w, true);
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(w.r.phase, QUEUEING);
    w.r.stray = false;
    w.now += w.opt.retry_ms;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
}

static void
test_route_reservations_make_suspects_no_obstacle(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.r.suspect_self = true;
    w.r.suspect_peers = 6;
    w.view.local_orphans = 3;
    own_paths(&w, false);
    peers_ready(&w, 1);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_true(route_still_right(&w.r, &w.opt, &w.view));
}

/* ---- which peer --------------------------------------------------------- */

static void
test_route_least_loaded_peer_first(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.peers[0].load = 7;
    w.peers[1].load = 9;
    w.peers[2].load = 2;
    peers_ready(&w, 7);
    own_paths(&w, false);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w.r.peer, 2);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(w.r.peer, 0);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(w.r.peer, 1);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), NOTHING);
    assert_int_equal(w.r.phase, QUEUEING);
    assert_int_equal(w.r.generation, 3);
}

static void
test_route_lost_peer_is_asked_again_first(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_redirected(&w, 2);
    w.peers[2].load = 1000;
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    assert_int_equal(w.r.peer, 2);
    assert_false(w.r.leave_clean);
}

static void
test_route_draining_peer_is_left_cleanly_for_another(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_redirected(&w, 2);
    peers_ready(&w, 6);
    assert_int_equal(step(&w, ROUTE_EV_PEER_DRAINS, SELF), OPEN);
    assert_int_equal(w.r.peer, 1);
    assert_true(w.r.leave_clean);

    /* nobody else: in the next round it is asked again */
    setup(&w);
    go_redirected(&w, 2);
    assert_int_equal(step(&w, ROUTE_EV_PEER_DRAINS, SELF), NOTHING);
    assert_int_equal(w.r.phase, QUEUEING);
    w.now += w.opt.retry_ms;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
}

/* ---- queueing ----------------------------------------------------------- */

/* Peers and our own paths refuse in turn; each is asked once in a round. */
static void
test_route_all_refuse_then_a_new_round(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    peers_ready(&w, 3);
    own_paths(&w, true);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
        assert_int_equal(step(&w, ROUTE_EV_HOME_FAILED, SELF), OPEN);
        assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), OPEN);
        assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), NOTHING);
        assert_int_equal(w.r.phase, QUEUEING);
        w.now += w.opt.retry_ms - 1;
        assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
        w.now++;
    }
}

/* News that come oftener than retry_ms must not put the next round off. */
static void
test_route_news_do_not_put_off_the_next_round(void **state)
{
    struct world w;
    uint64_t end;

    (void)state;
    setup(&w);
    own_paths(&w, false);
    peers_ready(&w, 1);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), NOTHING);
    end = w.now + w.opt.retry_ms;
    while (w.now < end) {
        assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
        assert_int_equal(route_next_ms(&w.r, &w.opt, &w.view, w.now), end);
        w.now += 10;
    }
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
}

static void
test_route_new_peer_is_asked_within_the_round(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    own_paths(&w, false);
    peers_ready(&w, 1);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), NOTHING);
    peers_ready(&w, 3);
    w.now++;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w.r.peer, 1);
}

/* A path error with nobody to turn to: home again, but not at once, since
 * that our paths work is older news than the error. */
static void
test_route_path_error_without_peers_pauses(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    assert_int_equal(step(&w, ROUTE_EV_LOCAL_ERROR, SELF), NOTHING);
    assert_int_equal(w.r.phase, QUEUEING);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    w.now += w.opt.retry_ms;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
    /* they work again: what is under way there may finish */
    assert_true(w.r.leave_clean);
}

static void
test_route_lost_paths_that_come_back_are_used_at_once(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    own_paths(&w, false);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    w.now += 10;
    own_paths(&w, true);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
}

/* ---- coming home -------------------------------------------------------- */

static void
test_route_returns_after_the_hold_down(void **state)
{
    struct world w;
    uint64_t due;

    (void)state;
    setup(&w);
    go_redirected(&w, 0);
    own_paths(&w, true);
    due = w.now + 10500; /* with jitter */
    assert_int_equal(route_next_ms(&w.r, &w.opt, &w.view, w.now), due);
    w.now = due - 1;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    w.now = due;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
    assert_true(w.r.leave_clean);
    succeed(&w, ROUTE_DO_HOME, false);
    assert_int_equal(w.r.phase, LOCAL);
    assert_int_equal(w.r.peer, SELF);
}

static void
test_route_orphans_or_no_key_put_a_return_off(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_redirected(&w, 0);
    own_paths(&w, true);
    w.now += 60000;
    w.view.local_orphans = 1;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(step(&w, ROUTE_EV_RETURN, SELF), NOTHING);
    w.view.local_orphans = 0;
    w.view.local_registered = false;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_true(route_next_ms(&w.r, &w.opt, &w.view, w.now) > w.now);
    w.view.local_registered = true;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
}

/* Each try holds the requests: a failing one is not repeated at once, and
 * later each time, however long our paths have been good. */
static void
test_route_failed_return_waits_longer(void **state)
{
    struct world w;
    uint64_t pause = 10000;

    (void)state;
    setup(&w);
    go_redirected(&w, 0);
    own_paths(&w, true);
    w.now += 3600000;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
        assert_int_equal(step(&w, ROUTE_EV_HOME_FAILED, SELF), OPEN);
        assert_int_equal(w.r.peer, 0);
        succeed(&w, ROUTE_DO_OPEN, false);
        pause *= 2;
        w.now += pause + w.opt.failback_jitter_ms - 1;
        assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
        w.now++;
    }
}

/* One failure of our own paths soon after a return. */
static void
flap(struct world *w)
{
    own_paths(w, false);
    succeed(w, step(w, ROUTE_EV_TICK, SELF), true);
    assert_int_equal(w->r.phase, REDIRECTED);
    own_paths(w, true);
    w->now += route_hold_down_ms(&w->r, &w->opt);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    succeed(w, ROUTE_DO_HOME, false);
}

static void
test_route_flapping_paths_are_trusted_less(void **state)
{
    static const uint64_t expected[] = {20000,  40000,  80000,
                                        160000, 300000, 300000};
    struct world w;

    (void)state;
    setup(&w);
    w.opt.switch_limit = 0;
    go_local(&w);
    peers_ready(&w, 1);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        w.now += 100;
        flap(&w);
        assert_int_equal(w.r.hold_down_ms, expected[i]);
    }
    w.now += w.opt.failback_max_ms; /* good for long: trusted again */
    flap(&w);
    assert_int_equal(w.r.hold_down_ms, w.opt.failback_after_ms);
}

/* ---- orders ------------------------------------------------------------- */

static void
test_route_order_to_redirect_is_sticky(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_REDIRECT, 1), OPEN);
    succeed(&w, ROUTE_DO_OPEN, false);
    assert_true(w.r.manual);
    w.now += 3600000;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_true(route_next_ms(&w.r, &w.opt, &w.view, w.now) == UINT64_MAX);
    assert_int_equal(step(&w, ROUTE_EV_RETURN, SELF), HOME);
    assert_false(w.r.manual);
}

static void
test_route_order_for_a_time_ends_by_itself(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    peers_ready(&w, 7);
    w.for_ms = 600000;
    succeed(&w, step(&w, ROUTE_EV_REDIRECT, 1), false);
    assert_int_equal(route_next_ms(&w.r, &w.opt, &w.view, w.now),
                     w.now + 600000);
    w.now += 600000 - 1;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    w.now++;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
    assert_false(w.r.manual);
    assert_string_equal(w.r.reason, "the time of the order is over");
}

/* Then the return is as without an order: after the hold-down. */
static void
test_route_order_that_ends_without_paths_waits_for_them(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    peers_ready(&w, 7);
    w.for_ms = 1000;
    succeed(&w, step(&w, ROUTE_EV_REDIRECT, 1), false);
    own_paths(&w, false);
    w.now += 1000;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_false(w.r.manual);
    own_paths(&w, true);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    w.now += route_hold_down_ms(&w.r, &w.opt);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
}

/* The last order counts, with its time or without. */
static void
test_route_order_takes_the_place_of_the_one_before(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    peers_ready(&w, 7);
    w.for_ms = 1000;
    succeed(&w, step(&w, ROUTE_EV_REDIRECT, 1), false);
    w.now += 900;
    assert_int_equal(step(&w, ROUTE_EV_REDIRECT, 1), NOTHING);
    w.now += 900;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    w.for_ms = 0;
    assert_int_equal(step(&w, ROUTE_EV_REDIRECT, SELF), NOTHING);
    w.now += 3600000;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_true(w.r.manual);
}

/* The time runs on while the peer is changed, or nobody serves. */
static void
test_route_order_ends_while_requests_wait(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    peers_ready(&w, 2);
    w.for_ms = 1000;
    succeed(&w, step(&w, ROUTE_EV_REDIRECT, 1), false);
    own_paths(&w, false);
    peers_ready(&w, 0);
    assert_int_equal(step(&w, ROUTE_EV_PEER_LOST, SELF), NOTHING);
    assert_int_equal(w.r.phase, QUEUEING);
    w.now += 1000;
    own_paths(&w, true);
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
    assert_false(w.r.manual);
}

static void
test_route_order_without_a_ready_peer_changes_nothing(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    assert_int_equal(step(&w, ROUTE_EV_REDIRECT, SELF), NOTHING);
    assert_int_equal(w.r.phase, LOCAL);
    assert_false(w.r.manual);

    /* redirected, by order: it stays so when another peer is not there */
    setup(&w);
    go_local(&w);
    peers_ready(&w, 2);
    succeed(&w, step(&w, ROUTE_EV_REDIRECT, 1), false);
    assert_int_equal(step(&w, ROUTE_EV_REDIRECT, 2), NOTHING);
    assert_int_equal(w.r.phase, REDIRECTED);
    assert_int_equal(w.r.peer, 1);
    assert_true(w.r.manual);
}

/* VMs go before orders: where no peer serves, our own paths do. */
static void
test_route_order_is_given_up_when_nobody_serves(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    go_local(&w);
    peers_ready(&w, 3);
    assert_int_equal(step(&w, ROUTE_EV_REDIRECT, 1), OPEN);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), HOME);
    succeed(&w, ROUTE_DO_HOME, false);
    assert_false(w.r.manual);
}

/* ---- the latch ---------------------------------------------------------- */

/* Redirected by the last switch that the limit allows, with own paths lost. */
static void
go_latched(struct world *w)
{
    setup(w);
    w->opt.switch_limit = 3;
    go_local(w);
    go_redirected(w, 1);
    own_paths(w, true);
    w->now += route_hold_down_ms(&w->r, &w->opt);
    succeed(w, step(w, ROUTE_EV_TICK, SELF), false);
    assert_int_equal(w->r.phase, LOCAL);
    assert_false(w->r.latch.shut);
    go_redirected(w, 1);
    assert_true(w->r.latch.shut);
}

static void
test_route_latched_stays_until_paths_were_good_for_an_hour(void **state)
{
    struct world w;
    uint64_t good;

    (void)state;
    go_latched(&w);
    own_paths(&w, true);
    good = w.now;
    w.now = good + LATCH_WINDOW_MS - 1;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(route_next_ms(&w.r, &w.opt, &w.view, w.now),
                     good + LATCH_WINDOW_MS);
    w.now++;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
}

static void
test_route_latched_comes_home_by_order(void **state)
{
    struct world w;

    (void)state;
    go_latched(&w);
    own_paths(&w, true);
    assert_int_equal(step(&w, ROUTE_EV_RETURN, SELF), HOME);
    succeed(&w, HOME, false);
    assert_int_equal(latch_count(&w.r.latch, w.now), 0);

    /* also an order that cannot be carried out yet */
    go_latched(&w);
    assert_int_equal(step(&w, ROUTE_EV_RETURN, SELF), NOTHING);
    own_paths(&w, true);
    w.now += route_hold_down_ms(&w.r, &w.opt);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
}

/* VMs go before the latch: a peer that fails is left for another one, and
 * where there is none, for home. */
static void
test_route_latched_leaves_a_peer_that_fails(void **state)
{
    struct world w;

    (void)state;
    go_latched(&w);
    own_paths(&w, true);
    peers_ready(&w, 5);
    assert_int_equal(step(&w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    succeed(&w, OPEN, true);
    assert_true(w.r.latch.shut);
    peers_ready(&w, 0);
    assert_int_equal(step(&w, ROUTE_EV_PEER_DRAINS, SELF), HOME);
    succeed(&w, HOME, false);
    assert_int_equal(w.r.phase, LOCAL);
    assert_false(w.r.latch.shut);
    /* and away again without a word, but to stay */
    go_redirected(&w, 2);
    assert_true(w.r.latch.shut);
}

/* Nobody served; both are there now: a peer, to which it is latched. */
static void
test_route_latched_prefers_a_peer_when_both_come_back(void **state)
{
    struct world w;

    (void)state;
    go_latched(&w);
    peers_ready(&w, 0);
    assert_int_equal(step(&w, ROUTE_EV_PEER_LOST, SELF), NOTHING);
    assert_int_equal(w.r.phase, QUEUEING);
    w.now += w.opt.retry_ms;
    own_paths(&w, true);
    peers_ready(&w, 7);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), HOME);
}

static void
test_route_orders_are_no_switches(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.opt.switch_limit = 1;
    go_local(&w);
    peers_ready(&w, 2);
    w.for_ms = 1000;
    for (unsigned i = 0; i < 3; i++) {
        succeed(&w, step(&w, ROUTE_EV_REDIRECT, SELF), false);
        assert_int_equal(w.r.phase, REDIRECTED);
        w.now += 1000;
        succeed(&w, step(&w, i == 1 ? ROUTE_EV_TICK : ROUTE_EV_RETURN, SELF),
                false);
        assert_int_equal(w.r.phase, LOCAL);
    }
    assert_int_equal(w.r.latch.switches, 0);
    assert_false(w.r.latch.shut);
}

/* A latched route stays where it is when an order for a time has ended. */
static void
test_route_latch_outlasts_an_order(void **state)
{
    struct world w;

    (void)state;
    go_latched(&w);
    own_paths(&w, true);
    w.for_ms = 1000;
    assert_int_equal(step(&w, ROUTE_EV_REDIRECT, SELF), NOTHING);
    assert_true(w.r.manual);
    w.now += route_hold_down_ms(&w.r, &w.opt);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_false(w.r.manual);
    assert_true(w.r.latch.shut);
}

/* What a start leads to is no switch: nobody knows what was before. */
static void
test_route_start_through_a_peer_is_no_switch(void **state)
{
    struct world w;

    (void)state;
    setup(&w);
    w.opt.switch_limit = 1;
    go_redirected(&w, 0);
    assert_false(w.r.latch.shut);
}

/* ---- slow paths --------------------------------------------------------- */

/* At home, long enough, and then our own paths become slow. */
static void
go_slow(struct world *w)
{
    setup(w);
    go_local(w);
    w->now += route_hold_down_ms(&w->r, &w->opt);
    w->view.local_slow = true;
    w->view.local_good_ms = 0;
}

static void
quick_again(struct world *w)
{
    w->view.local_slow = false;
    w->view.local_good_ms = w->now;
}

static void
test_route_slow_paths_are_left_for_a_peer_that_is_not(void **state)
{
    struct world w;

    (void)state;
    go_slow(&w);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(w.r.phase, LOCAL);
    peers_ready(&w, 7);
    w.peers[0].slow = w.peers[2].slow = true;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w.r.peer, 1);
    assert_true(w.r.leave_clean);
    succeed(&w, OPEN, false);
    assert_int_equal(w.r.latch.switches, 1);
}

/* Between two slow routes nothing moves. */
static void
test_route_slow_paths_and_slow_peers_change_nothing(void **state)
{
    struct world w;

    (void)state;
    go_slow(&w);
    peers_ready(&w, 7);
    for (int i = 0; i < PEERS; i++)
        w.peers[i].slow = true;
    for (int i = 0; i < 100; i++) {
        w.now += 10000;
        assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
        assert_int_equal(w.r.phase, LOCAL);
        assert_true(route_next_ms(&w.r, &w.opt, &w.view, w.now) >=
                    w.now + w.opt.retry_ms);
    }
    assert_int_equal(w.r.hold_down_ms, w.opt.failback_after_ms);

    go_slow(&w);
    peers_ready(&w, 1);
    succeed(&w, step(&w, ROUTE_EV_TICK, SELF), false);
    w.peers[0].slow = true; /* meanwhile */
    peers_ready(&w, 3);
    for (int i = 0; i < 100; i++) {
        w.now += 10000;
        assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
        assert_int_equal(w.r.phase, REDIRECTED);
    }
}

static void
test_route_slow_comes_home_when_quick_for_the_hold_down(void **state)
{
    struct world w;

    (void)state;
    go_slow(&w);
    peers_ready(&w, 1);
    succeed(&w, step(&w, ROUTE_EV_TICK, SELF), false);
    w.now += 3600000;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    quick_again(&w);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    w.now += route_hold_down_ms(&w.r, &w.opt);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), HOME);
}

/* Paths that are slow only while they carry something: each return makes the
 * next one later, and at home they have as long. */
static void
test_route_slow_again_after_a_return_waits_longer(void **state)
{
    struct world w;
    uint64_t before = 0;

    (void)state;
    go_slow(&w);
    w.opt.switch_limit = 0;
    peers_ready(&w, 1);
    for (int i = 0; i < 4; i++) {
        succeed(&w, step(&w, ROUTE_EV_TICK, SELF), false);
        assert_int_equal(w.r.phase, REDIRECTED);
        quick_again(&w);
        w.now += route_hold_down_ms(&w.r, &w.opt);
        succeed(&w, step(&w, ROUTE_EV_TICK, SELF), false);
        assert_int_equal(w.r.phase, LOCAL);
        w.view.local_slow = true;
        w.view.local_good_ms = 0;
        w.now += route_hold_down_ms(&w.r, &w.opt) - 1;
        assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
        assert_int_equal(route_next_ms(&w.r, &w.opt, &w.view, w.now),
                         w.now + 1);
        w.now++;
        assert_true(w.r.hold_down_ms > before);
        before = w.r.hold_down_ms;
    }
}

/* The peer says no: another one that is not slow, then home again, and not
 * the slow one; the next try waits. */
static void
test_route_slow_refused_goes_on_at_home(void **state)
{
    struct world w;

    (void)state;
    go_slow(&w);
    peers_ready(&w, 7);
    w.peers[1].slow = true;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w.r.peer, 0);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(w.r.peer, 2);
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), HOME);
    succeed(&w, HOME, false);
    assert_int_equal(w.r.phase, LOCAL);
    assert_int_equal(w.r.latch.switches, 0);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), NOTHING);
    w.now += route_hold_down_ms(&w.r, &w.opt);
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
}

/* VMs first: when home is no way any more, a slow peer is one. */
static void
test_route_slow_peer_is_better_than_none(void **state)
{
    struct world w;

    (void)state;
    go_slow(&w);
    peers_ready(&w, 3);
    w.peers[1].slow = true;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
    own_paths(&w, false); /* while the first one is asked */
    w.view.local_slow = false;
    assert_int_equal(step(&w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(w.r.peer, 1);

    /* and lost paths never ask how fast a peer is */
    setup(&w);
    go_local(&w);
    own_paths(&w, false);
    peers_ready(&w, 2);
    w.peers[1].slow = true;
    assert_int_equal(step(&w, ROUTE_EV_TICK, SELF), OPEN);
}

static void
test_route_slow_home_is_better_than_no_peer(void **state)
{
    struct world w;

    (void)state;
    go_slow(&w);
    peers_ready(&w, 1);
    succeed(&w, step(&w, ROUTE_EV_TICK, SELF), false);
    peers_ready(&w, 0);
    assert_int_equal(step(&w, ROUTE_EV_PEER_LOST, SELF), HOME);
}

/* ---- a random walk ------------------------------------------------------ */

struct walk {
    struct world w;
    enum route_do pending;
};

static unsigned
dice(unsigned n)
{
    return (unsigned)random() % n;
}

static void
shuffle_world(struct world *w)
{
    w->now += dice(4) ? dice(200) : dice(40000);
    if (dice(4) == 0)
        own_paths(w, dice(2));
    if (dice(4) == 0)
        peers_ready(w, dice(8));
    if (dice(8) == 0)
        w->view.local_orphans = dice(2);
    if (dice(8) == 0)
        w->view.local_fenced = dice(2);
    for (int i = 0; i < PEERS; i++)
        w->peers[i] = (struct route_peer){
            .ready = w->peers[i].ready, .load = dice(5), .slow = dice(2)};
    w->view.local_slow = w->view.local_usable && dice(3) == 0;
}

/* Step, and check what must hold for every step. */
static void
step_checked(struct walk *k, enum route_event_kind kind)
{
    struct route before = k->w.r, *r = &k->w.r;
    bool arrived = (before.phase == ROUTE_OPENING && kind == ROUTE_EV_OPENED) ||
                   (before.phase == ROUTE_RETURNING && kind == ROUTE_EV_HOME);

    k->pending = step(&k->w, kind, (int)dice(PEERS + 1) - 1);
    assert_true(r->generation ==
                before.generation + (k->pending == ROUTE_DO_OPEN));
    assert_int_equal(r->phase == ROUTE_OPENING, k->pending == ROUTE_DO_OPEN);
    assert_int_equal(r->phase == ROUTE_RETURNING, k->pending == ROUTE_DO_HOME);
    if (arrived && k->w.opt.reservations) {
        assert_false(r->suspect_self || r->suspect_peers);
    } else if (arrived) { /* cleared of nobody but whom we came to */
        uint64_t to = r->peer == SELF ? 0 : UINT64_C(1) << r->peer;

        assert_int_equal(r->suspect_peers, before.suspect_peers & ~to);
        assert_int_equal(r->suspect_self, before.suspect_self &&
                                              r->peer != SELF &&
                                              k->w.view.local_orphans > 0);
    } else {
        assert_int_equal(r->suspect_self, before.suspect_self);
        assert_int_equal(r->suspect_peers, before.suspect_peers);
    }
    assert_int_equal(r->peer != SELF && r->phase != ROUTE_RETURNING,
                     r->phase == ROUTE_OPENING || r->phase == ROUTE_REDIRECTED);
    assert_true(r->hold_down_ms >= k->w.opt.failback_after_ms &&
                r->hold_down_ms <= k->w.opt.failback_max_ms);
    assert_false(r->latch.shut && r->phase == ROUTE_LOCAL);
    if (r->latch.shut && k->pending == ROUTE_DO_HOME)
        assert_true(before.phase != ROUTE_REDIRECTED || kind != ROUTE_EV_TICK);
    if (k->pending == ROUTE_DO_OPEN)
        assert_true(k->w.peers[r->peer].ready);
    if (k->pending == ROUTE_DO_NOTHING)
        assert_true(route_next_ms(r, &k->w.opt, &k->w.view, k->w.now) >
                    k->w.now);
}

/* While an action is pending nothing but its result is told. */
static void
finish_action(struct walk *k, bool well)
{
    struct world *w = &k->w;
    bool open = k->pending == ROUTE_DO_OPEN;

    route_left(&w->r, dice(2));
    if (!route_still_right(&w->r, &w->opt, &w->view))
        well = false;
    step_checked(k, open ? (well ? ROUTE_EV_OPENED : ROUTE_EV_REFUSED)
                         : (well ? ROUTE_EV_HOME : ROUTE_EV_HOME_FAILED));
}

static void
random_step(struct walk *k)
{
    static const enum route_event_kind kinds[] = {
        ROUTE_EV_TICK,        ROUTE_EV_TICK,      ROUTE_EV_LOCAL_ERROR,
        ROUTE_EV_FENCED,      ROUTE_EV_PEER_LOST, ROUTE_EV_PEER_ERROR,
        ROUTE_EV_PEER_DRAINS, ROUTE_EV_REDIRECT,  ROUTE_EV_RETURN,
    };

    shuffle_world(&k->w);
    k->w.for_ms = dice(2) ? 0 : dice(20000) + 1;
    if (k->pending != ROUTE_DO_NOTHING)
        finish_action(k, dice(2));
    else
        step_checked(k, kinds[dice(sizeof kinds / sizeof *kinds)]);
}

/* Everybody is there and willing: how many steps until requests flow? */
static void
must_arrive(struct walk *k)
{
    struct world *w = &k->w;

    own_paths(w, dice(2));
    w->view.local_fenced = false;
    w->view.local_orphans = 0;
    peers_ready(w, 7);
    for (int i = 0; i < 12 && route_holds(w->r.phase); i++) {
        w->now += w->opt.retry_ms;
        if (k->pending != ROUTE_DO_NOTHING)
            finish_action(k, true);
        else
            step_checked(k, ROUTE_EV_TICK);
    }
    if (route_holds(w->r.phase))
        fail_msg("stuck in %s", route_phase_name(w->r.phase));
}

static void
walk(bool reservations, unsigned seed)
{
    struct walk k = {.pending = ROUTE_DO_NOTHING};

    srandom(seed);
    setup(&k.w);
    k.w.opt.reservations = reservations;
    for (unsigned i = 0; i < 100000; i++) {
        random_step(&k);
        if (dice(50) == 0) {
            struct walk aside = k;

            aside.w.view.peers = aside.w.peers;
            must_arrive(&aside);
        }
    }
}

static void
test_route_random_walk_keeps_the_rules(void **state)
{
    (void)state;
    walk(true, 1);
    walk(false, 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_route_every_phase_and_event),
        cmocka_unit_test(test_route_counts_what_led_where_and_for_how_long),
        cmocka_unit_test(test_route_start_gives_own_paths_time),
        cmocka_unit_test(test_route_start_with_lost_paths_asks_at_once),
        cmocka_unit_test(test_route_start_with_suspect_peer_asks_it_first),
        cmocka_unit_test(test_route_start_with_silent_suspect_goes_home),
        cmocka_unit_test(test_route_generation_goes_on_from_the_predecessor),
        cmocka_unit_test(test_route_dirty_leave_makes_the_carrier_a_suspect),
        cmocka_unit_test(test_route_clean_leave_suspects_nobody),
        cmocka_unit_test(test_route_drain_own_orphans_go_by_range),
        cmocka_unit_test(test_route_drain_peers_orphans_go_by_range),
        cmocka_unit_test(test_route_drain_opening_at_a_suspect_clears_it),
        cmocka_unit_test(test_route_drain_unknown_ranges_hold_everything),
        cmocka_unit_test(test_route_drain_unknown_ranges_at_two_peers),
        cmocka_unit_test(test_route_drain_unknown_own_ranges_hold_everything),
        cmocka_unit_test(test_route_stray_suspect_stops_everything),
        cmocka_unit_test(test_route_reservations_make_suspects_no_obstacle),
        cmocka_unit_test(test_route_least_loaded_peer_first),
        cmocka_unit_test(test_route_lost_peer_is_asked_again_first),
        cmocka_unit_test(test_route_draining_peer_is_left_cleanly_for_another),
        cmocka_unit_test(test_route_all_refuse_then_a_new_round),
        cmocka_unit_test(test_route_news_do_not_put_off_the_next_round),
        cmocka_unit_test(test_route_new_peer_is_asked_within_the_round),
        cmocka_unit_test(test_route_path_error_without_peers_pauses),
        cmocka_unit_test(test_route_lost_paths_that_come_back_are_used_at_once),
        cmocka_unit_test(test_route_returns_after_the_hold_down),
        cmocka_unit_test(test_route_orphans_or_no_key_put_a_return_off),
        cmocka_unit_test(test_route_failed_return_waits_longer),
        cmocka_unit_test(test_route_flapping_paths_are_trusted_less),
        cmocka_unit_test(test_route_order_to_redirect_is_sticky),
        cmocka_unit_test(test_route_order_for_a_time_ends_by_itself),
        cmocka_unit_test(
            test_route_order_that_ends_without_paths_waits_for_them),
        cmocka_unit_test(test_route_order_takes_the_place_of_the_one_before),
        cmocka_unit_test(test_route_order_ends_while_requests_wait),
        cmocka_unit_test(test_route_order_without_a_ready_peer_changes_nothing),
        cmocka_unit_test(test_route_order_is_given_up_when_nobody_serves),
        cmocka_unit_test(
            test_route_latched_stays_until_paths_were_good_for_an_hour),
        cmocka_unit_test(test_route_latched_comes_home_by_order),
        cmocka_unit_test(test_route_latched_leaves_a_peer_that_fails),
        cmocka_unit_test(test_route_latched_prefers_a_peer_when_both_come_back),
        cmocka_unit_test(test_route_orders_are_no_switches),
        cmocka_unit_test(test_route_latch_outlasts_an_order),
        cmocka_unit_test(test_route_start_through_a_peer_is_no_switch),
        cmocka_unit_test(test_route_slow_paths_are_left_for_a_peer_that_is_not),
        cmocka_unit_test(test_route_slow_paths_and_slow_peers_change_nothing),
        cmocka_unit_test(
            test_route_slow_comes_home_when_quick_for_the_hold_down),
        cmocka_unit_test(test_route_slow_again_after_a_return_waits_longer),
        cmocka_unit_test(test_route_slow_refused_goes_on_at_home),
        cmocka_unit_test(test_route_slow_peer_is_better_than_none),
        cmocka_unit_test(test_route_slow_home_is_better_than_no_peer),
        cmocka_unit_test(test_route_random_walk_keeps_the_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
