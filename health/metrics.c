/* SPDX-License-Identifier: BSD-3-Clause */
/* This host in Prometheus' text format: a table of metrics, each of which
 * looks through the processes for what it tells. */
#include "health/metrics.h"

#include <stdarg.h>

#include "health/fields.h"

/* ---- samples ----------------------------------------------------------- */

/* Labels that many samples share; NULL ends them. */
struct labels {
    const char *process, *lun, *client;
};

struct out {
    FILE *f;
    const char *name;
    const char *suffix; /* of the parts of a histogram; "" */
    struct labels labels;
};

static void
write_value(FILE *f, const char *text)
{
    for (; *text; text++) {
        if (*text == '\\' || *text == '"')
            fprintf(f, "\\%c", *text);
        else if (*text == '\n')
            fputs("\\n", f);
        else
            fputc(*text, f);
    }
}

static void
write_label(FILE *f, char *mark, const char *name, const char *value)
{
    fprintf(f, "%c%s=\"", *mark, name);
    write_value(f, value);
    fputc('"', f);
    *mark = ',';
}

/* More labels as pairs of name and value, ended by NULL. */
static void
sample(const struct out *o, double v, ...)
{
    const char *name;
    char mark = '{';
    va_list ap;

    fprintf(o->f, "%s%s", o->name, o->suffix);
    if (o->labels.process)
        write_label(o->f, &mark, "process", o->labels.process);
    if (o->labels.lun)
        write_label(o->f, &mark, "lun", o->labels.lun);
    if (o->labels.client)
        write_label(o->f, &mark, "client", o->labels.client);
    va_start(ap, v);
    while ((name = va_arg(ap, const char *)))
        write_label(o->f, &mark, name, va_arg(ap, const char *));
    va_end(ap);
    if (mark == ',')
        fputc('}', o->f);
    /* whole numbers as they are, up to what a double holds */
    fprintf(o->f, " %.15g\n", v);
}

/* One of a field, in the metric's unit; nothing when it is not known. */
static void
field_sample(const struct out *o, const json_t *from, const char *key,
             double scale)
{
    if (json_is_number(json_object_get(from, key)))
        sample(o, field_number(from, key, 0) * scale, NULL);
}

/* One sample for each state that there is, 1 for the present one. */
static void
state_samples(const struct out *o, const char *label, const char *const *names,
              const char *now)
{
    for (; *names; names++)
        sample(o, strcmp(*names, now) == 0, label, *names, NULL);
}

static const json_t *
get(const json_t *o, const char *key)
{
    return json_object_get(o, key);
}

/* ---- one plugin -------------------------------------------------------- */

static void
route_state(const struct out *o, const json_t *a)
{
    static const char *const phases[] = {"local",     "opening",  "redirected",
                                         "returning", "queueing", NULL};

    state_samples(o, "state", phases, field_text(get(a, "route"), "phase"));
}

static void
route_age(const struct out *o, const json_t *a)
{
    field_sample(o, get(a, "route"), "since_s", 1);
}

static void
route_manual(const struct out *o, const json_t *a)
{
    sample(o, json_is_true(get(get(a, "route"), "manual")), NULL);
}

static void
route_latched(const struct out *o, const json_t *a)
{
    if (json_is_boolean(get(get(a, "route"), "latched")))
        sample(o, json_is_true(get(get(a, "route"), "latched")), NULL);
}

static void
hour_switches(const struct out *o, const json_t *a)
{
    field_sample(o, get(a, "route"), "hour_switches", 1);
}

static void
route_changes(const struct out *o, const json_t *a)
{
    json_t *e;
    size_t i;

    json_array_foreach(get(get(a, "route"), "entered"), i, e)
    {
        sample(o, field_number(e, "count", 0), "state", field_text(e, "phase"),
               "cause", field_text(e, "cause"), NULL);
    }
}

static void
redirected(const struct out *o, const json_t *a)
{
    field_sample(o, get(a, "route"), "redirected_s", 1);
}

static void
queue_held(const struct out *o, const json_t *a)
{
    field_sample(o, get(a, "queue"), "held", 1);
}

static void
queue_oldest(const struct out *o, const json_t *a)
{
    field_sample(o, get(a, "queue"), "oldest_held_ms", 1e-3);
}

static void
inflight(const struct out *o, const json_t *a)
{
    field_sample(o, get(a, "queue"), "inflight", 1);
}

static void
inflight_oldest(const struct out *o, const json_t *a)
{
    field_sample(o, get(a, "queue"), "oldest_inflight_ms", 1e-3);
}

