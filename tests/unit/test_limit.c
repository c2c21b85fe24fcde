/* SPDX-License-Identifier: BSD-3-Clause */
/* How often something may be told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/limit.h"

static unsigned
told_at(struct limit *l, uint64_t now_ms, unsigned times, unsigned *withheld)
{
    unsigned told = 0;

    for (unsigned i = 0; i < times; i++)
        told += limit_allow(l, now_ms, withheld);
    return told;
}

static void
test_limit_burst_then_one_by_one(void **state)
{
    struct limit l = {.burst = 3, .every_ms = 100};
    unsigned withheld = 9;

    (void)state;
    assert_int_equal(told_at(&l, 1000, 10, &withheld), 3);
    assert_int_equal(withheld, 0);
    assert_int_equal(told_at(&l, 1099, 10, &withheld), 0);
    assert_int_equal(told_at(&l, 1100, 10, &withheld), 1);
    assert_int_equal(withheld, 17);
    assert_int_equal(told_at(&l, 1300, 10, &withheld), 2);
    assert_int_equal(told_at(&l, 9999, 10, &withheld), 3);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit_burst_then_one_by_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
