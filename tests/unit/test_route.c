/* SPDX-License-Identifier: BSD-3-Clause */
/* The route's decisions: every phase and event, whom it asks, how it waits and
 * comes home. */
#include "tests/unit/route_world.h"

/* ---- every phase and every event ---------------------------------------- */

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
    world_init(w);
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
    struct world *w = *state;
    struct route before;

    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        const struct line *l = &lines[i];
        enum route_do act;

        reach(w, l->from);
        assert_int_equal(w->r.phase, l->from);
        before = w->r;
        peers_ready(w, 7);
        own_paths(w, l->own);
        act = step(w, l->event, l->peer);
        if (act != l->act || w->r.phase != l->to || w->r.peer != l->via)
            fail_msg("line %zu, %s and event %d: action %d, %s via %d", i,
                     route_phase_name(l->from), l->event, act,
                     route_phase_name(w->r.phase), w->r.peer);
        assert_int_equal(w->r.generation,
                         before.generation + (act == ROUTE_DO_OPEN));
    }
}

/* ---- start -------------------------------------------------------------- */

static void
test_route_counts_what_led_where_and_for_how_long(void **state)
{
    struct world *w = *state;

    go_local(w);
    peers_ready(w, 1);
    for (unsigned i = 0; i < 2; i++) {
        w->now += 700;
        succeed(w, step(w, ROUTE_EV_REDIRECT, SELF), false);
        assert_int_equal(w->r.phase, REDIRECTED);
        w->now += 1500;
        assert_int_equal(w->r.redirected_ms, i * 1500);
        succeed(w, step(w, ROUTE_EV_RETURN, SELF), false);
        assert_int_equal(w->r.phase, LOCAL);
        assert_int_equal(w->r.redirected_ms, i * 1500 + 1500);
    }
    assert_int_equal(w->r.entered[OPENING][ROUTE_EV_REDIRECT], 2);
    assert_int_equal(w->r.entered[REDIRECTED][ROUTE_EV_OPENED], 2);
    assert_int_equal(w->r.entered[RETURNING][ROUTE_EV_RETURN], 2);
    assert_int_equal(w->r.entered[OPENING][ROUTE_EV_TICK], 0);
}

static void
test_route_start_gives_own_paths_time(void **state)
{
    struct world *w = *state;

    peers_ready(w, 7);
    w->now += w->opt.settle_ms - 1;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(route_next_ms(&w->r, &w->opt, &w->view, w->now),
                     START + w->opt.settle_ms);
    w->now++;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
}

static void
test_route_start_with_lost_paths_asks_at_once(void **state)
{
    struct world *w = *state;

    peers_ready(w, 7);
    own_paths(w, false);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
}

/* The predecessor left writes at peer 2: opening there drains them, and
 * disturbs nobody; so that is better than our own good paths, and is not
 * waited for. */
static void
test_route_start_with_suspect_peer_asks_it_first(void **state)
{
    struct world *w = *state;

    w->r.suspect_peers = 1u << 2;
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w->r.peer, 2);

    world_init(w);
    w->r.suspect_peers = 1u << 2;
    peers_ready(w, 7);
    own_paths(w, true);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w->r.peer, 2);
}

static void
test_route_start_with_silent_suspect_goes_home(void **state)
{
    struct world *w = *state;

    w->r.suspect_peers = 1u << 2;
    peers_ready(w, 3);
    own_paths(w, true);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    assert_int_equal(w->r.suspect_peers, 4);
    assert_int_equal(step(w, ROUTE_EV_HOME, SELF), NOTHING);
    assert_int_equal(w->r.suspect_peers, 0);
}

static void
test_route_generation_goes_on_from_the_predecessor(void **state)
{
    struct world *w = *state;

    w->r.generation = 41;
    go_redirected(w, 0);
    assert_int_equal(w->r.generation, 42);
}

/* ---- which peer --------------------------------------------------------- */

static void
test_route_least_loaded_peer_first(void **state)
{
    struct world *w = *state;

    w->peers[0].load = 7;
    w->peers[1].load = 9;
    w->peers[2].load = 2;
    peers_ready(w, 7);
    own_paths(w, false);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w->r.peer, 2);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(w->r.peer, 0);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
    assert_int_equal(w->r.peer, 1);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), NOTHING);
    assert_int_equal(w->r.phase, QUEUEING);
    assert_int_equal(w->r.generation, 3);
}

