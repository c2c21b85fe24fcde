/* SPDX-License-Identifier: BSD-3-Clause */
/* Export names and descriptions: round trips, and what a peer must not do. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/export.h"

/* Parse from memory of exactly len bytes, so that valgrind and the address
 * sanitizer see a byte too far. */
static int
parse(const char *text, size_t len, struct export_name *e, char *err)
{
    char *exact = malloc(len ? len : 1);
    int r;

    assert_non_null(exact);
    memcpy(exact, text, len);
    strcpy(err, "unset");
    r = export_name_parse(exact, len, e, err, 128);
    free(exact);
    return r;
}

static void
assert_refused(const char *text, const char *words)
{
    struct export_name e;
    char err[128];

    if (parse(text, strlen(text), &e, err) != -EINVAL || !strstr(err, words))
        fail_msg("%s: expected '%s', got '%s'", text, words, err);
}

static void
assert_parsed(const char *text, struct export_name *e)
{
    char err[128];

    if (parse(text, strlen(text), e, err) != 0)
        fail_msg("%s: %s", text, err);
}

static void
test_export_name_alone_is_a_plain_client(void **state)
{
    struct export_name e;

    (void)state;
    assert_parsed("vm1", &e);
    assert_string_equal(e.lun, "vm1");
    assert_string_equal(e.client, "");
    assert_int_equal(e.generation, 0);
    assert_string_equal(e.id, "");
    assert_int_equal(e.nfence, 0);
    assert_parsed("", &e);
    assert_string_equal(e.lun, "");
}

static void
test_export_name_parts_in_any_order(void **state)
{
    struct export_name e;

    (void)state;
    assert_parsed("vm1?fence=b,c%20d&id=naa.6001&generation="
                  "18446744073709551615&client=a:x",
                  &e);
    assert_string_equal(e.lun, "vm1");
    assert_string_equal(e.client, "a:x");
    assert_true(e.generation == UINT64_MAX);
    assert_string_equal(e.id, "naa.6001");
    assert_int_equal(e.nfence, 2);
    assert_string_equal(e.fence[0], "b");
    assert_string_equal(e.fence[1], "c d");
}

