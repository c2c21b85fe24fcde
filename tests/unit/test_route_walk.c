/* SPDX-License-Identifier: BSD-3-Clause */
/* The route's decisions: a long random walk that checks what must hold whatever
 * comes. */
#include "tests/unit/route_world.h"

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

    /* what is made ready may fail before anything was left */
    if (well || w->r.left || !w->r.leave_clean || dice(2))
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
    world_init(&k.w);
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
        cmocka_unit_test(test_route_random_walk_keeps_the_rules),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
