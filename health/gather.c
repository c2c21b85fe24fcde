/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks processes and hosts again and again.
 *
 * Threads: ask_processes and ask_hosts, each the only one that asks its
 * sources; both, and gather_lock's callers, touch the picture under lock. */
#include "health/gather.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "health/ctl_client.h"
#include "health/fields.h"

#define CERTS_INTERVAL_MS 60000
#define ORIGIN_MAX        (INET6_ADDRSTRLEN + 24)

struct gather {
    /* fixed after gather_start */
    const struct config *config;
    struct ctl_tls tls;
    pthread_t processes, hosts;
    bool has_processes, has_hosts; /* the threads run */

    /* ask_hosts' only: which of its addresses a host is asked at */
    size_t *address;

    pthread_mutex_t lock;
    /* guarded by lock */
    pthread_cond_t stop_cond; /* stop was set; on CLOCK_MONOTONIC */
    bool stop;
    struct picture picture;
};

/* Until deadline_ms; false: it is time to end. */
static bool
pause_until(struct gather *g, uint64_t deadline_ms)
{
    const struct timespec until = {
        .tv_sec = (time_t)(deadline_ms / 1000),
        .tv_nsec = (long)(deadline_ms % 1000) * 1000000,
    };
    bool go_on;

    pthread_mutex_lock(&g->lock);
    while (!g->stop && clock_ms() < deadline_ms)
        pthread_cond_timedwait(&g->stop_cond, &g->lock, &until);
    go_on = !g->stop;
    pthread_mutex_unlock(&g->lock);
    return go_on;
}

/* ---- this host's processes --------------------------------------------- */

static void
take_answers(struct gather *g, char *const *paths, size_t n,
             struct ctl_call *calls, uint64_t asked_ms)
{
    uint64_t now_ms = clock_ms();

    pthread_mutex_lock(&g->lock);
    if (picture_processes(&g->picture, paths, n, now_ms) == 0) {
        for (size_t i = 0; i < n; i++) {
            struct picture_source *s = &g->picture.processes[i];
            struct ctl_call *c = &calls[i];
            bool good = c->status == 200;

            /* sorted alike, since their folder is one */
            picture_heard(s, good ? c->reply : NULL, c->error, now_ms);
            if (!good)
                continue;
            s->asked_ms = asked_ms;
            c->reply = NULL;
        }
    }
    pthread_mutex_unlock(&g->lock);
}

static void
tell_blind(struct gather *g, int err)
{
    pthread_mutex_lock(&g->lock);
    if (!g->picture.error[0] || g->picture.looked_ms == 0)
        log_error("%s: %s", g->config->rundir, strerror(-err));
    snprintf(g->picture.error, sizeof g->picture.error, "%s", strerror(-err));
    pthread_mutex_unlock(&g->lock);
}

static void
processes_round(struct gather *g)
{
    char **paths = NULL;
    int n = ctl_find(g->config->rundir, &paths);
    struct ctl_call *calls;
    uint64_t asked_ms;

    if (n < 0) {
        tell_blind(g, n);
        return;
    }
    calls = calloc((size_t)n + 1, sizeof *calls);
    for (int i = 0; calls && i < n; i++)
        calls[i] = (struct ctl_call){
            .socket_path = paths[i],
            .method = "GET",
            .path = "/status",
            .timeout_ms = PICTURE_ASK_TIMEOUT_MS,
        };
    asked_ms = clock_ms();
    if (calls && ctl_ask(calls, (size_t)n) == 0)
        take_answers(g, paths, (size_t)n, calls, asked_ms);
    for (int i = 0; i < n; i++) {
        if (calls)
            ctl_call_fini(&calls[i]);
        free(paths[i]);
    }
    free(calls);
    free(paths);
}

static void
read_certs(struct gather *g)
{
    struct cert certs[CERTS_MAX];
    size_t n = certs_read(g->config, certs);

    pthread_mutex_lock(&g->lock);
    memcpy(g->picture.certs, certs, n * sizeof certs[0]);
    g->picture.ncerts = n;
    pthread_mutex_unlock(&g->lock);
}

static void *
ask_processes(void *arg)
{
    struct gather *g = arg;
    uint64_t certs_ms = 0;

    do {
        if (clock_ms() >= certs_ms) {
            read_certs(g);
            certs_ms = clock_ms() + CERTS_INTERVAL_MS;
        }
        processes_round(g);
    } while (pause_until(g, clock_ms() + PICTURE_ASK_INTERVAL_MS));
    return NULL;
}

/* ---- the other hosts --------------------------------------------------- */

