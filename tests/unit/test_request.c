/* SPDX-License-Identifier: BSD-3-Clause */
/* A VM's request, from its arrival to its answer: the routes it takes and what
 * becomes of it there. */
#include "tests/unit/request_parts.h"

/* ---- own paths ---------------------------------------------------------- */

static void
test_request_local_data_goes_through(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL);
    assert_int_equal(run(LUN_READ, 4096, 8192), 0);
    assert_memory_equal(buffer, t.disk + 4096, 8192);
    memset(buffer, 'w', 1024);
    assert_int_equal(run(LUN_WRITE, 512, 1024), 0);
    assert_memory_equal(t.disk + 512, buffer, 1024);
    assert_int_equal(run(LUN_FLUSH, 0, 0), 0);
    assert_int_equal(t.ios[2].op, LUN_FLUSH);
    assert_int_equal(t.nreports, 0);
    assert_int_equal(t.queues_made, 1);
}

static void
test_request_writes_name_their_registration(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL);
    run(LUN_READ, 0, 512);
    run(LUN_WRITE, 0, 512);
    run(LUN_TRIM, 0, 512);
    run(LUN_ZERO, 0, 512);
    run(LUN_FLUSH, 0, 0);
    assert_int_equal(t.ios[0].registration_no, 0);
    for (int i = 1; i < 4; i++)
        assert_int_equal(t.ios[i].registration_no, 41);
    assert_int_equal(t.ios[4].registration_no, 0);
}

static void
test_request_misaligned_never_leaves(void **state)
{
    (void)state;
    t.block_size = 4096;
    ROUTES(GATE_LOCAL);
    assert_int_equal(run(LUN_WRITE, 512, 4096), -EINVAL);
    assert_int_equal(run(LUN_READ, 4096, 512), -EINVAL);
    assert_int_equal(t.nios, 0);
}

/* This process has no room for it; the LUN has said nothing. */
static void
test_request_without_a_queue_goes_to_a_peer(void **state)
{
    (void)state;
    t.no_queues = 1;
    ROUTES(GATE_LOCAL, GATE_PEER);
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_LOCAL_ERROR, false);
    assert_int_equal(t.ncommands, 1);
}

/* What proves that our own paths carry: an answer, but no path error, and no
 * refusal that may come from ourselves. */
static void
test_request_answers_of_own_paths_are_noted(void **state)
{
    static const struct {
        int error;
        bool noted;
    } rows[] = {{0, true},
                {-ENODATA, true},
                {-EINVAL, false},
                {-EBADE, false},
                {-ENOLINK, false}};

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        gate_fini(&t.gate);
        gate_init(&t.gate);
        t.next_route = t.nreports = t.next_answer = 0;
        ROUTES(GATE_LOCAL, GATE_PEER);
        ANSWERS({.error = rows[i].error});
        assert_int_equal(gate_answered_ms(&t.gate), 0);
        run(LUN_READ, 0, 512);
        assert_int_equal(gate_answered_ms(&t.gate) != 0, rows[i].noted);
    }
}

/* ---- through a peer ----------------------------------------------------- */

static void
test_request_broken_connection_dirties_only_what_was_sent(void **state)
{
    (void)state;
    ROUTES(GATE_PEER, GATE_PEER, GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOTCONN, .unsent = true}, {.error = -ENOTCONN});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 2);
    assert_report(0, ROUTE_EV_PEER_LOST, false);
    assert_report(1, ROUTE_EV_PEER_LOST, true);

    t.next_answer = 0;
    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(run(LUN_READ, 0, 512), 0);
    assert_report(2, ROUTE_EV_PEER_LOST, false);
}

static void
test_request_draining_peer_did_not_carry_it_out(void **state)
{
    (void)state;
    ROUTES(GATE_PEER, GATE_PEER);
    ANSWERS({.error = -ESHUTDOWN});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_PEER_DRAINS, false);
}

static void
test_request_peer_without_memory_is_left(void **state)
{
    (void)state;
    ROUTES(GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOMEM});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_PEER_ERROR, false);
}

