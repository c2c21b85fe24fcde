/* SPDX-License-Identifier: BSD-3-Clause */
/* Error classes: each row of docs/design.md section 8, and what is unknown. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "lun/error.h"

static void
assert_class(enum lun_class c, const int *errors, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (lun_error_class(-errors[i]) != c)
            fail_msg("errno %d is %s, not %s", errors[i],
                     lun_class_name(lun_error_class(-errors[i])),
                     lun_class_name(c));
}

#define ASSERT_CLASS(c, ...)                                                   \
    do {                                                                       \
        const int errors_[] = {__VA_ARGS__};                                   \
                                                                               \
        assert_class(c, errors_, sizeof(errors_) / sizeof(*errors_));          \
    } while (0)

static void
test_error_zero_is_ok(void **state)
{
    (void)state;
    assert_int_equal(lun_error_class(0), LUN_CLASS_OK);
}

static void
test_error_path_trouble_is_tried_elsewhere(void **state)
{
    (void)state;
    ASSERT_CLASS(LUN_CLASS_PATH, ENOLINK, ETIMEDOUT, ENODEV, ENXIO, EIO,
                 ECONNRESET, ENOTCONN, ESHUTDOWN, EPIPE);
}

/* The plugin and the proxy go by the same list. */
static void
test_error_doubtful_is_what_the_lun_may_have_said(void **state)
{
    (void)state;
    assert_true(lun_error_doubtful(-EIO));
    assert_true(lun_error_doubtful(-ENOTTY));
    assert_false(lun_error_doubtful(0));
    assert_false(lun_error_doubtful(-ENOLINK));
    assert_false(lun_error_doubtful(-ETIMEDOUT));
    assert_false(lun_error_doubtful(-ENOMEM));
    assert_false(lun_error_doubtful(-EBADE));
    assert_false(lun_error_doubtful(-ENOSPC));
    assert_false(lun_error_doubtful(-EINVAL));
}

static void
test_error_conflict_is_a_fence(void **state)
{
    (void)state;
    ASSERT_CLASS(LUN_CLASS_FENCED, EBADE);
}

static void
test_error_of_the_lun_is_its_own(void **state)
{
    (void)state;
    ASSERT_CLASS(LUN_CLASS_LUN, ENODATA, ENOSPC, EREMOTEIO, EILSEQ);
}

static void
test_error_of_the_request_is_passed_on(void **state)
{
    (void)state;
    ASSERT_CLASS(LUN_CLASS_REQUEST, EINVAL, EOPNOTSUPP, ERANGE, EROFS);
}

static void
test_error_unknown_loses_nothing(void **state)
{
    (void)state;
    ASSERT_CLASS(LUN_CLASS_PATH, ENOMEM, EAGAIN, EBUSY, 9999, -1);
}

static void
test_error_classes_have_different_names(void **state)
{
    (void)state;
    for (int a = LUN_CLASS_OK; a <= LUN_CLASS_REQUEST; a++)
        for (int b = LUN_CLASS_OK; b < a; b++)
            assert_string_not_equal(lun_class_name((enum lun_class)a),
                                    lun_class_name((enum lun_class)b));
    assert_string_equal(lun_class_name((enum lun_class)99), "unknown");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_error_zero_is_ok),
        cmocka_unit_test(test_error_path_trouble_is_tried_elsewhere),
        cmocka_unit_test(test_error_doubtful_is_what_the_lun_may_have_said),
        cmocka_unit_test(test_error_conflict_is_a_fence),
        cmocka_unit_test(test_error_of_the_lun_is_its_own),
        cmocka_unit_test(test_error_of_the_request_is_passed_on),
        cmocka_unit_test(test_error_unknown_loses_nothing),
        cmocka_unit_test(test_error_classes_have_different_names),
    };

    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
