/* SPDX-License-Identifier: BSD-3-Clause */
/* Histograms: which bucket, what is summed, what is left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "health/fields.h"
#include "plugin/latency.h"

static struct latency l;

static int
setup(void **state)
{
    (void)state;
    l = (struct latency){0};
    return 0;
}

/* How many took at most the nth bound, by the only histogram there is. */
static void
assert_bucket(size_t n, json_int_t us, json_int_t count)
{
    json_t *all = latency_json(&l);
    const json_t *b =
        json_array_get(json_object_get(json_array_get(all, 0), "buckets"), n);

    assert_int_equal(json_array_size(all), 1);
    assert_int_equal(json_integer_value(json_array_get(b, 0)), us);
    assert_int_equal(json_integer_value(json_array_get(b, 1)), count);
    json_decref(all);
}

static void
test_latency_nothing_yet_is_no_histogram(void **state)
{
    json_t *all = latency_json(&l);

    (void)state;
    assert_int_equal(json_array_size(all), 0);
    json_decref(all);
}

static void
test_latency_bounds_belong_to_their_bucket(void **state)
{
    (void)state;
    latency_note(&l, false, LUN_READ, 100, 512);
    latency_note(&l, false, LUN_READ, 101, 512);
    assert_bucket(0, 100, 1);
    assert_bucket(1, 250, 2);
    assert_bucket(LATENCY_BOUNDS - 1, 60000000, 2);
}

static void
test_latency_beyond_all_bounds_is_counted(void **state)
{
    json_t *all;

    (void)state;
    latency_note(&l, true, LUN_ZERO, 60000001, 4096);
    assert_bucket(LATENCY_BOUNDS - 1, 60000000, 0);
    all = latency_json(&l);
    assert_true(field_number(json_array_get(all, 0), "count", 0) == 1);
    json_decref(all);
}

static void
test_latency_routes_and_operations_are_apart(void **state)
{
    json_t *all;

    (void)state;
    latency_note(&l, false, LUN_WRITE, 10, 1000);
    latency_note(&l, false, LUN_WRITE, 20, 1000);
    latency_note(&l, true, LUN_WRITE, 30, 7);
    latency_note(&l, true, LUN_FLUSH, 40, 0);
    all = latency_json(&l);
    assert_int_equal(json_array_size(all), 3);
    for (size_t i = 0; i < 3; i++) {
        const json_t *h = json_array_get(all, i);

        assert_true(field_is(h, "route", i ? "redirected" : "local"));
        assert_true(field_is(h, "operation", i < 2 ? "write" : "flush"));
        assert_true(field_number(h, "sum_us", 0) == (i < 2 ? 30 : 40));
        assert_true(field_number(h, "bytes", -1) == (i == 0   ? 2000
                                                     : i == 1 ? 7
                                                              : 0));
    }
    json_decref(all);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_latency_nothing_yet_is_no_histogram, setup),
        cmocka_unit_test_setup(test_latency_bounds_belong_to_their_bucket,
                               setup),
        cmocka_unit_test_setup(test_latency_beyond_all_bounds_is_counted,
                               setup),
        cmocka_unit_test_setup(test_latency_routes_and_operations_are_apart,
                               setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
