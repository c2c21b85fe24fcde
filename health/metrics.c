/* SPDX-License-Identifier: BSD-3-Clause */
/* This host in Prometheus' text format: tables of metrics, each of which looks
 * through the processes for what it tells. */
#include "health/metrics.h"

#include "health/metrics_impl.h"

/* ---- the tables -------------------------------------------------------- */

static void
uptime(const struct sample *o, const json_t *a)
{
    sample_field(o, a, "uptime_s", 1);
}

static void
process_info(const struct sample *o, const json_t *a)
{
    sample_write(o, 1, "version", field_text(a, "version"), NULL);
}

static const struct metric rows[] = {
    {"detour_process_info", "gauge", "Which version a process is of.",
     METRICS_OF_PROCESS, process_info},
    {"detour_process_uptime_seconds", "gauge", "Since the process began.",
     METRICS_OF_PROCESS, uptime},
};

static const struct metrics_table metrics_process = METRICS_TABLE(rows);

static void
from_plugin(struct sample *o, const struct metric *m, const json_t *answer)
{
    o->labels.lun = field_text(answer, "lun");
    o->labels.client = field_text(answer, "client");
    if (m->scope == METRICS_OF_PLUGIN)
        m->write(o, answer);
    else if (m->scope == METRICS_OF_LUN)
        m->write(o, get(answer, "lun_status"));
}

static void
from_proxy(struct sample *o, const struct metric *m, const json_t *answer)
{
    json_t *share;
    size_t i;

    json_array_foreach(get(answer, "luns"), i, share)
    {
        o->labels.lun = field_text(share, "lun");
        if (m->scope == METRICS_OF_SHARE)
            m->write(o, share);
        else if (m->scope == METRICS_OF_LUN)
            m->write(o, get(share, "lun_status"));
    }
}

static void
write_metric(struct sample *o, const struct metric *m, const json_t *processes)
{
    json_t *p;
    size_t i;

    sample_begin(o, m->name, m->type, m->help);
    json_array_foreach(processes, i, p)
    {
        const json_t *answer = get(p, "answer");

        if (!json_is_true(get(p, "answers")))
            continue;
        o->labels = (struct sample_labels){.process = field_text(p, "name")};
        if (m->scope == METRICS_OF_PROCESS)
            m->write(o, answer);
        else if (field_is(answer, "process", "proxy"))
            from_proxy(o, m, answer);
        else
            from_plugin(o, m, answer);
    }
}

/* ---- what is known without their answers ------------------------------- */

static void
write_processes(struct sample *o, const json_t *processes)
{
    json_t *p;
    size_t i;

    sample_begin(o, "detour_process_up", "gauge", "1: the process answers.");
    json_array_foreach(processes, i, p)
    {
        o->labels.process = field_text(p, "name");
        sample_write(o, json_is_true(get(p, "answers")), NULL);
    }
    sample_begin(o, "detour_process_last_answer_age_seconds", "gauge",
                 "Since a process last answered.");
    json_array_foreach(processes, i, p)
    {
        o->labels.process = field_text(p, "name");
        sample_field(o, p, "age_s", 1);
    }
}

static void
write_certificates(struct sample *o, const json_t *certificates)
{
    json_t *c;
    size_t i;

    sample_begin(o, "detour_certificate_not_after_timestamp_seconds", "gauge",
                 "When a certificate ends, or a revocation list.");
    json_array_foreach(certificates, i, c)
    {
        if (json_is_integer(get(c, "not_after")))
            sample_write(o, field_number(c, "not_after", 0), "certificate",
                         field_text(c, "name"), NULL);
    }
}

static void
write_luns(struct sample *o, const json_t *luns)
{
    static const char *const levels[] = {"pass", "warn", "fail", NULL};
    json_t *l;
    size_t i;

    sample_begin(o, "detour_lun_status", "gauge",
                 "1 for the worst of all checks of a LUN on this host.");
    json_array_foreach(luns, i, l)
    {
        o->labels.lun = field_text(l, "lun");
        sample_states(o, "status", levels, field_text(l, "status"));
    }
}

void
metrics_write(FILE *f, const json_t *status)
{
    static const struct metrics_table *const tables[] = {
        &metrics_process, &metrics_plugin, &metrics_lun, &metrics_proxy};
    const json_t *processes = get(status, "processes");
    struct sample o = {.f = f};

    sample_begin(&o, "detour_build_info", "gauge",
                 "The version of what tells all this.");
    sample_write(&o, 1, "version", field_text(status, "version"), "cluster",
                 field_text(status, "cluster"), "host",
                 field_text(status, "host"), NULL);
    sample_begin(&o, "detour_redirect_alarm_seconds", "gauge",
                 "How long a detour may take until it is a failure; 0: ever.");
    sample_field(&o, status, "redirect_alarm_s", 1);
    write_luns(&o, get(status, "luns"));
    write_processes(&o, processes);
    write_certificates(&o, get(status, "certificates"));
    for (size_t i = 0; i < sizeof tables / sizeof tables[0]; i++)
        for (size_t k = 0; k < tables[i]->n; k++)
            write_metric(&o, &tables[i]->rows[k], processes);
}
