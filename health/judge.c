/* SPDX-License-Identifier: BSD-3-Clause */
/* What is wrong on this host: each fact against what it should be. */
#include "health/judge.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "health/fields.h"

/* Where checks are being written to. */
struct bench {
    const struct picture *p;
    const struct moment *now;
    json_t *checks;
    bool failed; /* there was no memory */

    /* of the process that is looked at */
    const char *source;
    double age_s;
};

struct check {
    const char *lun, *aspect;
    enum level level;
    json_t *value; /* taken; NULL: none */
    const char *unit, *reason;
    double since_s; /* < 0: not known */
};

const char *
level_name(enum level l)
{
    static const char *const names[] = {"pass", "warn", "fail"};

    return names[l];
}

static enum level
worse(enum level a, enum level b)
{
    return a > b ? a : b;
}

static json_t *
number_or_null(double v)
{
    return v < 0 ? json_null() : json_real(v);
}

static void
add(struct bench *b, const struct check *c)
{
    const char *reason = c->reason && *c->reason ? c->reason : NULL;
    json_t *o = json_pack(
        "{s:s?, s:s, s:s, s:s, s:o, s:s?, s:s?, s:o, s:o}", "lun", c->lun,
        "source", b->source, "aspect", c->aspect, "status",
        level_name(c->level), "value", c->value ? c->value : json_null(),
        "unit", c->unit, "reason", reason, "since_s",
        number_or_null(c->since_s), "age_s", number_or_null(b->age_s));

    if (!o || json_array_append_new(b->checks, o) < 0)
        b->failed = true;
}

static json_t *
field_value(const json_t *o, const char *key)
{
    return json_incref(json_object_get(o, key));
}

/* ---- what plugin and proxy have in common ------------------------------ */

static size_t
count_paths(const json_t *paths, const char *state)
{
    size_t i, n = 0;
    json_t *path;

    json_array_foreach(paths, i, path)
    {
        if (field_is(path, "state", state))
            n++;
    }
    return n;
}

static void
check_paths(struct bench *b, const char *lun, const json_t *status)
{
    const json_t *verdict = json_object_get(status, "verdict");
    const json_t *paths = json_object_get(status, "paths");
    struct check c = {
        .lun = lun,
        .aspect = "paths",
        .level = field_is(verdict, "state", "good") ? LEVEL_PASS : LEVEL_WARN,
        .unit = "good paths",
        .reason = field_text(verdict, "reason"),
        .since_s = field_number(verdict, "since_s", -1),
    };

    if (json_is_array(paths))
        c.value = json_integer((json_int_t)count_paths(paths, "good"));
    add(b, &c);
}

/* Nothing is said of what is no map, or could not be read. */
static void
check_queueing(struct bench *b, const char *lun, const json_t *status)
{
    const json_t *map = json_object_get(status, "map");
    struct check c = {
        .lun = lun,
        .aspect = "queueing",
        .value = field_value(map, "queueing"),
        .since_s = -1,
    };

    if (!json_is_boolean(c.value)) {
        json_decref(c.value);
        return;
    }
    if (json_is_true(c.value)) {
        c.level = LEVEL_WARN;
        c.reason = "the multipath map queues I/O while it has no path: set "
                   "no_path_retry fail";
    }
    add(b, &c);
}

static void
check_probe(struct bench *b, const char *lun, const json_t *status)
{
    const json_t *probe = json_object_get(status, "probe");
    double age = field_number(probe, "age_s", -1);
    double stuck = field_number(probe, "stuck", 0);
    struct check c = {
        .lun = lun,
        .aspect = "probe",
        .value = field_value(probe, "us"),
        .unit = "us",
        .since_s = age,
    };

    if (age < 0 || age > JUDGE_PROBE_WARN_S) {
        c.level = LEVEL_WARN;
        c.reason = "no probe was answered lately";
    } else if (stuck > 0) {
        c.level = LEVEL_WARN;
        c.reason = "a probe is overdue";
    }
    add(b, &c);
}

