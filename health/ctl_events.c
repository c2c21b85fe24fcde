/* SPDX-License-Identifier: BSD-3-Clause */
/* What changed, when and why, read from what processes say now. */
#include "health/ctl_events.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "health/ctl_colour.h"
#include "health/ctl_print.h"
#include "health/fields.h"

/* Of one process. */
struct source {
    const char *name;
    double now_s;
    json_t *to; /* NULL: no memory was left */
};

static void
add(struct source *s, const char *lun, const char *what, const char *state,
    double since_s, const char *reason)
{
    json_t *e;

    if (!s->to || since_s < 0)
        return;
    e = json_pack("{s:f, s:s, s:s?, s:s, s:s, s:s}", "time", s->now_s - since_s,
                  "process", s->name, "lun", lun, "what", what, "state",
                  *state ? state : "-", "reason", reason);
    if (json_array_append_new(s->to, e) < 0) {
        json_decref(s->to);
        s->to = NULL;
    }
}

static void
add_field(struct source *s, const char *lun, const char *what, const json_t *o,
          const char *state, const char *reason)
{
    add(s, lun, what, field_text(o, state), field_number(o, "since_s", -1),
        field_text(o, reason));
}

static void
add_lun(struct source *s, const char *lun, const json_t *st)
{
    char what[160];
    json_t *p;
    size_t i;

    add_field(s, lun, "verdict", json_object_get(st, "verdict"), "state",
              "reason");
    json_array_foreach(json_object_get(st, "paths"), i, p)
    {
        field_print(what, sizeof what, "path %s", field_text(p, "name"));
        add_field(s, lun, what, p, "state", "error");
    }
}

json_t *
ctl_events_of(json_t *status, const char *name, const char *lun, double now_s)
{
    struct source s = {.name = name, .now_s = now_s, .to = json_array()};
    json_t *one;
    size_t i;

    ctl_scrub(status);
    add(&s, NULL, "process", "started", field_number(status, "uptime_s", -1),
        "");
    if (!field_is(status, "process", "proxy")) {
        const char *mine = field_text(status, "lun");

        add_field(&s, mine, "route", json_object_get(status, "route"), "phase",
                  "reason");
        add_lun(&s, mine, json_object_get(status, "lun_status"));
        return s.to;
    }
    json_array_foreach(json_object_get(status, "luns"), i, one)
    {
        const char *its = field_text(one, "lun");

        if (lun && strcmp(lun, its) != 0)
            continue;
        add_field(&s, its, "serving", one, "state", "reason");
        add_lun(&s, its, json_object_get(one, "lun_status"));
    }
    return s.to;
}

json_t *
ctl_events_silent(const char *name, const char *error, double now_s)
{
    struct source s = {.name = name, .now_s = now_s, .to = json_array()};

    add(&s, NULL, "process", "silent", 0, error);
    if (s.to)
        ctl_scrub(s.to);
    return s.to;
}

static int
by_time(const void *a, const void *b)
{
    double x = field_number(*(json_t *const *)a, "time", 0);
    double y = field_number(*(json_t *const *)b, "time", 0);

    return x < y ? -1 : x > y;
}

json_t *
ctl_events_sort(json_t *events)
{
    size_t n = json_array_size(events), i;
    json_t **all = calloc(n + 1, sizeof *all), *sorted = json_array(), *e;

    json_array_foreach(events, i, e)
    {
        if (all)
            all[i] = e;
    }
    if (all && sorted)
        qsort(all, n, sizeof *all, by_time);
    for (i = 0; all && sorted && i < n; i++)
        if (json_array_append(sorted, all[i]) < 0) {
            json_decref(sorted);
            sorted = NULL;
        }
    if (!all) {
        json_decref(sorted);
        sorted = NULL;
    }
    free(all);
    json_decref(events);
    return sorted;
}

/* Nothing is said of a process' start when it was silent for a moment only:
 * then its uptime is longer. */
static bool
is_news(json_t *seen, const json_t *e)
{
    char key[512];
    const json_t *old;
    bool news;

    field_print(key, sizeof key, "%s/%s/%s", field_text(e, "process"),
                field_text(e, "lun"), field_text(e, "what"));
    old = json_object_get(seen, key);
    news = !old || !field_is(old, "state", field_text(e, "state")) ||
           !field_is(old, "reason", field_text(e, "reason"));
    json_object_set(seen, key, (json_t *)e);
    return news;
}

json_t *
ctl_events_new(json_t *events, json_t *seen)
{
    json_t *news = json_array(), *e;
    size_t i;

    json_array_foreach(events, i, e)
    {
        if (is_news(seen, e) && json_array_append(news, e) < 0) {
            json_decref(news);
            news = NULL;
            break;
        }
    }
    json_decref(events);
    return news;
}

static void
print_event(FILE *f, const json_t *e)
{
    time_t t = (time_t)field_number(e, "time", 0);
    const char *lun = field_text(e, "lun"), *reason = field_text(e, "reason");
    char text[32] = "-", colour[256];
    struct tm tm;

    if (localtime_r(&t, &tm))
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    fprintf(f, "%s  %s %s%s%s: %s%s%s\n", text, field_text(e, "process"), lun,
            *lun ? " " : "", field_text(e, "what"),
            ctl_colour(field_text(e, "state"), colour, sizeof colour),
            *reason ? ": " : "", reason);
}

void
ctl_events_print(FILE *f, const json_t *events)
{
    json_t *e;
    size_t i;

    json_array_foreach(events, i, e) print_event(f, e);
}
