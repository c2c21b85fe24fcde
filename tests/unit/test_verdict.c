/* SPDX-License-Identifier: BSD-3-Clause */
/* The verdict on a LUN's paths: every line of verdict.c's table, as stories
 * of samples with a clock of their own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "health/verdict.h"

static const struct verdict_options opt = {
    .probe_timeout_ms = 750,
    .io_timeout_ms = 1000,
};

/* One line of a story: at now, this sample; afterwards this state. */
struct line {
    uint64_t now;
    struct verdict_sample s;
    enum verdict_state state;
    uint64_t good_ms; /* expected; ANY: not looked at */
};

#define ANY UINT64_MAX
/* clang-format off */
#define QUIET .known = true, .paths_known = 2, .paths_good = 2
#define NO_PATHS_TOLD .known = true
#define PROBE(sent, err) \
    .probe_done = true, .probe_error = (err), .done_sent_ms = (sent)
/* clang-format on */

static void
play(const struct line *lines, size_t n, uint64_t start_ms)
{
    struct verdict v;
    enum verdict_state before;
    bool changed;

    verdict_init(&v, start_ms);
    assert_int_equal(v.state, VERDICT_UNKNOWN);
    for (size_t i = 0; i < n; i++) {
        before = v.state;
        changed = verdict_step(&v, &opt, &lines[i].s, lines[i].now);
        if (v.state != lines[i].state)
            fail_msg("line %zu, t=%ju: %s (%s), not %s", i,
                     (uintmax_t)lines[i].now, verdict_state_name(v.state),
                     v.reason, verdict_state_name(lines[i].state));
        assert_int_equal(changed, before != v.state);
        if (changed)
            assert_int_equal(v.since_ms, lines[i].now);
        if (lines[i].good_ms != ANY && v.good_ms != lines[i].good_ms)
            fail_msg("line %zu: good since %ju, not %ju", i,
                     (uintmax_t)v.good_ms, (uintmax_t)lines[i].good_ms);
        assert_true(v.reason[0] != '\0');
    }
}

#define PLAY(start, ...)                                                       \
    do {                                                                       \
        static const struct line story[] = {__VA_ARGS__};                      \
                                                                               \
        play(story, sizeof story / sizeof story[0], start);                    \
    } while (0)

static void
test_verdict_first_answer_makes_good(void **state)
{
    (void)state;
    PLAY(1000, {1000, {QUIET}, VERDICT_UNKNOWN, 0},
         {1001, {QUIET, PROBE(1000, 0)}, VERDICT_GOOD, 1001},
         {1251, {QUIET, PROBE(1250, 0)}, VERDICT_GOOD, 1001});
}

static void
test_verdict_works_on_a_clock_that_begins_at_1(void **state)
{
    (void)state;
    PLAY(1, {1, {QUIET, PROBE(1, 0)}, VERDICT_GOOD, 1},
         {1, {QUIET, .io_path_error = true}, VERDICT_LOST, 0},
         {1, {QUIET, PROBE(1, 0)}, VERDICT_LOST, 0},
         {2, {QUIET, PROBE(2, 0)}, VERDICT_GOOD, 2},
         {3, {QUIET, .probe_sent_ms = 1}, VERDICT_GOOD, 2},
         {752, {QUIET, .probe_sent_ms = 2}, VERDICT_LOST, 0});
}

static void
test_verdict_missing_path_degrades_and_keeps_the_run(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {30,
          {.known = true, .paths_known = 2, .paths_good = 1},
          VERDICT_DEGRADED,
          20},
         {40, {QUIET}, VERDICT_GOOD, 20});
}

static void
test_verdict_no_path_left_is_lost_at_once(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {21, {.known = true, .paths_known = 2}, VERDICT_LOST, 0});
}

static void
test_verdict_no_path_left_outweighs_a_good_probe(void **state)
{
    (void)state;
    PLAY(
        10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
        {30, {.known = true, .paths_known = 2, PROBE(22, 0)}, VERDICT_LOST, 0},
        {40, {.known = true, .paths_known = 2, PROBE(35, 0)}, VERDICT_LOST, 0});
}

