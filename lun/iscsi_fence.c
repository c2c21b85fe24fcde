/* SPDX-License-Identifier: BSD-3-Clause */
/* Cutting off: other hosts, and our own nexuses that died.
 *
 * A nexus is cut off when its key is gone and everything that the target had
 * under way through it has ended.  PREEMPT AND ABORT does both.  A target
 * that refuses it gets PREEMPT, which lets nothing new in, and afterwards a
 * LUN RESET, which is answered when everything older has ended (tgt).
 *
 * A key that is found gone already was removed by somebody else, whose abort
 * or LUN RESET may still be on its way.  Then only a LUN RESET of our own
 * proves that what came in before has ended.
 *
 * All this holds while the reservation stands, so it is seen to first.
 *
 * Without reservations (LUN_FENCE_DRAIN) a LUN RESET is all there is: it ends
 * what is in the target, while the RST of the dead session has thrown away
 * what was still queued on our side.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/log.h"
#include "common/rules.h"
#include "lun/iscsi_impl.h"
#include "lun/key.h"
#include "lun/wait.h"

/* Graves buried in one go. */
#define GRAVES_MAX 64
/* until another path may be there */
#define RETRY_MS 20

/* ---- our own dead ------------------------------------------------------- */

struct grave {
    struct iscsi_nexus *nexus; /* stays: only whose turn it is frees graves */
    uint64_t key;
    bool dirty, answered, present;
};

static bool
due_locked(const struct iscsi_nexus *n)
{
    return !n->missed || iscsi_route_dirty_locked(n) ||
           clock_ms() - n->died_ms > ISCSI_STRAY_MS;
}

bool
iscsi_fence_graves_due_locked(const struct iscsi_lun *l)
{
    const struct iscsi_nexus *n;

    TAILQ_FOREACH(n, &l->graves, link)
    if (due_locked(n))
        return true;
    return false;
}

static size_t
gather_locked(struct iscsi_lun *l, struct grave *graves)
{
    struct iscsi_nexus *n;
    size_t count = 0;

    TAILQ_FOREACH(n, &l->graves, link)
    {
        if (count == GRAVES_MAX || !due_locked(n))
            continue;
        graves[count++] = (struct grave){
            .nexus = n,
            .key = n->key,
            .dirty = iscsi_route_dirty_locked(n) || n->inherited,
            .answered = n->answered,
        };
    }
    return count;
}

/* Removes the keys; *reset: a LUN RESET has to follow. */
static int
preempt_graves(const struct iscsi_via *via, struct grave *graves, size_t n,
               bool *reset)
{
    struct iscsi_keys keys;
    int err = iscsi_reserve_read_keys(via, &keys);

    if (err)
        return err;
    if (!iscsi_reserve_has(&keys, via->key))
        return -EBADE;
    for (size_t i = 0; i < n; i++) {
        struct grave *g = &graves[i];

        g->present = iscsi_reserve_has(&keys, g->key);
        if (g->present && !g->dirty)
            err = iscsi_reserve_preempt(via, g->key);
        else if (g->present)
            err = iscsi_reserve_preempt_abort(via, g->key);
        else
            err = g->dirty;
        if (err < 0)
            return err == -EBADE ? -EAGAIN : err;
        *reset |= err > 0;
    }
    return 0;
}

static int
check_gone(const struct iscsi_via *via, const struct grave *graves, size_t n)
{
    struct iscsi_keys keys;
    int err = iscsi_reserve_read_keys(via, &keys);

    if (err)
        return err;
    for (size_t i = 0; i < n; i++)
        if (iscsi_reserve_has(&keys, graves[i].key))
            return -EAGAIN;
    return iscsi_reserve_has(&keys, via->key) ? 0 : -EBADE;
}

