/* SPDX-License-Identifier: BSD-3-Clause */
/* The route's decisions: own paths, or peers, that are slow. */
#include "tests/unit/route_world.h"

/* At home, long enough, and then our own paths become slow. */
static void
go_slow(struct world *w)
{
    world_init(w);
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
    struct world *w = *state;

    go_slow(w);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(w->r.phase, LOCAL);
    peers_ready(w, 7);
    w->peers[0].slow = w->peers[2].slow = true;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w->r.peer, 1);
    assert_true(w->r.leave_clean);
    succeed(w, OPEN, false);
    assert_int_equal(w->r.latch.switches, 1);
}

/* Between two slow routes nothing moves. */
static void
test_route_slow_paths_and_slow_peers_change_nothing(void **state)
{
    struct world *w = *state;

    go_slow(w);
    peers_ready(w, 7);
    for (int i = 0; i < PEERS; i++)
        w->peers[i].slow = true;
    for (int i = 0; i < 100; i++) {
        w->now += 10000;
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
        assert_int_equal(w->r.phase, LOCAL);
        assert_true(route_next_ms(&w->r, &w->opt, &w->view, w->now) >=
                    w->now + w->opt.retry_ms);
    }
    assert_int_equal(w->r.hold_down_ms, w->opt.failback_after_ms);

    go_slow(w);
    peers_ready(w, 1);
    succeed(w, step(w, ROUTE_EV_TICK, SELF), false);
    w->peers[0].slow = true; /* meanwhile */
    peers_ready(w, 3);
    for (int i = 0; i < 100; i++) {
        w->now += 10000;
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
        assert_int_equal(w->r.phase, REDIRECTED);
    }
}

static void
test_route_slow_comes_home_when_quick_for_the_hold_down(void **state)
{
    struct world *w = *state;

    go_slow(w);
    peers_ready(w, 1);
    succeed(w, step(w, ROUTE_EV_TICK, SELF), false);
    w->now += 3600000;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    quick_again(w);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->now += route_hold_down_ms(&w->r, &w->opt);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
}

/* Paths that are slow only while they carry something: each return makes the
 * next one later, and at home they have as long. */
static void
test_route_slow_again_after_a_return_waits_longer(void **state)
{
    struct world *w = *state;
    uint64_t before = 0;

    go_slow(w);
    w->opt.switch_limit = 0;
    peers_ready(w, 1);
    for (int i = 0; i < 4; i++) {
        succeed(w, step(w, ROUTE_EV_TICK, SELF), false);
        assert_int_equal(w->r.phase, REDIRECTED);
        quick_again(w);
        w->now += route_hold_down_ms(&w->r, &w->opt);
        succeed(w, step(w, ROUTE_EV_TICK, SELF), false);
        assert_int_equal(w->r.phase, LOCAL);
        w->view.local_slow = true;
        w->view.local_good_ms = 0;
        w->now += route_hold_down_ms(&w->r, &w->opt) - 1;
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
        assert_int_equal(route_next_ms(&w->r, &w->opt, &w->view, w->now),
                         w->now + 1);
        w->now++;
        assert_true(w->r.hold_down_ms > before);
        before = w->r.hold_down_ms;
    }
}

/* The peer says no: another one that is not slow, then our own paths as before,
 * and not the slow one; the next try waits. */
static void
test_route_slow_refused_goes_on_at_home(void **state)
{
    struct world *w = *state;

    go_slow(w);
    peers_ready(w, 7);
    w->peers[1].slow = true;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w->r.peer, 0);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(w->r.peer, 2);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), NOTHING);
    assert_int_equal(w->r.phase, LOCAL);
    assert_int_equal(w->r.latch.switches, 0);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->now += route_hold_down_ms(&w->r, &w->opt);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
}

/* VMs first: when home is no way any more, a slow peer is one. */
static void
test_route_slow_peer_is_better_than_none(void **state)
{
    struct world *w = *state;

    go_slow(w);
    peers_ready(w, 3);
    w->peers[1].slow = true;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    own_paths(w, false); /* while the first one is asked */
    w->view.local_slow = false;
    route_left(&w->r, false);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(w->r.peer, 1);

    /* and lost paths never ask how fast a peer is */
    world_init(w);
    go_local(w);
    own_paths(w, false);
    peers_ready(w, 2);
    w->peers[1].slow = true;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
}

static void
test_route_slow_home_is_better_than_no_peer(void **state)
{
    struct world *w = *state;

    go_slow(w);
    peers_ready(w, 1);
    succeed(w, step(w, ROUTE_EV_TICK, SELF), false);
    peers_ready(w, 0);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), HOME);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_route_slow_paths_are_left_for_a_peer_that_is_not),
        ROUTE_TEST(test_route_slow_paths_and_slow_peers_change_nothing),
        ROUTE_TEST(test_route_slow_comes_home_when_quick_for_the_hold_down),
        ROUTE_TEST(test_route_slow_again_after_a_return_waits_longer),
        ROUTE_TEST(test_route_slow_refused_goes_on_at_home),
        ROUTE_TEST(test_route_slow_peer_is_better_than_none),
        ROUTE_TEST(test_route_slow_home_is_better_than_no_peer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