static void
test_verdict_probe_path_error_is_lost(void **state)
{
    static const int errors[] = {-ENOLINK, -EIO, -ETIMEDOUT, -ENODEV, -EINVAL};
    struct verdict v;
    struct verdict_sample s = {QUIET, PROBE(15, 0)};

    (void)state;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        verdict_init(&v, 10);
        s.probe_error = 0;
        verdict_step(&v, &opt, &s, 20);
        s.probe_error = errors[i];
        assert_true(verdict_step(&v, &opt, &s, 21));
        assert_int_equal(v.state, VERDICT_LOST);
        assert_non_null(strstr(v.reason, "a probe failed: "));
    }
}

static void
test_verdict_the_luns_own_errors_prove_the_path(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, -ENODATA)}, VERDICT_GOOD, 20},
         {30, {QUIET, PROBE(25, -EREMOTEIO)}, VERDICT_GOOD, 20},
         {40, {QUIET, PROBE(35, -EBADE)}, VERDICT_GOOD, 20});
}

static void
test_verdict_request_path_error_is_lost_until_a_later_probe(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {100, {QUIET, .io_path_error = true}, VERDICT_LOST, 0},
         /* this probe had left before */
         {101, {QUIET, PROBE(99, 0)}, VERDICT_LOST, 0},
         {102, {QUIET}, VERDICT_LOST, 0},
         {111, {QUIET, PROBE(110, 0)}, VERDICT_GOOD, 111});
}

static void
test_verdict_request_error_outweighs_a_probe_beside_it(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {30, {QUIET, PROBE(29, 0), .io_path_error = true}, VERDICT_LOST, 0});
}

static void
test_verdict_idle_and_probe_overdue_is_lost(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {1019, {QUIET, .probe_sent_ms = 270}, VERDICT_GOOD, 20},
         {1020, {QUIET, .probe_sent_ms = 270}, VERDICT_LOST, 0});
}

static void
test_verdict_recent_request_contradicts_an_overdue_probe(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {1020,
          {QUIET, .probe_sent_ms = 270, .io_done_ms = 1000},
          VERDICT_DEGRADED,
          0},
         /* the last answer grows old: nothing speaks for it any more */
         {1749,
          {QUIET, .probe_sent_ms = 270, .io_done_ms = 1000},
          VERDICT_DEGRADED,
          0},
         {1750,
          {QUIET, .probe_sent_ms = 270, .io_done_ms = 1000},
          VERDICT_LOST,
          0});
}

static void
test_verdict_old_answer_does_not_contradict(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {1020,
          {QUIET, .probe_sent_ms = 270, .io_sent_ms = 500, .io_done_ms = 270},
          VERDICT_LOST,
          0});
}

static void
test_verdict_untold_answers_wait_for_the_request(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {1020,
          {QUIET, .probe_sent_ms = 270, .io_sent_ms = 500},
          VERDICT_DEGRADED,
          0},
         {1500,
          {QUIET, .probe_sent_ms = 270, .io_sent_ms = 500},
          VERDICT_LOST,
          0});
}

static void
test_verdict_slow_request_alone_stays_good(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {9000, {QUIET, PROBE(8990, 0), .io_sent_ms = 30}, VERDICT_GOOD, 20},
         {9100,
          {QUIET, .probe_sent_ms = 9050, .io_sent_ms = 30},
          VERDICT_GOOD,
          20});
}

static void
test_verdict_request_and_probe_overdue_is_lost(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {1039,
          {QUIET, .probe_sent_ms = 270, .io_sent_ms = 40, .io_done_ms = 1030},
          VERDICT_DEGRADED,
          0},
         {1040,
          {QUIET, .probe_sent_ms = 270, .io_sent_ms = 40, .io_done_ms = 1030},
          VERDICT_LOST,
          0},
         /* a later probe succeeds, but what spoke for LOST still does */
         {1300,
          {QUIET, PROBE(1290, 0), .probe_sent_ms = 270, .io_sent_ms = 40},
          VERDICT_LOST,
          0});
}

static void
test_verdict_stuck_probe_among_answered_ones_degrades(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {1020, {QUIET, .probe_sent_ms = 270}, VERDICT_LOST, 0},
         {1030,
          {QUIET, PROBE(1025, 0), .probe_sent_ms = 270},
          VERDICT_DEGRADED,
          0},
         {1280,
          {QUIET, PROBE(1275, 0), .probe_sent_ms = 270},
          VERDICT_DEGRADED,
          0},
         /* it comes back after all: the run begins here */
         {1300, {QUIET, PROBE(270, 0)}, VERDICT_GOOD, 0},
         {1530, {QUIET, PROBE(1525, 0)}, VERDICT_GOOD, 1530});
}

