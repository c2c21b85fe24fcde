/* SPDX-License-Identifier: BSD-3-Clause */
/* A route and the world around it, for the tests of its decisions. */
#ifndef DETOUR_TESTS_ROUTE_WORLD_H
#define DETOUR_TESTS_ROUTE_WORLD_H

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

static inline void
world_init(struct world *w)
{
    memset(w, 0, sizeof *w);
    w->opt = normal;
    w->now = START;
    w->view.peers = w->peers;
    route_init(&w->r, &w->opt, w->now);
}

/* Each test's world, as *state. */
static inline int
setup(void **state)
{
    static struct world w;

    world_init(&w);
    *state = &w;
    return 0;
}

#define ROUTE_TEST(test) cmocka_unit_test_setup(test, setup)

static inline enum route_do
step(struct world *w, enum route_event_kind kind, int peer)
{
    struct route_event ev = {
        .kind = kind, .peer = peer, .why = "test", .for_ms = w->for_ms};

    return route_step(&w->r, &w->opt, &w->view, &ev, w->now);
}

static inline void
own_paths(struct world *w, bool work)
{
    w->view.local_usable = w->view.local_registered = work;
    w->view.local_lost = !work;
    w->view.local_good_ms = work ? w->now : 0;
}

static inline void
peers_ready(struct world *w, unsigned bits)
{
    for (int i = 0; i < PEERS; i++)
        w->peers[i].ready = bits >> i & 1;
}

/* What the router does with an action that ends well. */
static inline void
succeed(struct world *w, enum route_do act, bool dirty)
{
    if (act == ROUTE_DO_NOTHING)
        return;
    route_left(&w->r, dirty);
    assert_int_equal(
        step(w, act == ROUTE_DO_OPEN ? ROUTE_EV_OPENED : ROUTE_EV_HOME, SELF),
        NOTHING);
}

static inline void
go_local(struct world *w)
{
    own_paths(w, true);
    assert_int_equal(step(w, ROUTE_EV_TICK, SELF), HOME);
    succeed(w, ROUTE_DO_HOME, false);
    assert_int_equal(w->r.phase, LOCAL);
}

/* Through peer, our own paths being lost. */
static inline void
go_redirected(struct world *w, int peer)
{
    own_paths(w, false);
    peers_ready(w, 1u << peer);
    w->now += w->opt.settle_ms;
    succeed(w, step(w, ROUTE_EV_TICK, SELF), false);
    assert_int_equal(w->r.phase, REDIRECTED);
    assert_int_equal(w->r.peer, peer);
}

#endif
