/* SPDX-License-Identifier: BSD-3-Clause */
/* The serving state of a LUN, step by step on a clock of its own. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/serve.h"

/* A LUN that is usable and registered, with two connections. */
static struct serve_sample
good(void)
{
    return (struct serve_sample){
        .usable = true,
        .why = "paths lost",
        .arbiter = true,
        .registration = LUN_REGISTERED,
        .registration_no = 7,
        .members = 2,
    };
}

static void
serving(struct serve *s)
{
    struct serve_sample w = good();

    serve_init(s, 1);
    assert_false(s->settled);
    w.members = 0;
    assert_int_equal(serve_step(s, &w, 2), SERVE_REGISTER | SERVE_CHANGED);
    assert_int_equal(s->state, SERVE_REGISTERING);
    w.register_done = true;
    assert_int_equal(serve_step(s, &w, 3), SERVE_CHANGED);
    assert_int_equal(s->state, SERVE_SERVING);
    assert_int_equal(s->registration_no, 7);
    assert_true(s->settled);
}

static void
test_serve_unusable_waits_and_says_why(void **state)
{
    struct serve_sample w = {.why = "no path"};
    struct serve s;

    (void)state;
    serve_init(&s, 1);
    assert_int_equal(serve_step(&s, &w, 2), 0);
    assert_int_equal(s.state, SERVE_WAITING);
    assert_string_equal(s.reason, "no path");
}

static void
test_serve_steady_state_does_nothing(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serving(&s);
    assert_int_equal(serve_step(&s, &w, 4), 0);
    assert_int_equal(s.state, SERVE_SERVING);
}

static void
test_serve_failed_register_is_tried_again_later(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serve_init(&s, 1);
    serve_step(&s, &w, 2);
    w.register_done = true;
    w.register_error = -EBUSY;
    assert_int_equal(serve_step(&s, &w, 100), SERVE_CHANGED);
    assert_int_equal(s.state, SERVE_WAITING);
    assert_non_null(strstr(s.reason, "cannot register"));
    assert_false(s.settled);
    assert_int_equal(serve_due_ms(&s, 100), 100 + SERVE_RETRY_MS);
    w.register_done = false;
    assert_int_equal(serve_step(&s, &w, 100 + SERVE_RETRY_MS - 1), 0);
    assert_int_equal(serve_step(&s, &w, 100 + SERVE_RETRY_MS),
                     SERVE_REGISTER | SERVE_CHANGED);
}

static void
test_serve_register_under_way_is_waited_for(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serve_init(&s, 1);
    serve_step(&s, &w, 2);
    w.usable = false;
    w.drain = true;
    assert_int_equal(serve_step(&s, &w, 3), 0);
    assert_int_equal(s.state, SERVE_REGISTERING);
}

/* What ends sessions; each cuts them at once. */
static void
assert_closes(struct serve_sample w, const char *reason)
{
    struct serve s;

    serving(&s);
    assert_int_equal(serve_step(&s, &w, 4), SERVE_CUT | SERVE_CHANGED);
    assert_int_equal(s.state, SERVE_CLOSING);
    assert_string_equal(s.reason, reason);
}

static void
test_serve_fenced_cuts_sessions(void **state)
{
    struct serve_sample w = good();

    (void)state;
    w.registration = LUN_FENCED;
    assert_closes(w, "fenced by another host");
}

static void
test_serve_another_registration_cuts_sessions(void **state)
{
    struct serve_sample w = good();

    (void)state;
    w.registration_no = 8;
    assert_closes(w, "registration lost");
}

static void
test_serve_lost_paths_cut_sessions(void **state)
{
    struct serve_sample w = good();

    (void)state;
    w.usable = false;
    assert_closes(w, "paths lost");
}

static void
test_serve_without_arbiter_registration_does_not_matter(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serving(&s);
    w.arbiter = false;
    w.registration = LUN_UNREGISTERED;
    w.registration_no = 0;
    assert_int_equal(serve_step(&s, &w, 4), 0);
}

static void
test_serve_fenced_while_draining_cuts_sessions(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serving(&s);
    w.drain = true;
    assert_int_equal(serve_step(&s, &w, 4), SERVE_WIND_DOWN | SERVE_CHANGED);
    w.registration = LUN_FENCED;
    assert_int_equal(serve_step(&s, &w, 5), SERVE_CUT | SERVE_CHANGED);
}