static void
test_verdict_late_answer_of_the_stuck_probe_is_not_enough(void **state)
{
    (void)state;
    PLAY(10, {20, {QUIET, PROBE(15, 0)}, VERDICT_GOOD, 20},
         {1020, {QUIET, .probe_sent_ms = 270}, VERDICT_LOST, 0},
         {5000, {QUIET, PROBE(270, 0)}, VERDICT_LOST, 0},
         {5010, {QUIET, PROBE(5001, 0)}, VERDICT_GOOD, 5010});
}

static void
test_verdict_flapping_restarts_the_run_each_time(void **state)
{
    struct verdict v;
    const struct verdict_sample down = {.known = true, .paths_known = 2};
    struct verdict_sample up = {QUIET, PROBE(0, 0)};
    uint64_t now;

    (void)state;
    verdict_init(&v, 1);
    for (now = 100; now < 100000; now += 100) {
        up.done_sent_ms = now;
        verdict_step(&v, &opt, &up, now + 1);
        assert_int_equal(v.state, VERDICT_GOOD);
        assert_int_equal(v.good_ms, now + 1);
        assert_true(verdict_step(&v, &opt, &down, now + 50));
        assert_int_equal(v.good_ms, 0);
    }
}

static void
test_verdict_unknown_waits_for_paths_that_are_being_opened(void **state)
{
    (void)state;
    PLAY(100, {101, {.paths_known = 2}, VERDICT_UNKNOWN, 0},
         {500, {.paths_known = 2, PROBE(400, -ENOLINK)}, VERDICT_UNKNOWN, 0},
         {600, {QUIET, PROBE(550, 0)}, VERDICT_GOOD, 600});
}

static void
test_verdict_unknown_ends_as_lost(void **state)
{
    (void)state;
    PLAY(100, {1099, {.paths_known = 2}, VERDICT_UNKNOWN, 0},
         {1100, {.paths_known = 2}, VERDICT_LOST, 0});
    /* nothing said at all: the device hangs while it is opened */
    PLAY(100, {1099, {.known = false}, VERDICT_UNKNOWN, 0},
         {1100, {.known = false}, VERDICT_LOST, 0},
         {2000, {.known = true, PROBE(1990, 0)}, VERDICT_GOOD, 2000});
}

static void
test_verdict_too_early_speaks_for_nothing(void **state)
{
    (void)state;
    PLAY(100, {200, {PROBE(150, -EAGAIN)}, VERDICT_UNKNOWN, 0},
         {300, {NO_PATHS_TOLD, PROBE(250, 0)}, VERDICT_GOOD, 300},
         /* from a device that was open it is an error like others */
         {400, {NO_PATHS_TOLD, PROBE(350, -EAGAIN)}, VERDICT_LOST, 0});
}

static void
test_verdict_another_lun_is_lost_at_once_and_never_good(void **state)
{
    (void)state;
    PLAY(100, {101, {QUIET, .wrong_id = true}, VERDICT_LOST, 0},
         {500, {QUIET, .wrong_id = true, PROBE(400, 0)}, VERDICT_LOST, 0});
}

static void
test_verdict_without_paths_known_probes_decide(void **state)
{
    (void)state;
    PLAY(100, {110, {NO_PATHS_TOLD, PROBE(105, 0)}, VERDICT_GOOD, 110},
         {120, {NO_PATHS_TOLD, PROBE(115, -EIO)}, VERDICT_LOST, 0},
         {130, {NO_PATHS_TOLD, PROBE(125, 0)}, VERDICT_GOOD, 130});
}

static void
test_verdict_times_ahead_of_now_are_no_age(void **state)
{
    (void)state;
    PLAY(100, {110, {QUIET, PROBE(105, 0)}, VERDICT_GOOD, 110},
         {120,
          {QUIET, .probe_sent_ms = 121, .io_sent_ms = 130, .io_done_ms = 125},
          VERDICT_GOOD,
          110});
}

#define SLOW .slow_us = 120400, .usual_us = 480

/* It is usable, and the run of good answers goes on. */
static void
test_verdict_slow_is_usable_and_ends_by_itself(void **state)
{
    (void)state;
    PLAY(1000, {1001, {QUIET, PROBE(1000, 0)}, VERDICT_GOOD, 1001},
         {1251, {QUIET, SLOW, PROBE(1250, 0)}, VERDICT_SLOW, 1001},
         {1501, {QUIET, SLOW}, VERDICT_SLOW, 1001},
         {1751, {QUIET}, VERDICT_GOOD, 1001});
}

