/* SPDX-License-Identifier: BSD-3-Clause */
/* When a device counts as slow: windows of durations, a clock of their own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "health/slow.h"

#define WINDOW 5000
#define USUAL  500
#define MS     1000u

static const struct slow_options normal = {
    .factor = 8, .least_ms = 50, .window_ms = WINDOW};

struct device {
    struct slow_options opt;
    struct slow s;
    uint64_t now;
    uint64_t counts[SLOW_BUCKETS];
    bool tells_requests;
};

static void
device_init(struct device *d)
{
    memset(d, 0, sizeof *d);
    d->opt = normal;
    d->now = 10000;
    slow_init(&d->s, d->now);
}

/* Each test's device, as *state. */
static int
setup(void **state)
{
    static struct device d;

    device_init(&d);
    *state = &d;
    return 0;
}

#define SLOW_TEST(test) cmocka_unit_test_setup(test, setup)

/* One window of n probes; did slow_step tell of a change? */
static bool
window(struct device *d, unsigned n, uint64_t us)
{
    for (unsigned i = 0; i < n; i++)
        slow_probe(&d->s, us);
    d->now += WINDOW;
    return slow_step(&d->s, &d->opt, d->tells_requests ? d->counts : NULL, 0,
                     d->now);
}

static void
windows(struct device *d, unsigned n, uint64_t us)
{
    for (unsigned i = 0; i < n; i++)
        window(d, 20, us);
}

/* So many requests, before the next window's end. */
static void
requests(struct device *d, unsigned n, uint64_t ms)
{
    d->tells_requests = true;
    d->counts[slow_bucket(ms)] += n;
}

static void
test_slow_begins_with_two_far_windows(void **state)
{
    struct device *d = *state;

    windows(d, SLOW_PAST_MIN, USUAL);
    assert_false(window(d, 20, 100 * MS));
    assert_false(d->s.is);
    assert_true(window(d, 20, 120 * MS));
    assert_true(d->s.is);
    assert_int_equal(d->s.began_us, 120 * MS);
    assert_int_equal(d->s.before_us, USUAL);
    assert_false(window(d, 20, 300 * MS));
    assert_int_equal(d->s.began_us, 120 * MS); /* what is told stays */
    assert_int_equal(d->s.recent_us, 300 * MS);
}

static void
test_slow_ends_with_three_near_windows(void **state)
{
    struct device *d = *state;

    windows(d, 20, USUAL);
    windows(d, 2, 100 * MS);
    assert_true(d->s.is);
    windows(d, 2, USUAL);
    window(d, 20, 30 * MS); /* neither far nor near */
    windows(d, 2, USUAL);
    assert_true(d->s.is);
    assert_true(window(d, 20, USUAL));
    assert_false(d->s.is);
}

/* One that comes and goes with each window is neither here nor there. */
static void
test_slow_does_not_begin_by_turns(void **state)
{
    struct device *d = *state;

    windows(d, 20, USUAL);
    for (int i = 0; i < 10; i++) {
        windows(d, 1, 100 * MS);
        windows(d, 1, USUAL);
        assert_false(d->s.is);
    }
}

static void
test_slow_minority_of_slow_probes_is_nothing(void **state)
{
    struct device *d = *state;

    windows(d, 20, USUAL);
    for (int i = 0; i < 10; i++) {
        for (int k = 0; k < 9; k++)
            slow_probe(&d->s, 700 * MS);
        assert_false(window(d, 11, USUAL));
    }
}

static void
test_slow_wants_both_the_factor_and_the_least(void **state)
{
    struct device d;

    (void)state;
    device_init(&d); /* 0.5 ms to 49 ms: a hundred times, but who minds */
    windows(&d, 20, USUAL);
    windows(&d, 4, 49 * MS);
    assert_false(d.s.is);
    windows(&d, 2, 50 * MS);
    assert_true(d.s.is);

    device_init(&d); /* an old array */
    windows(&d, 20, 20 * MS);
    windows(&d, 4, 159 * MS);
    assert_false(d.s.is);
    windows(&d, 2, 160 * MS);
    assert_true(d.s.is);
}

static void
test_slow_says_nothing_before_there_is_a_past(void **state)
{
    struct device *d = *state;

    windows(d, SLOW_PAST_MIN - 1, USUAL);
    assert_int_equal(d->s.usual_us, 0);
    windows(d, 1, 100 * MS); /* makes the past, and is not judged */
    assert_false(d->s.is);
    windows(d, 1, 100 * MS);
    assert_false(d->s.is);
    assert_int_equal(d->s.usual_us, USUAL);
    windows(d, 1, 100 * MS);
    assert_true(d->s.is);
}

static void
test_slow_without_a_factor_never_is(void **state)
{
    struct device *d = *state;

    d->opt.factor = 0;
    windows(d, 20, USUAL);
    windows(d, 20, 700 * MS);
    assert_false(d->s.is);
    assert_int_equal(d->s.recent_us, 0);
}

/* What lasts becomes usual: after half of the past, here an hour. */
static void
test_slow_for_half_an_hour_is_usual(void **state)
{
    struct device *d = *state;
    unsigned n = 0;

    windows(d, SLOW_PAST, USUAL);
    while (!d->s.is)
        windows(d, 1, 100 * MS);
    while (d->s.is && n < SLOW_PAST) {
        windows(d, 1, 100 * MS);
        n++;
    }
    assert_in_range(n, SLOW_PAST / 2 - 5, SLOW_PAST / 2 + 5);
    assert_int_equal(d->s.usual_us, 100 * MS);
}