static void
longest_stall(const struct out *o, const json_t *a)
{
    field_sample(o, get(a, "queue"), "longest_stall_ms", 1e-3);
}

static void
answered(const struct out *o, const json_t *a)
{
    field_sample(o, get(a, "queue"), "answered", 1);
}

static void
histogram(struct out o, const json_t *h)
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
        sample(&o, json_number_value(json_array_get(b, 1)), "route", route,
               "operation", operation, "le", le, NULL);
    }
    sample(&o, field_number(h, "count", 0), "route", route, "operation",
           operation, "le", "+Inf", NULL);
    o.suffix = "_sum";
    sample(&o, field_number(h, "sum_us", 0) * 1e-6, "route", route, "operation",
           operation, NULL);
    o.suffix = "_count";
    sample(&o, field_number(h, "count", 0), "route", route, "operation",
           operation, NULL);
}

static void
latency(const struct out *o, const json_t *a)
{
    json_t *h;
    size_t i;

    json_array_foreach(get(a, "latency"), i, h)
    {
        histogram(*o, h);
    }
}

static void
request_bytes(const struct out *o, const json_t *a)
{
    json_t *h;
    size_t i;

    json_array_foreach(get(a, "latency"), i, h)
    {
        sample(o, field_number(h, "bytes", 0), "route", field_text(h, "route"),
               "operation", field_text(h, "operation"), NULL);
    }
}

static void
peer_ready(const struct out *o, const json_t *a)
{
    json_t *p;
    size_t i;

    json_array_foreach(get(a, "peers"), i, p)
    {
        sample(o, field_is(p, "state", "ready"), "peer", field_text(p, "host"),
               NULL);
    }
}

static void
peer_load(const struct out *o, const json_t *a)
{
    json_t *p;
    size_t i;

    json_array_foreach(get(a, "peers"), i, p)
    {
        sample(o, field_number(p, "load", 0), "peer", field_text(p, "host"),
               NULL);
    }
}

static void
link_failures(const struct out *o, const json_t *a)
{
    const char *reason;
    json_t *p, *n;
    size_t i;

    json_array_foreach(get(a, "peers"), i, p)
    {
        json_object_foreach((json_t *)get(p, "failed"), reason, n)
        {
            sample(o, json_number_value(n), "peer", field_text(p, "host"),
                   "reason", reason, NULL);
        }
    }
}

/* Links to one address are told together: the slowest of them. */
static void
link_rtt(const struct out *o, const json_t *a)
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
                sample(o, most * 1e-6, "peer", field_text(p, "host"), "address",
                       address, NULL);
        }
    }
}

/* ---- a LUN's own paths, of plugin or proxy ----------------------------- */

static void
verdict(const struct out *o, const json_t *lun)
{
    static const char *const states[] = {"good", "degraded", "slow",
                                         "lost", "unknown",  NULL};

    state_samples(o, "state", states, field_text(get(lun, "verdict"), "state"));
}

static void
paths_known(const struct out *o, const json_t *lun)
{
    if (json_is_array(get(lun, "paths")))
        sample(o, (double)json_array_size(get(lun, "paths")), NULL);
}

static void
paths_good(const struct out *o, const json_t *lun)
{
    size_t i, n = 0;
    json_t *p;

    json_array_foreach(get(lun, "paths"), i, p)
    {
        n += field_is(p, "state", "good");
    }
    if (json_is_array(get(lun, "paths")))
        sample(o, (double)n, NULL);
}

static void
map_queues(const struct out *o, const json_t *lun)
{
    const json_t *queueing = get(get(lun, "map"), "queueing");

    if (json_is_boolean(queueing))
        sample(o, json_is_true(queueing), NULL);
}

static void
probe_age(const struct out *o, const json_t *lun)
{
    field_sample(o, get(lun, "probe"), "age_s", 1);
}

static void
probe_duration(const struct out *o, const json_t *lun)
{
    field_sample(o, get(lun, "probe"), "us", 1e-6);
}

static void
probe_recent(const struct out *o, const json_t *lun)
{
    field_sample(o, get(lun, "probe"), "recent_us", 1e-6);
}

static void
probe_usual(const struct out *o, const json_t *lun)
{
    field_sample(o, get(lun, "probe"), "usual_us", 1e-6);
}

static void
probes_stuck(const struct out *o, const json_t *lun)
{
    field_sample(o, get(lun, "probe"), "stuck", 1);
}

static void
registered(const struct out *o, const json_t *lun)
{
    static const char *const states[] = {"registered", "fenced", "unregistered",
                                         NULL};

    state_samples(o, "state", states,
                  field_text(get(lun, "registration"), "state"));
}

