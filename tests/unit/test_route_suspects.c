/* SPDX-License-Identifier: BSD-3-Clause */
/* The route's decisions: who may still carry our writes. */
#include "tests/unit/route_world.h"

static void
test_route_dirty_leave_makes_the_carrier_a_suspect(void **state)
{
    struct world *w = *state;

    go_local(w);
    own_paths(w, false);
    peers_ready(w, 3);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    route_left(&w->r, true);
    assert_true(w->r.suspect_self);
    assert_int_equal(w->r.suspect_peers, 0);
    /* refused: still suspected */
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_true(w->r.suspect_self);
    assert_int_equal(step(w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_false(w->r.suspect_self);

    peers_ready(w, 1);
    assert_int_equal(w->r.peer, 1);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    route_left(&w->r, true);
    assert_int_equal(w->r.suspect_peers, 2);
    assert_false(w->r.suspect_self);
}

static void
test_route_clean_leave_suspects_nobody(void **state)
{
    struct world *w = *state;

    go_local(w);
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, SELF), OPEN);
    assert_true(w->r.leave_clean);
    route_left(&w->r, false);
    assert_false(w->r.suspect_self);
    assert_int_equal(w->r.suspect_peers, 0);
}

/* Without reservations our own orphans, of known range, keep us from going
 * home, and from nothing else. */
static void
test_route_drain_own_orphans_go_by_range(void **state)
{
    struct world *w = *state;

    w->opt.reservations = false;
    go_local(w);
    own_paths(w, false);
    peers_ready(w, 1);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    route_left(&w->r, true);
    w->view.local_orphans = 3; /* what leaving made */
    assert_true(route_still_right(&w->r, &w->opt, &w->view));
    assert_int_equal(step(w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_int_equal(w->r.phase, REDIRECTED);
    assert_true(w->r.suspect_self); /* a successor shall know */

    own_paths(w, true);
    peers_ready(w, 0);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), NOTHING);
    assert_int_equal(w->r.phase, QUEUEING);
    w->view.local_orphans = 0;
    w->now += w->opt.retry_ms;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    assert_int_equal(step(w, ROUTE_EV_HOME, SELF), NOTHING);
    assert_false(w->r.suspect_self);
}

/* A lost peer's orphans are of known range: another one serves, and the
 * suspicion stays until it is cleared. */
static void
test_route_drain_peers_orphans_go_by_range(void **state)
{
    struct world *w = *state;

    w->opt.reservations = false;
    go_redirected(w, 1);
    peers_ready(w, 5);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    route_left(&w->r, true);
    assert_true(route_still_right(&w->r, &w->opt, &w->view));
    assert_int_equal(step(w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_int_equal(w->r.phase, REDIRECTED);
    assert_int_equal(w->r.suspect_peers, 2);
    own_paths(w, true);
    w->now += route_hold_down_ms(&w->r, &w->opt);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    assert_int_equal(step(w, ROUTE_EV_HOME, SELF), NOTHING);
    assert_int_equal(w->r.suspect_peers, 2);
    route_cleared(&w->r, 1);
    assert_int_equal(w->r.suspect_peers, 0);
}

/* The peer that holds them has drained once it opens. */
static void
test_route_drain_opening_at_a_suspect_clears_it(void **state)
{
    struct world *w = *state;

    w->opt.reservations = false;
    go_redirected(w, 1);
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    assert_int_equal(w->r.peer, 1);
    route_left(&w->r, true);
    assert_int_equal(w->r.suspect_peers, 2);
    assert_int_equal(step(w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_int_equal(w->r.suspect_peers, 0);
}

/* Of a predecessor's writes no range is known: only the suspect itself can
 * tell that it has drained, neither another peer nor our own paths will do. */
static void
test_route_drain_unknown_ranges_hold_everything(void **state)
{
    struct world *w = *state;

    w->opt.reservations = false;
    w->r.suspect_peers = w->r.unknown_peers = 2;
    own_paths(w, true);
    peers_ready(w, 5);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    peers_ready(w, 7);
    w->now += w->opt.retry_ms;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w->r.peer, 1);
    assert_true(route_still_right(&w->r, &w->opt, &w->view));
    assert_int_equal(step(w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_int_equal(w->r.unknown_peers, 0);
}

/* Two of them, of whom neither vouches for the other: each is asked aside. */
static void
test_route_drain_unknown_ranges_at_two_peers(void **state)
{
    struct world *w = *state;

    w->opt.reservations = false;
    w->r.suspect_peers = w->r.unknown_peers = 3;
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    route_cleared(&w->r, 0);
    w->now += w->opt.retry_ms;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w->r.peer, 1);
}

static void
test_route_drain_unknown_own_ranges_hold_everything(void **state)
{
    struct world *w = *state;

    w->opt.reservations = false;
    w->r.suspect_self = w->r.unknown_self = true;
    w->view.local_orphans = 1;
    own_paths(w, false);
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->view.local_orphans = 0;
    w->now += w->opt.retry_ms;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(step(w, ROUTE_EV_OPENED, SELF), NOTHING);
    assert_false(w->r.suspect_self || w->r.unknown_self);
}

/* With reservations, too: nobody knows how to fence it. */
static void
test_route_stray_suspect_stops_everything(void **state)
{
    struct world *w = *state;

    w->r.stray = true;
    own_paths(w, true);
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(w->r.phase, QUEUEING);
    w->r.stray = false;
    w->now += w->opt.retry_ms;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
}

static void
test_route_reservations_make_suspects_no_obstacle(void **state)
{
    struct world *w = *state;

    w->r.suspect_self = true;
    w->r.suspect_peers = 6;
    w->view.local_orphans = 3;
    own_paths(w, false);
    peers_ready(w, 1);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_true(route_still_right(&w->r, &w->opt, &w->view));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_route_dirty_leave_makes_the_carrier_a_suspect),
        ROUTE_TEST(test_route_clean_leave_suspects_nobody),
        ROUTE_TEST(test_route_drain_own_orphans_go_by_range),
        ROUTE_TEST(test_route_drain_peers_orphans_go_by_range),
        ROUTE_TEST(test_route_drain_opening_at_a_suspect_clears_it),
        ROUTE_TEST(test_route_drain_unknown_ranges_hold_everything),
        ROUTE_TEST(test_route_drain_unknown_ranges_at_two_peers),
        ROUTE_TEST(test_route_drain_unknown_own_ranges_hold_everything),
        ROUTE_TEST(test_route_stray_suspect_stops_everything),
        ROUTE_TEST(test_route_reservations_make_suspects_no_obstacle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
