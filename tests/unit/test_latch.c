/* SPDX-License-Identifier: BSD-3-Clause */
/* When the latch shuts and opens, by a clock of the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "plugin/latch.h"

#define START  50000
#define MINUTE 60000u

/* Away and home, n times, a minute each; returns the time. */
static uint64_t
flap(struct latch *l, unsigned limit, unsigned n, uint64_t now)
{
    for (unsigned i = 0; i < n; i++) {
        latch_switched(l, limit, true, now);
        now += MINUTE;
        latch_switched(l, limit, false, now);
        latch_home(l);
        now += MINUTE;
    }
    return now;
}

static void
test_latch_shuts_away_from_home_at_the_limit(void **state)
{
    struct latch l = {.shut = false};
    uint64_t now;

    (void)state;
    now = flap(&l, 5, 2, START);
    assert_int_equal(latch_count(&l, now), 4);
    assert_false(l.shut);
    latch_switched(&l, 5, true, now);
    assert_true(l.shut);
}

/* The limit is reached by coming home: there is nothing to stay away from. */
static void
test_latch_does_not_shut_at_home(void **state)
{
    struct latch l = {.shut = false};
    uint64_t now;

    (void)state;
    now = flap(&l, 4, 2, START);
    assert_int_equal(latch_count(&l, now), 4);
    assert_false(l.shut);
    latch_switched(&l, 4, true, now);
    assert_true(l.shut);
    latch_home(&l); /* the peer failed */
    assert_false(l.shut);
    latch_switched(&l, 4, true, now + MINUTE);
    assert_true(l.shut);
}

static void
test_latch_counts_an_hour_only(void **state)
{
    struct latch l = {.shut = false};

    (void)state;
    latch_switched(&l, 2, true, START);
    assert_int_equal(latch_count(&l, START + LATCH_WINDOW_MS - 1), 1);
    assert_int_equal(latch_count(&l, START + LATCH_WINDOW_MS), 0);
    latch_switched(&l, 2, true, START + LATCH_WINDOW_MS);
    assert_false(l.shut);
    latch_switched(&l, 2, true, START + 2 * LATCH_WINDOW_MS - 1);
    assert_true(l.shut);
}

static void
test_latch_without_a_limit_never_shuts(void **state)
{
    struct latch l = {.shut = false};
    uint64_t now = START;

    (void)state;
    for (unsigned i = 0; i < 3 * LATCH_LIMIT_MAX; i++)
        latch_switched(&l, 0, i % 2 == 0, now++);
    assert_false(l.shut);
    assert_int_equal(l.switches, 3 * LATCH_LIMIT_MAX);
    assert_int_equal(latch_count(&l, now), LATCH_LIMIT_MAX);
}

/* The ring goes round: the oldest ones are those that are forgotten. */
static void
test_latch_takes_the_largest_limit(void **state)
{
    struct latch l = {.shut = false};
    uint64_t now = START;

    (void)state;
    for (unsigned i = 0; i < 7; i++)
        latch_switched(&l, LATCH_LIMIT_MAX, true, now);
    now += LATCH_WINDOW_MS;
    for (unsigned i = 1; i < LATCH_LIMIT_MAX; i++) {
        latch_switched(&l, LATCH_LIMIT_MAX, true, now);
        assert_int_equal(latch_count(&l, now), i);
    }
    assert_false(l.shut);
    latch_switched(&l, LATCH_LIMIT_MAX, true, now);
    assert_true(l.shut);
}

static void
test_latch_opens_by_order_and_forgets(void **state)
{
    struct latch l = {.shut = false};

    (void)state;
    latch_switched(&l, 1, true, START);
    assert_true(l.shut);
    latch_open(&l);
    assert_false(l.shut);
    assert_int_equal(latch_count(&l, START), 0);
}

static void
test_latch_opens_when_paths_were_good_for_an_hour(void **state)
{
    struct latch l = {.shut = false};
    uint64_t good = START + MINUTE;

    (void)state;
    latch_switched(&l, 1, true, START);
    latch_tick(&l, 0, START + 3 * LATCH_WINDOW_MS);
    assert_true(l.shut);
    latch_tick(&l, good, good + LATCH_WINDOW_MS - 1);
    assert_true(l.shut);
    latch_tick(&l, good, good + LATCH_WINDOW_MS);
    assert_false(l.shut);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latch_shuts_away_from_home_at_the_limit),
        cmocka_unit_test(test_latch_does_not_shut_at_home),
        cmocka_unit_test(test_latch_counts_an_hour_only),
        cmocka_unit_test(test_latch_without_a_limit_never_shuts),
        cmocka_unit_test(test_latch_takes_the_largest_limit),
        cmocka_unit_test(test_latch_opens_by_order_and_forgets),
        cmocka_unit_test(test_latch_opens_when_paths_were_good_for_an_hour),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
