/* SPDX-License-Identifier: BSD-3-Clause */
/* What the router knows of its LUN's looks: from our own paths, from peers, or
 * from a predecessor. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "plugin/router_impl.h"

#define MAX_IO (32u << 20) /* in one request; request.c takes it apart */

void
router_learn(struct router *r, const struct lun_status *st)
{
    struct peers_lun want;
    bool news = false;

    pthread_mutex_lock(&r->lock);
    if (st->known && !st->wrong_id)
        r->want.readonly = r->opt.lun->readonly || st->readonly;
    if (st->known && !st->wrong_id &&
        (strcmp(st->id, r->want.id) != 0 || st->size != r->want.size)) {
        snprintf(r->want.id, sizeof r->want.id, "%s", st->id);
        r->want.size = st->size;
        r->want.block_size = st->block_size;
        news = true;
    }
    want = r->want;
    pthread_mutex_unlock(&r->lock);
    if (want.id[0] && want.size == 0 &&
        peers_learn(r->peers, &want, &want.size, &want.block_size)) {
        pthread_mutex_lock(&r->lock);
        r->want.size = want.size;
        r->want.block_size = want.block_size ? want.block_size : 512;
        pthread_mutex_unlock(&r->lock);
        news = true;
    }
    if (!news)
        return;
    snprintf(r->state.id, sizeof r->state.id, "%s", r->want.id);
    r->state.size = r->want.size;
    r->state.block_size = r->want.block_size;
    pthread_mutex_lock(&r->lock);
    pthread_cond_broadcast(&r->known);
    pthread_mutex_unlock(&r->lock);
}

/* NBD wants a power of two (proto.md); devices tell what they like. */
static uint32_t
preferred_size(const struct lun_status *st, uint32_t block_size)
{
    uint32_t wish = st->known && st->preferred ? st->preferred : 4096;
    uint32_t size = block_size;

    while (size <= wish / 2 && size < MAX_IO)
        size *= 2;
    return size;
}

static void
fill_lun(struct router *r, struct router_lun *l)
{
    struct lun_status st;

    lun_get_status(r->lun, &st);
    l->readonly = r->opt.lun->readonly || (st.known && st.readonly);
    l->size = r->want.size < r->session_size ? r->want.size : r->session_size;
    l->block_size = r->want.block_size ? r->want.block_size : 512;
    l->preferred = preferred_size(&st, l->block_size);
    l->max_io = MAX_IO;
}

/* Size and identity may be known from the predecessor; whether the LUN is
 * read-only now is not, before our own paths or a peer have been heard. */
static bool
unsettled_locked(const struct router *r)
{
    return r->want.size == 0 ||
           (r->shown.phase == ROUTE_QUEUEING && r->shown.changes == 0);
}

int
router_get_lun(struct router *r, struct router_lun *l, unsigned limit_ms)
{
    uint64_t limit = limit_ms ? clock_ms() + limit_ms : CLOCK_NEVER;
    struct timespec ts;
    int e = 0;

    pthread_mutex_lock(&r->lock);
    while (unsettled_locked(r) && !r->closing && e == 0) {
        ts.tv_sec = (time_t)(limit / 1000);
        ts.tv_nsec = (long)(limit % 1000) * 1000000;
        if (limit == CLOCK_NEVER)
            pthread_cond_wait(&r->known, &r->lock);
        else if (pthread_cond_timedwait(&r->known, &r->lock, &ts) == ETIMEDOUT)
            e = -EIO;
    }
    if (e == 0 && (r->closing || unsettled_locked(r)))
        e = -ESHUTDOWN;
    if (e == 0) {
        fill_lun(r, l);
        r->block_size = l->block_size;
    }
    pthread_mutex_unlock(&r->lock);
    return e;
}

uint32_t
router_block_size(struct router *r)
{
    return r->block_size;
}
