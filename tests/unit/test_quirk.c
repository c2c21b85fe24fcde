/* SPDX-License-Identifier: BSD-3-Clause */
/* Known quirks: whose INQUIRY data they go by. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lun/quirk.h"

static bool
partial(const char *vendor, size_t len)
{
    uint8_t inquiry[36] = {0};

    memcpy(inquiry + 8, vendor, 8);
    return quirk_partial_abort(inquiry, len);
}

static void
test_abort_of_linux_target_is_partial(void **state)
{
    (void)state;
    assert_true(partial("LIO-ORG ", 36));
}

static void
test_abort_of_others_is_whole(void **state)
{
    (void)state;
    assert_false(partial("IET     ", 36));
    assert_false(partial("LIO-ORGX", 36));
    assert_false(partial("lio-org ", 36));
}

static void
test_short_inquiry_tells_nothing(void **state)
{
    (void)state;
    assert_true(partial("LIO-ORG ", 16));
    assert_false(partial("LIO-ORG ", 15));
    assert_false(partial("LIO-ORG ", 0));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_abort_of_linux_target_is_partial),
        cmocka_unit_test(test_abort_of_others_is_whole),
        cmocka_unit_test(test_short_inquiry_tells_nothing),
    };

    return cmocka_run_group_tests_name("quirk", tests, NULL, NULL);
}
