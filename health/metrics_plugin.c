/* SPDX-License-Identifier: BSD-3-Clause */
/* What a plugin tells: its route, its requests, its peers. */
#include "health/metrics_impl.h"

static void
route_state(const struct sample *o, const json_t *a)
{
    static const char *const phases[] = {"local",     "opening",  "redirected",
                                         "returning", "queueing", NULL};

    sample_states(o, "state", phases, field_text(get(a, "route"), "phase"));
}

static void
route_age(const struct sample *o, const json_t *a)
{
    sample_field(o, get(a, "route"), "since_s", 1);
}

static void
route_manual(const struct sample *o, const json_t *a)
{
    sample_write(o, json_is_true(get(get(a, "route"), "manual")), NULL);
}

static void
route_latched(const struct sample *o, const json_t *a)
{
    if (json_is_boolean(get(get(a, "route"), "latched")))
        sample_write(o, json_is_true(get(get(a, "route"), "latched")), NULL);
}

static void
hour_switches(const struct sample *o, const json_t *a)
{
    sample_field(o, get(a, "route"), "hour_switches", 1);
}

static void
route_changes(const struct sample *o, const json_t *a)
{
    json_t *e;
    size_t i;

    json_array_foreach(get(get(a, "route"), "entered"), i, e)
    {
        sample_write(o, field_number(e, "count", 0), "state",
                     field_text(e, "phase"), "cause", field_text(e, "cause"),
                     NULL);
    }
}

static void
redirected(const struct sample *o, const json_t *a)
{
    sample_field(o, get(a, "route"), "redirected_s", 1);
}

static void
queue_held(const struct sample *o, const json_t *a)
{
    sample_field(o, get(a, "queue"), "held", 1);
}

static void
queue_oldest(const struct sample *o, const json_t *a)
{
    sample_field(o, get(a, "queue"), "oldest_held_ms", 1e-3);
}

static void
inflight(const struct sample *o, const json_t *a)
{
    sample_field(o, get(a, "queue"), "inflight", 1);
}

static void
inflight_oldest(const struct sample *o, const json_t *a)
{
    sample_field(o, get(a, "queue"), "oldest_inflight_ms", 1e-3);
}

static void
longest_stall(const struct sample *o, const json_t *a)
{
    sample_field(o, get(a, "queue"), "longest_stall_ms", 1e-3);
}

static void
answered(const struct sample *o, const json_t *a)
{
    sample_field(o, get(a, "queue"), "answered", 1);
}

static void
histogram(struct sample o, const json_t *h)
{
    const char *route = field_text(h, "route");
    const char *operation = field_text(h, "operation");
    json_t *b;
    size_t i;

    o.suffix = "_bucket";
    json_array_foreach(get(h, "buckets"), i, b)
    {
        char le[32];

        snprintf(le, sizeof le, "%.9g",
                 json_number_value(json_array_get(b, 0)) * 1e-6);
        sample_write(&o, json_number_value(json_array_get(b, 1)), "route",
                     route, "operation", operation, "le", le, NULL);
    }
    sample_write(&o, field_number(h, "count", 0), "route", route, "operation",
                 operation, "le", "+Inf", NULL);
    o.suffix = "_sum";
    sample_write(&o, field_number(h, "sum_us", 0) * 1e-6, "route", route,
                 "operation", operation, NULL);
    o.suffix = "_count";
    sample_write(&o, field_number(h, "count", 0), "route", route, "operation",
                 operation, NULL);
}

static void
latency(const struct sample *o, const json_t *a)
{
    json_t *h;
    size_t i;

    json_array_foreach(get(a, "latency"), i, h)
    {
        histogram(*o, h);
    }
}

static void
request_bytes(const struct sample *o, const json_t *a)
{
    json_t *h;
    size_t i;

    json_array_foreach(get(a, "latency"), i, h)
    {
        sample_write(o, field_number(h, "bytes", 0), "route",
                     field_text(h, "route"), "operation",
                     field_text(h, "operation"), NULL);
    }
}

static void
peer_ready(const struct sample *o, const json_t *a)
{
    json_t *p;
    size_t i;

    json_array_foreach(get(a, "peers"), i, p)
    {
        sample_write(o, field_is(p, "state", "ready"), "peer",
                     field_text(p, "host"), NULL);
    }
}