static void
orphans(const struct out *o, const json_t *lun)
{
    if (field_has(lun, "orphans"))
        sample(o, field_number(lun, "orphans", 0), "operation", "write", NULL);
    if (field_has(lun, "orphan_reads"))
        sample(o, field_number(lun, "orphan_reads", 0), "operation", "read",
               NULL);
}

static void
device_inflight(const struct out *o, const json_t *lun)
{
    field_sample(o, lun, "inflight", 1);
}

static void
lun_size(const struct out *o, const json_t *lun)
{
    field_sample(o, lun, "size", 1);
}

/* ---- the proxy, for one LUN -------------------------------------------- */

static void
serving(const struct out *o, const json_t *share)
{
    sample(o, field_is(share, "state", "serving"), NULL);
}

static void
fences(const struct out *o, const json_t *share)
{
    if (field_has(share, "fences"))
        sample(o, field_number(share, "fences", 0), "result", "done", NULL);
    if (field_has(share, "fences_failed"))
        sample(o, field_number(share, "fences_failed", 0), "result", "failed",
               NULL);
}

static void
sessions(const struct out *o, const json_t *share)
{
    sample(o, (double)json_array_size(get(share, "sessions")), NULL);
}

static bool
same_session(const json_t *a, const json_t *b)
{
    return field_is(a, "host", field_text(b, "host")) &&
           field_is(a, "client", field_text(b, "client"));
}

static double
session_sum(const json_t *session, const char *key)
{
    double sum = 0;
    json_t *k;
    size_t i;

    json_array_foreach(get(session, "connections"), i, k)
    {
        sum += field_number(k, key, 0);
    }
    return sum;
}

/* There may be an old session of a peer's client beside a new one, and any
 * number of plain NBD clients. */
static void
session_inflight(const struct out *o, const json_t *share)
{
    const json_t *list = get(share, "sessions");
    json_t *s, *other;
    size_t i, j;

    json_array_foreach(list, i, s)
    {
        double sum = 0;
        bool first = true;

        json_array_foreach(list, j, other)
        {
            if (!same_session(s, other))
                continue;
            first = first && j >= i;
            sum += session_sum(other, "inflight");
        }
        if (first)
            sample(o, sum, "peer", field_text(s, "host"), "peer_client",
                   field_text(s, "client"), NULL);
    }
}

static void
by_client(const struct out *o, const json_t *share, const char *key)
{
    json_t *c;
    size_t i;

    json_array_foreach(get(share, "clients"), i, c)
    {
        sample(o, field_number(c, key, 0), "peer", field_text(c, "host"),
               "peer_client", field_text(c, "client"), NULL);
    }
}

static void
client_requests(const struct out *o, const json_t *share)
{
    by_client(o, share, "requests");
}

static void
client_read(const struct out *o, const json_t *share)
{
    by_client(o, share, "bytes_read");
}

static void
client_written(const struct out *o, const json_t *share)
{
    by_client(o, share, "bytes_written");
}

/* ---- any process ------------------------------------------------------- */

static void
uptime(const struct out *o, const json_t *a)
{
    field_sample(o, a, "uptime_s", 1);
}

static void
process_info(const struct out *o, const json_t *a)
{
    sample(o, 1, "version", field_text(a, "version"), NULL);
}

static void
connections(const struct out *o, const json_t *a)
{
    field_sample(o, a, "connections", 1);
}

static void
refused(const struct out *o, const json_t *a)
{
    field_sample(o, a, "refused", 1);
}

static void
tls_errors(const struct out *o, const json_t *a)
{
    field_sample(o, a, "tls_errors", 1);
}

static void
draining(const struct out *o, const json_t *a)
{
    if (json_is_boolean(get(a, "draining")))
        sample(o, json_is_true(get(a, "draining")), NULL);
}

/* ---- the table --------------------------------------------------------- */

enum scope {
    OF_PROCESS, /* its whole answer */
    OF_PLUGIN,
    OF_LUN,   /* "lun_status", of plugin and proxy */
    OF_SHARE, /* one of the proxy's "luns" */
};

