/* SPDX-License-Identifier: BSD-3-Clause */
/* What is known of a LUN's own paths, as JSON. */
#include "health/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"

static const char *
path_state_name(enum lun_path_state s)
{
    switch (s) {
    case LUN_PATH_GOOD:
        return "good";
    case LUN_PATH_FAILED:
        return "failed";
    case LUN_PATH_UNKNOWN:
        break;
    }
    return "unknown";
}

static const char *
registration_name(enum lun_registration r)
{
    switch (r) {
    case LUN_REGISTERED:
        return "registered";
    case LUN_FENCED:
        return "fenced";
    case LUN_UNREGISTERED:
        break;
    }
    return "unregistered";
}

static json_t *
age_s(uint64_t then_ms, uint64_t now_ms)
{
    if (then_ms == 0)
        return json_null();
    return json_real(then_ms < now_ms ? (double)(now_ms - then_ms) / 1000 : 0);
}

json_t *
report_text(const char *s)
{
    json_t *j = json_string(s);
    char ascii[256];
    size_t i;

    if (j)
        return j;
    for (i = 0; s[i] && i < sizeof ascii - 1; i++)
        ascii[i] = s[i] & 0x80 ? '?' : s[i];
    ascii[i] = '\0';
    return json_string(ascii);
}

static json_t *
text_or_null(const char *s)
{
    return s[0] ? report_text(s) : json_null();
}

static json_t *
report_map(struct lun *l, uint64_t now_ms)
{
    struct lun_map m;

    if (!lun_get_map(l, &m))
        return json_null();
    return json_pack("{s:o, s:o, s:o, s:I, s:o}", "name", text_or_null(m.name),
                     "queueing",
                     m.read_ms ? json_boolean(m.queues) : json_null(), "age_s",
                     age_s(m.read_ms, now_ms), "orders", (json_int_t)m.orders,
                     "multipathd", text_or_null(m.multipathd));
}

static json_t *
report_paths(struct lun *l, uint64_t now_ms)
{
    struct lun_path paths[LUN_PATH_MAX];
    size_t n = lun_get_paths(l, paths, LUN_PATH_MAX);
    json_t *array = json_array();

    /* appending fails for a NULL on either side */
    for (size_t i = 0; i < n && i < LUN_PATH_MAX; i++) {
        const struct lun_path *p = &paths[i];

        if (json_array_append_new(
                array, json_pack("{s:o, s:s, s:o, s:o, s:o}", "name",
                                 report_text(p->name), "state",
                                 path_state_name(p->state), "since_s",
                                 age_s(p->since_ms, now_ms), "error",
                                 text_or_null(p->error), "detail",
                                 text_or_null(p->detail)))) {
            json_decref(array);
            return NULL;
        }
    }
    return array;
}

static json_t *
report_verdict(const struct verdict *v, uint64_t now_ms)
{
    return json_pack("{s:s, s:o, s:o}", "state", verdict_state_name(v->state),
                     "reason", report_text(v->reason), "since_s",
                     age_s(v->since_ms, now_ms));
}

static json_t *
us_or_null(unsigned us)
{
    return us ? json_integer(us) : json_null();
}

static json_t *
report_probe(const struct monitor_status *st, uint64_t now_ms)
{
    return json_pack(
        "{s:o, s:o, s:I, s:o, s:o}", "age_s", age_s(st->probe_ms, now_ms), "us",
        st->probe_ms ? json_integer(st->probe_us) : json_null(), "stuck",
        (json_int_t)st->probes_stuck, "recent_us", us_or_null(st->recent_us),
        "usual_us", us_or_null(st->usual_us));
}

static json_t *
report_registration(const struct lun_status *st)
{
    char key[17];

    snprintf(key, sizeof key, "%016" PRIx64, st->key);
    return json_pack("{s:s, s:o, s:s?}", "state",
                     registration_name(st->registration), "number",
                     st->registration_no
                         ? json_integer((json_int_t)st->registration_no)
                         : json_null(),
                     "key", st->key ? key : NULL);
}

json_t *
report_lun(struct lun *l, const struct monitor_status *st)
{
    const struct lun_status *lun = &st->lun;
    uint64_t now_ms = clock_ms();

    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:I, s:I, s:I}", "id",
        lun->id[0] ? report_text(lun->id) : json_null(), "size",
        lun->known ? json_integer((json_int_t)lun->size) : json_null(),
        "block_size", lun->known ? json_integer(lun->block_size) : json_null(),
        "verdict", report_verdict(&st->verdict, now_ms), "paths",
        report_paths(l, now_ms), "map", report_map(l, now_ms), "probe",
        report_probe(st, now_ms), "registration", report_registration(lun),
        "inflight", (json_int_t)lun->inflight, "orphans",
        (json_int_t)lun->orphans, "orphan_reads",
        (json_int_t)lun->orphan_reads);
}