static void
test_request_flags_reach_the_peer(void **state)
{
    struct request q = {.op = LUN_ZERO, .flags = LUN_FUA, .count = 512};

    (void)state;
    ROUTES(GATE_PEER);
    assert_int_equal(request_run(router, &q, 0), 0);
    q.flags = LUN_NO_HOLE;
    assert_int_equal(request_run(router, &q, 0), 0);
    assert_int_equal(t.commands[0].op, LINK_ZERO);
    assert_int_equal(t.commands[0].flags, LINK_FUA);
    assert_int_equal(t.commands[1].flags, LINK_NO_HOLE);
}

/* ---- whose client is gone ------------------------------------------------ */

static unsigned looks;

static bool
is_gone(void)
{
    looks++;
    return true;
}

static bool
is_there(void)
{
    looks++;
    return false;
}

/* Nobody is asked about a request that did not wait. */
static void
test_request_is_not_sent_again_for_a_client_that_is_gone(void **state)
{
    struct request q = {.op = LUN_ZERO, .count = 512, .client_gone = is_gone};

    (void)state;
    looks = 0;
    ROUTES(GATE_PEER, GATE_LOCAL);
    assert_int_equal(request_run(router, &q, 0), 0);
    assert_int_equal(looks, 0);
    assert_int_equal(t.ncommands, 1);

    t.next_answer = 0;
    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(request_run(router, &q, 0), -ECANCELED);
    assert_int_equal(looks, 1);
    assert_int_equal(t.ncommands, 2);
    assert_int_equal(t.nios, 0);
    assert_true(gate_drain(&t.gate, clock_ms())); /* it has left */
}

static void
test_request_is_sent_again_for_a_client_that_is_there(void **state)
{
    struct request q = {.op = LUN_ZERO, .count = 512, .client_gone = is_there};

    (void)state;
    looks = 0;
    ROUTES(GATE_PEER, GATE_LOCAL);
    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(request_run(router, &q, 0), 0);
    assert_int_equal(looks, 1);
    assert_int_equal(t.nios, 1);
}

static void
test_request_held_for_a_client_that_is_gone(void **state)
{
    struct request q = {.op = LUN_ZERO, .count = 512, .client_gone = is_gone};

    (void)state;
    looks = 0;
    gate_hold(&t.gate);
    assert_int_equal(request_run(router, &q, 0), -ECANCELED);
    assert_int_equal(looks, 1);
    assert_int_equal(t.nios, 0);
}

/* ---- large ones --------------------------------------------------------- */

static void
test_request_large_ones_are_split(void **state)
{
    (void)state;
    t.max_io = 16 * KiB;
    t.limits.max_io = 24 * KiB;
    ROUTES(GATE_LOCAL);
    assert_int_equal(run(LUN_READ, 4 * KiB, 40 * KiB), 0);
    assert_memory_equal(buffer, t.disk + 4 * KiB, 40 * KiB);
    assert_int_equal(t.nios, 3);
    assert_int_equal(t.ios[2].offset, 36 * KiB);
    assert_int_equal(t.ios[2].count, 8 * KiB);

    gate_hold(&t.gate);
    gate_open_peer(&t.gate, 0, the_session);
    for (size_t i = 0; i < 60 * KiB; i++)
        buffer[i] = (char)(i * 3);
    assert_int_equal(run(LUN_WRITE, 8 * KiB, 60 * KiB), 0);
    assert_memory_equal(t.disk + 8 * KiB, buffer, 60 * KiB);
    assert_int_equal(t.ncommands, 3);
    assert_int_equal(t.commands[2].count, 12 * KiB);

    /* a trim carries nothing: it is not split */
    assert_int_equal(run(LUN_TRIM, 0, 128 * KiB), 0);
    assert_int_equal(t.ncommands, 4);
}