static void
test_route_lost_peer_is_asked_again_first(void **state)
{
    struct world *w = *state;

    go_redirected(w, 2);
    w->peers[2].load = 1000;
    peers_ready(w, 7);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    assert_int_equal(w->r.peer, 2);
    assert_false(w->r.leave_clean);
}

static void
test_route_draining_peer_is_left_cleanly_for_another(void **state)
{
    struct world *w = *state;

    go_redirected(w, 2);
    peers_ready(w, 6);
    assert_int_equal(step(w, ROUTE_EV_PEER_DRAINS, SELF), OPEN);
    assert_int_equal(w->r.peer, 1);
    assert_true(w->r.leave_clean);

    /* nobody else: in the next round it is asked again */
    world_init(w);
    go_redirected(w, 2);
    assert_int_equal(step(w, ROUTE_EV_PEER_DRAINS, SELF), NOTHING);
    assert_int_equal(w->r.phase, QUEUEING);
    w->now += w->opt.retry_ms;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
}

/* ---- queueing ----------------------------------------------------------- */

/* Peers and our own paths refuse in turn; each is asked once in a round. */
static void
test_route_all_refuse_then_a_new_round(void **state)
{
    struct world *w = *state;

    peers_ready(w, 3);
    own_paths(w, true);
    for (int round = 0; round < 3; round++) {
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
        assert_int_equal(step(w, ROUTE_EV_HOME_FAILED, SELF), OPEN);
        assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), OPEN);
        assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), NOTHING);
        assert_int_equal(w->r.phase, QUEUEING);
        w->now += w->opt.retry_ms - 1;
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
        w->now++;
    }
}

/* News that come oftener than retry_ms must not put the next round off. */
static void
test_route_news_do_not_put_off_the_next_round(void **state)
{
    struct world *w = *state;
    uint64_t end;

    own_paths(w, false);
    peers_ready(w, 1);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), NOTHING);
    end = w->now + w->opt.retry_ms;
    while (w->now < end) {
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
        assert_int_equal(route_next_ms(&w->r, &w->opt, &w->view, w->now), end);
        w->now += 10;
    }
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
}

static void
test_route_new_peer_is_asked_within_the_round(void **state)
{
    struct world *w = *state;

    own_paths(w, false);
    peers_ready(w, 1);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(step(w, ROUTE_EV_REFUSED, SELF), NOTHING);
    peers_ready(w, 3);
    w->now++;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), OPEN);
    assert_int_equal(w->r.peer, 1);
}

/* A path error with nobody to turn to: home again, but not at once, since
 * that our paths work is older news than the error. */
static void
test_route_path_error_without_peers_pauses(void **state)
{
    struct world *w = *state;

    go_local(w);
    assert_int_equal(step(w, ROUTE_EV_LOCAL_ERROR, SELF), NOTHING);
    assert_int_equal(w->r.phase, QUEUEING);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->now += w->opt.retry_ms;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    /* they work again: what is under way there may finish */
    assert_true(w->r.leave_clean);
}

static void
test_route_lost_paths_that_come_back_are_used_at_once(void **state)
{
    struct world *w = *state;

    go_local(w);
    own_paths(w, false);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->now += 10;
    own_paths(w, true);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
}

/* ---- coming home -------------------------------------------------------- */

static void
test_route_returns_after_the_hold_down(void **state)
{
    struct world *w = *state;
    uint64_t due;

    go_redirected(w, 0);
    own_paths(w, true);
    due = w->now + 10500; /* with jitter */
    assert_int_equal(route_next_ms(&w->r, &w->opt, &w->view, w->now), due);
    w->now = due - 1;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->now = due;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    assert_true(w->r.leave_clean);
    succeed(w, ROUTE_DO_HOME, false);
    assert_int_equal(w->r.phase, LOCAL);
    assert_int_equal(w->r.peer, SELF);
}

static void
test_route_orphans_or_no_key_put_a_return_off(void **state)
{
    struct world *w = *state;

    go_redirected(w, 0);
    own_paths(w, true);
    w->now += 60000;
    w->view.local_orphans = 1;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_int_equal(step(w, ROUTE_EV_RETURN, SELF), NOTHING);
    w->view.local_orphans = 0;
    w->view.local_registered = false;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    assert_true(route_next_ms(&w->r, &w->opt, &w->view, w->now) > w->now);
    w->view.local_registered = true;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
}

