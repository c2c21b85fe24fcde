/* SPDX-License-Identifier: BSD-3-Clause */
/* The documents: what they tell of silent processes and hosts, and that no
 * text from outside and no want of memory spoils them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/health_picture.h"

static json_t *
status_now(void)
{
    json_t *s = documents_status(&picture, &now);

    assert_non_null(s);
    return s;
}

static const json_t *
nth(const json_t *o, const char *key, size_t n)
{
    return json_array_get(json_object_get(o, key), n);
}

static json_t *
health_now(void)
{
    json_t *s = status_now(), *h = documents_health(s, &now);

    assert_non_null(h);
    json_decref(s);
    return h;
}

static json_t *
cluster_now(void)
{
    json_t *s = status_now(), *c = documents_cluster(&picture, s, &now);

    assert_non_null(c);
    json_decref(s);
    return c;
}

/* ---- /status ----------------------------------------------------------- */

static void
test_documents_status_tells_the_age_of_each_answer(void **state)
{
    const json_t *p;
    json_t *s;

    (void)state;
    heard("plugin-vm1-a", 1500, PLUGIN)->asked_ms = NOW_MS - 2250;
    s = status_now();
    p = nth(s, "processes", 0);
    assert_true(field_number(p, "asked_s", -1) == 2.25);
    assert_true(json_is_true(json_object_get(p, "answers")));
    assert_true(field_number(p, "age_s", -1) == 1.5);
    assert_true(field_is(p, "lun", "vm1"));
    assert_true(field_is(s, "time", "2027-01-15T08:00:00Z"));
    json_decref(s);
}

static void
test_documents_status_of_a_silent_process(void **state)
{
    const json_t *p;
    json_t *s;

    (void)state;
    picture_heard(heard("plugin-vm1-a", 500, PLUGIN), NULL, "dead", NOW_MS);
    s = status_now();
    p = nth(s, "processes", 0);
    assert_true(json_is_false(json_object_get(p, "answers")));
    assert_true(field_is(p, "error", "dead"));
    assert_true(field_is(s, "status", "fail"));
    json_decref(s);
}

/* ---- /health ----------------------------------------------------------- */

static void
test_documents_health_groups_checks_by_lun_and_aspect(void **state)
{
    const json_t *checks;
    json_t *h;

    (void)state;
    heard("plugin-vm1-a", 500, PLUGIN);
    heard("plugin-vm1-b", 500, PLUGIN);
    heard("proxy", 500, PROXY);
    h = health_now();
    checks = json_object_get(h, "checks");
    assert_int_equal(json_array_size(json_object_get(checks, "vm1:route")), 2);
    assert_int_equal(json_array_size(json_object_get(checks, "vm1:paths")), 3);
    assert_true(
        field_is(nth(checks, "vm1:route", 1), "componentId", "plugin-vm1-b"));
    assert_true(field_is(h, "status", "pass"));
    assert_null(json_object_get(h, "output"));
    assert_int_equal(documents_http_status(h), 200);
    json_decref(h);
}

static void
test_documents_health_tells_the_worst_first(void **state)
{
    json_t *h;

    (void)state;
    heard("plugin-vm1-a", 500,
          PLUGIN_OF("{'phase': 'redirected', 'since_s': 2, 'reason': 'cut',"
                    " 'peer': 'h2'}",
                    QUIET, LUN_STATUS));
    heard("proxy", 500, PROXY);
    h = health_now();
    assert_true(field_is(h, "output", "vm1:route: through h2: cut"));
    assert_int_equal(documents_http_status(h), 200);
    json_decref(h);
    picture_heard(picture_find(&picture, "proxy"), NULL, "dead", NOW_MS);
    h = health_now();
    assert_true(
        field_is(h, "output", "proxy:process: last answer 0.5 s ago: dead"));
    assert_int_equal(documents_http_status(h), 503);
    json_decref(h);
}

static void
test_documents_http_status_of_nothing_is_a_failure(void **state)
{
    json_t *odd = json_pack("{s:s}", "status", "fine");

    (void)state;
    assert_int_equal(documents_http_status(NULL), 503);
    assert_int_equal(documents_http_status(odd), 503);
    json_decref(odd);
}

/* ---- /cluster ---------------------------------------------------------- */

static void
h2_says(const char *text, unsigned age_ms)
{
    json_t *answer = json_loads(text, 0, NULL);

    assert_non_null(answer);
    picture_heard(&picture.hosts[0], answer, "", NOW_MS - age_ms);
}

/* Checks the cell of vm1 and h2, and h2's own status. */
static void
expect_h2(const char *cell_state, const char *reason, const char *status)
{
    json_t *c = cluster_now();
    const json_t *row = nth(c, "luns", 0);
    const json_t *cell = json_object_get(json_object_get(row, "hosts"), "h2");

    assert_string_equal(field_text(cell, "state"), cell_state);
    assert_string_equal(field_text(cell, "reason"), reason);
    assert_string_equal(field_text(nth(c, "hosts", 1), "status"), status);
    json_decref(c);
}

