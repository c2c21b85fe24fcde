/* SPDX-License-Identifier: BSD-3-Clause */
/* Which of a VM's requests may still take effect when they are given up. */
#include "tests/unit/request_parts.h"

/* ---- without reservations ----------------------------------------------- */

static unsigned
orphans(void)
{
    struct gate_stats st;

    gate_get_stats(&t.gate, &st);
    return st.orphans;
}

static void
test_request_with_reservations_leaves_no_range(void **state)
{
    (void)state;
    ROUTES(GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(orphans(), 0);
    assert_null(t.ios[0].tally);
}

/* Only its own next try waits for it, and that in vain: the limit passes. */
static void
test_request_lost_at_a_peer_leaves_its_range(void **state)
{
    struct request q = {
        .op = LUN_WRITE, .offset = 4096, .count = 8192, .data = buffer};

    (void)state;
    t.by_range = true;
    ROUTES(GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(request_run(router, &q, 20), -EIO);
    assert_int_equal(t.nios, 0);
    assert_int_equal(orphans(), 1);
    q.offset = 0;
    q.count = 4096;
    assert_int_equal(request_run(router, &q, 20), 0);
    assert_non_null(t.ios[0].tally); /* a new one: the gate has the other */
    assert_int_equal(gate_clear(&t.gate, 0, 1), 0);
    q.offset = 4096;
    q.count = 8192;
    assert_int_equal(request_run(router, &q, 20), 0);
}

static void
test_request_reads_and_unsent_writes_leave_no_range(void **state)
{
    (void)state;
    t.by_range = true;
    ROUTES(GATE_PEER, GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOTCONN}, {.error = -ENOTCONN, .unsent = true});
    assert_int_equal(run(LUN_READ, 0, 512), 0);
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 2);
    assert_int_equal(orphans(), 0);
}

/* Our own paths gave it back: it may be tried again at once. */
static void
test_request_that_came_back_with_an_error_leaves_no_range(void **state)
{
    (void)state;
    t.by_range = true;
    ROUTES(GATE_LOCAL, GATE_PEER);
    ANSWERS({.error = -ENOLINK});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_report(0, ROUTE_EV_LOCAL_ERROR, true);
    assert_int_equal(orphans(), 0);
}

static void *
write_a_little(void *opaque)
{
    struct request q = {.op = LUN_WRITE, .count = 512, .data = opaque};

    (void)request_run(router, &q, 0);
    request_thread_end();
    return NULL;
}

/* It hangs and is abandoned; once the device lets go of it, it goes on. */
static void
test_request_abandoned_leaves_its_range_until_it_returns(void **state)
{
    char data[512] = "x";
    struct gate_stats st;
    pthread_t thread;

    (void)state;
    t.by_range = true;
    ROUTES(GATE_LOCAL);
    ANSWERS({.error = HANGS});
    pthread_create(&thread, NULL, write_a_little, data);
    while (atomic_load(&hanging) == 0)
        usleep(1000);
    gate_cut(&t.gate);
    while (!gate_drain(&t.gate, clock_ms() + 5))
        gate_cut(&t.gate);
    assert_int_equal(gate_settle(&t.gate), 1);
    gate_open_peer(&t.gate, 0, the_session);
    do {
        usleep(1000);
        gate_get_stats(&t.gate, &st);
    } while (st.held == 0);
    assert_int_equal(gate_settle(&t.gate), 1);
    assert_int_equal(t.ncommands, 0);
    lun_tally_end(&t.left);
    assert_int_equal(gate_settle(&t.gate), 0);
    pthread_join(thread, NULL);
    assert_int_equal(t.ncommands, 1);
    assert_memory_equal(t.disk, data, 512);
}

/* ---- through a peer ----------------------------------------------------- */

/* It has come back: nobody waits for its range. */
static void
test_request_peers_doubtful_word_leaves_no_range(void **state)
{
    (void)state;
    t.by_range = true;
    ROUTES(GATE_PEER);
    ANSWERS({.error = -EIO}, {.error = -EIO});
    assert_int_equal(run(LUN_WRITE, 0, 512), -EIO);
    assert_int_equal(orphans(), 0);
    assert_true(gate_dirty(&t.gate));
}

/* ---- large ones --------------------------------------------------------- */

/* The route is left between two pieces: nothing is under way, nobody need be
 * fenced. */
static void
test_request_between_two_pieces_is_no_orphan(void **state)
{
    struct request q = {.op = LUN_WRITE, .count = 32 * KiB, .data = buffer};

    (void)state;
    t.max_io = 16 * KiB;
    t.hold_after_first = true;
    ROUTES(GATE_LOCAL);
    /* held then, with nobody to open: it gives up */
    assert_int_equal(request_run(router, &q, 20), -EIO);
    assert_int_equal(t.nios, 1);
    assert_false(gate_dirty(&t.gate));
    assert_int_equal(t.abandoned, 0);
    assert_int_equal(t.queues_gone, 0);
}