static void
settle(struct iscsi_lun *l, const struct grave *graves, size_t n)
{
    pthread_mutex_lock(&l->lock);
    for (size_t i = 0; i < n; i++) {
        const struct grave *g = &graves[i];
        uint64_t age_ms = clock_ms() - g->nexus->died_ms;

        /* A REGISTER that was never answered may still land. */
        if (!g->answered && !g->present && g->key != 0 &&
            age_ms < ISCSI_STRAY_MS)
            g->nexus->missed = true;
        else
            iscsi_route_settle_locked(l, g->nexus);
    }
    iscsi_route_held_locked(l);
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

int
iscsi_fence_graves(struct iscsi_lun *l, const struct iscsi_via *via)
{
    bool pr = l->opt->fence == LUN_FENCE_PR;
    struct grave graves[GRAVES_MAX];
    bool reset = !pr;
    size_t n;
    int err = 0;

    pthread_mutex_lock(&l->lock);
    n = gather_locked(l, graves);
    pthread_mutex_unlock(&l->lock);
    if (n == 0)
        return 0;
    if (!rule_kept(RULE_GRAVES)) {
        settle(l, graves, n);
        return 0;
    }
    if (pr)
        err = preempt_graves(via, graves, n, &reset);
    if (!err && pr && reset)
        err = iscsi_reserve_ensure(via);
    if (!err && reset && rule_kept(RULE_ABORT))
        err = iscsi_reserve_lun_reset(via);
    if (!err && pr)
        err = check_gone(via, graves, n);
    if (err)
        return err;
    settle(l, graves, n);
    log_debug("lun %s: path %s: %zu dead sessions fenced%s", l->opt->name,
              via->path->portal, n, reset ? " with a LUN RESET" : "");
    return 0;
}

/* ---- other hosts -------------------------------------------------------- */

struct campaign {
    unsigned cluster, host;
    bool looked;    /* READ KEYS was answered once */
    bool reset_due; /* a key went away without an abort of ours */
};

/* The keys of the host, moved to the front of keys. */
static void
keep_victims(struct iscsi_keys *keys, const struct campaign *c)
{
    size_t n = 0;

    for (size_t i = 0; i < keys->n; i++) {
        struct key k;

        if (key_unpack(keys->keys[i], &k) && k.cluster == c->cluster &&
            k.host == c->host)
            keys->keys[n++] = keys->keys[i];
    }
    if (!rule_kept(RULE_EVERY_KEY) && n > 0) {
        keys->keys[0] = keys->keys[n - 1];
        n = !c->looked;
    }
    keys->n = n;
}

static int
preempt_victims(const struct iscsi_via *via, struct campaign *c,
                const struct iscsi_keys *victims)
{
    for (size_t i = 0; i < victims->n; i++) {
        bool before = c->reset_due;
        int err;

        c->reset_due = true; /* unless the answer says that it was aborted */
        err = iscsi_reserve_preempt_abort(via, victims->keys[i]);
        if (err == 0)
            c->reset_due = before;
        else if (err < 0 && err != -EBADE) /* EBADE: gone meanwhile */
            return err;
    }
    return 0;
}

/* Our own key is gone: this nexus may not fence, and perhaps none of ours. */
static int
cast_out(const struct iscsi_via *via)
{
    struct iscsi_lun *l = via->path->lun;

    pthread_mutex_lock(&l->lock);
    if (via->path->nexus && via->path->nexus->id == via->nexus)
        iscsi_path_drop_locked(via->path, ISCSI_RENEW, "its key was removed");
    l->check_keys = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return -ENOLINK;
}

/* One round.  1: the host is cut off; 0: look again. */
static int
fence_round(const struct iscsi_via *via, struct campaign *c)
{
    struct iscsi_keys keys;
    int err = iscsi_reserve_read_keys(via, &keys);

    if (err)
        return err;
    if (!iscsi_reserve_has(&keys, via->key))
        return cast_out(via);
    keep_victims(&keys, c);
    c->reset_due |= !c->looked && keys.n == 0;
    c->looked = true;
    if (keys.n == 0 && !c->reset_due)
        return 1;
    /* first: what is sent while there is none needs no key */
    err = iscsi_reserve_ensure(via);
    if (!err)
        err = preempt_victims(via, c, &keys);
    c->reset_due &= rule_kept(RULE_ABORT);
    if (!err && c->reset_due) {
        err = iscsi_reserve_lun_reset(via);
        c->reset_due = err != 0;
    }
    return err == -EBADE ? 0 : err;
}

static bool
pause_locked(struct iscsi_lun *l, uint64_t deadline_ms)
{
    uint64_t until_ms = clock_ms() + RETRY_MS;

    wait_cond(&l->changed, &l->lock,
              until_ms < deadline_ms ? until_ms : deadline_ms);
    return clock_ms() < deadline_ms && !l->stopping;
}

/* Another path may do where one failed.  With none left it is given up: they
 * may be long in coming, and who asked knows other hosts to ask. */
static int
fence_until(struct iscsi_lun *l, struct campaign *c, uint64_t deadline_ms)
{
    int err = -ENOLINK;
    bool more = true;

    while (more) {
        struct iscsi_via via;
        bool registered;
        bool found;
        bool cut_off;

        pthread_mutex_lock(&l->lock);
        registered = l->registration == LUN_REGISTERED;
        found = registered && iscsi_pr_attempt_locked(l, deadline_ms, &via);
        cut_off = iscsi_route_good_locked(l) == 0;
        pthread_mutex_unlock(&l->lock);
        if (!registered || cut_off)
            return registered ? -ENOLINK : -EBADE;
        err = found ? fence_round(&via, c) : -ENOLINK;
        if (err > 0)
            return 0;
        if (err != 0 && err != -ENOLINK && err != -ETIMEDOUT)
            return err;
        pthread_mutex_lock(&l->lock);
        more =
            err == 0 ? clock_ms() < deadline_ms : pause_locked(l, deadline_ms);
        pthread_mutex_unlock(&l->lock);
    }
    return err == 0 ? -ETIMEDOUT : err;
}

int
iscsi_fence(void *b, unsigned host_number, uint64_t deadline_ms)
{
    struct iscsi_lun *l = b;
    const struct lun_options *opt = l->opt;
    struct campaign c = {opt->cluster_number, host_number, false, false};
    uint64_t begin_ms = clock_ms();
    int err;

    if (opt->fence == LUN_FENCE_DRAIN)
        return -EOPNOTSUPP;
    if (host_number == opt->host_number || host_number == 0)
        return -EINVAL;
    err = fence_until(l, &c, deadline_ms);
    if (err)
        log_warning("lun %s: host %u could not be fenced: error %d", opt->name,
                    host_number, -err);
    else
        log_info("lun %s: host %u is fenced, in %llu ms", opt->name,
                 host_number, (unsigned long long)(clock_ms() - begin_ms));
    return err;
}
