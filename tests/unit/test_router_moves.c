/* SPDX-License-Identifier: BSD-3-Clause */
/* Performing the route's decisions: on a planned move the present route serves
 * until the next one is ready. */
#include "tests/unit/router_parts.h"

static void
begin_planned_move(void)
{
    char err[256];

    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    LOCKED(t.open_hangs = true);
    assert_int_equal(redirect("b", err, sizeof err), 0);
    eventually(count(&t.opens) == 1);
}

static void
test_router_planned_move_serves_until_the_peer_has_answered(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;

    (void)state;
    begin_planned_move();
    g = router_gate(router);
    assert_int_equal(gate_enter(g, &rq, 500), 0);
    assert_int_equal(rq.route.where, GATE_LOCAL);
    gate_finish(g, &rq);
    assert_int_equal(count(&t.releases), 0);
    LOCKED(t.open_hangs = false);
    eventually(where() == GATE_PEER);
    assert_int_equal(count(&t.opens), 1);
    assert_int_equal(count(&t.releases), 1);
}

/* A write is lost after GO was granted without any fence. */
static void
test_router_planned_move_that_leaves_a_write_behind_asks_again(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;

    (void)state;
    begin_planned_move();
    g = router_gate(router);
    assert_int_equal(gate_enter(g, &rq, 500), 0);
    LOCKED(t.open_hangs = false);
    eventually(where() == GATE_HELD); /* and drains */
    assert_int_equal(count(&t.closes), 0);
    gate_leave(g, &rq, true);
    gate_finish(g, &rq);
    eventually(where() == GATE_PEER);
    assert_int_equal(count(&t.opens), 2);
    assert_int_equal(count(&t.closes), 1);
    assert_int_equal(t.asked.generation, 2);
    assert_int_equal(t.asked.nfence, 1);
    assert_ptr_equal(t.asked.fence[0], &hosts[0]);
    assert_int_equal(t.saved_at_open.generation, 2);
    assert_true(t.saved_at_open.local);
}

