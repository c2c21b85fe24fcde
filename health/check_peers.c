/* SPDX-License-Identifier: BSD-3-Clause */
/* The peers: asked for each LUN at each address, just as a plugin asks them,
 * and for the time. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/export.h"
#include "health/check.h"
#include "health/ctl_client.h"
#include "health/ctl_cluster.h"
#include "health/fields.h"
#include "common/link.h"
#include "common/tlsdir.h"

#define CONNECT_MS 5000
/* Seconds; the second is how far a new certificate is dated back. */
#define CLOCK_WARN_S    5
#define CLOCK_PROBLEM_S 300

struct question {
    const struct config_host *peer;
    const char *address;
    const struct check_lun *lun;
    struct link *link;
};

/* Of one LUN, asked at once: of all LUNs it would be too many connections. */
struct questions {
    struct question *all;
    size_t n;
    const char **down; /* addresses that did not answer: not asked again */
    size_t ndown;
    int woken; /* eventfd: some link changed */
};

/* ---- asking -------------------------------------------------------------- */

static void
changed(void *opaque)
{
    const struct questions *q = opaque;

    eventfd_write(q->woken, 1);
}

static void
ask(struct questions *q, struct question *one, const char *tls_dir)
{
    struct export_name name = {.pad = EXPORT_PAD};
    char text[EXPORT_NAME_MAX + 1];

    snprintf(name.lun, sizeof name.lun, "%s", one->lun->config->name);
    if (export_name_format(&name, text) < 0)
        return;
    one->link = link_create(&(struct link_options){
        .peer = one->peer->name,
        .address = one->address,
        .port = one->peer->port,
        .tls_dir = tls_dir,
        .info_name = text,
        .link_timeout_ms = CONNECT_MS,
        .open_timeout_ms = CONNECT_MS,
        .standby_interval_ms = CONNECT_MS,
        .changed = changed,
        .opaque = q,
    });
}

static bool
is_down(const struct questions *q, const char *address)
{
    for (size_t i = 0; i < q->ndown; i++)
        if (q->down[i] == address)
            return true;
    return false;
}

static void
list(const struct check *k, struct questions *q, const struct check_lun *lun)
{
    q->n = 0;
    for (size_t h = 0; h < k->config->nhosts; h++) {
        const struct config_host *peer = &k->config->hosts[h];

        if (peer == k->config->self || !config_lun_has(lun->config, peer))
            continue;
        for (size_t a = 0; a < peer->naddresses; a++)
            if (!is_down(q, peer->addresses[a]))
                q->all[q->n++] =
                    (struct question){peer, peer->addresses[a], lun, NULL};
    }
}

static bool
answered(const struct question *one)
{
    struct link_status st;

    if (!one->link)
        return true;
    link_get_status(one->link, &st);
    return (st.state == LINK_PARKED && st.info_ms) || st.error[0] ||
           st.state == LINK_DEAD;
}

static void
wait_for_all(struct questions *q)
{
    uint64_t end = clock_ms() + CONNECT_MS + 500;
    struct pollfd p = {.fd = q->woken, .events = POLLIN};
    uint64_t now;
    size_t i = 0;

    while (i < q->n && (now = clock_ms()) < end) {
        eventfd_t count;

        if (answered(&q->all[i]))
            i++;
        else if (poll(&p, 1, (int)(end - now)) > 0)
            eventfd_read(q->woken, &count);
    }
}

/* ---- judging ------------------------------------------------------------- */

static void
judge_link(struct check *k, struct questions *q, const struct question *one)
{
    const struct check_lun *l = one->lun;
    const char *name = l->config->name, *host = one->peer->name;
    struct export_info info = {.id = ""};
    struct link_status st = {.error = "out of memory"};

    if (one->link)
        link_get_status(one->link, &st);
    if (st.state != LINK_PARKED || !st.info_ms) {
        q->down[q->ndown++] = one->address;
        check_add(k, CHECK_PROBLEM, host,
                  "is it up, its detour-proxy running, the network and the "
                  "firewall open, the certificate good?",
                  "cannot be asked at %s port %u: %s", one->address,
                  one->peer->port, st.error[0] ? st.error : "no answer");
    } else if (!st.would_serve)
        check_add(k, CHECK_PROBLEM, name,
                  "detourctl check on that host tells more",
                  "peer %s would not serve it: %s", host, st.refusal);
    else if (export_info_parse(st.description, &info) < 0)
        check_add(k, CHECK_PROBLEM, name, "correct its address and port",
                  "what answers for peer %s is no detour-proxy", host);
    else if (l->id[0] && strcmp(info.id, l->id) != 0)
        check_add(k, CHECK_PROBLEM, name,
                  "correct device in the configuration of one of the two",
                  "peer %s has %s under this name, and here it is %s", host,
                  info.id, l->id);
    else if (l->size && st.size != l->size)
        check_add(k, CHECK_PROBLEM, name,
                  "rescan the device where it is smaller",
                  "it has %" PRIu64 " bytes at peer %s, and %" PRIu64 " here",
                  st.size, host, l->size);
}

