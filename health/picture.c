/* SPDX-License-Identifier: BSD-3-Clause */
/* What was last heard of processes and hosts. */
#include "health/picture.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "health/fields.h"

static void
source_fini(struct picture_source *s)
{
    free(s->name);
    json_decref(s->answer);
}

static void
free_sources(struct picture_source *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        source_fini(&s[i]);
    free(s);
}

int
picture_init(struct picture *p, const struct config *c, uint64_t now_ms)
{
    *p = (struct picture){.config = c};
    snprintf(p->error, sizeof p->error, "not looked at yet");
    p->hosts = calloc(c->nhosts + 1, sizeof *p->hosts);
    if (!p->hosts)
        return -ENOMEM;
    for (size_t i = 0; i < c->nhosts; i++) {
        struct picture_source *s = &p->hosts[p->nhosts];

        if (&c->hosts[i] == c->self)
            continue;
        s->name = strdup(c->hosts[i].name);
        if (!s->name)
            return -ENOMEM;
        s->since_ms = now_ms;
        snprintf(s->error, sizeof s->error, "not asked yet");
        p->nhosts++;
    }
    return 0;
}

void
picture_fini(struct picture *p)
{
    free_sources(p->processes, p->nprocesses);
    free_sources(p->hosts, p->nhosts);
    *p = (struct picture){.config = NULL};
}

char *
picture_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    size_t len = strlen(name);

    if (len > 5 && strcmp(name + len - 5, ".sock") == 0)
        len -= 5;
    return strndup(name, len);
}

struct picture_source *
picture_find(struct picture *p, const char *name)
{
    for (size_t i = 0; i < p->nprocesses; i++)
        if (p->processes[i].name && strcmp(p->processes[i].name, name) == 0)
            return &p->processes[i];
    return NULL;
}

int
picture_processes(struct picture *p, char *const *paths, size_t n,
                  uint64_t now_ms)
{
    struct picture_source *next = calloc(n + 1, sizeof *next), *known;

    if (!next)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        next[i].name = picture_name(paths[i]);
        if (!next[i].name) {
            free_sources(next, i);
            return -ENOMEM;
        }
    }
    for (size_t i = 0; i < n; i++) {
        known = picture_find(p, next[i].name);
        if (known) {
            free(next[i].name);
            next[i] = *known;
            *known = (struct picture_source){.name = NULL};
            continue;
        }
        next[i].since_ms = now_ms;
        snprintf(next[i].error, sizeof next[i].error, "not asked yet");
    }
    free_sources(p->processes, p->nprocesses);
    p->looked_ms = now_ms;
    p->error[0] = '\0';
    p->processes = next;
    p->nprocesses = n;
    return 0;
}

/* The longest that a request of a VM is waiting now. */
static double
stall_ms(const json_t *answer)
{
    const json_t *q = json_object_get(answer, "queue");
    double held = field_number(q, "oldest_held_ms", 0);
    double inflight = field_number(q, "oldest_inflight_ms", 0);

    return held > inflight ? held : inflight;
}

void
picture_heard(struct picture_source *s, json_t *answer, const char *error,
              uint64_t now_ms)
{
    const json_t *probe;

    field_print(s->error, sizeof s->error, "%s", answer ? "" : error);
    if (!answer)
        return;
    json_decref(s->answer);
    s->answer = answer;
    s->answered_ms = now_ms;
    if (!json_object_get(answer, "queue"))
        return;
    history_add(&s->stall_ms, stall_ms(answer), now_ms);
    probe = json_object_get(json_object_get(answer, "lun_status"), "probe");
    if (field_has(probe, "us"))
        history_add(&s->probe_us, field_number(probe, "us", 0), now_ms);
}

bool
picture_silent(const struct picture_source *s, uint64_t limit_ms,
               uint64_t now_ms)
{
    return s->error[0] || s->answered_ms == 0 ||
           now_ms > s->answered_ms + limit_ms;
}
