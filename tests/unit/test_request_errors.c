/* SPDX-License-Identifier: BSD-3-Clause */
/* Whose error is it, when a VM's request fails: its route's, or the LUN's? */
#include "tests/unit/request_parts.h"

/* ---- own paths ---------------------------------------------------------- */

/* Each of the errors, on the route there is, and no route is left for it. */
static void
are_passed_at_once(const int *errors, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        t.next_answer = 0;
        ANSWERS({.error = -errors[i]});
        assert_int_equal(run(LUN_WRITE, 0, 512), -errors[i]);
    }
    assert_int_equal(t.nreports, 0);
    assert_false(gate_dirty(&t.gate));
}

static void
test_request_lun_and_request_errors_are_passed_at_once(void **state)
{
    static const int errors[] = {ENODATA, EREMOTEIO, EILSEQ, ENOSPC,
                                 EINVAL,  EROFS,     EPERM};

    (void)state;
    ROUTES(GATE_LOCAL);
    are_passed_at_once(errors, sizeof errors / sizeof *errors);
}

static void
test_request_path_error_goes_to_a_peer(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER);
    ANSWERS({.error = -ENOLINK});
    memset(buffer, 'p', 512);
    assert_int_equal(run(LUN_WRITE, 512, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_LOCAL_ERROR, true);
    assert_int_equal(t.commands[0].op, LINK_WRITE);
    assert_memory_equal(t.disk + 512, buffer, 512);
}

static void
test_request_failed_read_leaves_nothing_behind(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER);
    ANSWERS({.error = -ENOLINK});
    assert_int_equal(run(LUN_READ, 0, 512), 0);
    assert_report(0, ROUTE_EV_LOCAL_ERROR, false);
    assert_memory_equal(buffer, t.disk, 512);
}

static void
test_request_fenced_write_was_not_carried_out(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_LOCAL);
    ANSWERS({.error = -EBADE});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 1);
    assert_report(0, ROUTE_EV_FENCED, false);
    assert_int_equal(t.ios[1].registration_no, 42);
}

/* ---- whose error is it? ------------------------------------------------- */

static void
test_request_error_of_own_paths_and_peer_is_the_luns(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_PEER);
    ANSWERS({.error = -EIO}, {.error = -EIO});
    assert_int_equal(run(LUN_READ, 0, 512), -EIO);
    assert_int_equal(t.nreports, 1); /* the peer's word: no other route */
}

/* Both of our paths failed once each: that is not the LUN's error. */
static void
test_request_error_of_own_paths_twice_is_doubted(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_LOCAL, GATE_LOCAL);
    ANSWERS({.error = -EIO}, {.error = -EIO});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_int_equal(t.nreports, 2);
}

static void
test_request_error_of_own_paths_is_believed_in_the_end(void **state)
{
    (void)state;
    ROUTES(GATE_LOCAL, GATE_LOCAL, GATE_LOCAL, GATE_LOCAL, GATE_LOCAL,
           GATE_LOCAL);
    ANSWERS({.error = -EIO}, {.error = -EIO}, {.error = -EIO}, {.error = -EIO},
            {.error = -EIO});
    assert_int_equal(run(LUN_WRITE, 0, 512), -EIO);
    /* also the last of them was left: what failed may still take effect */
    assert_int_equal(t.nreports, 5);
    assert_report(4, ROUTE_EV_LOCAL_ERROR, true);
}

static void
test_request_pure_path_errors_never_reach_the_vm(void **state)
{
    static const int errors[] = {ENOLINK, ETIMEDOUT, ENODEV, ENXIO,
                                 EAGAIN,  ENOTCONN,  ESTALE, EBUSY};

    (void)state;
    for (size_t i = 0; i < 15; i++)
        t.routes[i] = GATE_LOCAL;
    t.routes[15] = GATE_PEER;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        for (size_t j = 0; j < 15; j++)
            t.answers[j].error = -errors[i];
        t.nroutes = 16;
        t.nanswers = 15;
        t.next_route = t.next_answer = t.nreports = t.nios = 0;
        open_next();
        assert_int_equal(run(LUN_WRITE, 0, 512), 0);
        assert_int_equal(t.nreports, 15);
        gate_hold(&t.gate);
    }
}

/* ---- through a peer ----------------------------------------------------- */

static void
test_request_peers_word_is_passed_at_once(void **state)
{
    static const int errors[] = {ENOSPC, EINVAL, EPERM, EOVERFLOW};

    (void)state;
    ROUTES(GATE_PEER);
    are_passed_at_once(errors, sizeof errors / sizeof *errors);
}

/* One that was never on our own paths: the peer is asked twice. */
static void
test_request_peers_doubtful_word_is_believed_the_second_time(void **state)
{
    static const enum lun_op ops[] = {LUN_READ, LUN_WRITE, LUN_FLUSH, LUN_ZERO};

    (void)state;
    ROUTES(GATE_PEER);
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        uint64_t count = ops[i] == LUN_FLUSH ? 0 : 512;

        t.next_answer = 0;
        ANSWERS({.error = -EIO});
        assert_int_equal(run(ops[i], 0, count), 0);
        ANSWERS({.error = -EIO}, {.error = -EIO});
        t.next_answer = 0;
        assert_int_equal(run(ops[i], 0, count), -EIO);
    }
    assert_int_equal(t.nreports, 0); /* the VMs' other requests go on there */
}

/* The proxy's kernel may have given up a write that the target still has: the
 * peer is fenced before another route takes over. */
static void
test_request_peers_doubtful_word_leaves_a_suspect(void **state)
{
    (void)state;
    ROUTES(GATE_PEER);
    ANSWERS({.error = -EIO});
    assert_int_equal(run(LUN_READ, 0, 512), 0);
    assert_false(gate_dirty(&t.gate));
    t.next_answer = 0;
    ANSWERS({.error = -EIO});
    assert_int_equal(run(LUN_WRITE, 0, 512), 0);
    assert_true(gate_dirty(&t.gate));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_request_lun_and_request_errors_are_passed_at_once),
        TEST(test_request_path_error_goes_to_a_peer),
        TEST(test_request_failed_read_leaves_nothing_behind),
        TEST(test_request_fenced_write_was_not_carried_out),
        TEST(test_request_error_of_own_paths_and_peer_is_the_luns),
        TEST(test_request_error_of_own_paths_twice_is_doubted),
        TEST(test_request_error_of_own_paths_is_believed_in_the_end),
        TEST(test_request_pure_path_errors_never_reach_the_vm),
        TEST(test_request_peers_word_is_passed_at_once),
        TEST(test_request_peers_doubtful_word_is_believed_the_second_time),
        TEST(test_request_peers_doubtful_word_leaves_a_suspect),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
