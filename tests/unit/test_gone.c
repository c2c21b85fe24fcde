/* SPDX-License-Identifier: BSD-3-Clause */
/* What detourctl gone makes of the other hosts' words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "health/fields.h"
#include "health/gone.h"

/* b is dead, a asks; c and d are the others, and d is no member of vm2. */
static struct config_host hosts[] = {
    {.name = (char *)"a", .number = 1},
    {.name = (char *)"b", .number = 2},
    {.name = (char *)"c", .number = 3},
    {.name = (char *)"d", .number = 4},
};
static const struct config_host *all[] = {&hosts[1], &hosts[2], &hosts[3]};
static const struct config_host *some[] = {&hosts[1], &hosts[2]};
static const struct config_host *without_b[] = {&hosts[2], &hosts[3]};
static struct config_lun luns[] = {
    {.name = (char *)"vm1", .hosts = all, .nhosts = 3},
    {.name = (char *)"vm2", .hosts = some, .nhosts = 2},
    {.name = (char *)"far", .hosts = without_b, .nhosts = 2},
};
static const struct config config = {
    .cluster_name = (char *)"lab",
    .hosts = hosts,
    .nhosts = 4,
    .self = &hosts[0],
    .luns = luns,
    .nluns = 3,
};
static const struct config_host *dead[2] = {&hosts[1], &hosts[2]};

#define AFTER_S 2.0

/* ---- what c's proxy says of vm1, as the tests vary it ----------------------
 */

#define QUIET "'sessions': [], 'lun_status': {'orphans': 0}"
#define OF_B(writes, connections)                                              \
    "'sessions': [{'host': 'd', 'unfinished_writes': 9,"                       \
    "              'connections': [{}]},"                                      \
    "             {'host': 'b', 'client': null,"                               \
    "              'unfinished_writes': " writes ","                           \
    "              'connections': [" connections "]}],"                        \
    " 'lun_status': {'orphans': 0}"
#define SERVING       "'state': 'serving', 'reason': 'registered'"
#define SHARE(fields) "{'lun': 'vm1', " fields "}"
#define PROXY(share)                                                           \
    "{'name': 'proxy', 'answers': true, 'asked_s': 0.5, 'error': null,"        \
    " 'answer': {'process': 'proxy', 'host': 'c', 'luns': ["                   \
    "   {'lun': 'vm2', " SERVING ", " QUIET "}, " share "]}}"
#define STATUS(process)                                                        \
    "{'cluster': 'lab', 'host': 'c', 'processes': ["                           \
    "  {'name': 'plugin-vm1-x', 'answers': false}, " process "]}"
#define SAYS(fields) STATUS(PROXY(SHARE(fields)))

