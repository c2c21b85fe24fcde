/* SPDX-License-Identifier: BSD-3-Clause */
/* Which sections and keys there are, and their defaults. */
#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_parts.h"
#include "common/config_value.h"
#include "common/timers.h"

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

/* Longer than any of the timers makes sense for; fits an int as well. */
#define DAY_MS 86400000u

/* ---- the keys of each section ------------------------------------------- */

static const struct config_key cluster_keys[] = {
    {.name = "name",
     .read = config_value_word,
     .offset = offsetof(struct config, cluster_name),
     .required = true},
    {.name = "number",
     .read = config_value_number,
     .offset = offsetof(struct config, cluster_number),
     .max = CONFIG_CLUSTER_MAX,
     .required = true},
};

static const struct config_key host_keys[] = {
    {.name = "number",
     .read = config_value_number,
     .offset = offsetof(struct config_host, number),
     .min = 1,
     .max = CONFIG_HOST_MAX,
     .required = true},
    {.name = "address", .read = config_value_addresses, .required = true},
    {.name = "port",
     .read = config_value_port,
     .offset = offsetof(struct config_host, port),
     .min = 1,
     .max = 65535},
};

#define SELF_PATH(field, must)                                                 \
    {                                                                          \
        .name = #field, .read = config_value_path,                             \
        .offset = offsetof(struct config, field), .required = (must)           \
    }

static const struct config_key self_keys[] = {
    {.name = "host", .read = config_value_self, .required = true},
    SELF_PATH(rundir, false),
    SELF_PATH(statedir, false),
    SELF_PATH(ca, true),
    SELF_PATH(cert, true),
    SELF_PATH(key, true),
    SELF_PATH(crl, false),
};

#define HEALTH_PATH(field)                                                     \
    {                                                                          \
        .name = #field, .read = config_value_path,                             \
        .offset = offsetof(struct config_health, field)                        \
    }

static const struct config_key health_keys[] = {
    {.name = "address", .read = config_value_addresses},
    {.name = "port",
     .read = config_value_port,
     .offset = offsetof(struct config_health, at.port),
     .min = 1,
     .max = 65535},
    {.name = "group",
     .read = config_value_word,
     .offset = offsetof(struct config_health, group)},
    HEALTH_PATH(ca),
    HEALTH_PATH(cert),
    HEALTH_PATH(key),
    {.name = "client_certificates",
     .read = config_value_bool,
     .offset = offsetof(struct config_health, client_certificates)},
    {.name = "redirect_alarm",
     .read = config_value_time,
     .offset = offsetof(struct config_health, redirect_alarm),
     .max = DAY_MS},
};

#define LUN_KEY(field, reader)                                                 \
    {                                                                          \
        .name = #field, .read = (reader),                                      \
        .offset = offsetof(struct config_lun, field)                           \
    }
#define LUN_NUMBER(field, least, most)                                         \
    {                                                                          \
        .name = #field, .read = config_value_number, .min = (least),           \
        .max = (most), .offset = offsetof(struct config_lun, field)            \
    }
#define LUN_TIME(field, least)                                                 \
    {                                                                          \
        .name = #field, .read = config_value_time, .min = (least),             \
        .max = DAY_MS, .offset = offsetof(struct config_lun, timers.field)     \
    }

static const struct config_key lun_keys[] = {
    {.name = "device",
     .read = config_value_device,
     .offset = offsetof(struct config_lun, device),
     .required = true},
    {.name = "hosts", .read = config_value_hosts},
    LUN_KEY(wwid, config_value_word),
    LUN_KEY(fence, config_value_fence),
    LUN_KEY(readonly, config_value_bool),
    LUN_KEY(chap_user, config_value_word),
    LUN_KEY(chap_secret_file, config_value_path),
    LUN_KEY(initiator, config_value_initiator),
    LUN_TIME(probe_interval, 1),
    LUN_TIME(probe_timeout, 1),
    LUN_TIME(io_timeout, 1),
    LUN_TIME(link_timeout, 1),
    LUN_TIME(open_timeout, 1),
    LUN_TIME(standby_interval, 50),
    LUN_TIME(failback_after, 0),
    LUN_TIME(failback_max, 0),
    LUN_TIME(failback_jitter, 0),
    LUN_TIME(queue_limit, 0),
    LUN_NUMBER(standby_peers, 0, 31),
    LUN_NUMBER(connections, 1, 16),
    LUN_NUMBER(requests_per_connection, 1, 1024),
    LUN_NUMBER(switch_limit, 0, 60),
    LUN_KEY(redirect_when_slow, config_value_bool),
    LUN_NUMBER(slow_factor, 0, 1000),
    LUN_TIME(slow_least, 1),
    LUN_TIME(slow_window, 1),
};

