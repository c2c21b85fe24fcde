/* SPDX-License-Identifier: BSD-3-Clause */
/* Performing the route's decisions: what is registered, fenced, saved and asked
 * for, in which order, and what the VMs and the monitor are told. */
#include "tests/unit/router_parts.h"

static void
test_router_local_only_when_registered_and_saved(void **state)
{
    (void)state;
    t.save_result = -ENOSPC;
    start();
    eventually(count(&t.registers) > 1); /* tried again */
    assert_int_equal(where(), GATE_HELD);
    assert_int_equal(count(&t.complaints), 1);
    LOCKED(t.save_result = 0);
    eventually(where() == GATE_LOCAL);
    assert_true(saved_local());
}

static void
test_router_lost_write_fences_ourselves(void **state)
{
    (void)state;
    t.ready[0] = true;
    t.on_disk.generation = 41;
    start();
    eventually(where() == GATE_LOCAL);
    fail_request(true, true, ROUTE_EV_LOCAL_ERROR, -ENOLINK);
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.generation, 42);
    assert_int_equal(t.asked.nfence, 1);
    assert_ptr_equal(t.asked.fence[0], &hosts[0]);
    /* all of it was on disk before the peer was asked */
    assert_int_equal(t.saved_at_open.generation, 42);
    assert_true(t.saved_at_open.local);
    assert_string_equal(t.saved_at_open.peers[0], "b");
    assert_int_equal(count(&t.releases), 1);
}

static void
test_router_clean_move_fences_nobody(void **state)
{
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect(NULL, err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.nfence, 0);
    /* we still wrote here when the peer was asked, and do no more */
    assert_true(t.saved_at_open.local);
    eventually(!saved_local());
}

static void
test_router_lost_peer_is_fenced_on_the_way_home(void **state)
{
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect("b", err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    /* it may still look ready when the loss is noticed, and be asked again */
    LOCKED(t.ready[0] = false; t.open_result = -EACCES);
    fail_request(true, true, ROUTE_EV_PEER_LOST, -ENOTCONN);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(count(&t.fenced), 1u << hosts[1].number);
    assert_int_equal(count(&t.closes), 1);
}

/* It answered a write with EIO, and nothing else is wrong with it: a planned
 * return, but what its kernel gave up may still be on its way. */
static void
test_router_peer_that_failed_a_write_is_fenced_on_the_way_home(void **state)
{
    struct gate_request rq = {.writes = true, .count = 512};
    char err[256];

    (void)state;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(redirect("b", err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    assert_int_equal(gate_enter(router_gate(router), &rq, 0), 0);
    gate_leave(router_gate(router), &rq, true);
    gate_finish(router_gate(router), &rq);
    router_return(router);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(count(&t.fenced), 1u << hosts[1].number);
}

static void
test_router_fenced_registers_anew(void **state)
{
    (void)state;
    start();
    eventually(where() == GATE_LOCAL);
    fail_request(true, false, ROUTE_EV_FENCED, -EBADE);
    eventually(count(&t.registers) == 2);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(router_gate(router)->route.registration_no, 2);
}

/* Nobody else can clear the suspicion, however many others are ready. */
static void
test_router_stays_connected_to_its_suspects(void **state)
{
    (void)state;
    lun.fence = CONFIG_FENCE_DRAIN;
    t.ready[0] = true;
    t.on_disk.npeers = 1;
    snprintf(t.on_disk.peers[0], STATE_NAME_MAX, "c");
    start();
    eventually(kept() == 1u << 1);
    assert_int_equal(where(), GATE_HELD);
    LOCKED(t.ready[1] = true);
    news();
    eventually(where() == GATE_PEER);
    assert_int_equal(t.asked.peer, 1);
    eventually(kept() == 0);
}

static void
test_router_tells_the_monitor_of_answers(void **state)
{
    struct gate_request rq = {.entered_ms = clock_ms()};
    uint64_t counts[SLOW_BUCKETS];

    (void)state;
    start();
    assert_int_equal(t.monitor.answered_ms(t.monitor.opaque), 0);
    gate_note_answer(router_gate(router), &rq);
    assert_int_not_equal(t.monitor.answered_ms(t.monitor.opaque), 0);
    rq.entered_ms -= 1 << 15;
    gate_note_answer(router_gate(router), &rq);
    t.monitor.durations(t.monitor.opaque, counts);
    assert_int_equal(counts[16], 1);
}

static void
test_router_slow_paths_are_left_only_where_that_is_wanted(void **state)
{
    unsigned seen;

    (void)state;
    lun.timers.failback_after = 50;
    t.ready[0] = true;
    start();
    eventually(where() == GATE_LOCAL);
    LOCKED(t.local_slow = true);
    seen = count(&t.views);
    eventually((news(), count(&t.views) >= seen + 3));
    assert_int_equal(where(), GATE_LOCAL);
    router_stop(router);
    router = NULL;

    lun.redirect_when_slow = true;
    LOCKED(t.local_slow = false);
    start();
    eventually(where() == GATE_LOCAL);
    LOCKED(t.local_slow = true);
    news();
    eventually(where() == GATE_PEER);
    LOCKED(t.local_slow = false);
    news();
    eventually(where() == GATE_LOCAL);
}

/* NBD, and nbdkit, want a power of two. */
static void
test_router_preferred_size_is_one_that_nbd_knows(void **state)
{
    static const struct {
        uint32_t block, device, told;
    } rows[] = {{512, 0, 4096},      {512, 512, 512},
                {4096, 1024, 4096},  {512, 196608, 131072},
                {512, 65536, 65536}, {512, UINT32_MAX, 32u << 20}};
    struct router_lun l;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        t.lun.block_size = rows[i].block;
        t.lun.preferred = rows[i].device;
        t.on_disk = (struct state){0};
        start();
        assert_int_equal(router_get_lun(router, &l, PATIENCE_MS), 0);
        assert_int_equal(l.preferred, rows[i].told);
        router_stop(router);
        router = NULL;
    }
}

static uint64_t
told_size(void)
{
    struct router_lun l;

    assert_int_equal(router_get_lun(router, &l, PATIENCE_MS), 0);
    return l.size;
}

/* What a session was not opened with, its peer refuses. */
static void
test_router_size_told_is_what_the_session_carries(void **state)
{
    const struct router_order anybody = {0};
    char err[256];

    (void)state;
    t.ready[0] = true;
    t.limits.size = GIB;
    start();
    eventually(where() == GATE_LOCAL);
    assert_int_equal(router_redirect(router, &anybody, err, sizeof err), 0);
    eventually(where() == GATE_PEER);
    LOCKED(t.lun.size = 2 * GIB);
    look_again();
    assert_int_equal(told_size(), GIB);
    router_return(router);
    eventually(where() == GATE_LOCAL);
    assert_int_equal(told_size(), 2 * GIB);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_router_local_only_when_registered_and_saved),
        TEST(test_router_lost_write_fences_ourselves),
        TEST(test_router_clean_move_fences_nobody),
        TEST(test_router_lost_peer_is_fenced_on_the_way_home),
        TEST(test_router_peer_that_failed_a_write_is_fenced_on_the_way_home),
        TEST(test_router_fenced_registers_anew),
        TEST(test_router_stays_connected_to_its_suspects),
        TEST(test_router_tells_the_monitor_of_answers),
        TEST(test_router_slow_paths_are_left_only_where_that_is_wanted),
        TEST(test_router_preferred_size_is_one_that_nbd_knows),
        TEST(test_router_size_told_is_what_the_session_carries),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