static const struct metric {
    const char *name, *type, *help;
    enum scope scope;
    void (*write)(const struct out *o, const json_t *from);
} metrics[] = {
    {"detour_process_info", "gauge", "Which version a process is of.",
     OF_PROCESS, process_info},
    {"detour_process_uptime_seconds", "gauge", "Since the process began.",
     OF_PROCESS, uptime},

    {"detour_route_state", "gauge",
     "1 for where the I/O of the virtual machines goes.", OF_PLUGIN,
     route_state},
    {"detour_route_state_age_seconds", "gauge", "Since the route is as it is.",
     OF_PLUGIN, route_age},
    {"detour_route_manual", "gauge", "1: redirected by hand.", OF_PLUGIN,
     route_manual},
    {"detour_route_latched", "gauge",
     "1: after too many switches it does not come home by itself.", OF_PLUGIN,
     route_latched},
    {"detour_route_hour_switches", "gauge",
     "Moves between own paths and peers within an hour that nobody ordered.",
     OF_PLUGIN, hour_switches},
    {"detour_route_changes_total", "counter",
     "Changes of the route's state, by what caused them.", OF_PLUGIN,
     route_changes},
    {"detour_redirected_seconds_total", "counter",
     "Time that the I/O took a detour.", OF_PLUGIN, redirected},
    {"detour_request_duration_seconds", "histogram",
     "How long requests of virtual machines took, waiting included.", OF_PLUGIN,
     latency},
    {"detour_request_bytes_total", "counter",
     "Bytes of the requests that were answered well.", OF_PLUGIN,
     request_bytes},
    {"detour_queue_requests", "gauge", "Requests that wait for a route.",
     OF_PLUGIN, queue_held},
    {"detour_queue_oldest_wait_seconds", "gauge",
     "How long the oldest of them has waited.", OF_PLUGIN, queue_oldest},
    {"detour_inflight_requests", "gauge", "Requests under way on the route.",
     OF_PLUGIN, inflight},
    {"detour_inflight_oldest_seconds", "gauge",
     "How long the oldest of them has been.", OF_PLUGIN, inflight_oldest},
    {"detour_longest_stall_seconds", "gauge",
     "The longest wait of a request since the process began.", OF_PLUGIN,
     longest_stall},
    {"detour_requests_total", "counter", "Requests that were answered.",
     OF_PLUGIN, answered},
    {"detour_peer_ready", "gauge", "1: the peer would serve us at once.",
     OF_PLUGIN, peer_ready},
    {"detour_peer_load_requests", "gauge",
     "Requests that the peer has under way for others.", OF_PLUGIN, peer_load},
    {"detour_link_failures_total", "counter",
     "Connections to a peer that did not come about, by what was wrong.",
     OF_PLUGIN, link_failures},
    {"detour_link_round_trip_seconds", "gauge",
     "Round trip of a standby connection.", OF_PLUGIN, link_rtt},

    {"detour_lun_verdict", "gauge", "1 for the verdict on the own paths.",
     OF_LUN, verdict},
    {"detour_paths_known", "gauge", "Own paths, working or not.", OF_LUN,
     paths_known},
    {"detour_paths_good", "gauge", "Own paths that work.", OF_LUN, paths_good},
    {"detour_map_queues", "gauge",
     "1: the multipath map queues I/O while it has no path.", OF_LUN,
     map_queues},
    {"detour_probe_age_seconds", "gauge", "Since a probe was answered.", OF_LUN,
     probe_age},
    {"detour_probe_duration_seconds", "gauge", "How long the last probe took.",
     OF_LUN, probe_duration},
    {"detour_probe_recent_seconds", "gauge",
     "Median of the probes of the last seconds.", OF_LUN, probe_recent},
    {"detour_probe_usual_seconds", "gauge",
     "Median of the hour before, with which they are compared.", OF_LUN,
     probe_usual},
    {"detour_probes_stuck", "gauge", "Probes that are overdue.", OF_LUN,
     probes_stuck},
    {"detour_registration_state", "gauge",
     "1 for the state of our reservation key.", OF_LUN, registered},
    {"detour_orphan_requests", "gauge",
     "Requests given up that are not proven finished.", OF_LUN, orphans},
    {"detour_device_inflight_requests", "gauge", "Requests at the device.",
     OF_LUN, device_inflight},
    {"detour_lun_size_bytes", "gauge", "Size of the LUN.", OF_LUN, lun_size},

    {"detour_proxy_connections", "gauge", "TLS connections of peers.",
     OF_PROCESS, connections},
    {"detour_proxy_draining", "gauge", "1: the proxy is drained by order.",
     OF_PROCESS, draining},
    {"detour_proxy_refused_total", "counter",
     "Connections, or requests for a LUN, that were refused.", OF_PROCESS,
     refused},
    {"detour_proxy_tls_errors_total", "counter",
     "Refused for TLS or a certificate.", OF_PROCESS, tls_errors},
    {"detour_proxy_fences_total", "counter",
     "Hosts fenced so that others may write.", OF_SHARE, fences},
    {"detour_proxy_serving", "gauge", "1: peers are served.", OF_SHARE,
     serving},
    {"detour_proxy_sessions", "gauge", "Sessions of peers.", OF_SHARE,
     sessions},
    {"detour_proxy_inflight_requests", "gauge",
     "Requests of a peer's client under way.", OF_SHARE, session_inflight},
    {"detour_proxy_requests_total", "counter",
     "Requests of a peer's client; an empty one: of plain NBD clients.",
     OF_SHARE, client_requests},
    {"detour_proxy_read_bytes_total", "counter",
     "Bytes that a peer's client has read.", OF_SHARE, client_read},
    {"detour_proxy_written_bytes_total", "counter",
     "Bytes that a peer's client has written.", OF_SHARE, client_written},
};