static void
test_verdict_slow_tells_how_slow_and_what_else(void **state)
{
    static const struct verdict_sample s = {SLOW, PROBE(1, 0), .known = true,
                                            .paths_known = 2, .paths_good = 1};
    struct verdict v;

    (void)state;
    verdict_init(&v, 1);
    assert_true(verdict_step(&v, &opt, &s, 2));
    assert_int_equal(v.state, VERDICT_SLOW);
    assert_true(verdict_usable(&v));
    assert_int_equal(v.slow_ms, 2);
    assert_string_equal(v.reason, "probes take 120 ms, and took 0.5 ms lately; "
                                  "1 of 2 paths work");
}

static void
test_verdict_lost_outweighs_slow(void **state)
{
    (void)state;
    PLAY(1000, {1001, {QUIET, PROBE(1000, 0)}, VERDICT_GOOD, 1001},
         {1251, {QUIET, SLOW, PROBE(1250, 0)}, VERDICT_SLOW, 1001},
         {1300, {SLOW, .known = true, .paths_known = 2}, VERDICT_LOST, 0},
         {1400, {QUIET, SLOW}, VERDICT_LOST, 0},
         {1501, {QUIET, SLOW, PROBE(1500, 0)}, VERDICT_SLOW, 1501});
}

static void
test_verdict_names(void **state)
{
    (void)state;
    assert_string_equal(verdict_state_name(VERDICT_UNKNOWN), "unknown");
    assert_string_equal(verdict_state_name(VERDICT_GOOD), "good");
    assert_string_equal(verdict_state_name(VERDICT_DEGRADED), "degraded");
    assert_string_equal(verdict_state_name(VERDICT_SLOW), "slow");
    assert_string_equal(verdict_state_name(VERDICT_LOST), "lost");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdict_first_answer_makes_good),
        cmocka_unit_test(test_verdict_works_on_a_clock_that_begins_at_1),
        cmocka_unit_test(test_verdict_missing_path_degrades_and_keeps_the_run),
        cmocka_unit_test(test_verdict_no_path_left_is_lost_at_once),
        cmocka_unit_test(test_verdict_no_path_left_outweighs_a_good_probe),
        cmocka_unit_test(test_verdict_probe_path_error_is_lost),
        cmocka_unit_test(test_verdict_the_luns_own_errors_prove_the_path),
        cmocka_unit_test(
            test_verdict_request_path_error_is_lost_until_a_later_probe),
        cmocka_unit_test(
            test_verdict_request_error_outweighs_a_probe_beside_it),
        cmocka_unit_test(test_verdict_idle_and_probe_overdue_is_lost),
        cmocka_unit_test(
            test_verdict_recent_request_contradicts_an_overdue_probe),
        cmocka_unit_test(test_verdict_old_answer_does_not_contradict),
        cmocka_unit_test(test_verdict_untold_answers_wait_for_the_request),
        cmocka_unit_test(test_verdict_slow_request_alone_stays_good),
        cmocka_unit_test(test_verdict_request_and_probe_overdue_is_lost),
        cmocka_unit_test(test_verdict_stuck_probe_among_answered_ones_degrades),
        cmocka_unit_test(
            test_verdict_late_answer_of_the_stuck_probe_is_not_enough),
        cmocka_unit_test(test_verdict_flapping_restarts_the_run_each_time),
        cmocka_unit_test(
            test_verdict_unknown_waits_for_paths_that_are_being_opened),
        cmocka_unit_test(test_verdict_unknown_ends_as_lost),
        cmocka_unit_test(test_verdict_too_early_speaks_for_nothing),
        cmocka_unit_test(
            test_verdict_another_lun_is_lost_at_once_and_never_good),
        cmocka_unit_test(test_verdict_without_paths_known_probes_decide),
        cmocka_unit_test(test_verdict_times_ahead_of_now_are_no_age),
        cmocka_unit_test(test_verdict_slow_is_usable_and_ends_by_itself),
        cmocka_unit_test(test_verdict_slow_tells_how_slow_and_what_else),
        cmocka_unit_test(test_verdict_lost_outweighs_slow),
        cmocka_unit_test(test_verdict_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
