/* SPDX-License-Identifier: BSD-3-Clause */
/* Status answers as text for people, and the judgement for scripts. */
#include "health/ctl_print.h"

#include <stdlib.h>
#include <string.h>

#include "health/ctl_colour.h"

/* The words of one printed line. */
#define WORDS    12
#define WORD_MAX 256

struct line {
    char words[WORDS][WORD_MAX];
    unsigned n;
};

/* ---- words --------------------------------------------------------------- */

/* Replaces control characters, C1 (0xC2 0x80 to 0x9F in UTF-8) included, in
 * every string of j: a peer's words must not move the reader's cursor. */
static void
scrub(json_t *j)
{
    const char *key;
    char *copy;
    size_t i;
    json_t *v;

    json_object_foreach(j, key, v) scrub(v);
    json_array_foreach(j, i, v) scrub(v);
    if (!json_is_string(j))
        return;
    copy = strdup(json_string_value(j));
    for (unsigned char *p = (unsigned char *)copy; p && *p; p++) {
        if (*p < 0x20 || *p == 0x7f)
            *p = '?';
        else if (p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f)
            p[0] = p[1] = '?';
    }
    /* without memory nothing is better than the raw string */
    if (!copy || json_string_set(j, copy))
        json_string_set(j, "");
    free(copy);
}