#define H2                                                                     \
    "{\"status\": \"warn\", \"luns\": [{\"lun\": \"vm1\","                     \
    " \"status\": \"warn\", \"state\": \"redirected\", \"reason\": \"cut\"}]}"

static void
test_documents_cluster_takes_a_fresh_word(void **state)
{
    (void)state;
    h2_says(H2, PICTURE_HOST_SILENT_MS);
    expect_h2("redirected", "cut", "warn");
}

static void
test_documents_cluster_of_stale_words_is_unknown(void **state)
{
    (void)state;
    expect_h2("unknown", "not asked yet", "unknown");
    h2_says(H2, PICTURE_HOST_SILENT_MS + 1);
    expect_h2("unknown", "its word is old", "unknown");
    h2_says(H2, 0);
    picture_heard(&picture.hosts[0], NULL, "cannot connect", NOW_MS);
    expect_h2("unknown", "cannot connect", "unknown");
}

static void
test_documents_cluster_of_odd_words_is_unknown(void **state)
{
    (void)state;
    h2_says("{\"luns\": 7, \"status\": [\"pass\"]}", 0);
    expect_h2("unknown", "the host says nothing of it", "unknown");
    h2_says("{\"status\": \"pass\", \"luns\": [7, {\"lun\": \"vm1\"}]}", 0);
    expect_h2("unknown", "the host says nothing of it", "pass");
}

static void
test_documents_cluster_knows_who_is_a_member(void **state)
{
    json_t *c = cluster_now();
    const json_t *far = nth(c, "luns", 2);

    (void)state;
    assert_null(json_object_get(json_object_get(far, "hosts"), "h1"));
    assert_non_null(json_object_get(json_object_get(far, "hosts"), "h2"));
    json_decref(c);
}

/* ---- hard cases -------------------------------------------------------- */

/* What has no room must be cut between characters, or it is no JSON. */
static void
test_documents_long_texts_stay_utf8(void **state)
{
    char reason[2000], text[8000];
    json_t *h;

    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        memset(reason, 'x', shift);
        for (size_t i = shift; i < sizeof reason - 4; i += 3)
            memcpy(reason + i, "\xe2\x82\xac", 4);
        snprintf(text, sizeof text,
                 "{'process': 'plugin', 'lun': '%s', 'route':"
                 " {'phase': 'queueing', 'reason': '%s'}}",
                 reason + (shift ? 0 : 3), reason);
        picture_heard(heard("plugin-vm1-a", 0, text), NULL, reason, NOW_MS);
        h = health_now();
        json_decref(h);
        heard("plugin-vm1-a", 0, text);
        h = health_now();
        assert_int_equal(documents_http_status(h), 503);
        json_decref(h);
        picture_teardown(NULL);
        picture_setup(NULL);
    }
}

static unsigned allocations, fail_at;

static void *
failing_malloc(size_t size)
{
    return ++allocations == fail_at ? NULL : malloc(size);
}

/* Each allocation fails once: there is no document then, or a whole one. */
static void
test_documents_without_memory_are_none(void **state)
{
    bool whole = false;

    (void)state;
    heard("plugin-vm1-a", 500, PLUGIN);
    heard("proxy", 500, PROXY);
    h2_says(H2, 0);
    json_set_alloc_funcs(failing_malloc, free);
    for (fail_at = 1; !whole; fail_at++) {
        json_t *s, *h = NULL, *c = NULL, *p = NULL;

        allocations = 0;
        s = documents_status(&picture, &now);
        if (s) {
            h = documents_health(s, &now);
            c = documents_cluster(&picture, s, &now);
            p = documents_history(&picture, &now);
        }
        if (h)
            assert_true(field_is(h, "status", "pass"));
        whole = h && c && p && allocations < fail_at;
        json_decref(h);
        json_decref(c);
        json_decref(p);
        json_decref(s);
    }
    json_set_alloc_funcs(malloc, free);
    assert_true(fail_at > 100);
}

#define TEST(f)                                                                \
    cmocka_unit_test_setup_teardown(f, picture_setup, picture_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_documents_status_tells_the_age_of_each_answer),
        TEST(test_documents_status_of_a_silent_process),
        TEST(test_documents_health_groups_checks_by_lun_and_aspect),
        TEST(test_documents_health_tells_the_worst_first),
        TEST(test_documents_http_status_of_nothing_is_a_failure),
        TEST(test_documents_cluster_takes_a_fresh_word),
        TEST(test_documents_cluster_of_stale_words_is_unknown),
        TEST(test_documents_cluster_of_odd_words_is_unknown),
        TEST(test_documents_cluster_knows_who_is_a_member),
        TEST(test_documents_long_texts_stay_utf8),
        TEST(test_documents_without_memory_are_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
