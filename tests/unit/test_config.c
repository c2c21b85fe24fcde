/* SPDX-License-Identifier: BSD-3-Clause */
/* The configuration file: what is read, and that every mistake is told. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/config.h"
#include "common/timers.h"

static char dir[64];
static char *told; /* what config_load wrote on errors */
static struct config *(*loader)(const char *, FILE *) = config_load;

/* ---- memory that can run out ------------------------------------------- */

static long allocations_left = -1; /* -1: without end */

static bool
out_of_memory(void)
{
    if (allocations_left < 0)
        return false;
    if (allocations_left == 0)
        return true;
    allocations_left--;
    return false;
}

void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_reallocarray(void *p, size_t n, size_t size);
char *__real_strdup(const char *s);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_reallocarray(void *p, size_t n, size_t size);
char *__wrap_strdup(const char *s);

void *
__wrap_calloc(size_t n, size_t size)
{
    return out_of_memory() ? NULL : __real_calloc(n, size);
}

void *
__wrap_realloc(void *p, size_t size)
{
    return out_of_memory() ? NULL : __real_realloc(p, size);
}

void *
__wrap_reallocarray(void *p, size_t n, size_t size)
{
    return out_of_memory() ? NULL : __real_reallocarray(p, n, size);
}

char *
__wrap_strdup(const char *s)
{
    return out_of_memory() ? NULL : __real_strdup(s);
}

/* ---- files ------------------------------------------------------------- */

