/* SPDX-License-Identifier: BSD-3-Clause */
/* Which flushes reach the LUN, and which would find nothing to do there. */
#include "tests/unit/request_parts.h"

static size_t
flush(void)
{
    assert_int_equal(run(LUN_FLUSH, 0, 0), 0);
    return t.nios + t.ncommands;
}

/* The next flush reaches the LUN, and the one after it does not. */
static void
assert_flushes_once(void)
{
    size_t before = t.nios + t.ncommands;

    assert_int_equal(flush(), before + 1);
    assert_int_equal(flush(), before + 1);
}

/* A planned move: nobody is inside, nothing was left behind. */
static void
move_on(void)
{
    gate_hold(&t.gate);
    open_next();
}

static void
test_request_first_flush_goes_out(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL);
    assert_flushes_once();
    assert_int_equal(t.ios[0].op, LUN_FLUSH);
}

static void
test_request_first_flush_goes_out_at_a_peer(void **state)
{
    (void)state;
    ROUTES(GATE_PEER);
    assert_flushes_once();
    assert_int_equal(t.commands[0].op, LINK_FLUSH);
}

static void
test_request_flush_follows_whatever_changes_the_lun(void **state)
{
    static const struct {
        enum lun_op op;
        unsigned flags;
    } rows[] = {{LUN_WRITE, 0},      {LUN_WRITE, LUN_FUA}, {LUN_TRIM, 0},
                {LUN_TRIM, LUN_FUA}, {LUN_ZERO, 0},        {LUN_ZERO, LUN_FUA}};

    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER);
    for (int route = 0; route < 2; route++) {
        flush();
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            struct request q = {.op = rows[i].op,
                                .flags = rows[i].flags,
                                .count = 512,
                                .data = buffer};

            assert_int_equal(request_run(router, &q, 0), 0);
            assert_flushes_once();
        }
        if (route == 0)
            move_on();
    }
}

static void
test_request_reads_leave_nothing_to_flush(void **state)
{
    size_t n;

    (void)state;
    ROUTES(GATE_LOCAL);
    flush();
    run(LUN_READ, 0, 512);
    n = t.nios;
    assert_int_equal(flush(), n);
}

/* It may have taken effect in part, or may still. */
static void
test_request_flush_follows_a_write_that_failed(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER);
    flush();
    ANSWERS({.error = -ENOSPC}, {0}, {.error = -EIO}, {.error = -EIO});
    assert_int_equal(run(LUN_WRITE, 0, 512), -ENOSPC);
    assert_flushes_once();
    move_on();
    t.next_answer = t.nanswers;
    flush();
    t.next_answer = 2; /* nothing is reported: the same opening */
    assert_int_equal(run(LUN_WRITE, 0, 512), -EIO);
    assert_flushes_once();
}

static void
test_request_flush_goes_out_on_each_new_route(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER, GATE_PEER, GATE_LOCAL);
    for (int i = 0; i < 4; i++) {
        assert_flushes_once();
        if (i < 3)
            move_on();
    }
}

/* The second route is the one that it is known of. */
static void
test_request_flush_that_is_sent_again(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER);
    ANSWERS({.error = -ENOLINK});
    assert_int_equal(flush(), 2);
    assert_report(0, ROUTE_EV_LOCAL_ERROR, false);
    assert_int_equal(flush(), 2);
}

static void
test_request_flush_that_failed_is_not_the_last(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL);
    ANSWERS({.error = -ENOSPC});
    assert_int_equal(run(LUN_FLUSH, 0, 0), -ENOSPC);
    assert_flushes_once();
}

static void
test_request_flush_goes_out_for_a_new_client(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL);
    flush();
    request_connected(router);
    assert_flushes_once();
}

/* ---- at the same time --------------------------------------------------- */

static void
write_now(void)
{
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
}

static void
connect_now(void)
{
    request_connected(router);
}

/* The LUN may have looked at its cache before. */
static void
test_request_flush_covers_nothing_that_came_after_it(void **state)
{
    (void)state;
    ROUTES(GATE_PEER);
    t.meanwhile = write_now;
    assert_int_equal(flush(), 2);
    assert_flushes_once();
    write_now();
    t.meanwhile = connect_now;
    flush();
    assert_flushes_once();
}

static void
fail_now(void)
{
    assert_int_equal(run(LUN_FLUSH, 0, 0), -ENOSPC);
}

/* Some systems tell an error of the cache only once, to either of two. */
static void
test_request_flush_that_failed_counts_beside_one_that_did_not(void **state)
{
    (void)state;
    ROUTES(GATE_PEER);
    ANSWERS({0}, {.error = -ENOSPC});
    t.meanwhile = fail_now;
    assert_int_equal(flush(), 2);
    assert_flushes_once();
}

static size_t commands_then;

static void
flush_now(void)
{
    commands_then = flush();
}

/* Nobody was told yet that it is written. */
static void
test_request_flush_does_not_cover_a_write_under_way(void **state)
{
    (void)state;
    ROUTES(GATE_PEER);
    flush();
    t.meanwhile = flush_now;
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(commands_then, 2);
    assert_flushes_once();
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_request_first_flush_goes_out),
        TEST(test_request_first_flush_goes_out_at_a_peer),
        TEST(test_request_flush_follows_whatever_changes_the_lun),
        TEST(test_request_reads_leave_nothing_to_flush),
        TEST(test_request_flush_follows_a_write_that_failed),
        TEST(test_request_flush_goes_out_on_each_new_route),
        TEST(test_request_flush_that_is_sent_again),
        TEST(test_request_flush_that_failed_is_not_the_last),
        TEST(test_request_flush_goes_out_for_a_new_client),
        TEST(test_request_flush_covers_nothing_that_came_after_it),
        TEST(test_request_flush_that_failed_counts_beside_one_that_did_not),
        TEST(test_request_flush_does_not_cover_a_write_under_way),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