static const struct config_lun lun_defaults = {
    .fence = CONFIG_FENCE_PR,
    .timers =
        {
            .probe_interval = TIMERS_PROBE_INTERVAL_MS,
            .probe_timeout = TIMERS_PROBE_TIMEOUT_MS,
            .io_timeout = TIMERS_IO_TIMEOUT_MS,
            .link_timeout = TIMERS_LINK_TIMEOUT_MS,
            .open_timeout = TIMERS_OPEN_TIMEOUT_MS,
            .standby_interval = TIMERS_STANDBY_INTERVAL_MS,
            .failback_after = TIMERS_FAILBACK_AFTER_MS,
            .failback_max = TIMERS_FAILBACK_MAX_MS,
            .failback_jitter = TIMERS_FAILBACK_JITTER_MS,
            .queue_limit = TIMERS_QUEUE_LIMIT_MS,
            .slow_least = TIMERS_SLOW_LEAST_MS,
            .slow_window = TIMERS_SLOW_WINDOW_MS,
        },
    .standby_peers = TIMERS_STANDBY_PEERS,
    .connections = TIMERS_CONNECTIONS,
    .requests_per_connection = TIMERS_REQUESTS_PER_CONNECTION,
    .switch_limit = TIMERS_SWITCH_LIMIT,
    .slow_factor = TIMERS_SLOW_FACTOR,
};

/* ---- one section --------------------------------------------------------- */

static const struct config_key *
find_key(const struct config_key *keys, size_t nkeys, const char *name)
{
    for (size_t i = 0; i < nkeys; i++)
        if (strcmp(keys[i].name, name) == 0)
            return &keys[i];
    return NULL;
}

static void
read_entry(struct config_draft *d, const struct config_section *s,
           const struct config_entry *e, const struct config_key *k,
           void *object)
{
    unsigned first = config_file_line(s, e->key);

    if (!k)
        config_file_mistake(d->f, e->line, "%s: no such key in [%s]", e->key,
                            s->kind);
    else if (first != e->line)
        config_file_mistake(d->f, e->line,
                            "%s: set a second time, first in line %u", e->key,
                            first);
    else
        k->read(d, e, k, object);
}

static void
read_section(struct config_draft *d, const struct config_section *s,
             const struct config_key *keys, size_t nkeys, void *object)
{
    for (size_t i = 0; i < s->nentries; i++)
        read_entry(d, s, &s->entries[i],
                   find_key(keys, nkeys, s->entries[i].key), object);
    for (size_t i = 0; i < nkeys; i++)
        if (keys[i].required && config_file_line(s, keys[i].name) == s->line)
            config_file_mistake(d->f, s->line, "[%s%s%s]: %s is missing",
                                s->kind, *s->name ? " " : "", s->name,
                                keys[i].name);
}

/* ---- the sections -------------------------------------------------------- */

static const struct {
    const char *kind;
    bool named; /* by the operator, and there may be many */
} kinds[] = {
    {"cluster", false}, {"self", false}, {"health", false},
    {"host", true},     {"lun", true},
};

/* The kind is known; is the name as that kind wants it? */
static void
check_name(struct config_draft *d, const struct config_section *s, bool named)
{
    if (!named && *s->name)
        config_file_mistake(d->f, s->line, "[%s] takes no name", s->kind);
    if (named && !config_value_is_name(s->name))
        config_file_mistake(d->f, s->line,
                            "[%s NAME]: a name is 1 to %d letters, digits, "
                            "'.', '_' and '-' and begins with a letter or "
                            "a digit",
                            s->kind, CONFIG_NAME_MAX);
}

static void
check_section(struct config_draft *d, const struct config_section *s)
{
    for (const struct config_section *t = d->f->sections; t < s; t++)
        if (strcmp(s->kind, t->kind) == 0 && strcmp(s->name, t->name) == 0) {
            config_file_mistake(d->f, s->line,
                                "[%s%s%s]: a second time, first in line %u",
                                s->kind, *s->name ? " " : "", s->name, t->line);
            return;
        }
    for (size_t i = 0; i < COUNT(kinds); i++)
        if (strcmp(s->kind, kinds[i].kind) == 0) {
            check_name(d, s, kinds[i].named);
            return;
        }
    config_file_mistake(d->f, s->line,
                        "[%s]: no such section; there are cluster, self, "
                        "health, host NAME and lun NAME",
                        s->kind);
}

