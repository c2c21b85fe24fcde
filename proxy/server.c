/* SPDX-License-Identifier: BSD-3-Clause */
/* What all connections have in common.
 *
 * Threads: main accepts, reloads, stops; each connection comes and goes with
 * its own; the control socket's drains and reads.  A connection on the list
 * is alive as long as the lock is held.
 */
#include "proxy/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/log.h"
#include "lun/wait.h"
#include "proxy/conn.h"

/* Of the time to stop, what is kept for those that would not drain. */
#define STOP_RESERVE_MS 500

static unsigned
conns_for_descriptors(void)
{
    struct rlimit limit;
    rlim_t most;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 128;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur < 256)
        return 32;
    most = (limit.rlim_cur - 128) / SERVER_FDS_PER_CONN;
    return most < SERVER_CONNS_MAX ? (unsigned)most : SERVER_CONNS_MAX;
}

static bool
create_shares(struct server *s)
{
    const struct config *c = s->config;

    s->shares = calloc(c->nluns ? c->nluns : 1, sizeof *s->shares);
    if (!s->shares) {
        log_error("out of memory");
        return false;
    }
    for (size_t i = 0; i < c->nluns; i++) {
        struct share *share;

        if (!config_lun_has(&c->luns[i], c->self))
            continue;
        share = share_create(c, &c->luns[i]);
        if (!share)
            return false;
        s->shares[s->nshares++] = share;
    }
    if (s->nshares == 0)
        log_warning("no LUN names this host (%s): nothing to serve",
                    c->self->name);
    return true;
}

struct server *
server_create(const struct config *c)
{
    struct server *s = calloc(1, sizeof *s);
    char err[512];

    if (!s) {
        log_error("out of memory");
        return NULL;
    }
    s->config = c;
    s->started_ms = clock_ms();
    s->max_conns = conns_for_descriptors();
    s->refusals = (struct limit){.burst = 20, .every_ms = 1000};
    pthread_mutex_init(&s->lock, NULL);
    wait_cond_init(&s->gone);
    s->held = calloc(c->nhosts, sizeof *s->held);
    if (!s->held)
        log_error("out of memory");
    s->tls = tls_create(c, err, sizeof err);
    if (!s->tls)
        log_error("%s", err);
    if (!s->held || !s->tls || !create_shares(s)) {
        server_destroy(s, 0);
        return NULL;
    }
    return s;
}

void
server_destroy(struct server *s, uint64_t deadline_ms)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->nshares; i++)
        share_destroy(s->shares[i], deadline_ms);
    free(s->shares);
    tls_destroy(s->tls);
    free(s->held);
    pthread_cond_destroy(&s->gone);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

struct share *
server_share(struct server *s, const char *name)
{
    for (size_t i = 0; i < s->nshares; i++)
        if (strcmp(share_config(s->shares[i])->name, name) == 0)
            return s->shares[i];
    return NULL;
}

/* ---- connections ------------------------------------------------------- */

/* Addresses in the configuration are as they were written. */
static bool
same_address(const char *a, const char *b)
{
    struct in6_addr x, y;

    if (inet_pton(AF_INET6, a, &x) == 1 && inet_pton(AF_INET6, b, &y) == 1)
        return memcmp(&x, &y, sizeof x) == 0;
    return strcmp(a, b) == 0;
}

static bool
is_from_host(const struct config *c, const char *ip)
{
    for (size_t i = 0; i < c->nhosts; i++)
        for (size_t j = 0; j < c->hosts[i].naddresses; j++)
            if (same_address(c->hosts[i].addresses[j], ip))
                return true;
    return false;
}

/* Why c may not begin its handshake now; NULL: it may. */
static const char *
no_room_locked(const struct server *s, const struct conn *c)
{
    unsigned most = s->max_conns / 2, strangers = 0, near = 0, outside = 0;

    if (most > SERVER_STRANGERS_MAX)
        most = SERVER_STRANGERS_MAX;
    for (const struct conn *o = s->conns; o; o = o->next) {
        if (o->peer)
            continue;
        strangers++;
        near += strcmp(o->ip, c->ip) == 0;
        outside += !o->from_host;
    }
    if (s->stopping)
        return "stopping";
    if (s->nconns >= s->max_conns)
        return "too many connections";
    if (strangers >= most)
        return "too many connections in their handshake";
    if (near >= SERVER_STRANGERS_ADDRESS_MAX)
        return "too many connections in their handshake from this address";
    if (!c->from_host && outside >= most / 2)
        return "too many connections in their handshake from addresses of no "
               "configured host";
    return NULL;
}