static void
test_export_name_mistakes_are_refused(void **state)
{
    static const char *const m[][2] = {
        {"?client=a", "LUN's name is empty"},
        {"vm1?", "'=' expected"},
        {"vm1?client", "'=' expected"},
        {"vm1?client=", "client is empty"},
        {"vm1?client=a&", "'=' expected"},
        {"vm1?client=a&client=a", "client is given twice"},
        {"vm1?generation=1&generation=2", "generation is given twice"},
        {"vm1?id=a&id=b", "id is given twice"},
        {"vm1?fence=a&fence=b", "fence is given twice"},
        {"vm1?colour=red", "unknown part colour"},
        {"vm1?Client=a", "unknown part Client"},
        {"vm1?=a", "unknown part"},
        {"vm1?generation=0", "generation is zero"},
        {"vm1?generation=+1", "generation is not a number"},
        {"vm1?generation=0x1", "generation is not a number"},
        {"vm1?generation=", "generation is empty"},
        {"vm1?generation=18446744073709551616", "generation is too large"},
        {"vm1?generation=99999999999999999999999", "generation is too large"},
        {"vm1?fence=a,,b", "fence is empty"},
        {"vm1?pad=", "pad is empty"},
        {"vm1?pad=0&pad=0", "pad is given twice"},
        {"vm1?fence=a,", "fence is empty"},
        {"vm1?id=%", "id holds a character"},
        {"vm1?id=%4", "id holds a character"},
        {"vm1?id=%g0", "id holds a character"},
        {"vm1?id=a%00b", "id holds a character"},
        {"vm1?id=a%0Ab", "id holds a character"},
        {"vm1?id=a\nb", "id holds a character"},
        {"vm%7f", "LUN's name holds"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(m) / sizeof(*m); i++)
        assert_refused(m[i][0], m[i][1]);
}

static void
test_export_name_with_nul_inside_is_refused(void **state)
{
    struct export_name e;
    char err[128];

    (void)state;
    assert_int_equal(parse("vm\0?x", 5, &e, err), -EINVAL);
    assert_int_equal(parse("vm1?a\0=x", 8, &e, err), -EINVAL);
}

static void
test_export_name_words_fill_their_room_and_no_more(void **state)
{
    struct export_name e;
    char text[EXPORT_NAME_MAX + 2];

    (void)state;
    memset(text, 'a', sizeof(text));
    memcpy(text, "v?id=", 5);
    text[5 + EXPORT_WORD_MAX - 1] = '\0';
    assert_parsed(text, &e);
    assert_int_equal(strlen(e.id), EXPORT_WORD_MAX - 1);
    text[5 + EXPORT_WORD_MAX - 1] = 'a';
    text[5 + EXPORT_WORD_MAX] = '\0';
    assert_refused(text, "id is too long");
}

static void
test_export_name_too_long_is_refused(void **state)
{
    char text[EXPORT_NAME_MAX + 2];

    (void)state;
    memset(text, 'a', sizeof(text));
    text[EXPORT_NAME_MAX + 1] = '\0';
    assert_refused(text, "export name: is too long");
}

static void
test_export_name_too_many_hosts_are_refused(void **state)
{
    struct export_name e;
    char text[256] = "v?fence=h";

    (void)state;
    for (int i = 1; i < EXPORT_FENCE_MAX; i++)
        strcat(text, ",h");
    assert_parsed(text, &e);
    assert_int_equal(e.nfence, EXPORT_FENCE_MAX);
    strcat(text, ",h");
    assert_refused(text, "fence names too many hosts");
}

static void
test_export_name_err_is_never_overrun(void **state)
{
    struct export_name e;
    char err[8];

    (void)state;
    memset(err, '!', sizeof(err));
    assert_int_equal(export_name_parse("v?colour=x", 10, &e, err, 4), -EINVAL);
    assert_string_equal(err, "exp");
    assert_int_equal(err[4], '!');
}

static void
test_export_name_survives_a_round_trip(void **state)
{
    struct export_name e = {.lun = "vm&1?", .generation = 42, .nfence = 2};
    struct export_name back;
    char buf[EXPORT_NAME_MAX + 1];

    (void)state;
    strcpy(e.client, "a=b,c%41");
    strcpy(e.id, "t10.ATA \xC3\xA4");
    strcpy(e.fence[0], "h,1");
    strcpy(e.fence[1], "h2");
    assert_int_equal(export_name_format(&e, buf), 0);
    assert_string_equal(buf, "vm%261%3F?client=a%3Db%2Cc%2541&generation=42&"
                             "id=t10.ATA%20%C3%A4&fence=h%2C1,h2");
    assert_parsed(buf, &back);
    assert_memory_equal(&e, &back, sizeof(e));
}

static void
test_export_name_formats_what_is_given_only(void **state)
{
    struct export_name e = {.lun = "vm1"};
    char buf[EXPORT_NAME_MAX + 1];

    (void)state;
    assert_int_equal(export_name_format(&e, buf), 0);
    assert_string_equal(buf, "vm1");
    e.nfence = 1;
    strcpy(e.fence[0], "b");
    assert_int_equal(export_name_format(&e, buf), 0);
    assert_string_equal(buf, "vm1?fence=b");
}

static void
test_export_name_that_does_not_fit_is_told(void **state)
{
    struct export_name e = {.lun = "vm1", .nfence = EXPORT_FENCE_MAX};
    char buf[EXPORT_NAME_MAX + 1];

    (void)state;
    for (size_t i = 0; i < e.nfence; i++)
        memset(e.fence[i], '%', EXPORT_WORD_MAX - 1);
    assert_int_equal(export_name_format(&e, buf), -ENAMETOOLONG);
}

static void
test_export_name_filler_is_counted_up_to_its_limit(void **state)
{
    struct export_name e = {.lun = "vm1", .client = "a", .pad = EXPORT_PAD};
    char buf[EXPORT_NAME_MAX + 1];

    (void)state;
    assert_int_equal(export_name_format(&e, buf), 0);
    assert_true(strlen(buf) > EXPORT_PAD);
    assert_parsed(buf, &e);
    assert_int_equal(e.pad, EXPORT_PAD);
    assert_string_equal(e.client, "a");
    strcat(buf, "0");
    assert_refused(buf, "pad is too long");
}

/* Who asks has little room for the answer: only filler may be cut off. */
static void
test_export_info_filler_comes_last(void **state)
{
    struct export_info i = {.load = 7, .sessions = 3, .pad = EXPORT_PAD}, back;
    char buf[EXPORT_NAME_MAX + 1];

    (void)state;
    strcpy(i.state, "serving");
    assert_int_equal(export_info_format(&i, buf, sizeof(buf)), 0);
    assert_true(strlen(buf) > EXPORT_PAD);
    for (size_t len = strlen(buf); len > 43; len--) {
        buf[len] = '\0';
        assert_int_equal(export_info_parse(buf, &back), 0);
        assert_int_equal(back.sessions, 3);
    }
}

static void
test_export_info_survives_a_round_trip(void **state)
{
    struct export_info i = {.load = UINT64_MAX, .sessions = 3}, back;
    char buf[256];

    (void)state;
    strcpy(i.id, "naa.6001 x");
    strcpy(i.state, "serving");
    assert_int_equal(export_info_format(&i, buf, sizeof(buf)), 0);
    assert_string_equal(buf, "detour 1 id=naa.6001%20x state=serving "
                             "load=18446744073709551615 sessions=3");
    assert_int_equal(export_info_parse(buf, &back), 0);
    assert_memory_equal(&i, &back, sizeof(i));
    i.slow = true;
    assert_int_equal(export_info_format(&i, buf, sizeof(buf)), 0);
    assert_non_null(strstr(buf, " sessions=3 slow=1"));
    assert_int_equal(export_info_parse(buf, &back), 0);
    assert_memory_equal(&i, &back, sizeof(i));
}

static void
test_export_info_passes_over_unknown_words(void **state)
{
    struct export_info i;

    (void)state;
    assert_int_equal(
        export_info_parse("detour 1 new later=2 state=x load=7", &i), 0);
    assert_string_equal(i.state, "x");
    assert_int_equal(i.load, 7);
    assert_int_equal(i.sessions, 0);
}

static void
test_export_info_of_others_is_refused(void **state)
{
    static const char *const m[] = {
        "",
        "detour",
        "detour ",
        "detour 2 state=serving",
        "detour 12",
        "detours 1",
        "qemu export",
        "detour 1 load=x",
        "detour 1 load=18446744073709551616",
        "detour 1 sessions=4294967296",
        "detour 1 sessions=-1",
        "detour 1 state=0123456789012345678901234567890123456789",
        "detour 1 id=%zz",
        "detour 1 slow=2",
        "detour 1 slow=",
    };
    struct export_info i;

    (void)state;
    for (size_t n = 0; n < sizeof(m) / sizeof(*m); n++)
        if (export_info_parse(m[n], &i) != -EINVAL)
            fail_msg("'%s' was taken", m[n]);
}

static void
test_export_info_needs_room(void **state)
{
    struct export_info i = {.load = 1};
    char buf[32];

    (void)state;
    memset(buf, '!', sizeof(buf));
    assert_int_equal(export_info_format(&i, buf, 26), -ENAMETOOLONG);
    assert_int_equal(buf[26], '!');
    assert_int_equal(export_info_format(&i, buf, 27), 0);
    assert_string_equal(buf, "detour 1 load=1 sessions=0");
    assert_int_equal(export_info_format(&i, buf, 0), -ENAMETOOLONG);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_export_name_alone_is_a_plain_client),
        cmocka_unit_test(test_export_name_parts_in_any_order),
        cmocka_unit_test(test_export_name_mistakes_are_refused),
        cmocka_unit_test(test_export_name_with_nul_inside_is_refused),
        cmocka_unit_test(test_export_name_words_fill_their_room_and_no_more),
        cmocka_unit_test(test_export_name_too_long_is_refused),
        cmocka_unit_test(test_export_name_too_many_hosts_are_refused),
        cmocka_unit_test(test_export_name_err_is_never_overrun),
        cmocka_unit_test(test_export_name_survives_a_round_trip),
        cmocka_unit_test(test_export_name_formats_what_is_given_only),
        cmocka_unit_test(test_export_name_that_does_not_fit_is_told),
        cmocka_unit_test(test_export_name_filler_is_counted_up_to_its_limit),
        cmocka_unit_test(test_export_info_filler_comes_last),
        cmocka_unit_test(test_export_info_survives_a_round_trip),
        cmocka_unit_test(test_export_info_passes_over_unknown_words),
        cmocka_unit_test(test_export_info_of_others_is_refused),
        cmocka_unit_test(test_export_info_needs_room),
    };

    return cmocka_run_group_tests_name("export", tests, NULL, NULL);
}
