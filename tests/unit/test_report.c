/* SPDX-License-Identifier: BSD-3-Clause */
/* The LUN's part of a status answer: every field, known and not known. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "health/report.h"

#define NOW_S 100

static struct lun_path paths[LUN_PATH_MAX];
static size_t npaths;
static struct lun_map map;
static bool have_map;
static unsigned allocations, fail_at;

size_t __wrap_lun_get_paths(struct lun *l, struct lun_path *to, size_t max);
bool __wrap_lun_get_map(struct lun *l, struct lun_map *to);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

size_t
__wrap_lun_get_paths(struct lun *l, struct lun_path *to, size_t max)
{
    (void)l;
    assert_true(max >= npaths);
    memcpy(to, paths, npaths * sizeof paths[0]);
    return npaths;
}

bool
__wrap_lun_get_map(struct lun *l, struct lun_map *to)
{
    (void)l;
    *to = map;
    return have_map;
}

/* clock_ms() says NOW_S * 1000 + 1 */
int
__wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    (void)id;
    ts->tv_sec = NOW_S;
    ts->tv_nsec = 0;
    return 0;
}

static void *
failing_malloc(size_t size)
{
    return ++allocations == fail_at ? NULL : malloc(size);
}

static int
setup(void **state)
{
    (void)state;
    memset(paths, 0, sizeof paths);
    npaths = 0;
    have_map = false;
    return 0;
}

static struct monitor_status
full_status(void)
{
    struct monitor_status st = {
        .verdict = {.state = VERDICT_DEGRADED,
                    .since_ms = 97501,
                    .reason = "1 of 2 paths work"},
        .lun = {.known = true,
                .id = "naa.6001405",
                .size = 1ULL << 40,
                .block_size = 512,
                .registration = LUN_REGISTERED,
                .registration_no = 3,
                .key = 0xDE70001000000003,
                .inflight = 7,
                .orphans = 1,
                .orphan_reads = 2},
        .probe_ms = 99901,
        .probe_us = 312,
        .probes_stuck = 1,
        .recent_us = 300,
        .usual_us = 280,
    };

    strcpy(paths[0].name, "sdb");
    paths[0].state = LUN_PATH_GOOD;
    paths[0].since_ms = 1;
    strcpy(paths[1].name, "sdc");
    paths[1].state = LUN_PATH_FAILED;
    paths[1].since_ms = 98001;
    strcpy(paths[1].error, "no answer");
    strcpy(paths[1].detail, "group 2");
    npaths = 2;
    have_map = true;
    map = (struct lun_map){.name = "vmstore",
                           .read_ms = 99001,
                           .queues = true,
                           .orders = 4,
                           .multipathd = "answers"};
    return st;
}

/* Equal to the JSON text, with ' for ". */
static void
assert_json(json_t *got, const char *expected)
{
    char *want = strdup(expected), *text;
    json_error_t e;
    json_t *j;

    assert_non_null(got);
    for (char *p = want; *p; p++)
        if (*p == '\'')
            *p = '"';
    j = json_loads(want, 0, &e);
    if (!j)
        fail_msg("%s: %s", e.text, want);
    text = json_dumps(got, 0);
    if (!json_equal(got, j))
        fail_msg("is %s\nnot %s", text, want);
    free(text);
    free(want);
    json_decref(j);
    json_decref(got);
}

static void
test_report_tells_what_is_known(void **state)
{
    const struct monitor_status st = full_status();

    (void)state;
    assert_json(report_lun(NULL, &st),
                "{'id': 'naa.6001405', 'size': 1099511627776,"
                " 'block_size': 512,"
                " 'verdict': {'state': 'degraded',"
                "  'reason': '1 of 2 paths work', 'since_s': 2.5},"
                " 'paths': [{'name': 'sdb', 'state': 'good',"
                "            'since_s': 100.0, 'error': null,"
                "            'detail': null},"
                "           {'name': 'sdc', 'state': 'failed',"
                "            'since_s': 2.0, 'error': 'no answer',"
                "            'detail': 'group 2'}],"
                " 'map': {'name': 'vmstore', 'queueing': true, 'age_s': 1.0,"
                "         'orders': 4, 'multipathd': 'answers'},"
                " 'probe': {'age_s': 0.1, 'us': 312, 'stuck': 1,"
                "           'recent_us': 300, 'usual_us': 280},"
                " 'registration': {'state': 'registered', 'number': 3,"
                "  'key': 'de70001000000003'},"
                " 'inflight': 7, 'orphans': 1, 'orphan_reads': 2}");
}

