/* SPDX-License-Identifier: BSD-3-Clause */
/* detourctl gone: asks the other hosts what is left of dead ones.
 *
 * No answer counts that may have been made before the command began, since
 * the caller's word that the hosts are off is of that moment. */
#include "health/ctl_gone.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "health/ctl_cluster.h"
#include "health/ctl_print.h"
#include "health/fields.h"
#include "health/gone.h"
#include "health/picture.h"

#define ASK_INTERVAL_S 1
/* A proxy that has not answered anew by then is told as silent. */
#define FRESH_MS (PICTURE_SILENT_MS + 1000)
/* A host that is off answers no connect; one that is there does it at once. */
#define CONNECT_MS 500

/* Everything there is to ask: all addresses of some hosts. */
struct round {
    const struct config *config;
    const struct config_host **hosts; /* one for each call */
    char (*origins)[CTL_ORIGIN_MAX];
    struct ctl_tls tls;
    struct ctl_call *calls;
    size_t n;
};

/* ---- asking -------------------------------------------------------------- */

static void
round_fini(struct round *r)
{
    for (size_t i = 0; i < r->n; i++)
        ctl_call_fini(&r->calls[i]);
    free(r->hosts);
    free(r->origins);
    free(r->calls);
    *r = (struct round){.config = NULL};
}

/* Where a host's detour-health is: as health/ctl_cluster.c, which knows that
 * this host's may have addresses of its own. */
static const struct config_host *
health_of(const struct config *c, const struct config_host *h)
{
    return h == c->self && c->health.at.naddresses ? &c->health.at : h;
}

static void
add_calls(struct round *r, const struct config_host *h)
{
    const struct config *c = r->config;
    const struct config_host *at = health_of(c, h);

    for (size_t i = 0; i < at->naddresses; i++, r->n++) {
        r->hosts[r->n] = h;
        ctl_origin(c, at->addresses[i], r->origins[r->n],
                   sizeof r->origins[r->n]);
        r->calls[r->n] = (struct ctl_call){
            .origin = r->origins[r->n],
            .tls = c->health.cert ? &r->tls : NULL,
            .method = "GET",
            .path = "/status",
            .timeout_ms = PICTURE_HOST_TIMEOUT_MS,
        };
    }
}

/* Ask the dead, or all others; ended with round_fini in any case. */
static int
round_ask(struct round *r, const struct gone *g, bool dead)
{
    const struct config *c = g->config;
    size_t most = c->health.at.naddresses;

    for (size_t i = 0; i < c->nhosts; i++)
        most += c->hosts[i].naddresses;
    *r = (struct round){
        .config = c,
        .hosts = calloc(most + 1, sizeof(const struct config_host *)),
        .origins = calloc(most + 1, sizeof *r->origins),
        .calls = calloc(most + 1, sizeof *r->calls),
        .tls = {.ca = c->health.ca ? c->health.ca : c->ca,
                .cert = c->health.cert,
                .key = c->health.key},
    };
    if (!r->hosts || !r->origins || !r->calls)
        return -ENOMEM;
    for (size_t i = 0; i < c->nhosts; i++)
        if (gone_is(g, &c->hosts[i]) == dead)
            add_calls(r, &c->hosts[i]);
    return ctl_ask(r->calls, r->n);
}

/* What a host said at any of its addresses; else why not at the last. */
static struct gone_word
word_of(const struct round *r, const struct config_host *h, double after_s)
{
    struct gone_word w = {.peer = h, .error = "not asked", .after_s = after_s};

    for (size_t i = 0; i < r->n; i++) {
        const struct ctl_call *call = &r->calls[i];
        bool good = call->status == 200 && call->reply;

        if (r->hosts[i] != h)
            continue;
        if (!good && !w.status)
            w.error = call->error;
        /* an address may be another host's by mistake: rather the right one */
        if (good && (!w.status || field_is(call->reply, "host", h->name)))
            w.status = call->reply;
    }
    return w;
}

