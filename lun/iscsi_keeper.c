/* SPDX-License-Identifier: BSD-3-Clause */
/* The keeper: has new nexuses join, buries dead ones, looks at news.
 *
 * It works through whatever nexus is there, one thing at a time, and tries
 * again after a pause when a thing failed: a path that failed meanwhile shows
 * up as a change, everything else passes or is said by who finds it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "lun/iscsi_impl.h"
#include "lun/wait.h"

/* after something failed */
#define RETRY_MS      50
#define SAVE_RETRY_MS 500 /* a key could not be saved */

enum work {
    WORK_NONE,
    WORK_JOIN,
    WORK_BURY,
    WORK_LOOK,
    WORK_CAPACITY
};

static enum work
find_work_locked(struct iscsi_lun *l, struct iscsi_via *via, uint64_t now_ms)
{
    bool pr = l->opt->fence == LUN_FENCE_PR;
    bool registered = l->registration == LUN_REGISTERED;
    uint64_t deadline_ms = now_ms + ISCSI_KEEPER_MS;

    if (pr && !registered)
        l->check_keys = false; /* nothing to lose */
    if (l->check_capacity &&
        (iscsi_pr_via_locked(l, ISCSI_MEMBER, deadline_ms, via) ||
         iscsi_pr_via_locked(l, ISCSI_FRESH, deadline_ms, via)))
        return WORK_CAPACITY;
    if (pr && !registered)
        return WORK_NONE; /* lun_register does it all */
    if (iscsi_pr_via_locked(l, ISCSI_MEMBER, deadline_ms, via)) {
        /* first: without its key the member cannot bury anybody */
        if (pr && l->check_keys)
            return WORK_LOOK;
        if (l->bury_ms <= now_ms && iscsi_fence_graves_due_locked(l))
            return WORK_BURY;
    }
    if (pr && iscsi_pr_via_locked(l, ISCSI_FRESH, deadline_ms, via))
        return WORK_JOIN;
    return WORK_NONE;
}

static int
do_work(struct iscsi_lun *l, enum work work, struct iscsi_via *via)
{
    switch (work) {
    case WORK_JOIN:
        return iscsi_pr_join(l, via);
    case WORK_BURY:
        return iscsi_fence_graves(l, via);
    case WORK_LOOK:
        return iscsi_pr_look(l, via);
    case WORK_CAPACITY:
        return iscsi_setup_capacity(via->path, via->nexus, via->deadline_ms);
    case WORK_NONE:
        break;
    }
    return 0;
}

/* News that come while it is at work count for the next time. */
static void
claim_locked(struct iscsi_lun *l, enum work work)
{
    if (work == WORK_LOOK)
        l->check_keys = false;
    if (work == WORK_CAPACITY)
        l->check_capacity = false;
}

/* The target answered, and will hardly answer something else in a moment. */
static bool
is_refusal(int err)
{
    return err != -ENOLINK && err != -ETIMEDOUT && err != -EAGAIN &&
           err != -EBADE;
}

static void
refused_locked(struct iscsi_lun *l, int err)
{
    /* of a refused LUN RESET it was told already */
    if (l->bury_backoff_ms == 0 && err != -EOPNOTSUPP)
        log_error("lun %s: what a lost session has sent cannot be ended, and "
                  "writes wait: the target answers: %s",
                  l->opt->name, strerror(-err));
    l->bury_backoff_ms *= 2;
    if (l->bury_backoff_ms < ISCSI_REFUSED_MIN_MS)
        l->bury_backoff_ms = ISCSI_REFUSED_MIN_MS;
    if (l->bury_backoff_ms > ISCSI_REFUSED_MAX_MS)
        l->bury_backoff_ms = ISCSI_REFUSED_MAX_MS;
    l->bury_ms = clock_ms() + l->bury_backoff_ms;
}

static void
failed_locked(struct iscsi_lun *l, enum work work, const struct iscsi_via *via,
              int err)
{
    if (work == WORK_LOOK || err == -EBADE)
        l->check_keys = true;
    if (work == WORK_CAPACITY)
        l->check_capacity = true;
    if (work == WORK_BURY && is_refusal(err))
        refused_locked(l, err);
    /* A nexus that answers probes but not this is of no use. */
    if (err == -ETIMEDOUT && via->path->nexus &&
        via->path->nexus->id == via->nexus)
        iscsi_path_drop_locked(via->path, ISCSI_FAIL, "does not answer");
    log_debug("lun %s: path %s: keeper's work %d: error %d", l->opt->name,
              via->path->portal, work, -err);
    /* without room on our own disk each try costs it an fsync all the same */
    wait_cond(&l->changed, &l->lock,
              clock_ms() + (l->save_error ? SAVE_RETRY_MS : RETRY_MS));
}

void *
iscsi_keeper_main(void *lun)
{
    struct iscsi_lun *l = lun;

    pthread_mutex_lock(&l->lock);
    while (!l->stopping) {
        enum lun_registration before = l->registration;
        uint64_t size = l->info.size;
        struct iscsi_via via;
        uint64_t now_ms = clock_ms();
        enum work work =
            l->busy ? WORK_NONE : find_work_locked(l, &via, now_ms);
        bool changed;
        int err;

        if (work == WORK_NONE) {
            wait_cond(&l->changed, &l->lock,
                      l->bury_ms > now_ms ? l->bury_ms : CLOCK_NEVER);
            continue;
        }
        l->busy = true;
        claim_locked(l, work);
        pthread_mutex_unlock(&l->lock);
        err = do_work(l, work, &via);
        pthread_mutex_lock(&l->lock);
        iscsi_pr_turn_over_locked(l);
        if (err)
            failed_locked(l, work, &via, err);
        else if (work == WORK_BURY)
            l->bury_backoff_ms = 0;
        changed = l->registration != before || l->info.size != size ||
                  work == WORK_BURY;
        if (changed) {
            pthread_mutex_unlock(&l->lock);
            lun_changed(l->owner);
            pthread_mutex_lock(&l->lock);
        }
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}
