/* SPDX-License-Identifier: BSD-3-Clause */
/* When a map that queues is told to fail instead, and who is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "lun/queueing.h"

static struct queueing q;

static int
setup(void **state)
{
    (void)state;
    q = (struct queueing){.queues = false};
    return 0;
}

static unsigned
step(bool queues, bool fail, uint64_t now_ms)
{
    const struct queueing_sample s = {
        .known = true, .queues = queues, .fail = fail};

    return queueing_step(&q, &s, now_ms);
}

static unsigned
step_unknown(bool fail, uint64_t now_ms)
{
    const struct queueing_sample s = {.fail = fail};

    return queueing_step(&q, &s, now_ms);
}

static void
test_queueing_is_told_once_and_left_alone(void **state)
{
    (void)state;
    assert_int_equal(step(true, false, 1000), QUEUEING_WARN);
    assert_int_equal(step(true, false, 1001), 0);
    assert_int_equal(step(true, false, 100000), 0);
    assert_int_equal(q.orders, 0);
}

static void
test_lost_paths_fail_what_waits_at_once(void **state)
{
    (void)state;
    step(true, false, 1000);
    assert_int_equal(step(true, true, 1100), QUEUEING_ORDER | QUEUEING_ASK);
    assert_int_equal(q.orders, 1);
}

static void
test_map_that_does_not_queue_is_told_nothing(void **state)
{
    (void)state;
    assert_int_equal(step(false, true, 1000), 0);
    assert_int_equal(step(false, true, 9000), 0);
}

/* multipathd puts it back after 0.5 s, and is slow to hear that it shall not */
static void
test_queueing_that_comes_back_is_ended_again(void **state)
{
    (void)state;
    assert_int_equal(step(true, true, 1000),
                     QUEUEING_WARN | QUEUEING_ORDER | QUEUEING_ASK);
    assert_int_equal(step(false, true, 1010), QUEUEING_TELL);
    assert_int_equal(step(true, true, 1500),
                     QUEUEING_WARN | QUEUEING_ORDER | QUEUEING_ASK);
    assert_int_equal(step(true, true, 1600), 0);
    assert_int_equal(step(true, true, 1750), QUEUEING_ORDER);
    assert_int_equal(step(true, true, 2000), QUEUEING_ORDER);
    assert_int_equal(step(true, true, 2500), QUEUEING_ORDER | QUEUEING_ASK);
    assert_int_equal(step(false, true, 2600), QUEUEING_TELL);
    assert_int_equal(step(false, true, 60000), 0);
}

/* dm hangs: what was last known counts */
static void
test_map_that_cannot_be_read_is_told_all_the_same(void **state)
{
    (void)state;
    step(true, false, 1000);
    assert_int_equal(step_unknown(true, 2000), QUEUEING_ORDER | QUEUEING_ASK);
    assert_int_equal(step_unknown(true, 2250), QUEUEING_ORDER);
}

static void
test_map_never_read_is_left_alone(void **state)
{
    (void)state;
    assert_int_equal(step_unknown(true, 1000), 0);
}

/* A second outage does not wait for what is left of the first one's times. */
static void
test_next_outage_begins_at_once(void **state)
{
    (void)state;
    step(true, true, 1000);
    assert_int_equal(step(true, false, 1001), 0);
    assert_int_equal(step(true, true, 1002), QUEUEING_ORDER | QUEUEING_ASK);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_queueing_is_told_once_and_left_alone,
                               setup),
        cmocka_unit_test_setup(test_lost_paths_fail_what_waits_at_once, setup),
        cmocka_unit_test_setup(test_map_that_does_not_queue_is_told_nothing,
                               setup),
        cmocka_unit_test_setup(test_queueing_that_comes_back_is_ended_again,
                               setup),
        cmocka_unit_test_setup(
            test_map_that_cannot_be_read_is_told_all_the_same, setup),
        cmocka_unit_test_setup(test_map_never_read_is_left_alone, setup),
        cmocka_unit_test_setup(test_next_outage_begins_at_once, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