/* NULL: no memory. */
static json_t *
ask_others(const struct gone *g, uint64_t began_ms)
{
    const struct config *c = g->config;
    struct gone_word *words = calloc(c->nhosts + 1, sizeof *words);
    double after_s = (double)(clock_ms() - began_ms) / 1000;
    json_t *lines = NULL;
    struct round r;

    if (round_ask(&r, g, false) == 0 && words) {
        for (size_t i = 0; i < c->nhosts; i++)
            words[i] = word_of(&r, &c->hosts[i], after_s);
        lines = gone_lines(g, words, c->nhosts);
    }
    round_fini(&r);
    free(words);
    return lines;
}

/* ---- is it off? ---------------------------------------------------------- */

/* Returns a socket that connects, or -1. */
static int
begin_connect(const char *address, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6,
                               .sin6_port = htons(port)};
    bool v6 = inet_pton(AF_INET6, address, &in6.sin6_addr) == 1;
    int fd;

    if (!v6 && inet_pton(AF_INET, address, &in.sin_addr) != 1)
        return -1;
    fd = socket(v6 ? AF_INET6 : AF_INET,
                SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, v6 ? (struct sockaddr *)&in6 : (struct sockaddr *)&in,
                v6 ? sizeof in6 : sizeof in) == 0 ||
        errno == EINPROGRESS)
        return fd;
    close(fd);
    return -1;
}

static bool
is_connected(int fd)
{
    socklen_t len = sizeof(int);
    int err = 0;

    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0 && err == 0;
}

/* Looks at those that are ready and closes them; counts the others. */
static size_t
look_at(struct pollfd *fds, size_t n, bool *connected)
{
    size_t left = 0;

    for (size_t i = 0; i < n; i++) {
        if (fds[i].fd < 0)
            continue;
        if (!fds[i].revents) {
            left++;
            continue;
        }
        *connected |= is_connected(fds[i].fd);
        close(fds[i].fd);
        fds[i].fd = -1;
    }
    return left;
}

/* Whether anybody listens where the host's proxy does. */
static bool
proxy_listens(const struct config_host *h)
{
    struct pollfd *fds = calloc(h->naddresses + 1, sizeof *fds);
    uint64_t end_ms = clock_ms() + CONNECT_MS, now_ms;
    bool listens = false;

    if (!fds)
        return false;
    for (size_t i = 0; i < h->naddresses; i++)
        fds[i] = (struct pollfd){
            .fd = begin_connect(h->addresses[i], h->port),
            .events = POLLOUT,
        };
    while (look_at(fds, h->naddresses, &listens) > 0 && !listens &&
           (now_ms = clock_ms()) < end_ms)
        poll(fds, h->naddresses, (int)(end_ms - now_ms));
    for (size_t i = 0; i < h->naddresses; i++)
        if (fds[i].fd >= 0)
            close(fds[i].fd);
    free(fds);
    return listens;
}

/* It may have come back, and is no reason to wait then: a warning. */
static void
warn_of_living(const struct gone *g)
{
    struct round r;
    int err = round_ask(&r, g, true);

    for (size_t i = 0; err == 0 && i < g->nhosts; i++) {
        const struct config_host *h = g->hosts[i];
        struct gone_word w = word_of(&r, h, 0);
        const char *what = NULL;

        if (field_is(w.status, "host", h->name))
            what = "detour-health";
        else if (proxy_listens(h))
            what = "proxy";
        if (what)
            fprintf(stderr,
                    "detourctl: warning: the %s of %s answers: unless it was "
                    "off and has come back, what follows means nothing\n",
                    what, h->name);
    }
    round_fini(&r);
}

/* ---- telling ------------------------------------------------------------- */

static void
print_names(const struct gone *g)
{
    for (size_t i = 0; i < g->nhosts; i++)
        printf("%s%s", i == 0 ? "" : ", ", g->hosts[i]->name);
    if (g->lun)
        printf(" on lun %s", g->lun);
    puts("");
}