static void
test_report_is_null_where_nothing_is_known(void **state)
{
    struct monitor_status st = {0};

    (void)state;
    verdict_init(&st.verdict, 100001);
    assert_json(report_lun(NULL, &st),
                "{'id': null, 'size': null, 'block_size': null,"
                " 'verdict': {'state': 'unknown',"
                "  'reason': 'nothing was heard yet', 'since_s': 0.0},"
                " 'paths': [], 'map': null,"
                " 'probe': {'age_s': null, 'us': null, 'stuck': 0,"
                "           'recent_us': null, 'usual_us': null},"
                " 'registration': {'state': 'unregistered', 'number': null,"
                "  'key': null},"
                " 'inflight': 0, 'orphans': 0, 'orphan_reads': 0}");
}

/* That it does not queue is not said before it was read. */
static void
test_report_of_a_map_not_read_yet(void **state)
{
    const struct monitor_status st = full_status();
    json_t *j;

    (void)state;
    map = (struct lun_map){.name = ""};
    j = report_lun(NULL, &st);
    assert_json(json_incref(json_object_get(j, "map")),
                "{'name': null, 'queueing': null, 'age_s': null,"
                " 'orders': 0, 'multipathd': null}");
    json_decref(j);
}

static void
test_report_survives_names_that_are_no_utf8(void **state)
{
    const struct monitor_status st = full_status();
    json_t *j, *path;

    (void)state;
    strcpy(paths[1].error, "sense \xff\xfe");
    j = report_lun(NULL, &st);
    path = json_array_get(json_object_get(j, "paths"), 1);
    assert_string_equal(json_string_value(json_object_get(path, "error")),
                        "sense ??");
    json_decref(j);
}

static void
test_report_takes_every_path_there_can_be(void **state)
{
    const struct monitor_status st = full_status();
    json_t *j;

    (void)state;
    npaths = LUN_PATH_MAX;
    j = report_lun(NULL, &st);
    assert_int_equal(json_array_size(json_object_get(j, "paths")),
                     LUN_PATH_MAX);
    json_decref(j);
}

/* Fail the first allocation, the second, ... until none is left to fail.  A
 * text that cannot be had at once is tried again, so that some do not matter;
 * whatever is answered is whole. */
static void
test_report_without_memory_is_null_or_whole(void **state)
{
    const struct monitor_status st = full_status();
    unsigned n, nulls = 0;
    json_t *j;

    (void)state;
    json_set_alloc_funcs(failing_malloc, free);
    for (n = 1; n < 1000; n++) {
        allocations = 0;
        fail_at = n;
        j = report_lun(NULL, &st);
        if (allocations < n)
            break;
        nulls += j == NULL;
        assert_true(!j || json_object_size(j) == 11);
        json_decref(j);
    }
    fail_at = 0;
    assert_true(nulls > 20 && n < 1000);
    assert_non_null(j);
    json_decref(j);
    json_set_alloc_funcs(malloc, free);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_report_tells_what_is_known, setup),
        cmocka_unit_test_setup(test_report_is_null_where_nothing_is_known,
                               setup),
        cmocka_unit_test_setup(test_report_of_a_map_not_read_yet, setup),
        cmocka_unit_test_setup(test_report_survives_names_that_are_no_utf8,
                               setup),
        cmocka_unit_test_setup(test_report_takes_every_path_there_can_be,
                               setup),
        cmocka_unit_test_setup(test_report_without_memory_is_null_or_whole,
                               setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