int
server_add(struct server *s, struct conn *c, const char **why)
{
    int rc;

    c->from_host = is_from_host(s->config, c->ip);
    pthread_mutex_lock(&s->lock);
    *why = no_room_locked(s, c);
    rc = *why ? -EBUSY : 0;
    if (!rc) {
        c->id = ++s->last_id;
        snprintf(c->name, sizeof c->name, "conn %llu",
                 (unsigned long long)c->id);
        c->next = s->conns;
        s->conns = c;
        s->nconns++;
    }
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int
server_identify(struct server *s, struct conn *c,
                const struct config_host *peer, const char **why)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(c->stream.ssl);
    unsigned same = 0;

    pthread_mutex_lock(&s->lock);
    for (const struct conn *o = s->conns; o; o = o->next)
        same += o->peer == peer;
    if (same < SERVER_HOST_MAX) {
        c->peer = peer;
        c->cert = SSL_get1_peer_certificate(c->stream.ssl);
        c->chain = chain ? X509_chain_up_ref(chain) : NULL;
    }
    pthread_mutex_unlock(&s->lock);
    *why = "too many connections of this host";
    return same < SERVER_HOST_MAX ? 0 : -EBUSY;
}

static void
remove_locked(struct server *s, struct conn *c)
{
    struct conn **p;

    for (p = &s->conns; *p != c; p = &(*p)->next)
        ;
    *p = c->next;
    s->nconns--;
    pthread_cond_broadcast(&s->gone);
}

void
server_remove(struct server *s, struct conn *c)
{
    pthread_mutex_lock(&s->lock);
    remove_locked(s, c);
    pthread_mutex_unlock(&s->lock);
}

bool
server_leave(struct server *s, struct conn *c, pthread_t *before)
{
    bool any;

    pthread_mutex_lock(&s->lock);
    remove_locked(s, c);
    *before = s->last;
    any = s->any_last;
    s->last = pthread_self();
    s->any_last = true;
    pthread_mutex_unlock(&s->lock);
    return any;
}

void
server_refused(struct server *s, const struct conn *c, const char *why)
{
    unsigned withheld = 0;
    bool tell;

    atomic_fetch_add(&s->refused, 1);
    pthread_mutex_lock(&s->lock);
    tell = limit_allow(&s->refusals, clock_ms(), &withheld);
    pthread_mutex_unlock(&s->lock);
    if (!tell)
        return;
    if (withheld > 0)
        log_warning("%u more refusals were not logged", withheld);
    log_warning("%s: refused %s%s%s: %s", c->name[0] ? c->name : "conn",
                c->address, c->peer ? ", " : "", c->peer ? c->peer->name : "",
                why);
}

/* ---- for main and the control socket ----------------------------------- */

int
server_drain(struct server *s, const char *name, bool on)
{
    struct share *share;

    if (name) {
        share = server_share(s, name);
        if (!share)
            return -ENOENT;
        share_drain(share, on);
        return 0;
    }
    pthread_mutex_lock(&s->lock);
    s->draining = on;
    pthread_mutex_unlock(&s->lock);
    for (size_t i = 0; i < s->nshares; i++)
        share_drain(s->shares[i], on);
    return 0;
}

void
server_reload(struct server *s)
{
    char err[512];

    if (tls_reload(s->tls, err, sizeof err)) {
        log_error("certificates not reloaded, the old ones stay: %s", err);
        return;
    }
    log_info("certificates reloaded");
    pthread_mutex_lock(&s->lock);
    for (struct conn *c = s->conns; c; c = c->next) {
        if (!c->cert ||
            tls_check_again(s->tls, c->cert, c->chain, err, sizeof err) == 0)
            continue;
        log_warning("%s: closed, %s is not let in any more: %s", c->name,
                    c->peer->name, err);
        conn_order(c, SESSION_FINISH);
    }
    pthread_mutex_unlock(&s->lock);
}

/* Tell those that serve nothing (all: everybody) to end. */
static void
order_locked(struct server *s, bool all)
{
    for (struct conn *c = s->conns; c; c = c->next)
        if (all || atomic_load(&c->phase) != CONN_LIVE)
            conn_order(c, all ? SESSION_ABANDON : SESSION_FINISH);
}

bool
server_stop(struct server *s, uint64_t deadline_ms)
{
    bool ended;

    server_drain(s, NULL, true);
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    order_locked(s, false);
    while (s->nconns > 0 &&
           wait_cond(&s->gone, &s->lock, deadline_ms - STOP_RESERVE_MS))
        ;
    order_locked(s, true);
    while (s->nconns > 0 && wait_cond(&s->gone, &s->lock, deadline_ms))
        ;
    ended = s->nconns == 0;
    pthread_mutex_unlock(&s->lock);
    if (ended && s->any_last)
        pthread_join(s->last, NULL);
    return ended;
}
