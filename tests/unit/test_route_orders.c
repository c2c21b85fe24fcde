/* SPDX-License-Identifier: BSD-3-Clause */
/* The route's decisions: orders to redirect and to return. */
#include "tests/unit/route_world.h"

static void
test_route_order_to_redirect_is_sticky(void **state)
{
    struct world *w = *state;

    go_local(w);
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, 1), OPEN);
    succeed(w, ROUTE_DO_OPEN, false);
    assert_true(w->r.manual);
    w->now += 3600000;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_true(route_next_ms(&w->r, &w->opt, &w->view, w->now) == UINT64_MAX);
    assert_int_equal(step(w, ROUTE_EV_RETURN, SELF), HOME);
    assert_false(w->r.manual);
}

static void
test_route_order_for_a_time_ends_by_itself(void **state)
{
    struct world *w = *state;

    go_local(w);
    peers_ready(w, 7);
    w->for_ms = 600000;
    succeed(w, step(w, ROUTE_EV_REDIRECT, 1), false);
    assert_int_equal(route_next_ms(&w->r, &w->opt, &w->view, w->now),
                     w->now + 600000);
    w->now += 600000 - 1;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->now++;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    assert_false(w->r.manual);
    assert_string_equal(w->r.reason, "the time of the order is over");
}

/* Then the return is as without an order: after the hold-down. */
static void
test_route_order_that_ends_without_paths_waits_for_them(void **state)
{
    struct world *w = *state;

    go_local(w);
    peers_ready(w, 7);
    w->for_ms = 1000;
    succeed(w, step(w, ROUTE_EV_REDIRECT, 1), false);
    own_paths(w, false);
    w->now += 1000;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_false(w->r.manual);
    own_paths(w, true);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->now += route_hold_down_ms(&w->r, &w->opt);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
}

/* The last order counts, with its time or without. */
static void
test_route_order_takes_the_place_of_the_one_before(void **state)
{
    struct world *w = *state;

    go_local(w);
    peers_ready(w, 7);
    w->for_ms = 1000;
    succeed(w, step(w, ROUTE_EV_REDIRECT, 1), false);
    w->now += 900;
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, 1), NOTHING);
    w->now += 900;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->for_ms = 0;
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, SELF), NOTHING);
    w->now += 3600000;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_true(w->r.manual);
}

/* The time runs on while the peer is changed, or nobody serves. */
static void
test_route_order_ends_while_requests_wait(void **state)
{
    struct world *w = *state;

    go_local(w);
    peers_ready(w, 2);
    w->for_ms = 1000;
    succeed(w, step(w, ROUTE_EV_REDIRECT, 1), false);
    own_paths(w, false);
    peers_ready(w, 0);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), NOTHING);
    assert_int_equal(w->r.phase, QUEUEING);
    w->now += 1000;
    own_paths(w, true);
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    assert_false(w->r.manual);
}

static void
test_route_order_without_a_ready_peer_changes_nothing(void **state)
{
    struct world *w = *state;

    go_local(w);
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, SELF), NOTHING);
    assert_int_equal(w->r.phase, LOCAL);
    assert_false(w->r.manual);

    /* redirected, by order: it stays so when another peer is not there */
    world_init(w);
    go_local(w);
    peers_ready(w, 2);
    succeed(w, step(w, ROUTE_EV_REDIRECT, 1), false);
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, 2), NOTHING);
    assert_int_equal(w->r.phase, REDIRECTED);
    assert_int_equal(w->r.peer, 1);
    assert_true(w->r.manual);
}

/* VMs go before orders: where no peer serves, our own paths do, which were left
 * or were not. */
static void
test_route_order_is_given_up_when_nobody_serves(void **state)
{
    struct world *w = *state;

    go_local(w);
    peers_ready(w, 3);
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, 1), OPEN);
    route_left(&w->r, false);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), HOME);
    succeed(w, ROUTE_DO_HOME, false);
    assert_false(w->r.manual);

    assert_int_equal(step(w, ROUTE_EV_REDIRECT, 1), OPEN);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), NOTHING);
    assert_int_equal(w->r.phase, LOCAL);
    assert_int_equal(w->r.peer, SELF);
    assert_false(w->r.manual);
    assert_int_equal(step(w, ROUTE_EV_LOCAL_ERROR, SELF), OPEN);
}

/* It is not, when they fail while the peer is asked: told by a request, which
 * holds the others, or seen by the monitor. */
static void
test_route_order_outlives_paths_that_fail_meanwhile(void **state)
{
    struct world *w = *state;

    go_local(w);
    peers_ready(w, 3);
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, 1), OPEN);
    w->view.held = true;
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), NOTHING);
    assert_int_equal(w->r.phase, LOCAL);
    assert_int_equal(step(w, ROUTE_EV_LOCAL_ERROR, SELF), OPEN);
    assert_false(w->r.leave_clean);
    succeed(w, OPEN, false);
    assert_true(w->r.manual);

    world_init(w);
    go_local(w);
    peers_ready(w, 3);
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, 1), OPEN);
    own_paths(w, false);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_false(w->r.leave_clean);
    succeed(w, OPEN, false);
    assert_true(w->r.manual);
}

/* The peer that was ordered refuses: the one that serves goes on, rather than a
 * third; the order to be redirected holds. */
static void
test_route_order_that_is_refused_stays_with_the_peer(void **state)
{
    struct world *w = *state;

    go_redirected(w, 0);
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, 1), OPEN);
    assert_int_equal(w->r.peer, 1);
    peers_ready(w, 6); /* its standby connection is made anew just then */
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), NOTHING);
    assert_int_equal(w->r.phase, REDIRECTED);
    assert_int_equal(w->r.peer, 0);
    assert_true(w->r.manual);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_route_order_to_redirect_is_sticky),
        ROUTE_TEST(test_route_order_for_a_time_ends_by_itself),
        ROUTE_TEST(test_route_order_that_ends_without_paths_waits_for_them),
        ROUTE_TEST(test_route_order_takes_the_place_of_the_one_before),
        ROUTE_TEST(test_route_order_ends_while_requests_wait),
        ROUTE_TEST(test_route_order_without_a_ready_peer_changes_nothing),
        ROUTE_TEST(test_route_order_is_given_up_when_nobody_serves),
        ROUTE_TEST(test_route_order_outlives_paths_that_fail_meanwhile),
        ROUTE_TEST(test_route_order_that_is_refused_stays_with_the_peer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