static void
begin(struct out *o, const char *name, const char *type, const char *help)
{
    o->name = name;
    o->suffix = "";
    o->labels = (struct labels){.process = NULL};
    fprintf(o->f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void
from_plugin(struct out *o, const struct metric *m, const json_t *answer)
{
    o->labels.lun = field_text(answer, "lun");
    o->labels.client = field_text(answer, "client");
    if (m->scope == OF_PLUGIN)
        m->write(o, answer);
    else if (m->scope == OF_LUN)
        m->write(o, get(answer, "lun_status"));
}

static void
from_proxy(struct out *o, const struct metric *m, const json_t *answer)
{
    json_t *share;
    size_t i;

    json_array_foreach(get(answer, "luns"), i, share)
    {
        o->labels.lun = field_text(share, "lun");
        if (m->scope == OF_SHARE)
            m->write(o, share);
        else if (m->scope == OF_LUN)
            m->write(o, get(share, "lun_status"));
    }
}

static void
write_metric(struct out *o, const struct metric *m, const json_t *processes)
{
    json_t *p;
    size_t i;

    begin(o, m->name, m->type, m->help);
    json_array_foreach(processes, i, p)
    {
        const json_t *answer = get(p, "answer");

        if (!json_is_true(get(p, "answers")))
            continue;
        o->labels = (struct labels){.process = field_text(p, "name")};
        if (m->scope == OF_PROCESS)
            m->write(o, answer);
        else if (field_is(answer, "process", "proxy"))
            from_proxy(o, m, answer);
        else
            from_plugin(o, m, answer);
    }
}

/* ---- what is known without their answers ------------------------------- */

static void
write_processes(struct out *o, const json_t *processes)
{
    json_t *p;
    size_t i;

    begin(o, "detour_process_up", "gauge", "1: the process answers.");
    json_array_foreach(processes, i, p)
    {
        o->labels.process = field_text(p, "name");
        sample(o, json_is_true(get(p, "answers")), NULL);
    }
    begin(o, "detour_process_last_answer_age_seconds", "gauge",
          "Since a process last answered.");
    json_array_foreach(processes, i, p)
    {
        o->labels.process = field_text(p, "name");
        field_sample(o, p, "age_s", 1);
    }
}

static void
write_certificates(struct out *o, const json_t *certificates)
{
    json_t *c;
    size_t i;

    begin(o, "detour_certificate_not_after_timestamp_seconds", "gauge",
          "When a certificate ends, or a revocation list.");
    json_array_foreach(certificates, i, c)
    {
        if (json_is_integer(get(c, "not_after")))
            sample(o, field_number(c, "not_after", 0), "certificate",
                   field_text(c, "name"), NULL);
    }
}

static void
write_luns(struct out *o, const json_t *luns)
{
    static const char *const levels[] = {"pass", "warn", "fail", NULL};
    json_t *l;
    size_t i;

    begin(o, "detour_lun_status", "gauge",
          "1 for the worst of all checks of a LUN on this host.");
    json_array_foreach(luns, i, l)
    {
        o->labels.lun = field_text(l, "lun");
        state_samples(o, "status", levels, field_text(l, "status"));
    }
}

void
metrics_write(FILE *f, const json_t *status)
{
    const json_t *processes = get(status, "processes");
    struct out o = {.f = f};

    begin(&o, "detour_build_info", "gauge",
          "The version of what tells all this.");
    sample(&o, 1, "version", field_text(status, "version"), "cluster",
           field_text(status, "cluster"), "host", field_text(status, "host"),
           NULL);
    begin(&o, "detour_redirect_alarm_seconds", "gauge",
          "How long a detour may take until it is a failure; 0: ever.");
    field_sample(&o, status, "redirect_alarm_s", 1);
    write_luns(&o, get(status, "luns"));
    write_processes(&o, processes);
    write_certificates(&o, get(status, "certificates"));
    for (size_t i = 0; i < sizeof metrics / sizeof metrics[0]; i++)
        write_metric(&o, &metrics[i], processes);
}
