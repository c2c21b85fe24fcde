/* SPDX-License-Identifier: BSD-3-Clause */
/* What is known and what is thought of it, as JSON. */
#include "health/documents.h"

#include <stdio.h>
#include <string.h>

#include "health/fields.h"

static json_t *
age_s(uint64_t then_ms, const struct moment *now)
{
    if (then_ms == 0)
        return json_null();
    return json_real(then_ms < now->ms ? (double)(now->ms - then_ms) / 1000
                                       : 0);
}

/* RFC 3339, in UTC. */
static json_t *
time_text(time_t t)
{
    char text[32];
    struct tm tm;

    if (!gmtime_r(&t, &tm))
        return json_null();
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return json_string(text);
}

/* All of them must be there; takes its elements. */
static json_t *
append(json_t *array, json_t *element)
{
    if (json_array_append_new(array, element) == 0)
        return array;
    json_decref(array);
    return NULL;
}

/* ---- /status ----------------------------------------------------------- */

static json_t *
processes(const struct picture *p, const struct moment *now)
{
    json_t *a = json_array();

    for (size_t i = 0; a && i < p->nprocesses; i++) {
        const struct picture_source *s = &p->processes[i];
        bool silent = picture_silent(s, PICTURE_SILENT_MS, now->ms);

        a = append(a, json_pack("{s:s, s:b, s:o, s:o, s:o, s:s?, s:s?, s:O?}",
                                "name", s->name, "answers", (int)!silent,
                                "age_s", age_s(s->answered_ms, now), "asked_s",
                                age_s(s->asked_ms, now), "known_s",
                                age_s(s->since_ms, now), "error",
                                s->error[0] ? s->error : NULL, "lun",
                                judge_lun_of(p, s), "answer", s->answer));
    }
    return a;
}

static json_t *
certificates(const struct picture *p)
{
    json_t *a = json_array();

    for (size_t i = 0; a && i < p->ncerts; i++) {
        const struct cert *c = &p->certs[i];

        a = append(
            a, json_pack("{s:s, s:s, s:o, s:s?}", "name", c->name, "path",
                         c->path, "not_after",
                         c->error[0] ? json_null() : json_integer(c->not_after),
                         "error", c->error[0] ? c->error : NULL));
    }
    return a;
}

json_t *
documents_status(const struct picture *p, const struct moment *now)
{
    json_t *checks = judge(p, now);
    json_t *luns = checks ? judge_luns(p, checks, now) : NULL;

    if (!luns) {
        json_decref(checks);
        return NULL;
    }
    return json_pack(
        "{s:s, s:s, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:f}", "cluster",
        p->config->cluster_name, "host", p->config->self->name, "version",
        DETOUR_VERSION, "time", time_text(now->wall), "status",
        level_name(judge_worst(checks, NULL)), "luns", luns, "checks", checks,
        "processes", processes(p, now), "certificates", certificates(p),
        "redirect_alarm_s", p->config->health.redirect_alarm / 1000.0);
}

/* ---- /health ----------------------------------------------------------- */

/* "Component: what is measured", as the draft names them. */
static void
check_key(const json_t *check, char *key, size_t len)
{
    const char *lun = field_text(check, "lun");

    if (field_is(check, "aspect", "certificate"))
        field_print(key, len, "certificate:days_left");
    else
        field_print(key, len, "%s:%s", *lun ? lun : field_text(check, "source"),
                    field_text(check, "aspect"));
}

static json_t *
health_check(const json_t *check, const struct moment *now)
{
    double age = field_number(check, "age_s", 0);
    bool pass = field_is(check, "status", "pass");
    const json_t *reason = json_object_get(check, "reason");

    /* the draft wants no output of what is well; why it is so is ours */
    return json_pack(
        "{s:O?, s:s, s:O?, s:O?, s:O?, s:o, s:O*, s:O?, s:O?}", "componentId",
        json_object_get(check, "source"), "componentType",
        field_has(check, "lun") ? "datastore" : "component", "observedValue",
        json_object_get(check, "value"), "observedUnit",
        json_object_get(check, "unit"), "status",
        json_object_get(check, "status"), "time",
        time_text(now->wall - (time_t)age), "output", pass ? NULL : reason,
        "reason", reason, "since_s", json_object_get(check, "since_s"));
}

/* The worst check in words. */
static json_t *
output_of(const json_t *checks, const char *status)
{
    char text[700], key[160];
    json_t *c;
    size_t i;

    json_array_foreach(checks, i, c)
    {
        if (!field_is(c, "status", status))
            continue;
        check_key(c, key, sizeof key);
        field_print(text, sizeof text, "%s: %s", key, field_text(c, "reason"));
        return json_string(text);
    }
    return json_string("");
}

static int
add_check(json_t *grouped, const json_t *check, const struct moment *now)
{
    char key[160];
    json_t *list;

    check_key(check, key, sizeof key);
    list = json_object_get(grouped, key);
    if (!list) {
        list = json_array();
        if (json_object_set_new(grouped, key, list) < 0)
            return -1;
    }
    return json_array_append_new(list, health_check(check, now));
}