static void
peer_load(const struct sample *o, const json_t *a)
{
    json_t *p;
    size_t i;

    json_array_foreach(get(a, "peers"), i, p)
    {
        sample_write(o, field_number(p, "load", 0), "peer",
                     field_text(p, "host"), NULL);
    }
}

static void
link_failures(const struct sample *o, const json_t *a)
{
    const char *reason;
    json_t *p, *n;
    size_t i;

    json_array_foreach(get(a, "peers"), i, p)
    {
        json_object_foreach((json_t *)get(p, "failed"), reason, n)
        {
            sample_write(o, json_number_value(n), "peer", field_text(p, "host"),
                         "reason", reason, NULL);
        }
    }
}

/* Links to one address are told together: the slowest of them. */
static void
link_rtt(const struct sample *o, const json_t *a)
{
    json_t *p, *k, *other;
    size_t i, j, n;

    json_array_foreach(get(a, "peers"), i, p)
    {
        json_array_foreach(get(p, "links"), j, k)
        {
            const char *address = field_text(k, "address");
            double most = 0, rtt;
            size_t first = j;

            json_array_foreach(get(p, "links"), n, other)
            {
                if (!field_is(other, "address", address))
                    continue;
                first = n < first ? n : first;
                rtt = field_number(other, "rtt_us", 0);
                most = rtt > most ? rtt : most;
            }
            if (first == j && most > 0)
                sample_write(o, most * 1e-6, "peer", field_text(p, "host"),
                             "address", address, NULL);
        }
    }
}

static const struct metric rows[] = {
    {"detour_route_state", "gauge",
     "1 for where the I/O of the virtual machines goes.", METRICS_OF_PLUGIN,
     route_state},
    {"detour_route_state_age_seconds", "gauge", "Since the route is as it is.",
     METRICS_OF_PLUGIN, route_age},
    {"detour_route_manual", "gauge", "1: redirected by hand.",
     METRICS_OF_PLUGIN, route_manual},
    {"detour_route_latched", "gauge",
     "1: after too many switches it does not come home by itself.",
     METRICS_OF_PLUGIN, route_latched},
    {"detour_route_hour_switches", "gauge",
     "Moves between own paths and peers within an hour that nobody ordered.",
     METRICS_OF_PLUGIN, hour_switches},
    {"detour_route_changes_total", "counter",
     "Changes of the route's state, by what caused them.", METRICS_OF_PLUGIN,
     route_changes},
    {"detour_redirected_seconds_total", "counter",
     "Time that the I/O took a detour.", METRICS_OF_PLUGIN, redirected},
    {"detour_request_duration_seconds", "histogram",
     "How long requests of virtual machines took, waiting included.",
     METRICS_OF_PLUGIN, latency},
    {"detour_request_bytes_total", "counter",
     "Bytes of the requests that were answered well.", METRICS_OF_PLUGIN,
     request_bytes},
    {"detour_queue_requests", "gauge", "Requests that wait for a route.",
     METRICS_OF_PLUGIN, queue_held},
    {"detour_queue_oldest_wait_seconds", "gauge",
     "How long the oldest of them has waited.", METRICS_OF_PLUGIN,
     queue_oldest},
    {"detour_inflight_requests", "gauge", "Requests under way on the route.",
     METRICS_OF_PLUGIN, inflight},
    {"detour_inflight_oldest_seconds", "gauge",
     "How long the oldest of them has been.", METRICS_OF_PLUGIN,
     inflight_oldest},
    {"detour_longest_stall_seconds", "gauge",
     "The longest wait of a request since the process began.",
     METRICS_OF_PLUGIN, longest_stall},
    {"detour_requests_total", "counter", "Requests that were answered.",
     METRICS_OF_PLUGIN, answered},
    {"detour_peer_ready", "gauge", "1: the peer would serve us at once.",
     METRICS_OF_PLUGIN, peer_ready},
    {"detour_peer_load_requests", "gauge",
     "Requests that the peer has under way for others.", METRICS_OF_PLUGIN,
     peer_load},
    {"detour_link_failures_total", "counter",
     "Connections to a peer that did not come about, by what was wrong.",
     METRICS_OF_PLUGIN, link_failures},
    {"detour_link_round_trip_seconds", "gauge",
     "Round trip of a standby connection.", METRICS_OF_PLUGIN, link_rtt},
};

const struct metrics_table metrics_plugin = METRICS_TABLE(rows);