/* Without reservations, or on a LUN that is only read, no key is missed. */
static bool
needs_key(const struct picture *p, const char *lun)
{
    const struct config_lun *l = config_lun(p->config, lun);

    return !l || (l->fence == CONFIG_FENCE_PR && !l->readonly);
}

static void
check_registration(struct bench *b, const char *lun, const json_t *status)
{
    const json_t *r = json_object_get(status, "registration");
    struct check c = {
        .lun = lun,
        .aspect = "registration",
        .value = field_value(r, "state"),
        .since_s = -1,
    };

    if (field_is(r, "state", "fenced")) {
        c.level = LEVEL_WARN;
        c.reason = "this host was fenced and recovers";
    } else if (!field_is(r, "state", "registered") && needs_key(b->p, lun)) {
        c.level = LEVEL_WARN;
        c.reason = "our key is not on the LUN";
    }
    add(b, &c);
}

static void
check_orphans(struct bench *b, const char *lun, const json_t *status)
{
    struct check c = {
        .lun = lun,
        .aspect = "orphans",
        .value = field_value(status, "orphans"),
        .unit = "requests",
        .since_s = -1,
    };

    if (field_number(status, "orphans", 0) > 0) {
        c.level = LEVEL_WARN;
        c.reason = "writes were given up that may still take effect";
    }
    add(b, &c);
}

static void
check_lun_status(struct bench *b, const char *lun, const json_t *status)
{
    check_paths(b, lun, status);
    check_queueing(b, lun, status);
    check_probe(b, lun, status);
    check_registration(b, lun, status);
    check_orphans(b, lun, status);
}

/* ---- a plugin ---------------------------------------------------------- */

static enum level
judge_route(const struct bench *b, const json_t *route)
{
    double alarm_s = b->p->config->health.redirect_alarm / 1000.0;
    double since_s = field_number(route, "since_s", 0);

    if (field_is(route, "phase", "local"))
        return LEVEL_PASS;
    if (field_is(route, "phase", "redirected"))
        return alarm_s > 0 && since_s > alarm_s ? LEVEL_FAIL : LEVEL_WARN;
    if (field_is(route, "phase", "opening") ||
        field_is(route, "phase", "returning"))
        return LEVEL_WARN;
    return LEVEL_FAIL; /* queueing, and what we do not understand */
}

static void
check_route(struct bench *b, const char *lun, const json_t *route)
{
    const char *peer = field_text(route, "peer");
    const char *reason = field_text(route, "reason");
    char text[512], how[80] = "";
    struct check c = {
        .lun = lun,
        .aspect = "route",
        .level = judge_route(b, route),
        .value = field_value(route, "phase"),
        .reason = text,
        .since_s = field_number(route, "since_s", -1),
    };

    if (!*field_text(route, "phase"))
        reason = "it does not tell its route";
    if (json_is_true(json_object_get(route, "manual")))
        field_print(how, sizeof how, ", by hand");
    else if (json_is_true(json_object_get(route, "latched")))
        field_print(how, sizeof how,
                    ", stays until return after %.0f switches in an hour",
                    field_number(route, "hour_switches", 0));
    if (*peer)
        field_print(text, sizeof text, "through %s%s: %s", peer, how, reason);
    else
        field_print(text, sizeof text, "%s", reason);
    add(b, &c);
}

static void
check_queue(struct bench *b, const char *lun, const json_t *q)
{
    double held_ms = field_number(q, "oldest_held_ms", 0);
    double inflight_ms = field_number(q, "oldest_inflight_ms", 0);
    struct check c = {
        .lun = lun,
        .aspect = "queue",
        .value = field_value(q, "held"),
        .unit = "requests",
        .since_s = held_ms > 0 ? held_ms / 1000 : -1,
    };

    if (held_ms >= JUDGE_HELD_WARN_MS) {
        c.level = held_ms >= JUDGE_HELD_FAIL_MS ? LEVEL_FAIL : LEVEL_WARN;
        c.reason = "VMs wait for a route";
    } else if (inflight_ms >= JUDGE_SLOW_WARN_MS) {
        c.level = LEVEL_WARN;
        c.reason = "a request is not answered";
        c.since_s = inflight_ms / 1000;
    }
    add(b, &c);
}