static void
test_request_stops_at_the_first_piece_that_fails(void **state)
{
    (void)state;
    t.max_io = 16 * KiB;
    ROUTES(GATE_LOCAL);
    ANSWERS({0}, {.error = -ENODATA});
    assert_int_equal(run(LUN_READ, 0, 64 * KiB), -ENODATA);
    assert_int_equal(t.nios, 2);
}

/* ---- what a route cannot do --------------------------------------------- */

static void
test_request_trim_is_advice(void **state)
{
    (void)state;
    t.limits.can_trim = false;
    ROUTES(GATE_LOCAL);
    ANSWERS({.error = -EOPNOTSUPP});
    assert_int_equal(run(LUN_TRIM, 0, 512), 0);
    gate_hold(&t.gate);
    gate_open_peer(&t.gate, 0, the_session);
    assert_int_equal(run(LUN_TRIM, 0, 512), 0);
    assert_int_equal(t.ncommands, 0);
}

/* nbdkit writes zeroes then. */
static void
test_request_zero_is_not(void **state)
{
    (void)state;
    t.limits.can_zero = false;
    ROUTES(GATE_PEER);
    assert_int_equal(run(LUN_ZERO, 0, 512), -EOPNOTSUPP);
    assert_int_equal(t.ncommands, 0);
    assert_int_equal(t.nreports, 0);
}

/* ---- block status ------------------------------------------------------- */

static void
test_request_extents_do_not_wait_for_a_route(void **state)
{
    struct lun_extent e[4];

    (void)state;
    assert_int_equal(request_extents(router, 0, 8192, e, 4), 1);
    assert_int_equal(e[0].count, 8192);
    assert_false(e[0].hole);
}

/* The kernel may take its time over it: nobody leaves the route later for
 * that. */
static void
test_request_extents_of_own_paths_are_asked_outside(void **state)
{
    struct lun_extent e[4];

    (void)state;
    ROUTES(GATE_LOCAL);
    t.extents_result = 1;
    assert_int_equal(request_extents(router, 0, 8192, e, 4), 1);
    assert_true(e[0].hole);
    assert_false(t.extents_inside);

    t.extents_result = -ETIMEDOUT;
    assert_int_equal(request_extents(router, 0, 8192, e, 4), 1);
    assert_false(e[0].hole);
}

static void
test_request_extents_through_a_peer(void **state)
{
    struct lun_extent e[4];

    (void)state;
    ROUTES(GATE_PEER);
    assert_int_equal(request_extents(router, 4096, 8192, e, 4), 2);
    assert_true(e[0].hole);
    assert_false(e[1].hole); /* zeroes, but allocated */
    assert_int_equal(e[1].count, 4096);
    assert_int_equal(t.commands[0].offset, 4096);

    ANSWERS({.error = -ENOTCONN});
    assert_int_equal(request_extents(router, 0, 8192, e, 4), 1);
    assert_int_equal(e[0].count, 8192);
    assert_false(e[0].hole);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_request_local_data_goes_through),
        TEST(test_request_writes_name_their_registration),
        TEST(test_request_misaligned_never_leaves),
        TEST(test_request_without_a_queue_goes_to_a_peer),
        TEST(test_request_answers_of_own_paths_are_noted),
        TEST(test_request_broken_connection_dirties_only_what_was_sent),
        TEST(test_request_draining_peer_did_not_carry_it_out),
        TEST(test_request_peer_without_memory_is_left),
        TEST(test_request_flags_reach_the_peer),
        TEST(test_request_is_not_sent_again_for_a_client_that_is_gone),
        TEST(test_request_is_sent_again_for_a_client_that_is_there),
        TEST(test_request_held_for_a_client_that_is_gone),
        TEST(test_request_large_ones_are_split),
        TEST(test_request_stops_at_the_first_piece_that_fails),
        TEST(test_request_trim_is_advice),
        TEST(test_request_zero_is_not),
        TEST(test_request_extents_do_not_wait_for_a_route),
        TEST(test_request_extents_of_own_paths_are_asked_outside),
        TEST(test_request_extents_through_a_peer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