json_t *
documents_health(const json_t *status, const struct moment *now)
{
    const json_t *checks = json_object_get(status, "checks");
    const char *word = field_text(status, "status");
    json_t *grouped = json_object(), *check;
    char service[256];
    size_t i;

    json_array_foreach(checks, i, check)
    {
        if (add_check(grouped, check, now) < 0) {
            json_decref(grouped);
            return NULL;
        }
    }
    snprintf(service, sizeof service, "detour:%s:%s",
             field_text(status, "cluster"), field_text(status, "host"));
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o*, s:o}", "status", word,
                     "version", "1", "releaseId", DETOUR_VERSION, "serviceId",
                     service, "description",
                     "storage paths of a host's virtual machines", "output",
                     strcmp(word, "pass") ? output_of(checks, word) : NULL,
                     "checks", grouped);
}

unsigned
documents_http_status(const json_t *health)
{
    return field_is(health, "status", "pass") ||
                   field_is(health, "status", "warn")
               ? 200
               : 503;
}

/* ---- /cluster ---------------------------------------------------------- */

static json_t *
unknown_cell(const char *reason)
{
    return json_pack("{s:s, s:s, s:s, s:n, s:n}", "state", "unknown", "status",
                     "fail", "reason", reason, "since_s", "peer");
}

/* What a host says of one LUN. */
static json_t *
cell(const json_t *answer, const char *lun)
{
    json_t *l;
    size_t i;

    json_array_foreach(json_object_get(answer, "luns"), i, l)
    {
        if (field_is(l, "lun", lun) && *field_text(l, "state"))
            return json_pack("{s:O, s:s, s:O?, s:O?, s:O?}", "state",
                             json_object_get(l, "state"), "status",
                             field_text(l, "status"), "reason",
                             json_object_get(l, "reason"), "since_s",
                             json_object_get(l, "since_s"), "peer",
                             json_object_get(l, "peer"));
    }
    return unknown_cell("the host says nothing of it");
}

static json_t *
host_cell(const struct picture *p, const json_t *status, const char *host,
          const char *lun, const struct moment *now)
{
    if (strcmp(host, p->config->self->name) == 0)
        return cell(status, lun);
    for (size_t i = 0; i < p->nhosts; i++) {
        const struct picture_source *s = &p->hosts[i];

        if (strcmp(s->name, host) != 0)
            continue;
        if (picture_silent(s, PICTURE_HOST_SILENT_MS, now->ms))
            return unknown_cell(s->error[0] ? s->error : "its word is old");
        return cell(s->answer, lun);
    }
    return unknown_cell("not in the configuration");
}

static json_t *
matrix_row(const struct picture *p, const struct config_lun *l,
           const json_t *status, const struct moment *now)
{
    json_t *cells = json_object();

    for (size_t i = 0; cells && i < l->nhosts; i++) {
        const char *host = l->hosts[i]->name;

        if (json_object_set_new(cells, host,
                                host_cell(p, status, host, l->name, now)) < 0) {
            json_decref(cells);
            cells = NULL;
        }
    }
    return json_pack("{s:s, s:o}", "lun", l->name, "hosts", cells);
}

static json_t *
matrix(const struct picture *p, const json_t *status, const struct moment *now)
{
    json_t *rows = json_array();

    for (size_t i = 0; rows && i < p->config->nluns; i++)
        rows = append(rows, matrix_row(p, &p->config->luns[i], status, now));
    return rows;
}

static json_t *
member(const struct picture_source *s, const struct moment *now)
{
    bool silent = picture_silent(s, PICTURE_HOST_SILENT_MS, now->ms);
    const char *said = field_text(s->answer, "status");

    return json_pack("{s:s, s:b, s:o, s:s?, s:s, s:O?}", "host", s->name,
                     "answers", (int)!silent, "age_s",
                     age_s(s->answered_ms, now), "error",
                     s->error[0] ? s->error : NULL, "status",
                     silent || !*said ? "unknown" : said, "answer", s->answer);
}

static json_t *
own_member(const struct picture *p, const json_t *status)
{
    return json_pack("{s:s, s:b, s:f, s:n, s:s, s:O}", "host",
                     p->config->self->name, "answers", 1, "age_s", 0.0, "error",
                     "status", field_text(status, "status"), "answer", status);
}

/* In the order of the configuration, the same on every host. */
static json_t *
members(const struct picture *p, const json_t *status, const struct moment *now)
{
    const struct config *c = p->config;
    json_t *a = json_array();
    size_t next = 0;

    for (size_t i = 0; a && i < c->nhosts; i++)
        a = append(a, &c->hosts[i] == c->self ? own_member(p, status)
                                              : member(&p->hosts[next++], now));
    return a;
}

json_t *
documents_cluster(const struct picture *p, const json_t *status,
                  const struct moment *now)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:o}", "cluster",
                     p->config->cluster_name, "host", p->config->self->name,
                     "time", time_text(now->wall), "hosts",
                     members(p, status, now), "luns", matrix(p, status, now));
}

json_t *
documents_history(const struct picture *p, const struct moment *now)
{
    json_t *all = json_object();

    for (size_t i = 0; i < p->nprocesses; i++) {
        const struct picture_source *s = &p->processes[i];

        if (json_object_set_new(
                all, s->name,
                json_pack("{s:o, s:o}", "stall_ms",
                          history_json(&s->stall_ms, now->ms), "probe_us",
                          history_json(&s->probe_us, now->ms))) < 0) {
            json_decref(all);
            return NULL;
        }
    }
    return all;
}
