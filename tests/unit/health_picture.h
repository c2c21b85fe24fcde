/* SPDX-License-Identifier: BSD-3-Clause */
/* A picture of a host whose processes say what a test wants. */
#ifndef DETOUR_TESTS_HEALTH_PICTURE_H
#define DETOUR_TESTS_HEALTH_PICTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "health/documents.h"
#include "health/fields.h"

#define NOW_MS   1000000u
#define NOW_WALL 1800000000

static struct config_host hosts[] = {
    {.name = (char *)"h1", .number = 1},
    {.name = (char *)"h2", .number = 2},
};
static const struct config_host *both[] = {&hosts[0], &hosts[1]};
static struct config_lun luns[] = {
    {.name = (char *)"vm1", .hosts = both, .nhosts = 2},
    {.name = (char *)"vm1-a", .hosts = both, .nhosts = 2},
    {.name = (char *)"far", .hosts = &both[1], .nhosts = 1},
};
static struct config config;
static struct picture picture;
static const struct moment now = {NOW_MS, NOW_WALL};

static int
picture_setup(void **state)
{
    (void)state;
    config = (struct config){
        .cluster_name = (char *)"lab",
        .hosts = hosts,
        .nhosts = 2,
        .self = &hosts[0],
        .rundir = (char *)"/run/detour",
        .luns = luns,
        .nluns = 3,
        .health = {.redirect_alarm = 60000},
    };
    luns[0].fence = CONFIG_FENCE_PR;
    luns[0].readonly = false;
    assert_int_equal(picture_init(&picture, &config, NOW_MS - 60000), 0);
    picture.looked_ms = NOW_MS - 100;
    picture.error[0] = '\0';
    return 0;
}

static int
picture_teardown(void **state)
{
    (void)state;
    picture_fini(&picture);
    return 0;
}

/* A process whose last answer came age_ms ago.  Quotes are ' in text. */
static struct picture_source *
heard(const char *name, unsigned age_ms, const char *text)
{
    size_t n = picture.nprocesses;
    char *paths[8] = {NULL}, *json = strdup(text);
    struct picture_source *s;
    json_error_t e;
    json_t *answer;

    for (char *p = json; *p; p++)
        *p = *p == '\'' ? '"' : *p;
    answer = json_loads(json, 0, &e);
    if (!answer)
        fail_msg("%s: %s", e.text, json);
    free(json);
    if (!picture_find(&picture, name)) {
        for (size_t i = 0; i < n; i++)
            paths[i] = picture.processes[i].name;
        paths[n] = strdup(name);
        /* the names of those that are known move to the new list */
        assert_int_equal(
            picture_processes(&picture, paths, n + 1, NOW_MS - 100), 0);
        free(paths[n]);
    }
    s = picture_find(&picture, name);
    picture_heard(s, answer, "", NOW_MS - age_ms);
    return s;
}

#define LUN_STATUS_OF(verdict, registration)                                   \
    "{'verdict': {'state': '" verdict "', 'reason': 'so', 'since_s': 9},"      \
    " 'paths': [{'name': 'sdb', 'state': 'good'},"                             \
    "           {'name': 'sdc', 'state': 'failed'}],"                          \
    " 'map': {'queueing': false},"                                             \
    " 'probe': {'age_s': 0.1, 'us': 300, 'stuck': 0},"                         \
    " 'registration': {'state': '" registration "'},"                          \
    " 'size': 1099511627776, 'inflight': 1,"                                   \
    " 'orphans': 0, 'orphan_reads': 0}"
#define LUN_STATUS LUN_STATUS_OF("good", "registered")

#define PLUGIN_OF(route, queue, lun_status)                                    \
    "{'process': 'plugin', 'lun': 'vm1', 'client': 'a', 'version': '1',"       \
    " 'uptime_s': 5.5, 'route': " route ", 'queue': " queue ","                \
    " 'lun_status': " lun_status ","                                           \
    " 'latency': [{'route': 'local', 'operation': 'read', 'bytes': 1024,"      \
    "   'sum_us': 1300, 'count': 3, 'buckets': [[100, 1], [1000, 2]]}],"       \
    " 'peers': [{'host': 'h2', 'state': 'ready', 'load': 2, 'links': ["        \
    "   {'address': '10.0.0.2', 'rtt_us': 250},"                               \
    "   {'address': '10.0.0.2', 'rtt_us': 750}]}]}"
#define LOCAL                                                                  \
    "{'phase': 'local', 'reason': 'start', 'since_s': 5, 'changes': 3,"        \
    " 'redirected_s': 12.5, 'entered': [{'phase': 'local', 'cause': 'home',"   \
    "  'count': 3}]}"
#define QUIET  "{'held': 0, 'oldest_held_ms': 0, 'oldest_inflight_ms': 4}"
#define PLUGIN PLUGIN_OF(LOCAL, QUIET, LUN_STATUS)

#define PROXY_OF(state)                                                        \
    "{'process': 'proxy', 'version': '1', 'uptime_s': 7, 'connections': 3,"    \
    " 'draining': false, 'tls_errors': 6, 'luns': [{'lun': 'vm1', 'state': "   \
    "'" state "',"                                                             \
    " 'reason': 'so', 'since_s': 4, 'fences': 2, 'fences_failed': 1, "         \
    "'lun_status': " LUN_STATUS ","                                            \
    " 'sessions': ["                                                           \
    "  {'host': 'h2', 'client': 'a', 'connections':"                           \
    "    [{'inflight': 77}, {'inflight': 3}]},"                                \
    "  {'host': 'h2', 'client': 'b', 'connections': [{'inflight': 1}]},"       \
    "  {'host': 'h2', 'client': 'a', 'connections': [{'inflight': 20}]}],"     \
    " 'clients': [{'host': 'h2', 'client': 'a', 'requests': 9999999999,"       \
    "   'bytes_read': 4096, 'bytes_written': 512},"                            \
    "  {'host': 'h2', 'client': null, 'requests': 5}]}]}"
#define PROXY PROXY_OF("serving")

#endif