static void
ask_lun(struct check *k, struct questions *q, const char *tls_dir)
{
    for (size_t i = 0; i < q->n; i++)
        ask(q, &q->all[i], tls_dir);
    wait_for_all(q);
    for (size_t i = 0; i < q->n; i++)
        judge_link(k, q, &q->all[i]);
    for (size_t i = 0; i < q->n; i++)
        if (q->all[i].link)
            link_end(q->all[i].link);
    for (size_t i = 0; i < q->n; i++)
        link_destroy(q->all[i].link);
}

static void
ask_proxies(struct check *k, struct questions *q)
{
    const struct tlsdir_files files = {k->config->ca, k->config->cert,
                                       k->config->key, k->config->crl};
    bool ours = access(k->config->rundir, W_OK) == 0;
    struct tlsdir *tls =
        tlsdir_create(ours ? k->config->rundir : P_tmpdir, &files);

    if (!tls) {
        check_add(k, CHECK_PROBLEM, "peers", "run the check as root",
                  "cannot be asked: %s", strerror(errno));
        return;
    }
    for (size_t i = 0; i < k->nluns; i++) {
        list(k, q, &k->luns[i]);
        ask_lun(k, q, tlsdir_path(tls));
    }
    tlsdir_destroy(tls);
}

/* ---- clocks -------------------------------------------------------------- */

static void
judge_clock(struct check *k, const char *host, const json_t *status)
{
    struct tm tm = {.tm_isdst = 0};
    long off;

    if (!field_is(status, "cluster", k->config->cluster_name)) {
        check_add(k, CHECK_WARNING, host,
                  "correct its address, or port of "
                  "[health]",
                  "what answers as its detour-health is of another cluster");
        return;
    }
    if (!field_is(status, "version", DETOUR_VERSION))
        check_add(k, CHECK_WARNING, host, "bring all hosts to one version",
                  "runs version %s, and here it is %s",
                  field_text(status, "version"), DETOUR_VERSION);
    if (!strptime(field_text(status, "time"), "%Y-%m-%dT%H:%M:%SZ", &tm))
        return;
    off = (long)(timegm(&tm) - time(NULL));
    if (labs(off) > CLOCK_WARN_S)
        check_add(k,
                  labs(off) > CLOCK_PROBLEM_S ? CHECK_PROBLEM : CHECK_WARNING,
                  host, "run chronyd or another NTP client on all hosts",
                  "its clock and ours differ by %ld s: certificates are "
                  "good or not by the clock, and logs cannot be compared",
                  off);
}

static void
ask_clocks(struct check *k)
{
    const struct config *c = k->config;
    const struct ctl_tls tls = {
        .ca = c->health.ca ? c->health.ca : c->ca,
        .cert = c->health.cert,
        .key = c->health.key,
    };
    struct ctl_call *calls = calloc(c->nhosts + 1, sizeof *calls);
    char(*origins)[CTL_ORIGIN_MAX] = calloc(c->nhosts + 1, sizeof *origins);
    bool asked = calls && origins;

    for (size_t i = 0; asked && i < c->nhosts; i++) {
        ctl_origin(c, c->hosts[i].addresses[0], origins[i], sizeof origins[i]);
        calls[i] = (struct ctl_call){
            .origin = origins[i],
            .tls = c->health.cert ? &tls : NULL,
            .method = "GET",
            .path = "/status",
        };
    }
    asked = asked && ctl_ask(calls, c->nhosts) == 0;
    for (size_t i = 0; asked && i < c->nhosts; i++) {
        const char *host = c->hosts[i].name;

        if (&c->hosts[i] != c->self && calls[i].status == 200)
            judge_clock(k, host, calls[i].reply);
        else if (&c->hosts[i] != c->self)
            check_add(k, CHECK_NOTE, host, "run detour-health there",
                      "its clock cannot be compared: its detour-health at %s: "
                      "%s",
                      origins[i], calls[i].error);
        ctl_call_fini(&calls[i]);
    }
    free(calls);
    free(origins);
}

void
check_peers(struct check *k)
{
    struct questions q = {.woken = eventfd(0, EFD_CLOEXEC)};
    size_t addresses = 1;

    for (size_t i = 0; i < k->config->nhosts; i++)
        addresses += k->config->hosts[i].naddresses;
    q.all = calloc(addresses, sizeof *q.all);
    q.down = calloc(addresses, sizeof *q.down);
    ask_clocks(k);
    if (q.woken >= 0 && q.all && q.down)
        ask_proxies(k, &q);
    else
        check_add(k, CHECK_PROBLEM, "peers", "", "cannot be asked: %s",
                  strerror(errno));
    free(q.all);
    free(q.down);
    if (q.woken >= 0)
        close(q.woken);
}
