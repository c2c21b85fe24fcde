/* SPDX-License-Identifier: BSD-3-Clause */
/* Names of LUNs: the same LUN is called the same, whoever told. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lun/identity.h"

#define NAA6 "\x60\x01\x40\x50\x12\x34\x56\x78\x9a\xbc\xde\xf0\x01\x02\x03\x04"

/* A page in the making. */
static struct {
    uint8_t bytes[256];
    size_t len;
} page;

static void
begin(void)
{
    memset(&page, 0, sizeof page);
    page.bytes[1] = 0x83;
    page.len = 4;
}

static void
add(unsigned code_set, unsigned association, unsigned type, const char *data,
    size_t len)
{
    uint8_t *d = page.bytes + page.len;

    d[0] = (uint8_t)code_set;
    d[1] = (uint8_t)(association << 4 | type);
    d[3] = (uint8_t)len;
    memcpy(d + 4, data, len);
    page.len += 4 + len;
    page.bytes[3] = (uint8_t)(page.len - 4);
}

/* From a copy of exactly its length, so that reading further is found out. */
static int
parse(size_t len, char id[LUN_ID_MAX])
{
    uint8_t *copy = malloc(len ? len : 1);
    int err;

    assert_non_null(copy);
    memcpy(copy, page.bytes, len);
    err = identity_from_vpd83(copy, len, id);
    free(copy);
    return err;
}

static void
test_naa6_wins(void **state)
{
    char id[LUN_ID_MAX];

    (void)state;
    begin();
    add(2, 0, 1, "IET     00010001", 16);
    add(1, 0, 2, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    add(1, 0, 3, "\x50\x01\x40\x50\x12\x34\x56\x78", 8);
    add(1, 0, 3, NAA6, 16);
    assert_int_equal(parse(page.len, id), 0);
    assert_string_equal(id, "naa.60014050123456789abcdef001020304");
}

static void
test_ports_names_are_not_the_luns(void **state)
{
    char id[LUN_ID_MAX];

    (void)state;
    begin();
    add(1, 1, 3, NAA6, 16);
    assert_int_equal(parse(page.len, id), -ENOENT);
    add(1, 0, 2, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    assert_int_equal(parse(page.len, id), 0);
    assert_string_equal(id, "eui.0102030405060708");
}

static void
test_t10_name_is_trimmed(void **state)
{
    char id[LUN_ID_MAX];

    (void)state;
    begin();
    add(2, 0, 1,
        " IET     0001\x01"
        "0001   ",
        21);
    assert_int_equal(parse(page.len, id), 0);
    assert_string_equal(id, "t10.IET_0001_0001");
}

static void
test_scsi_name_is_in_lower_case(void **state)
{
    char id[LUN_ID_MAX];

    (void)state;
    begin();
    add(3, 0, 8, "eui.0102030405060708ABCD\0\0\0\0", 28);
    assert_int_equal(parse(page.len, id), 0);
    assert_string_equal(id, "eui.0102030405060708abcd");
}

static void
test_other_pages_are_refused(void **state)
{
    char id[LUN_ID_MAX];

    (void)state;
    begin();
    page.bytes[1] = 0x80;
    assert_int_equal(parse(4, id), -EINVAL);
    assert_int_equal(parse(3, id), -EINVAL);
    assert_int_equal(parse(0, id), -EINVAL);
}

static void
test_cut_off_page_gives_what_is_whole(void **state)
{
    char id[LUN_ID_MAX];

    (void)state;
    begin();
    add(1, 0, 2, "\x01\x02\x03\x04\x05\x06\x07\x08", 8);
    add(1, 0, 3, NAA6, 16);
    for (size_t len = 4; len < page.len; len++)
        assert_int_equal(parse(len, id), len < 16 ? -ENOENT : 0);
    assert_string_equal(id, "eui.0102030405060708");
}

static void
test_descriptors_that_lie_about_their_length(void **state)
{
    char id[LUN_ID_MAX];

    (void)state;
    begin();
    add(1, 0, 3, "", 0);
    add(1, 0, 3, "\x60", 1);
    assert_int_equal(parse(page.len, id), -ENOENT);
    page.bytes[11] = 255;
    assert_int_equal(parse(page.len, id), -ENOENT);
    page.bytes[2] = 255;
    assert_int_equal(parse(page.len, id), -ENOENT);
}

static void
test_long_names_fit(void **state)
{
    char id[LUN_ID_MAX], text[200];

    (void)state;
    memset(text, 'x', sizeof text);
    begin();
    add(2, 0, 1, text, 200);
    assert_int_equal(parse(page.len, id), 0);
    assert_in_range(strlen(id), 100, LUN_ID_MAX - 1);
}

struct same {
    const char *told, *id; /* id NULL: no name */
};

static void
test_multipath_names_are_the_same(void **state)
{
    const struct same names[] = {
        {"mpath-360014050123456789abcdef001020304",
         "naa.60014050123456789abcdef001020304"},
        {"mpath-20102030405060708", "eui.0102030405060708"},
        {"mpath-1IET_00010001", "t10.IET_00010001"},
        {"mpath-uuid.1234-5678", "uuid.1234-5678"},
        {"mpath-eui.0102030405060708", "eui.0102030405060708"},
        {"LVM-abcdef", NULL},
        {"mpath-", NULL},
        {"mpath-Sserial", NULL},
    };
    char id[LUN_ID_MAX];

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int err = identity_from_dm_uuid(names[i].told, id);

        assert_int_equal(err, names[i].id ? 0 : -ENOENT);
        if (names[i].id)
            assert_string_equal(id, names[i].id);
    }
}

static void
test_kernel_names_are_the_same(void **state)
{
    char id[LUN_ID_MAX];

    (void)state;
    assert_int_equal(identity_from_wwid("t10.IET     00010001  ", id), 0);
    assert_string_equal(id, "t10.IET_00010001");
    assert_int_equal(identity_from_wwid("naa.60014050AA", id), 0);
    assert_string_equal(id, "naa.60014050aa");
    assert_int_equal(identity_from_wwid("", id), -ENOENT);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_naa6_wins),
        cmocka_unit_test(test_ports_names_are_not_the_luns),
        cmocka_unit_test(test_t10_name_is_trimmed),
        cmocka_unit_test(test_scsi_name_is_in_lower_case),
        cmocka_unit_test(test_other_pages_are_refused),
        cmocka_unit_test(test_cut_off_page_gives_what_is_whole),
        cmocka_unit_test(test_descriptors_that_lie_about_their_length),
        cmocka_unit_test(test_long_names_fit),
        cmocka_unit_test(test_multipath_names_are_the_same),
        cmocka_unit_test(test_kernel_names_are_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