static void
print_lines(const struct gone *g, json_t *lines)
{
    json_t *line;
    size_t i;

    ctl_scrub(lines);
    json_array_foreach(lines, i, line)
    {
        printf("peer %s, lun %s: ", field_text(line, "peer"),
               field_text(line, "lun"));
        if (json_is_true(json_object_get(line, "clear")))
            puts("clear");
        else
            printf("not clear: %s; %s\n", field_text(line, "reason"),
                   field_text(line, "advice"));
    }
    fputs(gone_clear(lines) ? "all clear: no other host has anything left of "
                            : "not clear: start nothing elsewhere that ran on ",
          stdout);
    print_names(g);
}

static int
print_json(const struct gone *g, json_t *lines)
{
    json_t *names = json_array(), *all;
    int err = -1;

    for (size_t i = 0; i < g->nhosts; i++)
        json_array_append_new(names, json_string(g->hosts[i]->name));
    all = json_pack("{s:o, s:b, s:O}", "hosts", names, "clear",
                    (int)gone_clear(lines), "lines", lines);
    if (all)
        err = json_dumpf(all, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII);
    json_decref(all);
    puts("");
    return err;
}

/* ---- the command --------------------------------------------------------- */

static bool
mistake(const char *what, const char *name)
{
    fprintf(stderr, "detourctl: gone: %s: %s\n", name, what);
    return false;
}

/* hosts has room for all that were named. */
static bool
understand(struct gone *g, const struct ctl *c,
           const struct config_host **hosts)
{
    bool concerned = false;

    g->config = c->config;
    g->hosts = hosts;
    g->lun = c->lun;
    for (int i = 0; i < c->nargs; i++) {
        const struct config_host *h = config_host(c->config, c->args[i]);

        if (!h)
            return mistake("no such host in the configuration", c->args[i]);
        if (h == c->config->self)
            return mistake("it is this very host; ask on one that stays",
                           h->name);
        if (!gone_is(g, h))
            hosts[g->nhosts++] = h;
    }
    if (g->lun && !config_lun(c->config, g->lun))
        return mistake("no such lun in the configuration", g->lun);
    for (size_t i = 0; i < c->config->nluns; i++)
        concerned |= gone_concerns(g, &c->config->luns[i]);
    return concerned ||
           mistake(g->lun ? "not a lun of that host" : "no lun has that host",
                   g->lun ? g->lun : c->args[0]);
}

/* Asks until it is clear, or there is no time left; NULL: no memory. */
static json_t *
ask_in_time(const struct ctl *c, const struct gone *g, uint64_t began_ms)
{
    uint64_t end_ms = began_ms + c->wait_s * (uint64_t)1000, now_ms;
    json_t *lines = NULL;
    sigset_t ends;
    bool again;

    ctl_hold_signals(&ends);
    do {
        json_decref(lines);
        lines = ask_others(g, began_ms);
        now_ms = clock_ms();
        again = lines && !gone_clear(lines) &&
                (now_ms < end_ms ||
                 (gone_stale(lines) && now_ms < began_ms + FRESH_MS));
    } while (again && ctl_pause(&ends, ASK_INTERVAL_S));
    return lines;
}

static int
run(struct ctl *c, const struct config_host **hosts)
{
    struct gone g = {.nhosts = 0};
    uint64_t began_ms = clock_ms();
    int result = CTL_CANNOT;
    json_t *lines;

    if (!understand(&g, c, hosts))
        return CTL_CANNOT;
    warn_of_living(&g);
    lines = ask_in_time(c, &g, began_ms);
    if (!lines) {
        fputs("detourctl: out of memory\n", stderr);
        return CTL_CANNOT;
    }
    if (!c->json)
        print_lines(&g, lines);
    if (!c->json || print_json(&g, lines) == 0)
        result = gone_clear(lines) ? CTL_AS_WANTED : CTL_NOT_AS_WANTED;
    json_decref(lines);
    return result;
}

int
ctl_gone(struct ctl *c)
{
    const struct config_host **hosts =
        calloc((size_t)c->nargs, sizeof(const struct config_host *));
    int result = CTL_CANNOT;

    c->config = config_load_health(
        c->config_file ? c->config_file : CONFIG_DEFAULT_FILE, stderr);
    if (c->config && hosts)
        result = run(c, hosts);
    free(hosts);
    return result;
}
