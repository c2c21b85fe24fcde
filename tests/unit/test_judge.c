/* SPDX-License-Identifier: BSD-3-Clause */
/* What is wrong on a host: each fact that warns or fails, and whose LUN it is
 * when a process is silent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/health_picture.h"

static const json_t *
find(const json_t *checks, const char *source, const char *aspect)
{
    json_t *c;
    size_t i;

    json_array_foreach(checks, i, c)
    {
        if (field_is(c, "source", source) && field_is(c, "aspect", aspect))
            return c;
    }
    return NULL;
}

/* Judges, and holds one check's status and a part of its reason against what
 * they should be. */
static void
expect(const char *source, const char *aspect, const char *status,
       const char *reason)
{
    json_t *checks = judge(&picture, &now);
    const json_t *c = find(checks, source, aspect);

    assert_non_null(checks);
    if (!c)
        fail_msg("no check %s of %s", aspect, source);
    if (!field_is(c, "status", status) ||
        !strstr(field_text(c, "reason"), reason))
        fail_msg("%s of %s: %s: %s; expected %s: %s", aspect, source,
                 field_text(c, "status"), field_text(c, "reason"), status,
                 reason);
    json_decref(checks);
}

static enum level
worst(void)
{
    json_t *checks = judge(&picture, &now);
    enum level l = judge_worst(checks, NULL);

    assert_non_null(checks);
    json_decref(checks);
    return l;
}

/* ---- a plugin ---------------------------------------------------------- */

static void
test_judge_all_well_passes(void **state)
{
    (void)state;
    heard("plugin-vm1-a", 100, PLUGIN);
    heard("proxy", 100, PROXY);
    assert_int_equal(worst(), LEVEL_PASS);
}