static const char *word(struct line *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

static const char *
word(struct line *l, const char *fmt, ...)
{
    char *to = l->words[l->n++ % WORDS];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(to, WORD_MAX, fmt, ap);
    va_end(ap);
    return to;
}

/* The field as a word, or "-". */
static const char *
get(struct line *l, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    if (json_is_string(v) && json_string_length(v) > 0)
        return json_string_value(v);
    if (json_is_integer(v))
        return word(l, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    if (json_is_real(v))
        return word(l, "%.1f", json_real_value(v));
    if (json_is_boolean(v))
        return json_is_true(v) ? "yes" : "no";
    return "-";
}

/* Seconds as "0.4s", "12s", "3m05s", "2h05m", "4d03h". */
static const char *
get_span(struct line *l, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    double s = json_number_value(v);
    unsigned long n;

    if (!json_is_number(v) || s < 0 || s > 1e9)
        return "-";
    n = (unsigned long)s;
    if (n < 10)
        return word(l, "%.1fs", s);
    if (n < 60)
        return word(l, "%lus", n);
    if (n < 3600)
        return word(l, "%lum%02lus", n / 60, n % 60);
    if (n < 86400)
        return word(l, "%luh%02lum", n / 3600, n / 60 % 60);
    return word(l, "%lud%02luh", n / 86400, n / 3600 % 24);
}

/* The field as a word in the colour of what it means. */
static const char *
get_state(struct line *l, const json_t *o, const char *key)
{
    const char *text = get(l, o, key);

    return ctl_colour(text, l->words[l->n++ % WORDS], WORD_MAX);
}

static bool
is(const json_t *o, const char *key, const char *value)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s && strcmp(s, value) == 0;
}

/* ---- the parts of an answer ---------------------------------------------- */

static void
print_label(FILE *f, const char *label, const char *name)
{
    int n = fprintf(f, "    %s%s%s", label, *name ? " " : "", name);

    fprintf(f, "%*s", n < 18 ? 18 - n : 1, "");
}

/* ": text", unless there is none. */
static void
print_reason(FILE *f, const json_t *o, const char *key)
{
    struct line l = {.n = 0};
    const char *text = get(&l, o, key);

    fprintf(f, "%s%s\n", strcmp(text, "-") ? ": " : "",
            strcmp(text, "-") ? text : "");
}

static void
print_paths(FILE *f, const json_t *paths)
{
    json_t *p;
    size_t i;

    json_array_foreach(paths, i, p)
    {
        struct line l = {.n = 0};

        print_label(f, "path", get(&l, p, "name"));
        fprintf(f, "%s for %s", get_state(&l, p, "state"),
                get_span(&l, p, "since_s"));
        if (json_is_string(json_object_get(p, "detail")))
            fprintf(f, " (%s)", get(&l, p, "detail"));
        print_reason(f, p, "error");
    }
}

/* A multipath map, if that is what the paths are of. */
static void
print_map(FILE *f, const json_t *map)
{
    const json_t *queueing = json_object_get(map, "queueing");
    struct line l = {.n = 0};

    if (!json_is_object(map))
        return;
    print_label(f, "map", get(&l, map, "name"));
    if (!json_is_boolean(queueing))
        fprintf(f, "not read");
    else
        fprintf(f, "%s I/O without a path, read %s ago",
                json_is_true(queueing) ? "queues" : "fails",
                get_span(&l, map, "age_s"));
    fprintf(f, "; multipathd %s\n", get(&l, map, "multipathd"));
}

static void
print_lun(FILE *f, const json_t *lun)
{
    const json_t *verdict = json_object_get(lun, "verdict");
    const json_t *probe = json_object_get(lun, "probe");
    const json_t *registration = json_object_get(lun, "registration");
    struct line l = {.n = 0};

    print_label(f, "verdict", "");
    fprintf(f, "%s for %s", get_state(&l, verdict, "state"),
            get_span(&l, verdict, "since_s"));
    print_reason(f, verdict, "reason");
    print_map(f, json_object_get(lun, "map"));
    print_paths(f, json_object_get(lun, "paths"));
    print_label(f, "probe", "");
    fprintf(f, "answered %s ago, took %s us, %s stuck",
            get_span(&l, probe, "age_s"), get(&l, probe, "us"),
            get(&l, probe, "stuck"));
    if (json_is_integer(json_object_get(probe, "usual_us")))
        fprintf(f, ", lately %s us, usually %s us", get(&l, probe, "recent_us"),
                get(&l, probe, "usual_us"));
    fprintf(f, "\n");
    print_label(f, "registration", "");
    fprintf(f, "%s, number %s, key %s\n", get_state(&l, registration, "state"),
            get(&l, registration, "number"), get(&l, registration, "key"));
    print_label(f, "device", "");
    fprintf(f, "id %s, %s bytes, under way %s, orphans %s, orphan reads %s\n",
            get(&l, lun, "id"), get(&l, lun, "size"), get(&l, lun, "inflight"),
            get(&l, lun, "orphans"), get(&l, lun, "orphan_reads"));
}

static void
print_process(FILE *f, const json_t *s)
{
    struct line l = {.n = 0};

    print_label(f, "process", "");
    fprintf(f, "pid %s on %s, version %s, up %s\n", get(&l, s, "pid"),
            get(&l, s, "host"), get(&l, s, "version"),
            get_span(&l, s, "uptime_s"));
}

/* ---- a plugin ------------------------------------------------------------ */

static void
print_route(FILE *f, const json_t *route)
{
    const json_t *suspects = json_object_get(route, "suspects");
    struct line l = {.n = 0};
    json_t *name;
    size_t i;

    fprintf(f, "%s", get_state(&l, route, "phase"));
    if (!is(route, "phase", "local"))
        fprintf(f, ", peer %s, generation %s", get(&l, route, "peer"),
                get(&l, route, "generation"));
    if (json_is_true(json_object_get(route, "manual")))
        fprintf(f, ", by hand");
    if (json_is_number(json_object_get(route, "manual_left_s")))
        fprintf(f, " for another %s", get_span(&l, route, "manual_left_s"));
    if (json_is_true(json_object_get(route, "latched")))
        fprintf(f, ", stays until return (%s switches within an hour)",
                get(&l, route, "hour_switches"));
    fprintf(f, ", for %s", get_span(&l, route, "since_s"));
    print_reason(f, route, "reason");
    if (json_array_size(suspects) == 0)
        return;
    print_label(f, "suspects", "");
    json_array_foreach(suspects, i, name)
    {
        const char *text = json_string_value(name);

        fprintf(f, "%s%s", i ? ", " : "", text ? text : "-");
    }
    fprintf(f, "\n");
}

static void
print_queue(FILE *f, const json_t *q)
{
    struct line l = {.n = 0};

    print_label(f, "queue", "");
    fprintf(f,
            "held %s (oldest %s ms), under way %s (oldest %s ms), "
            "longest stall %s ms\n",
            get(&l, q, "held"), get(&l, q, "oldest_held_ms"),
            get(&l, q, "inflight"), get(&l, q, "oldest_inflight_ms"),
            get(&l, q, "longest_stall_ms"));
}

static void
print_links(FILE *f, const json_t *links)
{
    json_t *k;
    size_t i;

    json_array_foreach(links, i, k)
    {
        struct line l = {.n = 0};

        print_label(f, "  link", get(&l, k, "address"));
        fprintf(f, "%s, round trip %s us", get(&l, k, "state"),
                get(&l, k, "rtt_us"));
        print_reason(f, k, "error");
    }
}

/* Nothing when nothing has failed. */
static void
print_failed(FILE *f, const json_t *failed)
{
    const char *reason, *mark = "";
    json_t *n;

    json_object_foreach((json_t *)failed, reason, n)
    {
        if (json_integer_value(n) <= 0)
            continue;
        if (!*mark)
            print_label(f, "  failed", "");
        fprintf(f, "%s%s %" JSON_INTEGER_FORMAT, mark, reason,
                json_integer_value(n));
        mark = ", ";
    }
    if (*mark)
        fprintf(f, "\n");
}

static void
print_peers(FILE *f, const json_t *peers)
{
    json_t *p;
    size_t i;

    json_array_foreach(peers, i, p)
    {
        struct line l = {.n = 0};

        print_label(f, "peer", get(&l, p, "host"));
        fprintf(f, "%s, load %s", get_state(&l, p, "state"),
                get(&l, p, "load"));
        print_reason(f, p, "reason");
        print_links(f, json_object_get(p, "links"));
        print_failed(f, json_object_get(p, "failed"));
    }
}

static void
print_plugin(FILE *f, const json_t *s)
{
    struct line l = {.n = 0};

    fprintf(f, "plugin lun %s client %s: ", get(&l, s, "lun"),
            get(&l, s, "client"));
    print_route(f, json_object_get(s, "route"));
    print_queue(f, json_object_get(s, "queue"));
    print_lun(f, json_object_get(s, "lun_status"));
    print_peers(f, json_object_get(s, "peers"));
    print_process(f, s);
}

/* ---- a proxy ------------------------------------------------------------- */

static void
print_connections(FILE *f, const json_t *connections)
{
    json_t *k;
    size_t i;

    json_array_foreach(connections, i, k)
    {
        struct line l = {.n = 0};

        print_label(f, "  from", get(&l, k, "address"));
        fprintf(f, "%s requests, under way %s, for %s\n",
                get(&l, k, "requests"), get(&l, k, "inflight"),
                get_span(&l, k, "age_s"));
    }
}

static void
print_sessions(FILE *f, const json_t *sessions)
{
    json_t *s;
    size_t i;

    json_array_foreach(sessions, i, s)
    {
        struct line l = {.n = 0};

        print_label(f, "session", get(&l, s, "host"));
        fprintf(f, "client %s, generation %s, for %s, unfinished writes %s\n",
                get(&l, s, "client"), get(&l, s, "generation"),
                get_span(&l, s, "age_s"), get(&l, s, "unfinished_writes"));
        print_connections(f, json_object_get(s, "connections"));
    }
}

static bool
is_asked_for(const json_t *o, const char *lun)
{
    return !lun || is(o, "lun", lun);
}

static void
print_proxy(FILE *f, const json_t *s, const char *lun)
{
    struct line l = {.n = 0};
    json_t *one;
    size_t i;

    fprintf(f, "proxy: %s\n",
            ctl_colour(json_is_true(json_object_get(s, "draining"))
                           ? "draining"
                           : "open to peers",
                       l.words[0], WORD_MAX));
    print_process(f, s);
    json_array_foreach(json_object_get(s, "luns"), i, one)
    {
        if (!is_asked_for(one, lun))
            continue;
        fprintf(f, "proxy lun %s: %s", get(&l, one, "lun"),
                get_state(&l, one, "state"));
        print_reason(f, one, "reason");
        print_lun(f, json_object_get(one, "lun_status"));
        print_sessions(f, json_object_get(one, "sessions"));
    }
}

/* A heading of its own for each LUN, since names of paths say little. */
static void
print_part(FILE *f, const json_t *s, const json_t *lun, enum ctl_part part)
{
    const json_t *own = json_object_get(lun, "lun_status");
    struct line l = {.n = 0};

    fprintf(f, "%s lun %s", get(&l, s, "process"), get(&l, lun, "lun"));
    if (is(s, "process", "plugin"))
        fprintf(f, " client %s", get(&l, s, "client"));
    fprintf(f, ":\n");
    if (part == CTL_PATHS) {
        print_map(f, json_object_get(own, "map"));
        print_paths(f, json_object_get(own, "paths"));
    } else {
        print_peers(f, json_object_get(s, "peers"));
    }
}

void
ctl_print_part(FILE *f, json_t *status, const char *lun, enum ctl_part part)
{
    json_t *one;
    size_t i;

    scrub(status);
    if (!is(status, "process", "proxy")) {
        print_part(f, status, status, part);
        return;
    }
    json_array_foreach(json_object_get(status, "luns"), i, one)
    {
        if (is_asked_for(one, lun))
            print_part(f, status, one, part);
    }
}

void
ctl_scrub(json_t *j)
{
    scrub(j);
}

void
ctl_print_status(FILE *f, json_t *status, const char *lun)
{
    scrub(status);
    if (is(status, "process", "proxy"))
        print_proxy(f, status, lun);
    else
        print_plugin(f, status);
}

/* ---- the judgement ------------------------------------------------------- */

static bool
lun_as_wanted(const json_t *lun)
{
    return is(json_object_get(lun, "verdict"), "state", "good") &&
           !is(json_object_get(lun, "registration"), "state", "fenced");
}

static bool
proxy_as_wanted(const json_t *status, const char *lun)
{
    const json_t *luns = json_object_get(status, "luns");
    bool found = false;
    json_t *one;
    size_t i;

    if (!json_is_false(json_object_get(status, "draining")) ||
        !json_is_array(luns))
        return false;
    json_array_foreach(luns, i, one)
    {
        if (!is_asked_for(one, lun))
            continue;
        found = true;
        if (!is(one, "state", "serving") ||
            !lun_as_wanted(json_object_get(one, "lun_status")))
            return false;
    }
    return found || !lun;
}

bool
ctl_as_wanted(const json_t *status, const char *lun)
{
    if (is(status, "process", "proxy"))
        return proxy_as_wanted(status, lun);
    return is(status, "process", "plugin") &&
           is(json_object_get(status, "route"), "phase", "local") &&
           lun_as_wanted(json_object_get(status, "lun_status"));
}

bool
ctl_serves(const json_t *status, const char *lun, const char *client)
{
    json_t *one;
    size_t i;

    if (!is(status, "process", "proxy"))
        return is_asked_for(status, lun) &&
               (!client || is(status, "client", client));
    if (client)
        return false;
    json_array_foreach(json_object_get(status, "luns"), i, one)
    {
        if (is_asked_for(one, lun))
            return true;
    }
    return !lun;
}