static json_t *
parse(const char *text)
{
    char *json = strdup(text);
    json_error_t e;
    json_t *o;

    for (char *p = json; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    o = json_loads(json, 0, &e);
    if (!o)
        fail_msg("%s: %s", e.text, json);
    free(json);
    return o;
}

/* The line on c's vm1, b being dead; NULL: c said nothing. */
static json_t *
line_of(const char *text, double after_s)
{
    const struct gone g = {&config, dead, 1, "vm1"};
    json_t *status = text ? parse(text) : NULL, *lines, *line;
    const struct gone_word w = {&hosts[2], status, "connection refused",
                                after_s};

    lines = gone_lines(&g, &w, 1);
    assert_int_equal(json_array_size(lines), 2);
    line = json_incref(json_array_get(lines, 0));
    assert_true(field_is(line, "peer", "c") && field_is(line, "lun", "vm1"));
    json_decref(lines);
    json_decref(status);
    return line;
}

static void
assert_clear(const char *text)
{
    json_t *line = line_of(text, AFTER_S);

    if (!json_is_true(json_object_get(line, "clear")))
        fail_msg("not clear: %s", field_text(line, "reason"));
    assert_false(field_has(line, "reason") || field_has(line, "advice"));
    json_decref(line);
}

static void
assert_not_clear(const char *text, const char *reason, const char *advice)
{
    json_t *line = line_of(text, AFTER_S);

    assert_true(json_is_false(json_object_get(line, "clear")));
    assert_true(json_is_false(json_object_get(line, "stale")));
    assert_string_equal(field_text(line, "reason"), reason);
    assert_string_equal(field_text(line, "advice"), advice);
    json_decref(line);
}

#define WAIT    "wait, or power it off and name it too"
#define COMPARE "compare the configurations"
#define RELEASE "compare the releases"

/* ---- nobody, or somebody else, answers -------------------------------------
 */

static void
test_gone_host_without_an_answer(void **state)
{
    (void)state;
    assert_not_clear(NULL,
                     "its detour-health does not answer: connection refused",
                     "start its detour-health, or power it off and name it "
                     "too");
}

static void
test_gone_host_that_was_not_asked(void **state)
{
    const struct gone g = {&config, dead, 1, "vm2"};
    json_t *lines = gone_lines(&g, NULL, 0);

    (void)state;
    assert_int_equal(json_array_size(lines), 1);
    assert_false(gone_clear(lines));
    json_decref(lines);
}

static void
test_gone_answer_of_another_cluster_or_host(void **state)
{
    (void)state;
    assert_not_clear("{'cluster': 'work', 'host': 'c', 'processes': [" PROXY(
                         SHARE(SERVING ", " QUIET)) "]}",
                     "host c of cluster work answers there", COMPARE);
    assert_not_clear("{'cluster': 'lab', 'host': 'd', 'processes': [" PROXY(
                         SHARE(SERVING ", " QUIET)) "]}",
                     "host d of cluster lab answers there", COMPARE);
    assert_not_clear("{}", "host  of cluster  answers there", COMPARE);
}

static void
test_gone_no_proxy(void **state)
{
    (void)state;
    assert_not_clear(STATUS("{'name': 'plugin-vm1-y', 'answers': true}"),
                     "no proxy runs there",
                     "start its proxy, or power it off and name it too");
}

static void
test_gone_proxy_that_is_silent_counts_for_nothing_it_said(void **state)
{
    (void)state;
    assert_not_clear(
        STATUS("{'name': 'proxy', 'answers': false, 'asked_s': 0.1,"
               " 'error': 'no answer within 1 s', 'answer':"
               " {'process': 'proxy', 'host': 'c', 'luns': [" SHARE(
                   SERVING ", " QUIET) "]}}"),
        "its proxy does not answer: no answer within 1 s", WAIT);
}

static void
test_gone_proxy_of_another_host(void **state)
{
    (void)state;
    assert_not_clear(
        STATUS("{'name': 'proxy', 'answers': true, 'asked_s': 0.1, 'answer':"
               " {'process': 'proxy', 'host': 'd', 'luns': [" SHARE(
                   SERVING ", " QUIET) "]}}"),
        "its proxy answers as another one", COMPARE);
}

static void
test_gone_lun_that_is_missing_at_the_peer(void **state)
{
    (void)state;
    assert_not_clear(
        STATUS("{'name': 'proxy', 'answers': true, 'asked_s': 0.1, 'answer':"
               " {'process': 'proxy', 'host': 'c', 'luns': []}}"),
        "its proxy does not know the LUN", COMPARE);
}

/* ---- old answers -----------------------------------------------------------
 */

static void
assert_stale(double after_s, bool stale)
{
    json_t *line = line_of(SAYS(SERVING ", " QUIET), after_s);

    assert_true(json_is_boolean(json_object_get(line, "stale")));
    assert_int_equal(json_is_true(json_object_get(line, "stale")), stale);
    assert_int_equal(json_is_true(json_object_get(line, "clear")), !stale);
    json_decref(line);
}

/* The answer was asked for 0.5 s before, or 0.6 s, as pages are shared. */
static void
test_gone_answer_older_than_the_question_counts_for_nothing(void **state)
{
    (void)state;
    assert_stale(0, true);
    assert_stale(0.5, true);
    assert_stale(0.6, true);
    assert_stale(0.75, false);
}

#define AGED(age)                                                              \
    STATUS("{'name': 'proxy', 'answers': true, 'age_s': 0.1, " age             \
           " 'answer': {'process': 'proxy', 'host': 'c', 'luns': [" SHARE(     \
               SERVING ", " QUIET) "]}}")

static void
test_gone_answer_without_an_age(void **state)
{
    const char *why = "it does not say how old its proxy's answer is";

    (void)state;
    assert_not_clear(AGED(""), why, RELEASE);
    assert_not_clear(AGED("'asked_s': null,"), why, RELEASE);
    assert_not_clear(AGED("'asked_s': '0.1',"), why, RELEASE);
    assert_not_clear(AGED("'asked_s': -0.1,"), why, RELEASE);
    assert_clear(AGED("'asked_s': 0,"));
}

/* ---- what the proxy has ----------------------------------------------------
 */

static void
test_gone_quiet_proxy_that_serves_or_drains(void **state)
{
    (void)state;
    assert_clear(SAYS(SERVING ", " QUIET));
    assert_clear(SAYS("'state': 'draining', " QUIET));
}

static void
test_gone_sessions_of_others_do_not_matter(void **state)
{
    (void)state;
    assert_clear(SAYS(SERVING ", 'sessions': [{'host': 'd',"
                              " 'unfinished_writes': 3, 'connections': [{}]}],"
                              " 'lun_status': {'orphans': 0}"));
}

/* What it had sent may lie unread in the socket. */
static void
test_gone_session_that_is_open_with_nothing_unfinished(void **state)
{
    (void)state;
    assert_not_clear(SAYS(SERVING ", " OF_B("0", "{}, {}")),
                     "a session of b is open (2 connections, 0 writes under "
                     "way)",
                     WAIT);
}

static void
test_gone_session_that_ended_with_writes_unfinished(void **state)
{
    (void)state;
    assert_not_clear(SAYS(SERVING ", " OF_B("2", "")),
                     "2 writes of b have not come back", WAIT);
    assert_not_clear(SAYS("'state': 'draining', " OF_B("2", "")),
                     "2 writes of b have not come back", WAIT);
}

static void
test_gone_orphans_of_nobodys_session(void **state)
{
    (void)state;
    assert_not_clear(
        SAYS(SERVING ", 'sessions': [], 'lun_status': {'orphans': 1}"),
        "1 writes were given up and may still come, whosesoever they are",
        WAIT);
}

static void
test_gone_proxy_that_waits_and_has_never_served(void **state)
{
    (void)state;
    assert_not_clear(
        SAYS("'state': 'waiting', 'reason': 'no path', 'settled': false,"
             " " QUIET),
        "its proxy is waiting (no path) and has not served since it was "
        "started: what one before it left may still come",
        WAIT);
    /* a release that does not tell */
    assert_not_clear(
        SAYS("'state': 'drained', 'reason': 'drained', " QUIET),
        "its proxy is drained (drained) and has not served since it was "
        "started: what one before it left may still come",
        WAIT);
}

static void
test_gone_proxy_that_has_served_and_is_empty(void **state)
{
    (void)state;
    assert_clear(SAYS("'state': 'waiting', 'settled': true, " QUIET));
    assert_clear(SAYS("'state': 'drained', 'settled': true, " QUIET));
    assert_clear(SAYS("'state': 'registering', 'settled': true, " QUIET));
}

static void
test_gone_proxy_that_lost_its_paths_with_writes_in_them(void **state)
{
    (void)state;
    assert_not_clear(
        SAYS("'state': 'waiting', 'settled': true, 'sessions': [],"
             " 'lun_status': {'orphans': 2}"),
        "2 writes were given up and may still come, whosesoever they are",
        WAIT);
    assert_not_clear(
        SAYS("'state': 'waiting', 'settled': true, " OF_B("1", "")),
        "1 writes of b have not come back", WAIT);
}

static void
test_gone_answers_that_lack_what_counts(void **state)
{
    (void)state;
    assert_not_clear(SAYS(SERVING ", 'lun_status': {'orphans': 0}"),
                     "its proxy's answer cannot be understood", RELEASE);
    assert_not_clear(SAYS(SERVING ", 'sessions': [], 'lun_status': null"),
                     "its proxy's answer cannot be understood", RELEASE);
    assert_not_clear(SAYS(SERVING ", 'sessions': [], 'lun_status':"
                                  " {'orphans': '0'}"),
                     "its proxy's answer cannot be understood", RELEASE);
    assert_not_clear(SAYS(SERVING ", 'sessions': [{'connections': []}],"
                                  " 'lun_status': {'orphans': 0}"),
                     "it does not say whose its sessions are", RELEASE);
}

/* Its state is somebody else's text, of any length. */
static void
test_gone_long_reasons_stay_utf8(void **state)
{
    char text[2000], reason[1201];
    json_t *line;

    (void)state;
    for (size_t pad = 0; pad < 2; pad++) {
        memset(reason, 'x', pad);
        for (size_t i = pad; i + 2 < sizeof reason; i += 2)
            memcpy(&reason[i], "\xc3\xa4", 3);
        snprintf(text, sizeof text,
                 SAYS("'state': 'waiting', 'reason': '%s', " QUIET), reason);
        line = line_of(text, AFTER_S);
        assert_true(strlen(field_text(line, "reason")) > 300);
        json_decref(line);
    }
}

/* ---- which lines there are -------------------------------------------------
 */

static const struct gone_word silent[] = {
    {.peer = &hosts[3], .error = "-"},
    {.peer = &hosts[0], .error = "-"},
    {.peer = &hosts[2], .error = "-"},
};

static void
test_gone_asks_every_member_but_the_dead_about_its_luns(void **state)
{
    const struct gone g = {&config, dead, 1, NULL};
    json_t *lines = gone_lines(&g, silent, 3), *line;
    const char *want[][2] = {{"c", "vm1"}, {"d", "vm1"}, {"c", "vm2"}};
    size_t i;

    (void)state;
    assert_int_equal(json_array_size(lines), 3);
    json_array_foreach(lines, i, line)
    {
        assert_string_equal(field_text(line, "peer"), want[i][0]);
        assert_string_equal(field_text(line, "lun"), want[i][1]);
    }
    json_decref(lines);
}

/* b and c are dead: nobody else has b's vm2. */
static void
test_gone_of_two_hosts_leaves_the_third(void **state)
{
    const struct gone g = {&config, dead, 2, NULL};
    json_t *lines = gone_lines(&g, silent, 3);

    (void)state;
    assert_int_equal(json_array_size(lines), 2);
    assert_string_equal(field_text(json_array_get(lines, 0), "lun"), "vm1");
    assert_string_equal(field_text(json_array_get(lines, 0), "peer"), "d");
    assert_string_equal(field_text(json_array_get(lines, 1), "lun"), "far");
    json_decref(lines);
}

static void
test_gone_session_of_the_second_dead_host_counts(void **state)
{
    const struct config_host *both[] = {&hosts[3], &hosts[1]};
    const struct gone g = {&config, both, 2, "vm1"};
    json_t *status = parse(SAYS(SERVING ", " OF_B("0", "{}"))), *lines;
    const struct gone_word w = {&hosts[2], status, "", AFTER_S};

    (void)state;
    lines = gone_lines(&g, &w, 1);
    assert_int_equal(json_array_size(lines), 1);
    assert_false(gone_clear(lines));
    /* and d's nine writes with b's none */
    assert_non_null(strstr(field_text(json_array_get(lines, 0), "reason"),
                           "2 connections, 9 writes"));
    json_decref(lines);
    json_decref(status);
}

static void
test_gone_is_clear_when_every_line_is(void **state)
{
    json_t *both = parse("[{'clear': true}, {'clear': true}]");
    json_t *one = parse("[{'clear': true}, {'clear': false, 'stale': true}]");
    json_t *none = json_array();

    (void)state;
    assert_true(gone_clear(both));
    assert_false(gone_clear(one));
    assert_true(gone_clear(none));
    assert_false(gone_stale(both));
    assert_true(gone_stale(one));
    json_decref(both);
    json_decref(one);
    json_decref(none);
}

int
main(void)
{
#define T(name) cmocka_unit_test(name)
    const struct CMUnitTest tests[] = {
        T(test_gone_host_without_an_answer),
        T(test_gone_host_that_was_not_asked),
        T(test_gone_answer_of_another_cluster_or_host),
        T(test_gone_no_proxy),
        T(test_gone_proxy_that_is_silent_counts_for_nothing_it_said),
        T(test_gone_proxy_of_another_host),
        T(test_gone_lun_that_is_missing_at_the_peer),
        T(test_gone_answer_older_than_the_question_counts_for_nothing),
        T(test_gone_answer_without_an_age),
        T(test_gone_quiet_proxy_that_serves_or_drains),
        T(test_gone_sessions_of_others_do_not_matter),
        T(test_gone_session_that_is_open_with_nothing_unfinished),
        T(test_gone_session_that_ended_with_writes_unfinished),
        T(test_gone_orphans_of_nobodys_session),
        T(test_gone_proxy_that_waits_and_has_never_served),
        T(test_gone_proxy_that_has_served_and_is_empty),
        T(test_gone_proxy_that_lost_its_paths_with_writes_in_them),
        T(test_gone_answers_that_lack_what_counts),
        T(test_gone_long_reasons_stay_utf8),
        T(test_gone_asks_every_member_but_the_dead_about_its_luns),
        T(test_gone_of_two_hosts_leaves_the_third),
        T(test_gone_session_of_the_second_dead_host_counts),
        T(test_gone_is_clear_when_every_line_is),
    };

    cmocka_set_message_output(CM_OUTPUT_TAP);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