static void
test_judge_route(void **state)
{
    static const struct {
        const char *route, *status, *reason;
    } cases[] = {
        {LOCAL, "pass", "start"},
        {"{'phase': 'redirected', 'peer': 'h2', 'reason': 'cut',"
         " 'since_s': 60}",
         "warn", "through h2: cut"},
        {"{'phase': 'redirected', 'peer': 'h2', 'reason': 'asked',"
         " 'since_s': 1, 'manual': true}",
         "warn", "through h2, by hand: asked"},
        {"{'phase': 'redirected', 'peer': 'h2', 'reason': 'cut',"
         " 'since_s': 1, 'latched': true, 'hour_switches': 11}",
         "warn",
         "through h2, stays until return after 11 switches in an hour: cut"},
        {"{'phase': 'redirected', 'peer': 'h2', 'reason': 'cut',"
         " 'since_s': 60.1}",
         "fail", "through h2: cut"},
        {"{'phase': 'opening', 'reason': 'cut', 'since_s': 1}", "warn", "cut"},
        {"{'phase': 'returning', 'reason': 'x', 'since_s': 1}", "warn", "x"},
        {"{'phase': 'queueing', 'reason': 'none', 'since_s': 0}", "fail",
         "none"},
        {"{'phase': 'flying', 'reason': 'new'}", "fail", "new"},
        {"{}", "fail", "does not tell its route"},
        {"'text'", "fail", "does not tell its route"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[4096];

        snprintf(text, sizeof text,
                 "{'process': 'plugin', 'lun': 'vm1', 'route': %s}",
                 cases[i].route);
        heard("plugin-vm1-a", 100, text);
        expect("plugin-vm1-a", "route", cases[i].status, cases[i].reason);
        picture_teardown(NULL);
        picture_setup(NULL);
    }
}

static void
test_judge_no_alarm_when_it_is_off(void **state)
{
    (void)state;
    config.health.redirect_alarm = 0;
    heard("plugin-vm1-a", 100,
          PLUGIN_OF("{'phase': 'redirected', 'since_s': 999999}", QUIET,
                    LUN_STATUS));
    expect("plugin-vm1-a", "route", "warn", "");
}

static void
test_judge_queue(void **state)
{
    static const struct {
        const char *queue, *status;
    } cases[] = {
        {"{'held': 9, 'oldest_held_ms': 999}", "pass"},
        {"{'held': 1, 'oldest_held_ms': 1000}", "warn"},
        {"{'held': 1, 'oldest_held_ms': 5000}", "fail"},
        {"{'held': 0, 'oldest_inflight_ms': 29999}", "pass"},
        {"{'held': 0, 'oldest_inflight_ms': 30000}", "warn"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[4096];

        snprintf(text, sizeof text,
                 "{'process': 'plugin', 'lun': 'vm1', 'queue': %s}",
                 cases[i].queue);
        heard("plugin-vm1-a", 100, text);
        expect("plugin-vm1-a", "queue", cases[i].status, "");
        picture_teardown(NULL);
        picture_setup(NULL);
    }
}

static void
test_judge_lun_status(void **state)
{
    (void)state;
    heard("plugin-vm1-a", 100,
          PLUGIN_OF(LOCAL, QUIET,
                    "{'verdict': {'state': 'lost', 'reason': 'all cut'},"
                    " 'probe': {'age_s': 5.1, 'stuck': 2},"
                    " 'registration': {'state': 'fenced'}, 'orphans': 1}"));
    expect("plugin-vm1-a", "paths", "warn", "all cut");
    expect("plugin-vm1-a", "probe", "warn", "no probe was answered");
    expect("plugin-vm1-a", "registration", "warn", "was fenced");
    expect("plugin-vm1-a", "orphans", "warn", "given up");
}

static void
test_judge_map_that_queues_is_a_warning(void **state)
{
    json_t *checks;

    (void)state;
    heard("plugin-vm1-a", 100,
          PLUGIN_OF(LOCAL, QUIET, "{'map': {'queueing': true}}"));
    expect("plugin-vm1-a", "queueing", "warn", "no_path_retry fail");
    heard("plugin-vm1-a", 100,
          PLUGIN_OF(LOCAL, QUIET, "{'map': {'queueing': false}}"));
    expect("plugin-vm1-a", "queueing", "pass", "");
    heard("plugin-vm1-a", 100,
          PLUGIN_OF(LOCAL, QUIET, "{'map': {'queueing': null}}"));
    checks = judge(&picture, &now);
    assert_null(find(checks, "plugin-vm1-a", "queueing"));
    json_decref(checks);
}

static void
test_judge_missing_key_is_told_where_one_is_needed(void **state)
{
    (void)state;
    heard("plugin-vm1-a", 100,
          PLUGIN_OF(LOCAL, QUIET, LUN_STATUS_OF("good", "unregistered")));
    expect("plugin-vm1-a", "registration", "warn", "not on the LUN");
    luns[0].fence = CONFIG_FENCE_DRAIN;
    expect("plugin-vm1-a", "registration", "pass", "");
    luns[0].fence = CONFIG_FENCE_PR;
    luns[0].readonly = true;
    expect("plugin-vm1-a", "registration", "pass", "");
}

static void
test_judge_no_peer_is_a_warning_unless_there_is_no_other_host(void **state)
{
    json_t *checks;

    (void)state;
    heard("plugin-vm1-a", 100,
          "{'process': 'plugin', 'lun': 'vm1',"
          " 'peers': [{'host': 'h2', 'state': 'not ready'}]}");
    expect("plugin-vm1-a", "peers", "warn", "no other host");
    picture_teardown(NULL);
    picture_setup(NULL);
    heard("plugin-vm1-a", 100,
          "{'process': 'plugin', 'lun': 'vm1', 'peers': []}");
    checks = judge(&picture, &now);
    assert_null(find(checks, "plugin-vm1-a", "peers"));
    json_decref(checks);
}

/* ---- silence ----------------------------------------------------------- */

static void
test_judge_silent_process_has_one_check_and_it_fails(void **state)
{
    struct picture_source *s;
    json_t *checks;

    (void)state;
    s = heard("plugin-vm1-a", 100, PLUGIN);
    picture_heard(s, NULL, "nobody listens", NOW_MS);
    expect("plugin-vm1-a", "process", "fail",
           "last answer 0.1 s ago: nobody listens");
    checks = judge(&picture, &now);
    assert_null(find(checks, "plugin-vm1-a", "route"));
    json_decref(checks);
}

static void
test_judge_old_answer_is_silence(void **state)
{
    (void)state;
    heard("plugin-vm1-a", PICTURE_SILENT_MS, PLUGIN);
    expect("plugin-vm1-a", "process", "pass", "");
    picture_teardown(NULL);
    picture_setup(NULL);
    heard("plugin-vm1-a", PICTURE_SILENT_MS + 1, PLUGIN);
    expect("plugin-vm1-a", "process", "fail", "was not asked");
}

static void
test_judge_never_answered_fails(void **state)
{
    char *path = (char *)"/run/detour/plugin-vm1-a.sock";

    (void)state;
    picture_processes(&picture, &path, 1, NOW_MS);
    expect("plugin-vm1-a", "process", "fail", "never answered: not asked yet");
}

static void
test_judge_without_a_look_at_the_sockets_fails(void **state)
{
    (void)state;
    strcpy(picture.error, "Permission denied");
    expect("detour-health", "sockets", "fail", "/run/detour: Permission");
    picture.error[0] = '\0';
    expect("detour-health", "sockets", "pass", "");
    picture.looked_ms = NOW_MS - PICTURE_SILENT_MS - 1;
    expect("detour-health", "sockets", "fail", "not looked at lately");
}

static void
test_judge_names_tell_the_lun_of_who_never_spoke(void **state)
{
    struct picture_source s = {.name = (char *)"plugin-vm1-a-b"};

    (void)state;
    assert_string_equal(judge_lun_of(&picture, &s), "vm1-a");
    s.name = (char *)"plugin-vm1-b";
    assert_string_equal(judge_lun_of(&picture, &s), "vm1");
    s.name = (char *)"plugin-vm1";
    assert_null(judge_lun_of(&picture, &s));
    s.name = (char *)"proxy";
    assert_null(judge_lun_of(&picture, &s));
}

/* ---- proxy and certificates -------------------------------------------- */

static void
test_judge_proxy(void **state)
{
    (void)state;
    expect("proxy", "process", "warn", "serves no peer");
    heard("proxy", 100, PROXY_OF("drained"));
    expect("proxy", "process", "pass", "");
    expect("proxy", "proxy", "warn", "so");
}

static void
test_judge_certificates(void **state)
{
    (void)state;
    picture.ncerts = 1;
    picture.certs[0] = (struct cert){
        .name = "crl", .path = "/x", .not_after = NOW_WALL + 14 * 86400};
    expect("crl", "certificate", "pass", "");
    picture.certs[0].not_after--;
    expect("crl", "certificate", "warn", "ends soon");
    picture.certs[0].not_after = NOW_WALL;
    expect("crl", "certificate", "fail", "has ended");
    strcpy(picture.certs[0].error, "Permission denied");
    expect("crl", "certificate", "warn", "Permission denied");
}

/* ---- LUNs -------------------------------------------------------------- */

static void
expect_lun(const char *lun, const char *status, const char *state)
{
    json_t *checks = judge(&picture, &now), *l;
    json_t *all = judge_luns(&picture, checks, &now);
    bool found = false;
    size_t i;

    json_array_foreach(all, i, l)
    {
        if (!field_is(l, "lun", lun))
            continue;
        found = true;
        assert_string_equal(field_text(l, "state"), state);
        assert_string_equal(field_text(l, "status"), status);
    }
    assert_true(found || !status);
    json_decref(all);
    json_decref(checks);
}

static void
test_judge_lun_is_as_its_worst_plugin(void **state)
{
    struct picture_source *s;

    (void)state;
    expect_lun("vm1", "pass", "off");
    expect_lun("far", NULL, "this host is no member of it");
    heard("proxy", 100, PROXY);
    expect_lun("vm1", "pass", "serving");
    heard("plugin-vm1-a", 100, PLUGIN);
    expect_lun("vm1", "pass", "local");
    heard(
        "plugin-vm1-b", 100,
        PLUGIN_OF("{'phase': 'redirected', 'since_s': 1}", QUIET, LUN_STATUS));
    expect_lun("vm1", "warn", "redirected");
    s = heard("plugin-vm1-c", 100, PLUGIN);
    picture_heard(s, NULL, "no answer within 1 s", NOW_MS);
    expect_lun("vm1", "fail", "unknown");
}

static void
test_judge_lun_is_unknown_when_only_a_silent_proxy_could_tell(void **state)
{
    (void)state;
    picture_heard(heard("proxy", 100, PROXY), NULL, "dead", NOW_MS);
    expect_lun("vm1", "fail", "unknown");
}

static void
test_judge_lun_that_is_not_configured_is_told_all_the_same(void **state)
{
    (void)state;
    heard("plugin-x-a", 100,
          "{'process': 'plugin', 'lun': 'x', 'route': " LOCAL "}");
    expect_lun("x", "warn", "local");
}

#define TEST(f)                                                                \
    cmocka_unit_test_setup_teardown(f, picture_setup, picture_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_judge_all_well_passes),
        TEST(test_judge_route),
        TEST(test_judge_no_alarm_when_it_is_off),
        TEST(test_judge_queue),
        TEST(test_judge_lun_status),
        TEST(test_judge_map_that_queues_is_a_warning),
        TEST(test_judge_missing_key_is_told_where_one_is_needed),
        TEST(test_judge_no_peer_is_a_warning_unless_there_is_no_other_host),
        TEST(test_judge_silent_process_has_one_check_and_it_fails),
        TEST(test_judge_old_answer_is_silence),
        TEST(test_judge_never_answered_fails),
        TEST(test_judge_without_a_look_at_the_sockets_fails),
        TEST(test_judge_names_tell_the_lun_of_who_never_spoke),
        TEST(test_judge_proxy),
        TEST(test_judge_certificates),
        TEST(test_judge_lun_is_as_its_worst_plugin),
        TEST(test_judge_lun_is_unknown_when_only_a_silent_proxy_could_tell),
        TEST(test_judge_lun_that_is_not_configured_is_told_all_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
