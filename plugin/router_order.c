/* SPDX-License-Identifier: BSD-3-Clause */
/* What people tell the router to do: checked here, done by its thread. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "plugin/router_impl.h"

int
router_redirect(struct router *r, const struct router_order *order, char *err,
                size_t len)
{
    struct posted ev = {
        .kind = ROUTE_EV_REDIRECT, .peer = ROUTE_SELF, .for_ms = order->for_ms};
    const char *peer = order->peer;
    bool ready = false;

    snprintf(ev.why, sizeof ev.why, "by order");
    if (peer && (ev.peer = peers_find(r->peers, peer)) == ROUTE_SELF) {
        snprintf(err, len, "%s is no peer for LUN %s", peer, r->opt.lun->name);
        return -ENOENT;
    }
    pthread_mutex_lock(&r->lock);
    for (int i = 0; i < (int)peers_count(r->peers); i++) {
        if (ev.peer == ROUTE_SELF || ev.peer == i)
            ready = ready || r->shown_peers[i].ready ||
                    (r->shown.phase == ROUTE_REDIRECTED && r->shown.peer == i);
    }
    if (!ready && peer) {
        r->asked_peer = ev.peer;
        r->asked_ms = clock_ms();
        r->changed = true;
        pthread_cond_signal(&r->wake);
    }
    pthread_mutex_unlock(&r->lock);
    if (!ready) {
        if (peer)
            snprintf(err, len,
                     "%s is not ready to serve LUN %s; it is being asked: see "
                     "status, then order again",
                     peer, r->opt.lun->name);
        else
            snprintf(err, len, "no peer would serve LUN %s now: see status",
                     r->opt.lun->name);
        return -EHOSTUNREACH;
    }
    router_post(r, &ev);
    return 0;
}

void
router_return(struct router *r)
{
    struct posted ev = {.kind = ROUTE_EV_RETURN, .peer = ROUTE_SELF};

    snprintf(ev.why, sizeof ev.why, "by order");
    router_post(r, &ev);
}

static bool
is_stray(struct router *r, const char *host)
{
    bool found = false;

    pthread_mutex_lock(&r->lock);
    for (size_t i = 0; i < r->nstrays && !found; i++)
        found = strcmp(r->strays[i].name, host) == 0;
    pthread_mutex_unlock(&r->lock);
    return found;
}

/* errors: as router_confirm_dead */
static int
may_be_dead(struct router *r, const char *host, char *err, size_t len)
{
    int peer = peers_find(r->peers, host);

    if (strcmp(host, r->opt.cfg->self->name) == 0) {
        snprintf(err, len, "%s is this very host", host);
        return -EINVAL;
    }
    if (peer == ROUTE_SELF && !is_stray(r, host) &&
        !config_host(r->opt.cfg, host)) {
        snprintf(err, len, "there is no host %s", host);
        return -ENOENT;
    }
    if (peer != ROUTE_SELF && peers_answers(r->peers, peer)) {
        snprintf(err, len, "%s is not dead: its proxy answers", host);
        return -EBUSY;
    }
    return 0;
}

int
router_confirm_dead(struct router *r, const char *host, const char *by,
                    char *err, size_t len)
{
    int e = may_be_dead(r, host, err, len);

    if (e < 0)
        return e;
    pthread_mutex_lock(&r->lock);
    if (r->dead[0] && strcmp(r->dead, host) != 0) {
        snprintf(err, len, "%s is just being forgotten: order again", r->dead);
        e = -EBUSY;
    } else {
        snprintf(r->dead, sizeof r->dead, "%s", host);
        snprintf(r->dead_by, sizeof r->dead_by, "%s", by);
        r->changed = true;
        pthread_cond_signal(&r->wake);
    }
    pthread_mutex_unlock(&r->lock);
    return e;
}
