/* SPDX-License-Identifier: BSD-3-Clause */
/* What the proxy tells: of itself, of each LUN, of the peers it serves. */
#include "health/metrics_impl.h"

static void
serving(const struct sample *o, const json_t *share)
{
    sample_write(o, field_is(share, "state", "serving"), NULL);
}

static void
fences(const struct sample *o, const json_t *share)
{
    if (field_has(share, "fences"))
        sample_write(o, field_number(share, "fences", 0), "result", "done",
                     NULL);
    if (field_has(share, "fences_failed"))
        sample_write(o, field_number(share, "fences_failed", 0), "result",
                     "failed", NULL);
}

static void
sessions(const struct sample *o, const json_t *share)
{
    sample_write(o, (double)json_array_size(get(share, "sessions")), NULL);
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
session_inflight(const struct sample *o, const json_t *share)
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
            sample_write(o, sum, "peer", field_text(s, "host"), "peer_client",
                         field_text(s, "client"), NULL);
    }
}

static void
by_client(const struct sample *o, const json_t *share, const char *key)
{
    json_t *c;
    size_t i;

    json_array_foreach(get(share, "clients"), i, c)
    {
        sample_write(o, field_number(c, key, 0), "peer", field_text(c, "host"),
                     "peer_client", field_text(c, "client"), NULL);
    }
}

static void
client_requests(const struct sample *o, const json_t *share)
{
    by_client(o, share, "requests");
}

static void
client_read(const struct sample *o, const json_t *share)
{
    by_client(o, share, "bytes_read");
}

static void
client_written(const struct sample *o, const json_t *share)
{
    by_client(o, share, "bytes_written");
}

static void
connections(const struct sample *o, const json_t *a)
{
    sample_field(o, a, "connections", 1);
}

static void
refused(const struct sample *o, const json_t *a)
{
    sample_field(o, a, "refused", 1);
}

static void
tls_errors(const struct sample *o, const json_t *a)
{
    sample_field(o, a, "tls_errors", 1);
}

static void
draining(const struct sample *o, const json_t *a)
{
    if (json_is_boolean(get(a, "draining")))
        sample_write(o, json_is_true(get(a, "draining")), NULL);
}

static const struct metric rows[] = {
    {"detour_proxy_connections", "gauge", "TLS connections of peers.",
     METRICS_OF_PROCESS, connections},
    {"detour_proxy_draining", "gauge", "1: the proxy is drained by order.",
     METRICS_OF_PROCESS, draining},
    {"detour_proxy_refused_total", "counter",
     "Connections, or requests for a LUN, that were refused.",
     METRICS_OF_PROCESS, refused},
    {"detour_proxy_tls_errors_total", "counter",
     "Refused for TLS or a certificate.", METRICS_OF_PROCESS, tls_errors},
    {"detour_proxy_fences_total", "counter",
     "Hosts fenced so that others may write.", METRICS_OF_SHARE, fences},
    {"detour_proxy_serving", "gauge", "1: peers are served.", METRICS_OF_SHARE,
     serving},
    {"detour_proxy_sessions", "gauge", "Sessions of peers.", METRICS_OF_SHARE,
     sessions},
    {"detour_proxy_inflight_requests", "gauge",
     "Requests of a peer's client under way.", METRICS_OF_SHARE,
     session_inflight},
    {"detour_proxy_requests_total", "counter",
     "Requests of a peer's client; an empty one: of plain NBD clients.",
     METRICS_OF_SHARE, client_requests},
    {"detour_proxy_read_bytes_total", "counter",
     "Bytes that a peer's client has read.", METRICS_OF_SHARE, client_read},
    {"detour_proxy_written_bytes_total", "counter",
     "Bytes that a peer's client has written.", METRICS_OF_SHARE,
     client_written},
};

const struct metrics_table metrics_proxy = METRICS_TABLE(rows);