/* A try that had to leave the peer holds the requests: a failing one is not
 * repeated at once, and later each time, however long our paths have been
 * good. */
static void
test_route_failed_return_waits_longer(void **state)
{
    struct world *w = *state;
    uint64_t pause = 10000;

    go_redirected(w, 0);
    own_paths(w, true);
    w->now += 3600000;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
        route_left(&w->r, false);
        assert_int_equal(step(w, ROUTE_EV_HOME_FAILED, SELF), OPEN);
        assert_int_equal(w->r.peer, 0);
        succeed(w, ROUTE_DO_OPEN, false);
        pause *= 2;
        w->now += pause + w->opt.failback_jitter_ms - 1;
        assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
        w->now++;
    }
}

/* The same of one that failed while the peer still served: it goes on. */
static void
test_route_failed_return_stays_with_the_peer(void **state)
{
    struct world *w = *state;
    uint64_t since;

    go_redirected(w, 0);
    since = w->now;
    own_paths(w, true);
    peers_ready(w, 3);
    w->now += 3600000;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    assert_true(w->r.leave_clean && !w->r.left);
    assert_int_equal(step(w, ROUTE_EV_HOME_FAILED, SELF), NOTHING);
    assert_int_equal(w->r.phase, REDIRECTED);
    assert_int_equal(w->r.peer, 0);
    assert_int_equal(w->r.served_by, 0);
    assert_int_equal(w->r.since_ms, since); /* as if nothing had been */
    assert_int_equal(w->r.redirected_ms, 0);
    assert_int_equal(w->r.latch.switches, 0);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), NOTHING);
    w->now += w->opt.failback_after_ms * 2 + w->opt.failback_jitter_ms;
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    /* and a peer that is lost meanwhile is left at once */
    assert_int_equal(step(w, ROUTE_EV_HOME_FAILED, SELF), NOTHING);
    assert_int_equal(step(w, ROUTE_EV_PEER_LOST, SELF), OPEN);
    assert_false(w->r.leave_clean);
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
    struct world *w = *state;

    w->opt.switch_limit = 0;
    go_local(w);
    peers_ready(w, 1);
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        w->now += 100;
        flap(w);
        assert_int_equal(w->r.hold_down_ms, expected[i]);
    }
    w->now += w->opt.failback_max_ms; /* good for long: trusted again */
    flap(w);
    assert_int_equal(w->r.hold_down_ms, w->opt.failback_after_ms);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        ROUTE_TEST(test_route_every_phase_and_event),
        ROUTE_TEST(test_route_counts_what_led_where_and_for_how_long),
        ROUTE_TEST(test_route_start_gives_own_paths_time),
        ROUTE_TEST(test_route_start_with_lost_paths_asks_at_once),
        ROUTE_TEST(test_route_start_with_suspect_peer_asks_it_first),
        ROUTE_TEST(test_route_start_with_silent_suspect_goes_home),
        ROUTE_TEST(test_route_generation_goes_on_from_the_predecessor),
        ROUTE_TEST(test_route_least_loaded_peer_first),
        ROUTE_TEST(test_route_lost_peer_is_asked_again_first),
        ROUTE_TEST(test_route_draining_peer_is_left_cleanly_for_another),
        ROUTE_TEST(test_route_all_refuse_then_a_new_round),
        ROUTE_TEST(test_route_news_do_not_put_off_the_next_round),
        ROUTE_TEST(test_route_new_peer_is_asked_within_the_round),
        ROUTE_TEST(test_route_path_error_without_peers_pauses),
        ROUTE_TEST(test_route_lost_paths_that_come_back_are_used_at_once),
        ROUTE_TEST(test_route_returns_after_the_hold_down),
        ROUTE_TEST(test_route_orphans_or_no_key_put_a_return_off),
        ROUTE_TEST(test_route_failed_return_waits_longer),
        ROUTE_TEST(test_route_failed_return_stays_with_the_peer),
        ROUTE_TEST(test_route_flapping_paths_are_trusted_less),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