static void
origin_of(const struct gather *g, size_t i, char *to, size_t room)
{
    const struct config *c = g->config;
    const struct config_host *h = config_host(c, g->picture.hosts[i].name);
    const char *address = h->addresses[g->address[i] % h->naddresses];
    bool v6 = strchr(address, ':');

    snprintf(to, room, "%s://%s%s%s:%u", c->health.cert ? "https" : "http",
             v6 ? "[" : "", address, v6 ? "]" : "", c->health.at.port);
}

/* What says it is another host, or none of ours, is not that host. */
static const char *
not_its_word(const struct gather *g, const char *host, const struct ctl_call *c)
{
    if (c->status != 200)
        return c->error;
    if (!field_is(c->reply, "cluster", g->config->cluster_name))
        return "answered for another cluster";
    return field_is(c->reply, "host", host) ? NULL : "answered as another host";
}

static void
hosts_round(struct gather *g, struct ctl_call *calls,
            char (*origins)[ORIGIN_MAX])
{
    size_t n = g->picture.nhosts; /* fixed, and so are their names */
    uint64_t now_ms;

    for (size_t i = 0; i < n; i++) {
        origin_of(g, i, origins[i], sizeof origins[i]);
        calls[i] = (struct ctl_call){
            .origin = origins[i],
            .tls = g->config->health.cert ? &g->tls : NULL,
            .method = "GET",
            .path = "/status",
            .timeout_ms = PICTURE_HOST_TIMEOUT_MS,
        };
    }
    if (ctl_ask(calls, n) < 0)
        return;
    now_ms = clock_ms();
    for (size_t i = 0; i < n; i++) {
        struct picture_source *s = &g->picture.hosts[i];
        const char *why = not_its_word(g, s->name, &calls[i]);

        pthread_mutex_lock(&g->lock);
        picture_heard(s, why ? NULL : calls[i].reply, why, now_ms);
        pthread_mutex_unlock(&g->lock);
        if (why)
            g->address[i]++; /* perhaps over another network */
        else
            calls[i].reply = NULL;
    }
}

static void *
ask_hosts(void *arg)
{
    struct gather *g = arg;
    size_t n = g->picture.nhosts;
    struct ctl_call *calls = calloc(n + 1, sizeof *calls);
    char(*origins)[ORIGIN_MAX] = calloc(n + 1, sizeof *origins);

    if (!calls || !origins)
        log_error("out of memory: other hosts are not asked");
    else
        do {
            hosts_round(g, calls, origins);
            for (size_t i = 0; i < n; i++)
                ctl_call_fini(&calls[i]);
        } while (pause_until(g, clock_ms() + PICTURE_HOST_INTERVAL_MS));
    free(calls);
    free(origins);
    return NULL;
}

/* ---- start and stop ---------------------------------------------------- */

/* The program's signals are its other threads' business. */
static int
start_threads(struct gather *g)
{
    sigset_t all, old;
    int err;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    err = pthread_create(&g->processes, NULL, ask_processes, g);
    g->has_processes = err == 0;
    if (err == 0 && g->picture.nhosts > 0) {
        err = pthread_create(&g->hosts, NULL, ask_hosts, g);
        g->has_hosts = err == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -err;
}

static int
init(struct gather *g, const struct config *c)
{
    pthread_condattr_t attr;

    g->config = c;
    g->tls = (struct ctl_tls){
        .ca = c->health.ca ? c->health.ca : c->ca,
        .cert = c->health.cert,
        .key = c->health.key,
    };
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&g->stop_cond, &attr);
    pthread_condattr_destroy(&attr);
    g->address = calloc(c->nhosts + 1, sizeof *g->address);
    if (picture_init(&g->picture, c, clock_ms()) < 0 || !g->address)
        return -ENOMEM;
    return curl_global_init(CURL_GLOBAL_DEFAULT) ? -ENOMEM : start_threads(g);
}

struct gather *
gather_start(const struct config *c)
{
    struct gather *g = calloc(1, sizeof *g);
    int err;

    if (!g)
        return NULL;
    err = init(g, c);
    if (err == 0)
        return g;
    gather_stop(g);
    errno = -err;
    return NULL;
}

void
gather_stop(struct gather *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    g->stop = true;
    pthread_cond_broadcast(&g->stop_cond);
    pthread_mutex_unlock(&g->lock);
    if (g->has_processes)
        pthread_join(g->processes, NULL);
    if (g->has_hosts)
        pthread_join(g->hosts, NULL);
    picture_fini(&g->picture);
    pthread_cond_destroy(&g->stop_cond);
    pthread_mutex_destroy(&g->lock);
    free(g->address);
    free(g);
}

const struct picture *
gather_lock(struct gather *g)
{
    pthread_mutex_lock(&g->lock);
    return &g->picture;
}

void
gather_unlock(struct gather *g)
{
    pthread_mutex_unlock(&g->lock);
}