static const char *
path_in_dir(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void
put_file(const char *name, const char *text, size_t len, mode_t mode)
{
    FILE *f = fopen(path_in_dir(name), "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(chmod(path_in_dir(name), mode), 0);
}

/* Load text, in which each '$' stands for the test's folder. */
static struct config *
load(const char *text)
{
    char *full = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&full, &len);
    struct config *c;
    int saved;

    for (; *text; text++)
        if (*text == '$')
            fputs(dir, f);
        else
            fputc(*text, f);
    fclose(f);
    put_file("conf", full, len, 0644);
    free(full);
    free(told);
    told = NULL;
    f = open_memstream(&told, &len);
    c = loader(path_in_dir("conf"), f);
    saved = errno;
    fclose(f);
    errno = saved;
    return c;
}

static unsigned
lines_told(void)
{
    unsigned n = 0;

    for (const char *c = told; *c; c++)
        n += *c == '\n';
    return n;
}

/* text has exactly one mistake, in that line (0: none), said like that. */
static void
assert_mistake(const char *text, unsigned line, const char *words)
{
    char where[256];

    errno = 0;
    assert_null(load(text));
    assert_int_equal(errno, EINVAL);
    if (line)
        snprintf(where, sizeof(where), "%s:%u: ", path_in_dir("conf"), line);
    else
        snprintf(where, sizeof(where), "%s: ", path_in_dir("conf"));
    if (strncmp(told, where, strlen(where)) || !strstr(told, words) ||
        lines_told() != 1)
        fail_msg("expected line %u '%s', told: %s", line, words, told);
}

static void
assert_good(const char *text)
{
    struct config *c = load(text);

    if (!c)
        fail_msg("%s", told);
    assert_string_equal(told, "");
    config_destroy(c);
}

/* A good file in parts; LUN is its last section, which begins in line 17. */
#define CLUSTER "[cluster]\nname = prod\nnumber = 7\n"
#define HOST_A  "[host a]\nnumber = 1\naddress = 10.0.0.1, fd00::1\n"
#define HOST_B  "[host b]\nnumber = 2\naddress = 10.0.0.2\nport = 4000\n"
#define SELF                                                                   \
    "[self]\nhost = a\nca = $/ca\ncert = $/cert\nkey = $/key\nrundir = $\n"
#define HEAD CLUSTER HOST_A HOST_B SELF
#define LUN  "[lun vm1]\ndevice = /dev/mapper/x\n"
#define GOOD HEAD LUN

/* ---- what is read -------------------------------------------------------- */

static void
test_config_short_file_has_the_defaults(void **state)
{
    struct config *c = load(GOOD);
    const struct config_lun *l;

    (void)state;
    if (!c)
        fail_msg("%s", told);
    assert_string_equal(c->cluster_name, "prod");
    assert_int_equal(c->cluster_number, 7);
    assert_string_equal(c->statedir, "/var/lib/detour");
    assert_string_equal(c->rundir, dir);
    assert_null(c->crl);
    assert_int_equal(c->nluns, 1);
    l = config_lun(c, "vm1");
    assert_non_null(l);
    assert_null(config_lun(c, "vm2"));
    assert_int_equal(l->fence, CONFIG_FENCE_PR);
    assert_false(l->readonly);
    assert_null(l->wwid);
    assert_null(l->initiator);
    assert_int_equal(l->nhosts, 2);
    assert_int_equal(l->timers.probe_interval, TIMERS_PROBE_INTERVAL_MS);
    assert_int_equal(l->timers.queue_limit, TIMERS_QUEUE_LIMIT_MS);
    assert_int_equal(l->timers.failback_max, TIMERS_FAILBACK_MAX_MS);
    assert_int_equal(l->connections, TIMERS_CONNECTIONS);
    assert_int_equal(l->standby_peers, TIMERS_STANDBY_PEERS);
    assert_int_equal(l->switch_limit, TIMERS_SWITCH_LIMIT);
    assert_int_equal(l->slow_factor, TIMERS_SLOW_FACTOR);
    assert_int_equal(l->timers.slow_least, TIMERS_SLOW_LEAST_MS);
    assert_int_equal(l->timers.slow_window, TIMERS_SLOW_WINDOW_MS);
    assert_false(l->redirect_when_slow);
    config_destroy(c);
}

static void
test_config_hosts_have_addresses_and_ports(void **state)
{
    struct config *c = load(GOOD);
    const struct config_host *a, *b;

    (void)state;
    assert_non_null(c);
    a = config_host(c, "a");
    b = config_host(c, "b");
    assert_ptr_equal(c->self, a);
    assert_int_equal(a->naddresses, 2);
    assert_string_equal(a->addresses[0], "10.0.0.1");
    assert_string_equal(a->addresses[1], "fd00::1");
    assert_int_equal(a->port, CONFIG_DEFAULT_PORT);
    assert_int_equal(b->number, 2);
    assert_int_equal(b->port, 4000);
    assert_null(config_host(c, "c"));
    config_destroy(c);
}

static void
test_config_lun_takes_every_key(void **state)
{
    struct config *c =
        load(HEAD "[lun vm-1.x_y]\n"
                  "device = iscsi://10.0.0.9:3260,10.0.1.9/iqn.2001-04.x:y/1\n"
                  "wwid = naa.6001405\nfence = drain\nreadonly = yes\n"
                  "hosts = b\nchap_user = u\nchap_secret_file = $/key\n"
                  "initiator = iqn.2001-04.com.example:me\n"
                  "probe_interval = 100ms\nprobe_timeout = 300ms\n"
                  "io_timeout = 2s\nlink_timeout = 400ms\nopen_timeout = 3s\n"
                  "standby_interval = 500ms\nfailback_after = 1m\n"
                  "failback_max = 2m\nfailback_jitter = 0\n"
                  "queue_limit = 30s\nstandby_peers = 1\nconnections = 3\n"
                  "requests_per_connection = 64\nswitch_limit = 60\n"
                  "redirect_when_slow = on\nslow_factor = 4\n"
                  "slow_least = 30ms\nslow_window = 2s\n");
    const struct config_lun *l;

    (void)state;
    if (!c)
        fail_msg("%s", told);
    l = config_lun(c, "vm-1.x_y");
    assert_int_equal(l->fence, CONFIG_FENCE_DRAIN);
    assert_true(l->readonly);
    assert_string_equal(l->wwid, "naa.6001405");
    assert_string_equal(l->chap_user, "u");
    assert_string_equal(l->initiator, "iqn.2001-04.com.example:me");
    assert_int_equal(l->nhosts, 1);
    assert_false(config_lun_has(l, config_host(c, "a")));
    assert_true(config_lun_has(l, config_host(c, "b")));
    assert_int_equal(l->timers.probe_interval, 100);
    assert_int_equal(l->timers.probe_timeout, 300);
    assert_int_equal(l->timers.io_timeout, 2000);
    assert_int_equal(l->timers.link_timeout, 400);
    assert_int_equal(l->timers.open_timeout, 3000);
    assert_int_equal(l->timers.standby_interval, 500);
    assert_int_equal(l->timers.failback_after, 60000);
    assert_int_equal(l->timers.failback_max, 120000);
    assert_int_equal(l->timers.failback_jitter, 0);
    assert_int_equal(l->timers.queue_limit, 30000);
    assert_int_equal(l->standby_peers, 1);
    assert_int_equal(l->connections, 3);
    assert_int_equal(l->requests_per_connection, 64);
    assert_int_equal(l->switch_limit, 60);
    assert_true(l->redirect_when_slow);
    assert_int_equal(l->slow_factor, 4);
    assert_int_equal(l->timers.slow_least, 30);
    assert_int_equal(l->timers.slow_window, 2000);
    config_destroy(c);
}

static void
test_config_initiator_is_made_of_names(void **state)
{
    struct config *c = load(HEAD "[lun v]\ndevice = iscsi://1.2.3.4/iqn.x/0\n");

    (void)state;
    assert_non_null(c);
    assert_string_equal(c->luns[0].initiator, "iqn.2026-11.detour:prod:a");
    config_destroy(c);
}

static void
test_config_list_goes_on_after_a_comma(void **state)
{
    struct config *c = load(
        HEAD LUN "hosts = a,\n    # the other one\n\n  b\n  fence = drain\n");

    (void)state;
    if (!c)
        fail_msg("%s", told);
    assert_int_equal(c->luns[0].nhosts, 2);
    assert_int_equal(c->luns[0].fence, CONFIG_FENCE_DRAIN);
    config_destroy(c);
}

static void
test_config_comments_and_a_missing_newline_are_fine(void **state)
{
    (void)state;
    assert_good("\xEF\xBB\xBF; first\n# second\n\n" HEAD
                "  [lun vm1]  \r\ndevice = /dev/x ; third\r\n readonly = no");
}

/* With a folder that lacks its certificates, and that must be all. */
static void
test_config_example_lacks_only_its_files(void **state)
{
    static const char folder[] = "/etc/detour";
    char text[4096], *hit;
    FILE *f = fopen("deploy/examples/detour.conf", "r");

    (void)state;
    if (!f)
        skip(); /* not run from the top of the source */
    text[fread(text, 1, sizeof(text) - 1, f)] = '\0';
    fclose(f);
    while ((hit = strstr(text, folder))) {
        *hit = '$'; /* what load() puts the test's folder for */
        memmove(hit + 1, hit + strlen(folder),
                strlen(hit + strlen(folder)) + 1);
    }
    assert_null(load(text));
    if (lines_told() != 4)
        fail_msg("%s", told);
    for (const char *line = told; *line; line = strchr(line, '\n') + 1)
        if (!strstr(line, ": No such file or directory\n"))
            fail_msg("%s", told);
}

/* ---- mistakes ------------------------------------------------------------ */

static void
test_config_missing_file_says_so(void **state)
{
    char text[256] = "";
    FILE *f = fmemopen(text, sizeof(text), "w");

    (void)state;
    assert_null(config_load("/nonexistent/detour.conf", f));
    assert_int_equal(errno, ENOENT);
    fclose(f);
    assert_string_equal(
        text, "/nonexistent/detour.conf: No such file or directory\n");
}

static void
test_config_folder_is_no_file(void **state)
{
    char text[256] = "";
    FILE *f = fmemopen(text, sizeof(text), "w");

    (void)state;
    assert_null(config_load("/", f));
    assert_int_equal(errno, EISDIR);
    fclose(f);
    assert_non_null(strstr(text, "directory"));
}

static void
test_config_every_mistake_is_told_with_its_line(void **state)
{
    (void)state;
    assert_null(load("[cluster]\nname = a b\nnumber = 5000\n"
                     "[host a]\nnumber = 0\naddress = a.example\nfoo = 1\n"
                     "[self]\nhost = z\n"
                     "[lun x]\ndevice = disk\nprobe_interval = 5\n"));
    assert_int_equal(errno, EINVAL);
    assert_non_null(strstr(told, "conf:2: name: one word"));
    assert_non_null(strstr(told, "conf:3: number: '5000'"));
    assert_non_null(strstr(told, "conf:5: number: '0'"));
    assert_non_null(strstr(told, "conf:6: address: 'a.example'"));
    assert_non_null(strstr(told, "conf:7: foo: no such key in [host]"));
    assert_non_null(strstr(told, "conf:9: host: there is no [host z]"));
    assert_non_null(strstr(told, "conf:8: [self]: ca is missing"));
    assert_non_null(strstr(told, "conf:8: [self]: cert is missing"));
    assert_non_null(strstr(told, "conf:8: [self]: key is missing"));
    assert_non_null(strstr(told, "conf:11: device: 'disk'"));
    assert_non_null(strstr(told, "conf:12: probe_interval: '5'"));
    assert_int_equal(lines_told(), 11);
}

struct mistake {
    const char *text;
    unsigned line;
    const char *words;
};

static void
assert_mistakes(const struct mistake *m, size_t n)
{
    for (size_t i = 0; i < n; i++)
        assert_mistake(m[i].text, m[i].line, m[i].words);
}

#define ASSERT_MISTAKES(m) assert_mistakes(m, sizeof(m) / sizeof(*(m)))

static void
test_config_mistakes_of_form(void **state)
{
    static const struct mistake m[] = {
        {"x = 1\n" GOOD, 1, "'x' stands before any section"},
        {GOOD "nonsense\n", 19, "neither [SECTION] nor KEY = VALUE"},
        {GOOD "wwid =\n", 19, "'wwid' has no value"},
        {GOOD "wwid = a # mine\n", 19, "a line of its own"},
        {GOOD "[lun b\nx = 1\n", 19, "ends with ']'"},
        {GOOD "[]\n", 19, "a section is"},
        {GOOD "[lun a b]\n", 19, "a section is"},
        {GOOD "[disk a]\n", 19, "[disk]: no such section"},
        {GOOD "[lun vm1]\ndevice = /dev/y\n", 19, "first in line 17"},
        {GOOD "device = /dev/y\n", 19, "second time, first in line 18"},
        {GOOD "hosts = a,\n", 19, "nothing between two commas"},
        {GOOD "hosts = a,,b\n", 19, "nothing between two commas"},
        {GOOD "hosts = a,\nfence = pr\n", 19, "nothing between"},
    };

    (void)state;
    ASSERT_MISTAKES(m);
}

static void
test_config_long_line_is_no_second_line(void **state)
{
    char text[1200];

    (void)state;
    snprintf(text, sizeof(text), GOOD "wwid = %0400d\nfence = pr\n", 1);
    assert_mistake(text, 19, "longer than 197 characters");
}

static void
test_config_nul_is_told(void **state)
{
    static const char text[] = "[cluster]\nna\0me = x\n";
    size_t len;
    FILE *f;

    (void)state;
    put_file("nul", text, sizeof(text) - 1, 0644);
    free(told);
    f = open_memstream(&told, &len);
    assert_null(config_load(path_in_dir("nul"), f));
    fclose(f);
    assert_non_null(strstr(told, "nul:2: holds a NUL"));
}

static void
test_config_mistakes_of_sections(void **state)
{
    static const struct mistake m[] = {
        {HOST_A HOST_B SELF LUN, 0, "there is no [cluster]"},
        {CLUSTER HOST_A HOST_B LUN, 0, "there is no [self]"},
        {HEAD, 0, "there is no [lun NAME]"},
        {GOOD "[cluster x]\nname = y\nnumber = 1\n", 19, "takes no name"},
        {GOOD "[lun]\ndevice = /dev/y\n", 19, "a name is 1 to 63"},
        {GOOD "[lun a/b]\ndevice = /dev/y\n", 19, "a name is 1 to 63"},
        {GOOD "[lun -b]\ndevice = /dev/y\n", 19, "a name is 1 to 63"},
        {GOOD "[lun ..]\ndevice = /dev/y\n", 19, "a name is 1 to 63"},
        {GOOD "[lun b]\n", 19, "[lun b]: device is missing"},
        {GOOD "[lun b]\ndevice = /dev/mapper/x\n", 20, "[lun vm1]'s already"},
        {"[cluster]\nname = a/b\nnumber = 1\n" HOST_A HOST_B SELF LUN, 2,
         "'a/b' is no name"},
        {"[cluster]\nname = a\n" HOST_A HOST_B SELF LUN, 1,
         "number is missing"},
    };

    (void)state;
    ASSERT_MISTAKES(m);
}

/* ---- [health] ------------------------------------------------------------ */

static void
test_config_health_need_not_be_there(void **state)
{
    struct config *c = load(GOOD);

    (void)state;
    assert_non_null(c);
    assert_int_equal(c->health.at.naddresses, 0);
    assert_int_equal(c->health.at.port, CONFIG_HEALTH_PORT);
    assert_int_equal(c->health.redirect_alarm, TIMERS_REDIRECT_ALARM_MS);
    assert_null(c->health.group);
    assert_null(c->health.cert);
    config_destroy(c);
}

static void
test_config_health_takes_every_key(void **state)
{
    struct config *c =
        load(GOOD "[health]\naddress = 127.0.0.1, ::1\nport = 80\n"
                  "group = detour\nca = $/ca\ncert = $/cert\nkey = $/key\n"
                  "client_certificates = yes\nredirect_alarm = 0\n");

    (void)state;
    if (!c)
        fail_msg("%s", told);
    assert_int_equal(c->health.at.naddresses, 2);
    assert_string_equal(c->health.at.addresses[1], "::1");
    assert_int_equal(c->health.at.port, 80);
    assert_string_equal(c->health.group, "detour");
    assert_string_equal(c->health.ca + strlen(dir), "/ca");
    assert_string_equal(c->health.key + strlen(dir), "/key");
    assert_true(c->health.client_certificates);
    assert_int_equal(c->health.redirect_alarm, 0);
    config_destroy(c);
}

static void
test_config_mistakes_of_health(void **state)
{
    static const struct mistake m[] = {
        {GOOD "[health]\ncert = $/cert\n", 19, "cert and key need each other"},
        {GOOD "[health]\nclient_certificates = yes\n", 20, "only with cert"},
        {GOOD "[health]\naddress = here\n", 20, "no IPv4 or IPv6 address"},
        {GOOD "[health]\nname = x\n", 20, "no such key"},
        {GOOD "[health x]\n", 19, "takes no name"},
    };

    (void)state;
    ASSERT_MISTAKES(m);
}

/* The others' keys are closed to detour-health, and its own are nothing to
 * them. */
static void
test_config_health_looks_at_its_own_files_only(void **state)
{
#define CLOSED                                                                 \
    CLUSTER HOST_A HOST_B                                                      \
        "[self]\nhost = a\nca = $/ca\ncert = $/cert\nkey = $/none\n" LUN
#define NO_KEY GOOD "[health]\ncert = $/cert\nkey = $/none\n"

    (void)state;
    assert_mistake(CLOSED, 15, "No such file");
    assert_good(NO_KEY);
    loader = config_load_health;
    assert_good(CLOSED);
    assert_mistake(NO_KEY, 21, "No such file");
    loader = config_load;
}

/* Nor is any file to those who only want to know what it says. */
static void
test_config_text_looks_at_no_files(void **state)
{
#define NO_SECRET                                                              \
    HEAD "[lun v]\ndevice = iscsi://1.2.3.4/iqn.2001-04.x:y/0\n"               \
         "chap_user = u\nchap_secret_file = $/none\n"

    (void)state;
    assert_mistake(NO_SECRET, 20, "No such file");
    loader = config_load_text;
    assert_good(CLOSED);
    assert_good(NO_KEY);
    assert_good(NO_SECRET);
    assert_mistake(GOOD "fence = none\n", 19, "neither pr nor drain");
    loader = config_load;
}

static void
test_config_mistakes_of_hosts(void **state)
{
#define HOST_C(lines) GOOD "[host c]\n" lines
    static const struct mistake m[] = {
        {HOST_C("number = 2\naddress = 10.0.0.3\n"), 20, "2 is host b's"},
        {HOST_C("number = 3\naddress = fd00::1\n"), 21, "host a's already"},
        {HOST_C("number = 3\naddress = FD00:0::1\n"), 21, "host a's already"},
        {HOST_C("number = 3\naddress = ::3, 0::3\n"), 21, "::3 a second time"},
        {HOST_C("number = 4096\naddress = 10.0.0.3\n"), 20, "from 1 to 4095"},
        {HOST_C("number = -1\naddress = 10.0.0.3\n"), 20, "from 1 to 4095"},
        {HOST_C("number = 4294967299\naddress = 10.0.0.3\n"), 20, "from 1 to"},
        {HOST_C("number = 3\naddress = 10.0.0\n"), 21, "no IPv4 or IPv6"},
        {HOST_C("number = 3\naddress = fe80::1%eth0\n"), 21, "no IPv4 or"},
        {HOST_C("number = 3\n"), 19, "address is missing"},
        {HOST_C("number = 3\naddress = 10.0.0.3\nport = 65536\n"), 22,
         "from 1 to 65535"},
        {GOOD "hosts = a, c\n", 19, "hosts: there is no [host c]"},
        {GOOD "hosts = a, a\n", 19, "names 'a' twice"},
    };

    (void)state;
    ASSERT_MISTAKES(m);
    assert_good(HOST_C("number = 3\naddress = 10.0.0.1\nport = 1\n"));
}

static void
test_config_mistakes_of_values(void **state)
{
#define CHAP GOOD "chap_user = u\nchap_secret_file = $/secret\n"
    static const struct mistake m[] = {
        {GOOD "fence = none\n", 19, "neither pr nor drain"},
        {GOOD "readonly = maybe\n", 19, "neither yes nor no"},
        {GOOD "io_timeout = 1\n", 19, "is not a time"},
        {GOOD "io_timeout = 1 h\n", 19, "is not a time"},
        {GOOD "io_timeout = s\n", 19, "is not a time"},
        {GOOD "failback_max = 1441m\n", 19, "is not between"},
        {GOOD "failback_max = 4294967295m\n", 19, "is not between"},
        {GOOD "connections = 0\n", 19, "from 1 to 16"},
        {GOOD "connections = 2x\n", 19, "from 1 to 16"},
        {HEAD "[lun v]\ndevice = disk\n", 18, "is neither /dev/"},
        {HEAD "[lun v]\ndevice = iscsi://san.example/iqn.x/0\n", 18,
         "device: "},
        {HEAD "[lun v]\ndevice = iscsi://1.2.3.4/iqn.x\n", 18, "device: "},
        {GOOD "initiator = iqn.2001-04.x:y\n", 19, "only an iscsi://"},
        {HEAD "[lun v]\ndevice = iscsi://1.2.3.4/iqn.x/0\nchap_user = u\n", 17,
         "need each other"},
        {HEAD "[lun v]\ndevice = iscsi://1.2.3.4/iqn.x/0\ninitiator = me\n", 19,
         "no iSCSI name"},
    };

    (void)state;
    ASSERT_MISTAKES(m);
    assert_null(load(CHAP));
    assert_int_equal(lines_told(), 2);
}

static void
test_config_timers_that_do_not_fit(void **state)
{
    static const struct mistake m[] = {
        {GOOD "probe_interval = 49ms\n", 19, "at least 50ms"},
        {GOOD "probe_interval = 376ms\n", 17, "twice probe_interval"},
        {GOOD "probe_timeout = 499ms\n", 19, "twice probe_interval"},
        {GOOD "io_timeout = 749ms\n", 19, "at least probe_timeout"},
        {GOOD "link_timeout = 199ms\n", 19, "at least 200ms"},
        {GOOD "open_timeout = 1999ms\n", 19, "twice link_timeout"},
        {GOOD "failback_max = 9s\n", 19, "at least failback_after"},
        {GOOD "queue_limit = 5999ms\n", 19, "leave room for"},
        {GOOD "slow_least = 750ms\n", 19, "less than probe_timeout"},
        {GOOD "slow_window = 999ms\n", 19, "four times probe_interval"},
        {GOOD "slow_factor = 0\nredirect_when_slow = on\n", 20,
         "needs a slow_factor"},
    };

    (void)state;
    ASSERT_MISTAKES(m);
    assert_good(GOOD "probe_interval = 50ms\nprobe_timeout = 100ms\n"
                     "io_timeout = 100ms\nlink_timeout = 200ms\n"
                     "open_timeout = 400ms\nqueue_limit = 550ms\n");
    assert_good(GOOD "slow_factor = 0\nslow_least = 1s\nslow_window = 1ms\n");
}

static void
test_config_files_must_be_there(void **state)
{
#define SELF_WITH(line)                                                        \
    CLUSTER HOST_A HOST_B LUN "[self]\nhost = a\ncert = $/cert\n" line
    static const struct mistake m[] = {
        {SELF_WITH("key = $/key\nca = $/none\n"), 17, "No such file"},
        {SELF_WITH("key = $/key\nca = $\n"), 17, "is not a file"},
        {SELF_WITH("key = $/key\nca = $/ca\ncrl = $/none\n"), 18, "No such"},
        {SELF_WITH("ca = $/ca\nkey = $/open\n"), 17, "chmod 0600"},
        {SELF_WITH("ca = $/ca\nkey = key\n"), 17, "must be a full path"},
    };

    (void)state;
    ASSERT_MISTAKES(m);
}

static void
test_config_secret_of_a_lun_that_is_not_ours_is_not_looked_for(void **state)
{
#define SECRET                                                                 \
    HEAD "[lun v]\ndevice = iscsi://1.2.3.4/iqn.x/0\nchap_user = u\n"          \
         "chap_secret_file = $/none\n"
    (void)state;
    assert_mistake(SECRET, 20, "No such file");
    assert_good(SECRET "hosts = b\n");
}

static void
test_config_secret_is_one_line(void **state)
{
#define SECRET_IN(file)                                                        \
    HEAD "[lun v]\ndevice = iscsi://1.2.3.4/iqn.x/0\nchap_user = u\n"          \
         "chap_secret_file = $/" file "\n"
    static const char second_line[] = "\r\nsecond line\n";
    char secret[257];

    (void)state;
    assert_good(SECRET_IN("secret"));
    assert_mistake(SECRET_IN("ca"), 20, "open to others");
    assert_mistake(SECRET_IN("key"), 20, "first line is empty");
    put_file("secret", second_line, strlen(second_line), 0600);
    assert_mistake(SECRET_IN("secret"), 20, "first line is empty");
    memset(secret, 'x', sizeof secret);
    secret[256] = '\n';
    put_file("secret", secret, 257, 0600);
    assert_mistake(SECRET_IN("secret"), 20, "longer than 255");
    secret[255] = '\n';
    put_file("secret", secret, 256, 0600);
    assert_good(SECRET_IN("secret"));
}

static void
test_config_without_memory_ends_cleanly(void **state)
{
    struct config *c = NULL;
    char sink[4096];
    long n;

    (void)state;
    config_destroy(load(GOOD)); /* leaves the file */
    for (n = 0; !c && n < 1000; n++) {
        FILE *f = fmemopen(sink, sizeof(sink), "w");

        assert_non_null(f);
        allocations_left = n;
        c = config_load(path_in_dir("conf"), f);
        allocations_left = -1;
        if (!c)
            assert_int_equal(errno, ENOMEM);
        fclose(f);
    }
    assert_non_null(c);
    assert_true(n > 50); /* the wrappers are in the way, then */
    config_destroy(c);
}

/* ---- setup --------------------------------------------------------------- */

static int
make_files(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/test_config.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    put_file("ca", "", 0, 0644);
    put_file("cert", "", 0, 0644);
    put_file("key", "", 0, 0640);
    put_file("open", "", 0, 0644);
    put_file("secret", "geheim", 6, 0600);
    return 0;
}

static int
remove_files(void **state)
{
    static const char *const names[] = {"ca",   "cert", "key",   "open",
                                        "conf", "nul",  "secret"};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        unlink(path_in_dir(names[i]));
    free(told);
    return rmdir(dir);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_short_file_has_the_defaults),
        cmocka_unit_test(test_config_hosts_have_addresses_and_ports),
        cmocka_unit_test(test_config_lun_takes_every_key),
        cmocka_unit_test(test_config_initiator_is_made_of_names),
        cmocka_unit_test(test_config_list_goes_on_after_a_comma),
        cmocka_unit_test(test_config_comments_and_a_missing_newline_are_fine),
        cmocka_unit_test(test_config_example_lacks_only_its_files),
        cmocka_unit_test(test_config_missing_file_says_so),
        cmocka_unit_test(test_config_folder_is_no_file),
        cmocka_unit_test(test_config_every_mistake_is_told_with_its_line),
        cmocka_unit_test(test_config_mistakes_of_form),
        cmocka_unit_test(test_config_long_line_is_no_second_line),
        cmocka_unit_test(test_config_nul_is_told),
        cmocka_unit_test(test_config_mistakes_of_sections),
        cmocka_unit_test(test_config_health_need_not_be_there),
        cmocka_unit_test(test_config_health_takes_every_key),
        cmocka_unit_test(test_config_mistakes_of_health),
        cmocka_unit_test(test_config_health_looks_at_its_own_files_only),
        cmocka_unit_test(test_config_text_looks_at_no_files),
        cmocka_unit_test(test_config_mistakes_of_hosts),
        cmocka_unit_test(test_config_mistakes_of_values),
        cmocka_unit_test(test_config_timers_that_do_not_fit),
        cmocka_unit_test(test_config_files_must_be_there),
        cmocka_unit_test(
            test_config_secret_of_a_lun_that_is_not_ours_is_not_looked_for),
        cmocka_unit_test(test_config_secret_is_one_line),
        cmocka_unit_test(test_config_without_memory_ends_cleanly),
    };

    return cmocka_run_group_tests_name("config", tests, make_files,
                                       remove_files);
}
