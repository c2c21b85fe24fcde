/* SPDX-License-Identifier: BSD-3-Clause */
/* What is kept of processes and hosts, their past, certificates, cut text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>
#include <cmocka.h>

#include "tests/unit/health_picture.h"

static void
sockets(const char *a, const char *b)
{
    char *paths[] = {(char *)a, (char *)b};

    assert_int_equal(
        picture_processes(&picture, paths, (size_t)(!!a + !!b), NOW_MS), 0);
}

static void
test_picture_keeps_who_is_still_there(void **state)
{
    (void)state;
    sockets("/run/b.sock", "/run/c.sock");
    picture_heard(picture_find(&picture, "c"), json_object(), "", NOW_MS);
    sockets("/run/a.sock", "/run/c.sock");
    assert_int_equal(picture.nprocesses, 2);
    assert_null(picture_find(&picture, "b"));
    assert_int_equal(picture_find(&picture, "a")->answered_ms, 0);
    assert_int_equal(picture_find(&picture, "c")->answered_ms, NOW_MS);
    sockets(NULL, NULL);
    assert_int_equal(picture.nprocesses, 0);
}

static void
test_picture_keeps_the_last_word_of_who_is_silent(void **state)
{
    struct picture_source *s = heard("plugin-vm1-a", 700, PLUGIN);

    (void)state;
    assert_false(picture_silent(s, 1000, NOW_MS));
    picture_heard(s, NULL, "no answer", NOW_MS);
    assert_true(picture_silent(s, 1000, NOW_MS));
    assert_int_equal(s->answered_ms, NOW_MS - 700);
    assert_non_null(s->answer);
    picture_heard(s, json_object(), "", NOW_MS);
    assert_false(picture_silent(s, 1000, NOW_MS));
}

static void
test_picture_has_the_other_hosts(void **state)
{
    (void)state;
    assert_int_equal(picture.nhosts, 1);
    assert_string_equal(picture.hosts[0].name, "h2");
    assert_true(picture_silent(&picture.hosts[0], 1000, NOW_MS));
}

/* ---- history ----------------------------------------------------------- */

static void
expect_history(const struct history *h, uint64_t now_ms, const char *json)
{
    json_t *a = history_json(h, now_ms);
    char *text = json_dumps(a, JSON_COMPACT);

    assert_string_equal(text, json);
    free(text);
    json_decref(a);
}

static void
test_history_keeps_the_most_of_each_step(void **state)
{
    struct history h = {.last = 0};

    (void)state;
    expect_history(&h, NOW_MS, "[]");
    history_add(&h, 1, 50000);
    history_add(&h, 7, 52000);
    history_add(&h, 3, 54999);
    history_add(&h, 2, 55000);
    expect_history(&h, 59999, "[7.0,2.0]");
    expect_history(&h, 65000, "[7.0,2.0,null,null]");
    history_add(&h, 4, 65000);
    expect_history(&h, 65000, "[7.0,2.0,null,4.0]");
}

static void
test_history_is_as_long_as_it_is(void **state)
{
    struct history h = {.last = 0};
    json_t *a;

    (void)state;
    history_add(&h, 1, 50000);
    history_add(&h, 2, 50000 + (HISTORY_STEPS - 1) * HISTORY_STEP_MS);
    a = history_json(&h, 50000 + (HISTORY_STEPS - 1) * HISTORY_STEP_MS);
    assert_int_equal(json_array_size(a), HISTORY_STEPS);
    assert_true(json_real_value(json_array_get(a, 0)) == 1);
    json_decref(a);
    history_add(&h, 3, 100 * HISTORY_STEPS * HISTORY_STEP_MS);
    a = history_json(&h, 100 * HISTORY_STEPS * HISTORY_STEP_MS);
    assert_int_equal(json_array_size(a), HISTORY_STEPS);
    assert_true(json_is_null(json_array_get(a, 0)));
    assert_true(json_real_value(json_array_get(a, HISTORY_STEPS - 1)) == 3);
    json_decref(a);
}

/* ---- certificates ------------------------------------------------------ */

static void
test_certs_tell_why_they_are_not_known(void **state)
{
    char file[] = "/tmp/test_picture.XXXXXX";
    int fd = mkstemp(file);
    struct cert certs[CERTS_MAX];

    (void)state;
    assert_int_equal(write(fd, "nonsense", 8), 8);
    close(fd);
    config.ca = (char *)"/nonexistent";
    config.cert = config.crl = file;
    assert_int_equal(certs_read(&config, certs), 3);
    assert_string_equal(certs[0].error, "No such file or directory");
    assert_true(certs[1].error[0] && certs[2].error[0]);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(certs[i].not_after, 0);
    assert_string_equal(certs[2].name, "crl");
    unlink(file);
}

/* ---- text -------------------------------------------------------------- */

static void
test_field_print_cuts_between_characters(void **state)
{
    static const struct {
        const char *text;
        size_t room;
        const char *cut;
    } cases[] = {
        {"abc", 4, "abc"},
        {"abc", 3, "ab"},
        {"a\xc3\xa4", 4, "a\xc3\xa4"},
        {"a\xc3\xa4", 3, "a"},
        {"a\xe2\x82\xac", 4, "a"},
        {"a\xe2\x82\xac", 3, "a"},
        {"\xf0\x9f\x98\x80", 4, ""},
        {"a", 1, ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char to[16];

        field_print(to, cases[i].room, "%s", cases[i].text);
        assert_string_equal(to, cases[i].cut);
    }
}

#define TEST(f)                                                                \
    cmocka_unit_test_setup_teardown(f, picture_setup, picture_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_picture_keeps_who_is_still_there),
        TEST(test_picture_keeps_the_last_word_of_who_is_silent),
        TEST(test_picture_has_the_other_hosts),
        TEST(test_history_keeps_the_most_of_each_step),
        TEST(test_history_is_as_long_as_it_is),
        TEST(test_certs_tell_why_they_are_not_known),
        TEST(test_field_print_cuts_between_characters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