/* A write was lost before, on the route that is to be left. */
static void
test_router_planned_move_with_a_lost_write_fences_first(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    g = router_gate(router);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    gate_leave(g, &rq, true);
    gate_finish(g, &rq);
    assert_int_equal(redirect("b", err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    assert_int_equal(count(&t.opens), 1);
    assert_int_equal(t.asked.nfence, 1);
}

/* Nothing was left: nobody has noticed. */
static void
test_router_planned_move_that_is_refused_goes_on_here(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;

    (void)state;
    begin_planned_move();
    g = router_gate(router);
    assert_int_equal(gate_enter(g, &rq, 500), 0);
    assert_true(on_disk("b"));
    LOCKED(t.open_result = -EACCES; t.open_hangs = false);
    eventually(!on_disk("b"));
    gate_finish(g, &rq);
    assert_int_equal(where(), GATE_LOCAL);
    assert_true(saved_local());
    assert_int_equal(count(&t.releases), 0);
    assert_int_equal(count(&t.registers), 1);
    assert_int_equal(count(&t.fenced), 0);
}

/* The session is closed, which takes its time, when the next route is open. */
static void
test_router_planned_move_from_peer_to_peer(void **state)
{
    char err[256];

    (void)state;
    t.ready[0] = t.ready[1] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect("b", err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    eventually(!saved_local());
    assert_int_equal(redirect("c", err, sizeof err), 0);
    eventually(count(&t.closes) == 1);
    assert_int_equal(t.where_closed, GATE_PEER);
    assert_int_equal(t.asked.peer, 1);
    assert_int_equal(t.asked.nfence, 0);
    /* both may hold writes of ours meanwhile */
    assert_int_equal(t.saved_at_open.npeers, 2);
    assert_false(t.saved_at_open.local);
}

static void
test_router_planned_return_registers_while_the_peer_serves(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;

    (void)state;
    begin_planned_move();
    g = router_gate(router);
    LOCKED(t.open_hangs = false);
    eventually(where() == GATE_PEER);
    eventually(!saved_local());
    LOCKED(t.register_hangs = true);
    router_return(router);
    eventually(count(&t.registers) == 2);
    assert_int_equal(gate_enter(g, &rq, 500), 0);
    assert_int_equal(rq.route.where, GATE_PEER);
    gate_finish(g, &rq);
    LOCKED(t.register_hangs = false);
    eventually(count(&t.closes) == 1);
    assert_int_equal(t.where_closed, GATE_LOCAL);
    assert_int_equal(count(&t.registers), 2);
    assert_true(saved_local());
}

/* Fenced after it registered, and before the last request had left the peer. */
static void
test_router_planned_return_fenced_meanwhile_registers_anew(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;

    (void)state;
    begin_planned_move();
    g = router_gate(router);
    LOCKED(t.open_hangs = false);
    eventually(where() == GATE_PEER);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    router_return(router);
    eventually(where() == GATE_HELD); /* and drains */
    assert_int_equal(count(&t.registers), 2);
    LOCKED(t.lun.registration = LUN_FENCED);
    gate_finish(g, &rq);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(count(&t.registers), 3);
    assert_int_equal(router_gate(router)->route.registration_no, 3);
}

/* From b to c, which refuses, and then home, where nobody may write. */
static void
test_router_planned_moves_that_fail_leave_the_peer_serving(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    char err[256];

    (void)state;
    begin_planned_move();
    LOCKED(t.open_hangs = false);
    eventually(where() == GATE_PEER);
    eventually(!saved_local());
    assert_int_equal(gate_enter(router_gate(router), &rq, 0), 0);
    LOCKED(t.ready[1] = true; t.open_result = -EACCES);
    look_again();
    assert_int_equal(redirect("c", err, sizeof err), 0);
    eventually(count(&t.opens) == 2);
    eventually(!on_disk("c"));
    LOCKED(t.register_result = -EIO);
    router_return(router);
    eventually(count(&t.registers) >= 2);
    look_again();
    gate_finish(router_gate(router), &rq);
    assert_int_equal(where(), GATE_PEER);
    assert_true(on_disk("b") && !saved_local());
    assert_int_equal(count(&t.opens), 2);
    assert_int_equal(count(&t.closes), 0);
}

/* A request meets a path error while the peer says nothing to GO, which is then
 * not waited for. */
static void
test_router_planned_move_yields_to_a_path_error(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};

    (void)state;
    lun.timers.open_timeout = 3600000;
    begin_planned_move();
    fail_request(false, false, ROUTE_EV_LOCAL_ERROR, -EIO);
    eventually(count(&t.opens) == 2); /* now for good */
    assert_false(t.asked.yields);
    LOCKED(t.open_hangs = false);
    eventually(where() == GATE_PEER);
    assert_int_equal(gate_enter(router_gate(router), &rq, 0), 0);
    gate_finish(router_gate(router), &rq);
}

/* The paths fail while the last requests are waited for. */
static void
test_router_planned_move_does_not_wait_for_a_broken_route(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;

    (void)state;
    lun.timers.io_timeout = 3600000;
    begin_planned_move();
    g = router_gate(router);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    LOCKED(t.open_hangs = false);
    eventually(where() == GATE_HELD); /* and drains */
    LOCKED(t.local_usable = false);
    eventually(gate_is_cut(g));
    gate_leave(g, &rq, true);
    gate_finish(g, &rq);
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.nfence, 1);
}

static bool
phase_is(const char *name)
{
    json_t *j = router_status(router);
    bool is = strcmp(json_string_value(
                         json_object_get(json_object_get(j, "route"), "phase")),
                     name) == 0;

    json_decref(j);
    return is;
}

/* The peer drains, and one of its connections has ended: what is under way on
 * another is waited for, and nobody is fenced. */
static void
test_router_drained_peer_may_answer_what_it_has(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    struct gate *g;

    (void)state;
    lun.timers.io_timeout = 3600000;
    begin_planned_move();
    LOCKED(t.open_hangs = t.local_usable = false; t.ready[1] = true);
    g = router_gate(router);
    eventually(where() == GATE_PEER);
    assert_int_equal(gate_enter(g, &rq, 0), 0);
    fail_request(false, false, ROUTE_EV_PEER_DRAINS, -ESHUTDOWN);
    eventually(phase_is("opening"));
    LOCKED(t.session_broken = true);
    usleep(250000); /* it looks after each 100 ms */
    assert_false(gate_is_cut(g));
    LOCKED(t.session_broken = false);
    gate_finish(g, &rq);
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.peer, 1);
    assert_int_equal(t.asked.nfence, 0);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_router_planned_move_serves_until_the_peer_has_answered),
        TEST(test_router_planned_move_that_leaves_a_write_behind_asks_again),
        TEST(test_router_planned_move_with_a_lost_write_fences_first),
        TEST(test_router_planned_move_that_is_refused_goes_on_here),
        TEST(test_router_planned_move_from_peer_to_peer),
        TEST(test_router_planned_return_registers_while_the_peer_serves),
        TEST(test_router_planned_return_fenced_meanwhile_registers_anew),
        TEST(test_router_planned_moves_that_fail_leave_the_peer_serving),
        TEST(test_router_planned_move_yields_to_a_path_error),
        TEST(test_router_planned_move_does_not_wait_for_a_broken_route),
        TEST(test_router_drained_peer_may_answer_what_it_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
