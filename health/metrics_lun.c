/* SPDX-License-Identifier: BSD-3-Clause */
/* What plugin and proxy tell of a LUN's own paths. */
#include "health/metrics_impl.h"

static void
verdict(const struct sample *o, const json_t *lun)
{
    static const char *const states[] = {"good", "degraded", "slow",
                                         "lost", "unknown",  NULL};

    sample_states(o, "state", states, field_text(get(lun, "verdict"), "state"));
}

static void
paths_known(const struct sample *o, const json_t *lun)
{
    if (json_is_array(get(lun, "paths")))
        sample_write(o, (double)json_array_size(get(lun, "paths")), NULL);
}

static void
paths_good(const struct sample *o, const json_t *lun)
{
    size_t i, n = 0;
    json_t *p;

    json_array_foreach(get(lun, "paths"), i, p)
    {
        n += field_is(p, "state", "good");
    }
    if (json_is_array(get(lun, "paths")))
        sample_write(o, (double)n, NULL);
}

static void
map_queues(const struct sample *o, const json_t *lun)
{
    const json_t *queueing = get(get(lun, "map"), "queueing");

    if (json_is_boolean(queueing))
        sample_write(o, json_is_true(queueing), NULL);
}

static void
probe_age(const struct sample *o, const json_t *lun)
{
    sample_field(o, get(lun, "probe"), "age_s", 1);
}

static void
probe_duration(const struct sample *o, const json_t *lun)
{
    sample_field(o, get(lun, "probe"), "us", 1e-6);
}

static void
probe_recent(const struct sample *o, const json_t *lun)
{
    sample_field(o, get(lun, "probe"), "recent_us", 1e-6);
}

static void
probe_usual(const struct sample *o, const json_t *lun)
{
    sample_field(o, get(lun, "probe"), "usual_us", 1e-6);
}

static void
probes_stuck(const struct sample *o, const json_t *lun)
{
    sample_field(o, get(lun, "probe"), "stuck", 1);
}

static void
registered(const struct sample *o, const json_t *lun)
{
    static const char *const states[] = {"registered", "fenced", "unregistered",
                                         NULL};

    sample_states(o, "state", states,
                  field_text(get(lun, "registration"), "state"));
}

static void
orphans(const struct sample *o, const json_t *lun)
{
    if (field_has(lun, "orphans"))
        sample_write(o, field_number(lun, "orphans", 0), "operation", "write",
                     NULL);
    if (field_has(lun, "orphan_reads"))
        sample_write(o, field_number(lun, "orphan_reads", 0), "operation",
                     "read", NULL);
}

static void
device_inflight(const struct sample *o, const json_t *lun)
{
    sample_field(o, lun, "inflight", 1);
}

static void
lun_size(const struct sample *o, const json_t *lun)
{
    sample_field(o, lun, "size", 1);
}

static const struct metric rows[] = {
    {"detour_lun_verdict", "gauge", "1 for the verdict on the own paths.",
     METRICS_OF_LUN, verdict},
    {"detour_paths_known", "gauge", "Own paths, working or not.",
     METRICS_OF_LUN, paths_known},
    {"detour_paths_good", "gauge", "Own paths that work.", METRICS_OF_LUN,
     paths_good},
    {"detour_map_queues", "gauge",
     "1: the multipath map queues I/O while it has no path.", METRICS_OF_LUN,
     map_queues},
    {"detour_probe_age_seconds", "gauge", "Since a probe was answered.",
     METRICS_OF_LUN, probe_age},
    {"detour_probe_duration_seconds", "gauge", "How long the last probe took.",
     METRICS_OF_LUN, probe_duration},
    {"detour_probe_recent_seconds", "gauge",
     "Median of the probes of the last seconds.", METRICS_OF_LUN, probe_recent},
    {"detour_probe_usual_seconds", "gauge",
     "Median of the hour before, with which they are compared.", METRICS_OF_LUN,
     probe_usual},
    {"detour_probes_stuck", "gauge", "Probes that are overdue.", METRICS_OF_LUN,
     probes_stuck},
    {"detour_registration_state", "gauge",
     "1 for the state of our reservation key.", METRICS_OF_LUN, registered},
    {"detour_orphan_requests", "gauge",
     "Requests given up that are not proven finished.", METRICS_OF_LUN,
     orphans},
    {"detour_device_inflight_requests", "gauge", "Requests at the device.",
     METRICS_OF_LUN, device_inflight},
    {"detour_lun_size_bytes", "gauge", "Size of the LUN.", METRICS_OF_LUN,
     lun_size},
};

const struct metrics_table metrics_lun = METRICS_TABLE(rows);
