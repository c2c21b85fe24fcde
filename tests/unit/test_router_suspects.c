/* SPDX-License-Identifier: BSD-3-Clause */
/* Performing the route's decisions: who may still carry our writes, without
 * reservations, and for ever. */
#include "tests/unit/router_parts.h"

/* ---- without reservations ----------------------------------------------- */

/* A write of this range is sent, and never answered. */
static void
lose_write(uint64_t offset, enum route_event_kind kind, int error)
{
    struct gate_request rq = {.writes = true, .offset = offset, .count = 512};
    struct gate *g = router_gate(router);

    rq.orphan = orphan_create();
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    gate_leave(g, &rq, true);
    assert_null(rq.orphan);
    router_report_error(router, kind, rq.route.serial, error);
    gate_finish(g, &rq);
}

static int
asked_peer(void)
{
    int peer;

    LOCKED(peer = t.asked.peer);
    return peer;
}

/* Through b, and b is lost with a write: on through c. */
static void
lose_b_with_a_write(void)
{
    lun.fence = CONFIG_FENCE_DRAIN;
    t.local_usable = false;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_PEER);
    LOCKED(t.ready[0] = false; t.ready[1] = true);
    look_again();
    lose_write(4096, ROUTE_EV_PEER_LOST, -ENOTCONN);
    eventually(asked_peer() == 1 && where() == GATE_PEER);
}

/* It would be the first to be asked for a route; and it is asked aside,
 * under a generation that is on disk, while the route stays with c. */
static void
test_router_drain_asks_the_lost_peer_aside(void **state)
{
    (void)state;
    lose_b_with_a_write();
    assert_int_equal(orphans(), 1);
    assert_true(on_disk("b") && on_disk("c"));
    assert_int_equal(count(&t.drains), 0);

    LOCKED(t.ready[0] = true);
    news();
    eventually(count(&t.drains) == 1);
    assert_int_equal(t.drained.peer, 0);
    assert_int_equal(t.drained.nfence, 0);
    assert_true(t.drained.generation > t.asked.generation);
    assert_int_equal(t.saved_at_open.generation, t.drained.generation);
    assert_int_equal(orphans(), 1);
    LOCKED(t.drain_result = -ETIMEDOUT; t.drain_answered = true);
    news();
    eventually(count(&t.drains) == 2);
    assert_int_equal(orphans(), 1);
    assert_true(on_disk("b"));

    LOCKED(t.drain_result = 0; t.drain_answered = true);
    news();
    eventually(orphans() == 0);
    eventually(!on_disk("b"));
    assert_int_equal(where(), GATE_PEER);
    assert_int_equal(t.asked.peer, 1);
}

static void
test_router_drain_own_write_goes_by_range(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;
    struct lun_io io = {.op = LUN_WRITE};

    (void)state;
    lun.fence = CONFIG_FENCE_DRAIN;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    g = router_gate(router);
    rq.orphan = orphan_create();
    io.tally = rq.orphan->tally;
    lun_tally_begin(&io);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    LOCKED(t.lun.orphans = 1);
    gate_leave(g, &rq, true);
    router_report_error(router, ROUTE_EV_LOCAL_ERROR, rq.route.serial, -EIO);
    gate_finish(g, &rq);

    eventually(where() == GATE_PEER);
    assert_int_equal(orphans(), 1);
    assert_true(saved_local());
    LOCKED(t.lun.orphans = 0);
    lun_tally_end(&io);
    eventually(orphans() == 0); /* without any news */
    eventually(!saved_local());
}

/* ---- suspects for ever -------------------------------------------------- */

static void
leave_behind(const char *host)
{
    snprintf(t.on_disk.peers[t.on_disk.npeers++], STATE_NAME_MAX, "%s", host);
}

static void
test_router_stray_host_is_fenced_by_its_number(void **state)
{
    (void)state;
    leave_behind("d");
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(count(&t.fenced), 1u << 4);
    eventually(!on_disk("d"));
}

static void
test_router_stray_host_is_fenced_by_the_peer(void **state)
{
    (void)state;
    leave_behind("d");
    t.local_usable = false;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.nfence, 1);
    assert_string_equal(t.asked.fence[0]->name, "d");
    assert_true(t.saved_at_open.npeers == 2);
}

