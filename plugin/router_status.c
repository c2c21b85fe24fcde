/* SPDX-License-Identifier: BSD-3-Clause */
/* What the router answers to GET /status. */
#include <unistd.h>

#include "common/clock.h"
#include "health/report.h"
#include "plugin/router_impl.h"

static json_t *
suspects(struct router *r, const struct route *t)
{
    json_t *a = json_array();

    if (t->suspect_self)
        json_array_append_new(a, json_string(r->opt.cfg->self->name));
    for (int i = 0; i < (int)peers_count(r->peers); i++) {
        if (t->suspect_peers & (UINT64_C(1) << i))
            json_array_append_new(a,
                                  json_string(peers_host(r->peers, i)->name));
    }
    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->nstrays; i++)
        json_array_append_new(a, json_string(r->strays[i].name));
    pthread_mutex_unlock(&r->lock);
    return a;
}

/* Which phases were entered, by what. */
static json_t *
entered(const struct route *t)
{
    json_t *a = json_array();

    for (unsigned p = 0; p < ROUTE_PHASES; p++) {
        for (unsigned k = 0; k < ROUTE_EVENTS; k++) {
            if (t->entered[p][k] > 0)
                json_array_append_new(
                    a, json_pack("{ss ss sI}", "phase", route_phase_name(p),
                                 "cause", route_event_name(k), "count",
                                 (json_int_t)t->entered[p][k]));
        }
    }
    return a;
}

static double
redirected_s(const struct route *t)
{
    uint64_t ms = t->redirected_ms;

    if (t->phase == ROUTE_REDIRECTED)
        ms += clock_ms() - t->since_ms;
    return (double)ms / 1000;
}

/* Of an order that ends by itself. */
static json_t *
manual_left_s(const struct route *t)
{
    uint64_t now = clock_ms();

    if (!t->manual || t->manual_until_ms == 0)
        return json_null();
    return json_real(t->manual_until_ms > now
                         ? (double)(t->manual_until_ms - now) / 1000
                         : 0);
}

static json_t *
report_route(struct router *r, const struct route *t)
{
    json_t *peer = t->peer == ROUTE_SELF
                       ? json_null()
                       : json_string(peers_host(r->peers, t->peer)->name);

    return json_pack(
        "{ss sf ss so sI sb so sb sI so sI so sf sf}", "phase",
        route_phase_name(t->phase), "since_s",
        (double)(clock_ms() - t->since_ms) / 1000, "reason", t->reason, "peer",
        peer, "generation", (json_int_t)t->generation, "manual", t->manual,
        "manual_left_s", manual_left_s(t), "latched", t->latch.shut,
        "hour_switches", (json_int_t)latch_count(&t->latch, clock_ms()),
        "suspects", suspects(r, t), "changes", (json_int_t)t->changes,
        "entered", entered(t), "redirected_s", redirected_s(t), "hold_down_s",
        (double)route_hold_down_ms(t, &r->route_opt) / 1000);
}

json_t *
router_status(struct router *r)
{
    struct gate_stats g;
    struct monitor_status m;
    struct peers_lun want;
    struct route t;

    pthread_mutex_lock(&r->lock);
    t = r->shown;
    want = r->want;
    pthread_mutex_unlock(&r->lock);
    gate_get_stats(&r->gate, &g);
    monitor_get(r->monitor, &m);
    return json_pack(
        "{ss si ss ss ss ss sf so s{sI sI sI sI sI sI sI} so so so}", "process",
        "plugin", "pid", (int)getpid(), "version", DETOUR_VERSION, "host",
        r->opt.cfg->self->name, "lun", r->opt.lun->name, "client",
        r->opt.client, "uptime_s", (double)(clock_ms() - r->started_ms) / 1000,
        "route", report_route(r, &t), "queue", "held", (json_int_t)g.held,
        "oldest_held_ms", (json_int_t)g.oldest_held_ms, "inflight",
        (json_int_t)g.inside, "oldest_inflight_ms",
        (json_int_t)g.oldest_inside_ms, "longest_stall_ms",
        (json_int_t)g.longest_wait_ms, "answered", (json_int_t)g.answered,
        "orphans", (json_int_t)g.orphans, "latency", latency_json(&r->latency),
        "lun_status", report_lun(r->lun, &m), "peers",
        peers_report(r->peers, &want));
}
