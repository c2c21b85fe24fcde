/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of the table from SCSI sense to errno and action. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "lun/error.h"
#include "lun/sense.h"

static void
check(uint8_t key, uint8_t asc, uint8_t ascq, enum sense_action action,
      int error)
{
    struct sense_verdict v = sense_judge(key, asc, ascq);

    assert_int_equal(v.action, action);
    assert_int_equal(v.error, error);
    assert_non_null(v.text);
}

static void
test_sense_lun_errors_are_of_class_lun(void **state)
{
    (void)state;
    check(0x3, 0x11, 0x00, SENSE_FAIL, -ENODATA);
    check(0x4, 0x44, 0x00, SENSE_FAIL, -EREMOTEIO);
    check(0x7, 0x27, 0x07, SENSE_FAIL, -ENOSPC);
    assert_int_equal(lun_error_class(-ENODATA), LUN_CLASS_LUN);
    assert_int_equal(lun_error_class(-EREMOTEIO), LUN_CLASS_LUN);
    assert_int_equal(lun_error_class(-ENOSPC), LUN_CLASS_LUN);
}

static void
test_sense_full_pool_differs_from_write_protect(void **state)
{
    (void)state;
    check(0x7, 0x27, 0x07, SENSE_FAIL, -ENOSPC);
    check(0x7, 0x27, 0x00, SENSE_FAIL, -EROFS);
    check(0x7, 0x27, 0x02, SENSE_FAIL, -EROFS);
}

static void
test_sense_request_errors(void **state)
{
    (void)state;
    check(0x5, 0x20, 0x00, SENSE_FAIL, -EOPNOTSUPP);
    check(0x5, 0x21, 0x00, SENSE_FAIL, -EINVAL);
    check(0x5, 0x24, 0x00, SENSE_FAIL, -EINVAL);
    check(0x5, 0x10, 0x01, SENSE_FAIL, -EILSEQ);
    check(0xB, 0x10, 0x01, SENSE_FAIL, -EILSEQ);
}

static void
test_sense_not_ready_passes_or_belongs_to_the_path(void **state)
{
    (void)state;
    check(0x2, 0x04, 0x01, SENSE_LATER, 0);
    check(0x2, 0x04, 0x0A, SENSE_LATER, 0);
    check(0x2, 0x04, 0x0B, SENSE_PATH, -ENOLINK);
    check(0x2, 0x3A, 0x00, SENSE_PATH, -ENOLINK);
    check(0x5, 0x25, 0x00, SENSE_PATH, -ENXIO);
    assert_int_equal(lun_error_class(-ENXIO), LUN_CLASS_PATH);
}

static void
test_sense_unit_attention_is_sent_again_with_its_news(void **state)
{
    struct sense_verdict v;

    (void)state;
    check(0x6, 0x3F, 0x0E, SENSE_AGAIN, 0);
    v = sense_judge(0x6, 0x2A, 0x05);
    assert_int_equal(v.action, SENSE_AGAIN);
    assert_true(v.news & SENSE_KEYS);
    v = sense_judge(0x6, 0x2A, 0x09);
    assert_int_equal(v.news, SENSE_CAPACITY);
    v = sense_judge(0x6, 0x29, 0x03);
    assert_true(v.news & SENSE_RESET);
    v = sense_judge(0x6, 0x2F, 0x00);
    assert_true(v.news & SENSE_RESET);
    v = sense_judge(0x6, 0x28, 0x00);
    assert_int_equal(v.news, 0);
}

static void
test_sense_recovered_error_is_success(void **state)
{
    (void)state;
    check(0x0, 0x00, 0x00, SENSE_DONE, 0);
    check(0x1, 0x17, 0x01, SENSE_DONE, 0);
}

static void
test_sense_every_key_has_a_verdict(void **state)
{
    (void)state;
    for (unsigned key = 0; key < 16; key++) {
        struct sense_verdict v = sense_judge((uint8_t)key, 0x7E, 0x7E);
        int failed = v.action == SENSE_FAIL || v.action == SENSE_PATH;

        assert_non_null(v.text);
        assert_int_equal(failed, v.error < 0);
    }
    check(0x9, 0x80, 0x00, SENSE_PATH, -EIO);
}

static void
test_sense_status(void **state)
{
    (void)state;
    assert_int_equal(sense_judge_status(0x00).action, SENSE_DONE);
    assert_int_equal(sense_judge_status(0x08).action, SENSE_LATER);
    assert_int_equal(sense_judge_status(0x28).action, SENSE_LATER);
    assert_int_equal(sense_judge_status(0x40).action, SENSE_LATER);
    assert_int_equal(sense_judge_status(0x18).action, SENSE_FAIL);
    assert_int_equal(sense_judge_status(0x18).error, -EBADE);
    assert_int_equal(lun_error_class(-EBADE), LUN_CLASS_FENCED);
    assert_int_equal(sense_judge_status(0x30).action, SENSE_PATH);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sense_lun_errors_are_of_class_lun),
        cmocka_unit_test(test_sense_full_pool_differs_from_write_protect),
        cmocka_unit_test(test_sense_request_errors),
        cmocka_unit_test(test_sense_not_ready_passes_or_belongs_to_the_path),
        cmocka_unit_test(test_sense_unit_attention_is_sent_again_with_its_news),
        cmocka_unit_test(test_sense_recovered_error_is_success),
        cmocka_unit_test(test_sense_every_key_has_a_verdict),
        cmocka_unit_test(test_sense_status),
    };

    return cmocka_run_group_tests_name("sense", tests, NULL, NULL);
}