static void
refuses_to_forget(const char *host)
{
    char err[256];
    json_t *j;

    leave_behind(host);
    t.ready[0] = true;
    start();
    LOCKED(t.ready[1] = true);
    news();
    /* both of them are seen ready, and yet nobody is asked */
    eventually(redirect(NULL, err, sizeof err) == 0);
    look_again();
    assert_int_equal(where(), GATE_HELD);
    assert_int_equal(count(&t.opens) + count(&t.registers), 0);
    j = router_status(router);
    assert_string_equal(
        json_string_value(json_array_get(
            json_object_get(json_object_get(j, "route"), "suspects"), 0)),
        host);
    json_decref(j);

    assert_int_equal(
        router_confirm_dead(router, host, "a test", err, sizeof err), 0);
    eventually(where() != GATE_HELD);
    assert_false(on_disk(host));
}

static void
test_router_unknown_host_is_not_forgotten_silently(void **state)
{
    (void)state;
    refuses_to_forget("gone");
}

/* It has a number, but there are no reservations to fence it by. */
static void
test_router_drain_stray_host_is_not_forgotten_silently(void **state)
{
    (void)state;
    lun.fence = CONFIG_FENCE_DRAIN;
    refuses_to_forget("d");
}

static void
test_router_confirm_dead_ends_the_wait_for_a_peer(void **state)
{
    char err[256];

    (void)state;
    lose_b_with_a_write();
    LOCKED(t.answers[0] = true);
    assert_int_equal(router_confirm_dead(router, "b", "me", err, sizeof err),
                     -EBUSY);
    assert_string_equal(err, "b is not dead: its proxy answers");
    assert_int_equal(orphans(), 1);
    LOCKED(t.answers[0] = false);
    assert_int_equal(router_confirm_dead(router, "b", "me", err, sizeof err),
                     0);
    eventually(orphans() == 0);
    eventually(!on_disk("b"));
    assert_true(on_disk("c"));
}

static void
test_router_confirm_dead_refuses_what_cannot_be(void **state)
{
    char err[256];

    (void)state;
    start();
    assert_int_equal(router_confirm_dead(router, "a", "me", err, sizeof err),
                     -EINVAL);
    assert_string_equal(err, "a is this very host");
    assert_int_equal(router_confirm_dead(router, "x", "me", err, sizeof err),
                     -ENOENT);
    assert_string_equal(err, "there is no host x");
    /* known, and nothing to forget */
    assert_int_equal(router_confirm_dead(router, "d", "me", err, sizeof err),
                     0);
}

/* Requests are held, and the route was not left: nowhere to go.  What is inside
 * stays on disk, whatever is saved meanwhile. */
static void
test_router_held_route_stays_on_disk(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    unsigned saves;
    char err[256];

    (void)state;
    start();
    eventually(where() == GATE_LOCAL);
    eventually(saved_local());
    assert_int_equal(gate_enter(router_gate(router), &rq, 0), 0);
    LOCKED(t.local_usable = false);
    news();
    eventually(where() == GATE_HELD);
    saves = count(&t.saves);
    assert_int_equal(router_confirm_dead(router, "b", "me", err, sizeof err),
                     0);
    eventually(count(&t.saves) > saves);
    assert_true(saved_local());
    gate_leave(router_gate(router), &rq, true);
    gate_finish(router_gate(router), &rq);
}

/* The same of a peer, which has met an error. */
static void
test_router_held_peer_stays_on_disk(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    unsigned saves;
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect("b", err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    eventually(!saved_local());
    assert_int_equal(gate_enter(router_gate(router), &rq, 0), 0);
    LOCKED(t.ready[0] = t.local_usable = false);
    look_again();
    fail_request(false, false, ROUTE_EV_PEER_ERROR, -EIO);
    look_again();
    assert_int_equal(where(), GATE_HELD);
    saves = count(&t.saves);
    assert_int_equal(router_confirm_dead(router, "c", "me", err, sizeof err),
                     0);
    eventually(count(&t.saves) > saves);
    assert_true(on_disk("b"));
    gate_leave(router_gate(router), &rq, true);
    gate_finish(router_gate(router), &rq);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_router_drain_asks_the_lost_peer_aside),
        TEST(test_router_drain_own_write_goes_by_range),
        TEST(test_router_stray_host_is_fenced_by_its_number),
        TEST(test_router_stray_host_is_fenced_by_the_peer),
        TEST(test_router_unknown_host_is_not_forgotten_silently),
        TEST(test_router_drain_stray_host_is_not_forgotten_silently),
        TEST(test_router_confirm_dead_ends_the_wait_for_a_peer),
        TEST(test_router_confirm_dead_refuses_what_cannot_be),
        TEST(test_router_held_route_stays_on_disk),
        TEST(test_router_held_peer_stays_on_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