static void
check_peers(struct bench *b, const char *lun, const json_t *peers)
{
    size_t i, ready = 0;
    json_t *peer;
    struct check c = {.lun = lun,
                      .aspect = "peers",
                      .unit = "ready peers",
                      .reason = "no other host could serve it",
                      .since_s = -1};

    if (json_array_size(peers) == 0)
        return; /* it has no other host */
    json_array_foreach(peers, i, peer)
    {
        if (field_is(peer, "state", "ready"))
            ready++;
    }
    if (ready > 0)
        c.reason = NULL;
    else
        c.level = LEVEL_WARN;
    c.value = json_integer((json_int_t)ready);
    add(b, &c);
}

static void
check_plugin(struct bench *b, const json_t *answer)
{
    const char *lun = field_text(answer, "lun");

    check_route(b, lun, json_object_get(answer, "route"));
    check_queue(b, lun, json_object_get(answer, "queue"));
    check_lun_status(b, lun, json_object_get(answer, "lun_status"));
    check_peers(b, lun, json_object_get(answer, "peers"));
}

/* ---- the proxy --------------------------------------------------------- */

static void
check_proxy(struct bench *b, const json_t *answer)
{
    json_t *one;
    size_t i;

    json_array_foreach(json_object_get(answer, "luns"), i, one)
    {
        const char *lun = field_text(one, "lun");
        bool serving = field_is(one, "state", "serving");
        struct check c = {
            .lun = lun,
            .aspect = "proxy",
            .level = serving ? LEVEL_PASS : LEVEL_WARN,
            .value = field_value(one, "state"),
            .reason = field_text(one, "reason"),
            .since_s = field_number(one, "since_s", -1),
        };

        add(b, &c);
        check_lun_status(b, lun, json_object_get(one, "lun_status"));
    }
}

/* ---- processes and files ----------------------------------------------- */

static bool
is_proxy(const struct picture_source *s)
{
    return strcmp(s->name, "proxy") == 0;
}

const char *
judge_lun_of(const struct picture *p, const struct picture_source *s)
{
    const char *best = NULL, *said = field_text(s->answer, "lun");

    if (is_proxy(s))
        return NULL;
    if (*said)
        return said;
    /* plugin-LUN-CLIENT, and both may hold a '-': the longest that fits */
    if (strncmp(s->name, "plugin-", 7) != 0)
        return NULL;
    for (size_t i = 0; i < p->config->nluns; i++) {
        const char *name = p->config->luns[i].name;
        size_t len = strlen(name);

        if (strncmp(s->name + 7, name, len) == 0 && s->name[7 + len] == '-' &&
            (!best || len > strlen(best)))
            best = name;
    }
    return best;
}

static double
age_s(uint64_t then_ms, uint64_t now_ms)
{
    if (then_ms == 0)
        return -1;
    return then_ms < now_ms ? (double)(now_ms - then_ms) / 1000 : 0;
}

static void
check_process(struct bench *b, const struct picture_source *s)
{
    bool silent = picture_silent(s, PICTURE_SILENT_MS, b->now->ms);
    double heard_s = age_s(s->answered_ms, b->now->ms);
    char text[400];
    struct check c = {
        .lun = judge_lun_of(b->p, s),
        .aspect = "process",
        .level = silent ? LEVEL_FAIL : LEVEL_PASS,
        .value = json_string(silent ? "silent" : "answers"),
        .since_s = -1,
    };

    b->source = s->name;
    b->age_s = heard_s;
    if (silent) {
        const char *why = s->error[0] ? s->error : "was not asked";

        if (heard_s < 0)
            field_print(text, sizeof text, "never answered: %s", why);
        else
            field_print(text, sizeof text, "last answer %.1f s ago: %s",
                        heard_s, why);
        c.reason = text;
        c.since_s = heard_s;
    }
    add(b, &c);
    if (silent)
        return;
    if (is_proxy(s))
        check_proxy(b, s->answer);
    else
        check_plugin(b, s->answer);
}