/* ---- a route that is cut ------------------------------------------------ */

struct late {
    pthread_t thread;
    enum lun_op op;
    unsigned limit_ms;
    int result;
};

static void *
run_late(void *opaque)
{
    struct late *l = opaque;

    struct request q = {.op = l->op, .count = 512, .data = buffer};

    l->result = request_run(router, &q, l->limit_ms);
    return NULL;
}

/* A request hangs on our own paths; the router cuts it off and opens the
 * next route. */
static void
cut_off(enum lun_op op, bool dirty)
{
    struct late l = {.op = op};

    ROUTES(GATE_LOCAL);
    ANSWERS({.error = HANGS});
    pthread_create(&l.thread, NULL, run_late, &l);
    while (atomic_load(&hanging) == 0)
        sched_yield();
    gate_cut(&t.gate);
    assert_true(gate_drain(&t.gate, clock_ms() + 10000));
    assert_int_equal(gate_dirty(&t.gate), dirty);
    assert_int_equal(t.abandoned, 1);
    assert_int_equal(t.queues_gone, 1);
    gate_open_peer(&t.gate, 0, the_session);
    pthread_join(l.thread, NULL);
    assert_int_equal(l.result, 0);
    assert_int_equal(t.ncommands, 1);
    assert_int_equal(t.nreports, 0);
}

static void
test_request_abandoned_write_may_still_take_effect(void **state)
{
    (void)state;
    cut_off(LUN_WRITE, true);
}

static void
test_request_abandoned_read_may_not(void **state)
{
    (void)state;
    cut_off(LUN_READ, false);
}

/* The route is lost and there is no other: the limit ends the wait also of
 * those whom it caught inside. */
static void
test_request_hanging_in_a_lost_route_ends_at_the_limit(void **state)
{
    struct late l = {.op = LUN_WRITE, .limit_ms = 50};

    (void)state;
    ROUTES(GATE_LOCAL);
    ANSWERS({.error = HANGS});
    pthread_create(&l.thread, NULL, run_late, &l);
    while (atomic_load(&hanging) == 0)
        sched_yield();
    gate_hold(&t.gate);
    pthread_join(l.thread, NULL);
    assert_int_equal(l.result, -EIO);
    assert_int_equal(t.abandoned, 1);
    assert_true(gate_dirty(&t.gate));
}

/* Slow is not dead. */
static void
test_request_slow_in_an_open_route_knows_no_limit(void **state)
{
    struct late l = {.op = LUN_WRITE, .limit_ms = 1};

    (void)state;
    ROUTES(GATE_LOCAL);
    ANSWERS({.error = HANGS});
    pthread_create(&l.thread, NULL, run_late, &l);
    while (atomic_load(&hanging) < 3) /* it looked at the gate twice */
        sched_yield();
    gate_cut(&t.gate);
    assert_true(gate_drain(&t.gate, clock_ms() + 10000));
    gate_open_peer(&t.gate, 0, the_session);
    pthread_join(l.thread, NULL);
    assert_int_equal(t.abandoned, 1);
}

static void
test_request_stray_interrupt_is_passed_over(void **state)
{
    (void)state;
    t.stray_interrupts = 3;
    ROUTES(GATE_LOCAL);
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.abandoned, 0);
    assert_int_equal(t.nios, 1);
}

static void
test_request_closing_is_told(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_CLOSED);
    ANSWERS({.error = -ENOLINK});
    assert_int_equal(run(LUN_READ, 0, 512), -ESHUTDOWN);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_request_with_reservations_leaves_no_range),
        TEST(test_request_lost_at_a_peer_leaves_its_range),
        TEST(test_request_reads_and_unsent_writes_leave_no_range),
        TEST(test_request_that_came_back_with_an_error_leaves_no_range),
        TEST(test_request_abandoned_leaves_its_range_until_it_returns),
        TEST(test_request_peers_doubtful_word_leaves_no_range),
        TEST(test_request_between_two_pieces_is_no_orphan),
        TEST(test_request_abandoned_write_may_still_take_effect),
        TEST(test_request_abandoned_read_may_not),
        TEST(test_request_hanging_in_a_lost_route_ends_at_the_limit),
        TEST(test_request_slow_in_an_open_route_knows_no_limit),
        TEST(test_request_stray_interrupt_is_passed_over),
        TEST(test_request_closing_is_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