static void
test_slow_unanswered_probe_counts_until_now(void **state)
{
    struct device *d = *state;

    windows(d, 20, USUAL);
    for (int i = 0; i < 2; i++) {
        d->now += WINDOW;
        slow_step(&d->s, &d->opt, NULL, 600 * MS, d->now);
    }
    assert_true(d->s.is);
    assert_int_equal(d->s.recent_us, 600 * MS);
}

static void
test_slow_empty_window_changes_nothing(void **state)
{
    struct device *d = *state;

    windows(d, 20, USUAL);
    windows(d, 1, 100 * MS);
    assert_false(window(d, 0, 0));
    assert_true(window(d, 20, 100 * MS));
}

static void
test_slow_window_is_judged_when_it_is_over(void **state)
{
    struct device *d = *state;

    windows(d, 20, USUAL);
    windows(d, 1, 100 * MS);
    for (int i = 0; i < 20; i++)
        slow_probe(&d->s, 100 * MS);
    assert_false(slow_due(&d->s, &d->opt, d->now + WINDOW - 1));
    assert_false(slow_step(&d->s, &d->opt, NULL, 0, d->now + WINDOW - 1));
    assert_true(slow_step(&d->s, &d->opt, NULL, 0, d->now + WINDOW));
}

/* Lost is another matter, and so is what came of it. */
static void
test_slow_pause_ends_it_and_keeps_the_past(void **state)
{
    struct device *d = *state;

    windows(d, 20, USUAL);
    windows(d, 2, 100 * MS);
    for (int i = 0; i < 20; i++)
        slow_probe(&d->s, 700 * MS);
    slow_pause(&d->s, d->now + 100);
    assert_false(d->s.is);
    assert_false(slow_due(&d->s, &d->opt, d->now + WINDOW));
    d->now += 100;
    windows(d, 1, USUAL);
    assert_int_equal(d->s.recent_us, USUAL);
    windows(d, 1, 100 * MS);
    assert_false(d->s.is);
    windows(d, 1, 100 * MS);
    assert_true(d->s.is);
}

/* ---- requests ----------------------------------------------------------- */

static void
test_slow_buckets_are_powers_of_two(void **state)
{
    (void)state;
    assert_int_equal(slow_bucket(0), 0);
    assert_int_equal(slow_bucket(1), 1);
    assert_int_equal(slow_bucket(2), 2);
    assert_int_equal(slow_bucket(3), 2);
    assert_int_equal(slow_bucket(4), 3);
    assert_int_equal(slow_bucket(65535), 16);
    assert_int_equal(slow_bucket(65536), SLOW_BUCKETS - 1);
    assert_int_equal(slow_bucket(UINT64_MAX), SLOW_BUCKETS - 1);
}

/* The VMs have nothing to complain of, whatever the first block does. */
static void
test_slow_quick_requests_contradict_probes(void **state)
{
    struct device *d = *state;

    for (int i = 0; i < 20; i++) {
        requests(d, 1000, 1);
        windows(d, 1, USUAL);
    }
    for (int i = 0; i < 5; i++) {
        requests(d, 1000, 1);
        windows(d, 1, 100 * MS);
    }
    assert_false(d->s.is);
    for (int i = 0; i < 2; i++) {
        requests(d, 1000, 90);
        windows(d, 1, 100 * MS);
    }
    assert_true(d->s.is);
    for (int i = 0; i < 3; i++) {
        requests(d, 1000, 1);
        windows(d, 1, 100 * MS);
    }
    assert_false(d->s.is);
}

/* A backup began: requests are larger, and more at a time. */
static void
test_slow_requests_alone_never_make_it(void **state)
{
    struct device *d = *state;

    for (int i = 0; i < 30; i++) {
        requests(d, 1000, i < 20 ? 1 : 500);
        windows(d, 1, USUAL);
    }
    assert_false(d->s.is);
}

static void
test_slow_few_requests_say_nothing(void **state)
{
    struct device *d = *state;

    for (int i = 0; i < 20; i++) {
        requests(d, 1000, 1);
        windows(d, 1, USUAL);
    }
    for (int i = 0; i < 2; i++) {
        requests(d, SLOW_REQUESTS - 1, 1);
        windows(d, 1, 100 * MS);
    }
    assert_true(d->s.is);
}

/* VMs that have just begun have no past to be compared with. */
static void
test_slow_new_requests_contradict_nobody(void **state)
{
    struct device *d = *state;

    windows(d, 20, USUAL);
    for (int i = 0; i < 2; i++) {
        requests(d, 1000, 1);
        windows(d, 1, 100 * MS);
    }
    assert_true(d->s.is);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SLOW_TEST(test_slow_begins_with_two_far_windows),
        SLOW_TEST(test_slow_ends_with_three_near_windows),
        SLOW_TEST(test_slow_does_not_begin_by_turns),
        SLOW_TEST(test_slow_minority_of_slow_probes_is_nothing),
        cmocka_unit_test(test_slow_wants_both_the_factor_and_the_least),
        SLOW_TEST(test_slow_says_nothing_before_there_is_a_past),
        SLOW_TEST(test_slow_without_a_factor_never_is),
        SLOW_TEST(test_slow_for_half_an_hour_is_usual),
        SLOW_TEST(test_slow_unanswered_probe_counts_until_now),
        SLOW_TEST(test_slow_empty_window_changes_nothing),
        SLOW_TEST(test_slow_window_is_judged_when_it_is_over),
        SLOW_TEST(test_slow_pause_ends_it_and_keeps_the_past),
        cmocka_unit_test(test_slow_buckets_are_powers_of_two),
        SLOW_TEST(test_slow_quick_requests_contradict_probes),
        SLOW_TEST(test_slow_requests_alone_never_make_it),
        SLOW_TEST(test_slow_few_requests_say_nothing),
        SLOW_TEST(test_slow_new_requests_contradict_nobody),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