static void
test_serve_closing_waits_for_every_connection(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serving(&s);
    w.registration = LUN_FENCED;
    serve_step(&s, &w, 4);
    assert_int_equal(serve_step(&s, &w, 5), 0);
    w.members = 1;
    assert_int_equal(serve_step(&s, &w, 6), 0);
    w.members = 0;
    assert_int_equal(serve_step(&s, &w, 7), SERVE_CHANGED);
    assert_int_equal(s.state, SERVE_WAITING);
    assert_int_equal(serve_step(&s, &w, 8), SERVE_REGISTER | SERVE_CHANGED);
}

static void
test_serve_release_comes_once_nothing_is_pending(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serving(&s);
    w.usable = false;
    serve_step(&s, &w, 4);
    w.members = 0;
    w.pending = 1;
    serve_step(&s, &w, 5);
    assert_int_equal(s.state, SERVE_WAITING);
    assert_int_equal(serve_step(&s, &w, 6), 0);
    w.pending = 0;
    assert_int_equal(serve_step(&s, &w, 7), SERVE_RELEASE);
    assert_int_equal(serve_step(&s, &w, 8), 0);
}

static void
test_serve_drain_ends_when_all_have_gone(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serving(&s);
    w.drain = true;
    serve_step(&s, &w, 4);
    assert_int_equal(s.state, SERVE_DRAINING);
    assert_int_equal(serve_step(&s, &w, 5), 0);
    w.members = 0;
    w.pending = 1;
    assert_int_equal(serve_step(&s, &w, 6), 0);
    w.pending = 0;
    assert_int_equal(serve_step(&s, &w, 7), SERVE_RELEASE | SERVE_CHANGED);
    assert_int_equal(s.state, SERVE_DRAINED);
    assert_int_equal(serve_step(&s, &w, 8), 0);
}

static void
test_serve_drained_registers_before_it_serves_again(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serving(&s);
    w.drain = true;
    w.members = 0;
    serve_step(&s, &w, 4);
    serve_step(&s, &w, 5);
    w.drain = false;
    assert_int_equal(serve_step(&s, &w, 6), SERVE_CHANGED);
    assert_int_equal(s.state, SERVE_WAITING);
    assert_int_equal(serve_step(&s, &w, 7), SERVE_REGISTER | SERVE_CHANGED);
}

static void
test_serve_undrain_takes_connections_back(void **state)
{
    struct serve_sample w = good();
    struct serve s;

    (void)state;
    serving(&s);
    w.drain = true;
    serve_step(&s, &w, 4);
    w.drain = false;
    assert_int_equal(serve_step(&s, &w, 5), SERVE_RESUME | SERVE_CHANGED);
    assert_int_equal(s.state, SERVE_SERVING);
    assert_int_equal(s.registration_no, 7);
}

static void
test_serve_drain_before_the_first_path_is_drained(void **state)
{
    struct serve_sample w = {.why = "no path", .drain = true};
    struct serve s;

    (void)state;
    serve_init(&s, 1);
    serve_step(&s, &w, 2);
    assert_int_equal(s.state, SERVE_DRAINED);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serve_unusable_waits_and_says_why),
        cmocka_unit_test(test_serve_steady_state_does_nothing),
        cmocka_unit_test(test_serve_failed_register_is_tried_again_later),
        cmocka_unit_test(test_serve_register_under_way_is_waited_for),
        cmocka_unit_test(test_serve_fenced_cuts_sessions),
        cmocka_unit_test(test_serve_another_registration_cuts_sessions),
        cmocka_unit_test(test_serve_lost_paths_cut_sessions),
        cmocka_unit_test(
            test_serve_without_arbiter_registration_does_not_matter),
        cmocka_unit_test(test_serve_fenced_while_draining_cuts_sessions),
        cmocka_unit_test(test_serve_closing_waits_for_every_connection),
        cmocka_unit_test(test_serve_release_comes_once_nothing_is_pending),
        cmocka_unit_test(test_serve_drain_ends_when_all_have_gone),
        cmocka_unit_test(test_serve_drained_registers_before_it_serves_again),
        cmocka_unit_test(test_serve_undrain_takes_connections_back),
        cmocka_unit_test(test_serve_drain_before_the_first_path_is_drained),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