/* Every host serves its peers. */
static void
check_proxy_runs(struct bench *b)
{
    const struct check c = {
        .aspect = "process",
        .level = LEVEL_WARN,
        .value = json_string("absent"),
        .reason = "it does not run: this host serves no peer",
        .since_s = -1,
    };

    for (size_t i = 0; i < b->p->nprocesses; i++) {
        if (is_proxy(&b->p->processes[i])) {
            json_decref(c.value);
            return;
        }
    }
    b->source = "proxy";
    b->age_s = -1;
    add(b, &c);
}

/* Without a look at their folder nobody knows which processes there are. */
static void
check_sockets(struct bench *b)
{
    const struct picture *p = b->p;
    char text[400];
    struct check c = {
        .aspect = "sockets",
        .value = json_integer((json_int_t)p->nprocesses),
        .unit = "processes",
        .since_s = -1,
    };

    b->source = "detour-health";
    b->age_s = age_s(p->looked_ms, b->now->ms);
    if (p->error[0] || p->looked_ms + PICTURE_SILENT_MS < b->now->ms) {
        c.level = LEVEL_FAIL;
        field_print(text, sizeof text, "%s: %s", p->config->rundir,
                    p->error[0] ? p->error : "was not looked at lately");
        c.reason = text;
    }
    add(b, &c);
}

static void
check_cert(struct bench *b, const struct cert *cert)
{
    double days = difftime(cert->not_after, b->now->wall) / 86400;
    struct check c = {
        .aspect = "certificate",
        .unit = "days left",
        .since_s = -1,
    };

    b->source = cert->name;
    b->age_s = -1;
    if (cert->error[0]) {
        c.level = LEVEL_WARN;
        c.reason = cert->error;
    } else {
        c.value = json_real(days);
    }
    if (!cert->error[0] && days <= 0) {
        c.level = LEVEL_FAIL;
        c.reason = "has ended: peers are refused";
    } else if (!cert->error[0] && days < JUDGE_CERT_WARN_DAYS) {
        c.level = LEVEL_WARN;
        c.reason = "ends soon";
    }
    add(b, &c);
}

json_t *
judge(const struct picture *p, const struct moment *now)
{
    struct bench b = {.p = p, .now = now, .checks = json_array()};

    check_sockets(&b);
    for (size_t i = 0; i < p->nprocesses; i++)
        check_process(&b, &p->processes[i]);
    check_proxy_runs(&b);
    for (size_t i = 0; i < p->ncerts; i++)
        check_cert(&b, &p->certs[i]);
    if (b.failed) {
        json_decref(b.checks);
        return NULL;
    }
    return b.checks;
}

/* ---- LUNs -------------------------------------------------------------- */

static enum level
level_of(const json_t *check)
{
    if (field_is(check, "status", "pass"))
        return LEVEL_PASS;
    return field_is(check, "status", "warn") ? LEVEL_WARN : LEVEL_FAIL;
}

enum level
judge_worst(const json_t *checks, const char *lun)
{
    enum level worst = LEVEL_PASS;
    json_t *c;
    size_t i;

    json_array_foreach(checks, i, c)
    {
        if (!lun || field_is(c, "lun", lun))
            worst = worse(worst, level_of(c));
    }
    return worst;
}

