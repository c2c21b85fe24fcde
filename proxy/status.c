/* SPDX-License-Identifier: BSD-3-Clause */
/* What the proxy answers on its control socket.
 *
 * Enters from the control socket's thread; takes the shares' locks, never
 * while the device is touched.
 */
#include "proxy/status.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "health/report.h"

static double
age_s(uint64_t since_ms, uint64_t now_ms)
{
    return now_ms > since_ms ? (double)(now_ms - since_ms) / 1000 : 0;
}

static json_t *
member(const struct session_member *m, uint64_t now_ms)
{
    return json_pack("{s:s, s:f, s:I, s:I, s:I, s:I}", "address", m->address,
                     "age_s", age_s(m->since_ms, now_ms), "inflight",
                     (json_int_t)atomic_load(&m->inflight), "requests",
                     (json_int_t)atomic_load(&m->requests), "bytes_read",
                     (json_int_t)atomic_load(&m->bytes_read), "bytes_written",
                     (json_int_t)atomic_load(&m->bytes_written));
}

static void
add_session(void *opaque, const struct session *x)
{
    json_t *members = json_array(), *generation = json_null();
    json_t *client = x->of ? report_text(x->of->client) : json_null();
    uint64_t now_ms = clock_ms();

    for (const struct session_member *m = x->members; m; m = m->next)
        json_array_append_new(members, member(m, now_ms));
    if (x->of)
        generation = json_integer((json_int_t)x->generation);
    json_array_append_new(
        opaque, json_pack("{s:s, s:o, s:o, s:f, s:I, s:o}", "host", x->host,
                          "client", client, "generation", generation, "age_s",
                          age_s(x->since_ms, now_ms), "unfinished_writes",
                          (json_int_t)lun_tally_count(x->tally), "connections",
                          members));
}

static void
add_work(void *opaque, const struct session_client *c,
         const struct session_work *w)
{
    json_t *client = c->client[0] ? report_text(c->client) : json_null();

    json_array_append_new(
        opaque, json_pack("{s:s, s:o, s:I, s:I, s:I}", "host", c->host,
                          "client", client, "requests", (json_int_t)w->requests,
                          "bytes_read", (json_int_t)w->bytes_read,
                          "bytes_written", (json_int_t)w->bytes_written));
}

static json_t *
share(struct share *s)
{
    json_t *sessions = json_array(), *clients = json_array();
    struct share_status st;

    share_get_status(s, &st);
    share_each_session(s, add_session, sessions);
    share_each_work(s, add_work, clients);
    return json_pack(
        "{s:s, s:s, s:s, s:f, s:b, s:b, s:I, s:I, s:o, s:o, s:o}", "lun",
        share_config(s)->name, "state", serve_state_name(st.serve.state),
        "reason", st.serve.reason, "since_s",
        age_s(st.serve.since_ms, clock_ms()), "draining", (int)st.drain,
        "settled", (int)st.serve.settled, "fences", (json_int_t)st.fences,
        "fences_failed", (json_int_t)st.fences_failed, "lun_status",
        report_lun(share_lun(s), &st.monitor), "sessions", sessions, "clients",
        clients);
}

static unsigned
status(struct server *s, json_t **reply)
{
    json_t *luns = json_array();
    unsigned conns;
    bool draining;

    for (size_t i = 0; i < s->nshares; i++)
        json_array_append_new(luns, share(s->shares[i]));
    pthread_mutex_lock(&s->lock);
    conns = s->nconns;
    draining = s->draining;
    pthread_mutex_unlock(&s->lock);
    *reply = json_pack("{s:s, s:i, s:s, s:s, s:f, s:b, s:i, s:I, s:I, s:o}",
                       "process", "proxy", "pid", (int)getpid(), "version",
                       DETOUR_VERSION, "host", s->config->self->name,
                       "uptime_s", age_s(s->started_ms, clock_ms()), "draining",
                       (int)draining, "connections", (int)conns, "refused",
                       (json_int_t)atomic_load(&s->refused), "tls_errors",
                       (json_int_t)atomic_load(&s->tls_errors), "luns", luns);
    return 200;
}

static unsigned
mistake(json_t **reply, unsigned code, const char *text)
{
    *reply = json_pack("{s:s}", "error", text);
    return code;
}

static unsigned
drain(struct server *s, const json_t *body, bool on, json_t **reply)
{
    const json_t *name = body ? json_object_get(body, "lun") : NULL;

    if (body && !json_is_object(body))
        return mistake(reply, 400, "the body is not an object");
    if (name && !json_is_string(name))
        return mistake(reply, 400, "lun: not a string");
    if (server_drain(s, name ? json_string_value(name) : NULL, on))
        return mistake(reply, 404, "no such LUN here");
    log_info("%s%s: %s", name ? "lun " : "all LUNs",
             name ? json_string_value(name) : "",
             on ? "drain asked for" : "drain taken back");
    return 200;
}

unsigned
status_handle(void *opaque, const char *method, const char *path,
              const json_t *body, json_t **reply)
{
    if (strcmp(method, "GET") == 0 && strcmp(path, "/status") == 0)
        return status(opaque, reply);
    if (strcmp(method, "POST") == 0 && strcmp(path, "/drain") == 0)
        return drain(opaque, body, true, reply);
    if (strcmp(method, "POST") == 0 && strcmp(path, "/undrain") == 0)
        return drain(opaque, body, false, reply);
    return mistake(reply, 404, "GET /status, POST /drain, POST /undrain");
}
