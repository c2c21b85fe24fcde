/* SPDX-License-Identifier: BSD-3-Clause */
/* Buffers are kept for the next request, up to what may lie idle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lun/buffers.h"
#include "lun/lun.h"

static void
test_buffers_are_aligned(void **state)
{
    struct buffers b = {0};

    (void)state;
    for (size_t size = 1; size <= BUFFERS_MAX; size *= 3) {
        void *buf = buffers_get(&b, size);

        assert_non_null(buf);
        assert_int_equal((uintptr_t)buf % LUN_BUFFER_ALIGN, 0);
        buffers_put(&b, buf, size);
    }
    buffers_fini(&b);
}

static void
test_buffers_too_large_is_refused(void **state)
{
    struct buffers b = {0};

    (void)state;
    assert_null(buffers_get(&b, (size_t)BUFFERS_MAX + 1));
}

static void
test_buffers_small_one_stays_with_its_queue(void **state)
{
    struct buffers one = {0}, other = {0};
    void *buf = buffers_get(&one, 4096), *another;

    (void)state;
    buffers_put(&one, buf, 4096);
    another = buffers_get(&other, 4096);
    assert_ptr_not_equal(another, buf);
    assert_ptr_equal(buffers_get(&one, 100), buf);
    buffers_put(&one, buf, 100);
    buffers_put(&other, another, 4096);
    buffers_fini(&one);
    buffers_fini(&other);
    assert_int_equal(one.own.kept, 0);
}

static void
test_buffers_large_one_goes_to_any_queue(void **state)
{
    struct buffers one = {0}, other = {0};
    void *buf = buffers_get(&one, 1 << 20);

    (void)state;
    buffers_put(&one, buf, 1 << 20);
    buffers_fini(&one);
    assert_ptr_equal(buffers_get(&other, 1 << 20), buf);
    buffers_put(&other, buf, 1 << 20);
}

static void
test_buffers_idle_in_a_queue_are_bounded(void **state)
{
    struct buffers b = {0};
    void *bufs[2 * BUFFERS_KEPT / BUFFERS_SMALL];
    const size_t n = sizeof bufs / sizeof *bufs;

    (void)state;
    for (size_t i = 0; i < n; i++)
        bufs[i] = buffers_get(&b, BUFFERS_SMALL);
    for (size_t i = 0; i < n; i++)
        buffers_put(&b, bufs[i], BUFFERS_SMALL);
    assert_int_equal(b.own.kept, BUFFERS_KEPT);
    buffers_fini(&b);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_buffers_are_aligned),
        cmocka_unit_test(test_buffers_too_large_is_refused),
        cmocka_unit_test(test_buffers_small_one_stays_with_its_queue),
        cmocka_unit_test(test_buffers_large_one_goes_to_any_queue),
        cmocka_unit_test(test_buffers_idle_in_a_queue_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