/* The worst off of those checks, all of one LUN, that tell a state. */
static const json_t *
find_state(const json_t *checks)
{
    static const char *const aspects[] = {"route", "process", "proxy"};
    const json_t *best = NULL;
    json_t *c;
    size_t i;

    for (size_t k = 0; k < 3; k++) {
        json_array_foreach(checks, i, c)
        {
            if (!field_is(c, "aspect", aspects[k]) ||
                field_is(c, "value", "answers"))
                continue;
            /* a proxy says nothing of where the VMs' I/O goes */
            if (!best || (k < 2 && level_of(c) > level_of(best)))
                best = c;
        }
    }
    return best;
}

static const struct picture_source *
find_source(const struct picture *p, const char *name)
{
    for (size_t i = 0; i < p->nprocesses; i++)
        if (strcmp(p->processes[i].name, name) == 0)
            return &p->processes[i];
    return NULL;
}

/* With no plugin to tell, all there is to know is the proxy's: nothing, when
 * it is silent. */
static bool
proxy_is_silent(const struct picture *p, const struct moment *now)
{
    const struct picture_source *s = find_source(p, "proxy");

    return s && picture_silent(s, PICTURE_SILENT_MS, now->ms);
}

/* checks: of lun only; NULL: there are none */
static json_t *
summary(const struct picture *p, const json_t *checks, const char *lun,
        const struct moment *now)
{
    const json_t *c = find_state(checks);
    const char *state = field_text(c, "value");
    enum level level = judge_worst(checks, NULL);
    const struct picture_source *s = NULL;
    const char *peer = NULL;

    if (c)
        s = find_source(p, field_text(c, "source"));
    if (s && field_is(c, "aspect", "route"))
        peer = field_text(json_object_get(s->answer, "route"), "peer");
    if (strcmp(state, "silent") == 0)
        state = "unknown";
    else if (!c)
        state = proxy_is_silent(p, now) ? "unknown" : "off";
    if (!c && strcmp(state, "unknown") == 0)
        level = LEVEL_FAIL;
    return json_pack("{s:s, s:s, s:s, s:O?, s:O?, s:s?, s:O?}", "lun", lun,
                     "status", level_name(level), "state", state, "reason",
                     json_object_get(c, "reason"), "since_s",
                     json_object_get(c, "since_s"), "peer",
                     peer && *peer ? peer : NULL, "source",
                     json_object_get(c, "source"));
}

/* The checks of each LUN, by its name: to look through all of them for each LUN
 * takes long where there are many.  NULL without memory. */
static json_t *
by_lun(const json_t *checks)
{
    json_t *all = json_object(), *list, *c;
    size_t i;

    json_array_foreach(checks, i, c)
    {
        const char *lun = field_text(c, "lun");

        if (!*lun)
            continue;
        list = json_object_get(all, lun);
        if (!list) {
            list = json_array();
            if (json_object_set_new(all, lun, list) < 0)
                goto failed;
        }
        if (json_array_append(list, c) < 0)
            goto failed;
    }
    return all;

failed:
    json_decref(all);
    return NULL;
}

static bool
is_ours(const struct config *c, const char *lun)
{
    const struct config_lun *l = config_lun(c, lun);

    return l && config_lun_has(l, c->self);
}

json_t *
judge_luns(const struct picture *p, const json_t *checks,
           const struct moment *now)
{
    const struct config *c = p->config;
    json_t *luns = json_array(), *of = by_lun(checks), *its;
    const char *name;

    if (!of)
        goto failed;
    for (size_t i = 0; i < c->nluns; i++) {
        name = c->luns[i].name;
        if (is_ours(c, name) &&
            json_array_append_new(
                luns, summary(p, json_object_get(of, name), name, now)) < 0)
            goto failed;
    }
    json_object_foreach(of, name, its)
    {
        if (!is_ours(c, name) &&
            json_array_append_new(luns, summary(p, its, name, now)) < 0)
            goto failed;
    }
    json_decref(of);
    return luns;

failed:
    json_decref(of);
    json_decref(luns);
    return NULL;
}
