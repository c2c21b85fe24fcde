/* SPDX-License-Identifier: BSD-3-Clause */
/* The route's decisions: too many switches. */
#include "tests/unit/route_world.h"

/* Redirected by the last switch that the limit allows, with own paths lost. */
static void
go_latched(struct world *w)
{
    world_init(w);
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
    struct world *w = *state;
    uint64_t good;

    go_latched(w);
    own_paths(w, true);
    good = w->now;
    w->now = good + LATCH_WINDOW_MS - 1;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(route_next_ms(&w->r, &w->opt, &w->view, w->now),
                     good + LATCH_WINDOW_MS);
    w->now++;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
}

static void
test_route_latched_comes_home_by_order(void **state)
{
    struct world *w = *state;

    go_latched(w);
    own_paths(w, true);
    assert_int_equal(step(w, ROUTE_EV_RETURN, SELF), HOME);
    succeed(w, HOME, false);
    assert_int_equal(latch_count(&w->r.latch, w->now), 0);

    /* also an order that cannot be carried out yet */
    go_latched(w);
    assert_int_equal(step(w, ROUTE_EV_RETURN, SELF), NOTHING);
    own_paths(w, true);
    w->now += route_hold_down_ms(&w->r, &w->opt);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
}

/* VMs go before the latch: a peer that fails is left for another one, and
 * where there is none, for home. */
static void
test_route_latched_leaves_a_peer_that_fails(void **state)
{
    struct world *w = *state;

    go_latched(w);
    own_paths(w, true);
    peers_ready(w, 5);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    succeed(w, OPEN, true);
    assert_true(w->r.latch.shut);
    peers_ready(w, 0);
    assert_int_equal(step(w, ROUTE_EV_PEER_DRAINS, SELF), HOME);
    succeed(w, HOME, false);
    assert_int_equal(w->r.phase, LOCAL);
    assert_false(w->r.latch.shut);
    /* and away again without a word, but to stay */
    go_redirected(w, 2);
    assert_true(w->r.latch.shut);
}

/* Nobody served; both are there now: a peer, to which it is latched. */
static void
test_route_latched_prefers_a_peer_when_both_come_back(void **state)
{
    struct world *w = *state;

    go_latched(w);
    peers_ready(w, 0);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), NOTHING);
    assert_int_equal(w->r.phase, QUEUEING);
    w->now += w->opt.retry_ms;
    own_paths(w, true);
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), HOME);
}

static void
test_route_orders_are_no_switches(void **state)
{
    struct world *w = *state;

    w->opt.switch_limit = 1;
    go_local(w);
    peers_ready(w, 2);
    w->for_ms = 1000;
    for (unsigned i = 0; i < 3; i++) {
        succeed(w, step(w, ROUTE_EV_REDIRECT, SELF), false);
        assert_int_equal(w->r.phase, REDIRECTED);
        w->now += 1000;
        succeed(w, step(w, i == 1 ? ROUTE_EV_TICK : ROUTE_EV_RETURN, SELF),
                false);
        assert_int_equal(w->r.phase, LOCAL);
    }
    assert_int_equal(w->r.latch.switches, 0);
    assert_false(w->r.latch.shut);
}

/* A latched route stays where it is when an order for a time has ended. */
static void
test_route_latch_outlasts_an_order(void **state)
{
    struct world *w = *state;

    go_latched(w);
    own_paths(w, true);
    w->for_ms = 1000;
    assert_int_equal(step(w, ROUTE_EV_REDIRECT, SELF), NOTHING);
    assert_true(w->r.manual);
    w->now += route_hold_down_ms(&w->r, &w->opt);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_false(w->r.manual);
    assert_true(w->r.latch.shut);
}

/* What a start leads to is no switch: nobody knows what was before. */
static void
test_route_start_through_a_peer_is_no_switch(void **state)
{
    struct world *w = *state;

    w->opt.switch_limit = 1;
    go_redirected(w, 0);
    assert_false(w->r.latch.shut);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_route_latched_stays_until_paths_were_good_for_an_hour),
        ROUTE_TEST(test_route_latched_comes_home_by_order),
        ROUTE_TEST(test_route_latched_leaves_a_peer_that_fails),
        ROUTE_TEST(test_route_latched_prefers_a_peer_when_both_come_back),
        ROUTE_TEST(test_route_orders_are_no_switches),
        ROUTE_TEST(test_route_latch_outlasts_an_order),
        ROUTE_TEST(test_route_start_through_a_peer_is_no_switch),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