const struct config_section *
config_section(const struct config_file *f, const char *kind, size_t n)
{
    for (size_t i = 0; i < f->nsections; i++)
        if (strcmp(f->sections[i].kind, kind) == 0 && n-- == 0)
            return &f->sections[i];
    return NULL;
}

static size_t
count_sections(const struct config_file *f, const char *kind)
{
    size_t n = 0;

    while (config_section(f, kind, n))
        n++;
    return n;
}

/* [cluster] or [self]: one is needed, and is enough. */
static void
read_single(struct config_draft *d, const char *kind,
            const struct config_key *keys, size_t nkeys)
{
    const struct config_section *s = config_section(d->f, kind, 0);

    if (s)
        read_section(d, s, keys, nkeys, d->c);
    else
        config_file_mistake(d->f, 0, "there is no [%s]", kind);
}

/* No [health]: it is not wanted here, or the defaults will do. */
static void
read_health(struct config_draft *d)
{
    const struct config_section *s = config_section(d->f, "health", 0);
    struct config_health *h = &d->c->health;

    h->at.port = CONFIG_HEALTH_PORT;
    h->redirect_alarm = TIMERS_REDIRECT_ALARM_MS;
    if (s)
        read_section(d, s, health_keys, COUNT(health_keys), h);
}

/* All names are in place before any section that may refer to one is read. */
static void
read_hosts(struct config_draft *d)
{
    struct config *c = d->c;
    size_t n = count_sections(d->f, "host");

    if (n == 0)
        config_file_mistake(d->f, 0, "there is no [host NAME]");
    c->hosts = calloc(n + 1, sizeof(*c->hosts));
    if (!c->hosts) {
        d->f->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < n && !d->f->error; i++) {
        const struct config_section *s = config_section(d->f, "host", i);
        struct config_host *h = &c->hosts[c->nhosts++];

        h->port = CONFIG_DEFAULT_PORT;
        h->name = strdup(s->name);
        if (!h->name)
            d->f->error = -ENOMEM;
        else
            read_section(d, s, host_keys, COUNT(host_keys), h);
    }
}

static void
default_hosts(struct config_draft *d, struct config_lun *l)
{
    l->hosts = calloc(d->c->nhosts + 1, sizeof(*l->hosts));
    if (!l->hosts) {
        d->f->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < d->c->nhosts; i++)
        l->hosts[l->nhosts++] = &d->c->hosts[i];
}

/* iSCSI names are compared in lower case: RFC 3722. */
static void
default_initiator(struct config_draft *d, struct config_lun *l)
{
    const struct config *c = d->c;

    if (!c->cluster_name || !c->self)
        return;
    if (asprintf(&l->initiator, "iqn.2026-11.detour:%s:%s", c->cluster_name,
                 c->self->name) < 0) {
        l->initiator = NULL;
        d->f->error = -ENOMEM;
        return;
    }
    for (char *p = l->initiator; *p; p++)
        *p = (char)tolower((unsigned char)*p);
}

static void
read_lun(struct config_draft *d, const struct config_section *s,
         struct config_lun *l)
{
    *l = lun_defaults;
    l->name = strdup(s->name);
    if (!l->name) {
        d->f->error = -ENOMEM;
        return;
    }
    read_section(d, s, lun_keys, COUNT(lun_keys), l);
    if (config_file_line(s, "hosts") == s->line)
        default_hosts(d, l);
    if (!l->initiator && l->device && strncmp(l->device, "iscsi:", 6) == 0)
        default_initiator(d, l);
}

static void
read_luns(struct config_draft *d)
{
    struct config *c = d->c;
    size_t n = count_sections(d->f, "lun");

    if (n == 0)
        config_file_mistake(d->f, 0, "there is no [lun NAME]");
    c->luns = calloc(n + 1, sizeof(*c->luns));
    if (!c->luns) {
        d->f->error = -ENOMEM;
        return;
    }
    for (size_t i = 0; i < n && !d->f->error; i++)
        read_lun(d, config_section(d->f, "lun", i), &c->luns[c->nluns++]);
}

void
config_read(struct config_draft *d)
{
    struct config *c = d->c;

    c->rundir = strdup("/run/detour");
    c->statedir = strdup("/var/lib/detour");
    if (!c->rundir || !c->statedir)
        d->f->error = -ENOMEM;
    for (size_t i = 0; i < d->f->nsections; i++)
        check_section(d, &d->f->sections[i]);
    read_single(d, "cluster", cluster_keys, COUNT(cluster_keys));
    if (!d->f->error)
        read_hosts(d);
    if (!d->f->error)
        read_single(d, "self", self_keys, COUNT(self_keys));
    if (!d->f->error)
        read_health(d);
    if (!d->f->error)
        read_luns(d);
}
