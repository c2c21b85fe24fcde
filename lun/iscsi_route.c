/* SPDX-License-Identifier: BSD-3-Clause */
/* Which path takes a request, which requests wait, and what becomes of those
 * that a path had when it failed.
 *
 * Reads go to any good path.  A write goes to a good path whose
 * nexus is a member of the present registration, and only while no grave is
 * dirty: a write that was sent on a dead nexus and not answered may take
 * effect at any time until that nexus is fenced, and must not do so after a
 * newer one.  A flush needs a member as well, since SYNCHRONIZE CACHE through
 * an unregistered nexus is a conflict (SBC-4 table 17); while there is no
 * registration it is tried anywhere.  What cannot go yet is held, in order, as
 * long as a path is good; with no good path left everything comes back with
 * -ENOLINK.
 */
#include <errno.h>
#include <stdlib.h>

#include "lun/iscsi_impl.h"

bool
iscsi_route_dirty_locked(const struct iscsi_nexus *n)
{
    return !TAILQ_EMPTY(&n->lost) || n->nghosts > 0;
}

static bool
any_dirty_locked(const struct iscsi_lun *l)
{
    const struct iscsi_nexus *n;

    TAILQ_FOREACH(n, &l->graves, link)
    if (iscsi_route_dirty_locked(n))
        return true;
    return false;
}

unsigned
iscsi_route_good_locked(const struct iscsi_lun *l)
{
    unsigned good = 0;

    for (size_t i = 0; i < l->npaths; i++)
        good += l->paths[i].state == LUN_PATH_GOOD;
    return good;
}

static bool
takes_locked(const struct iscsi_path *p, bool member)
{
    return p->nexus && p->dropped[0] == '\0' &&
           (!member || iscsi_member_locked(p->lun, p->nexus));
}

/* The next path in turn that may take it, or NULL. */
static struct iscsi_path *
choose_locked(struct iscsi_lun *l, bool member)
{
    for (size_t i = 0; i < l->npaths; i++) {
        struct iscsi_path *p = &l->paths[(l->next_path + i) % l->npaths];

        if (!takes_locked(p, member))
            continue;
        l->next_path = (p->index + 1) % (unsigned)l->npaths;
        return p;
    }
    return NULL;
}

/* ---- the end of a request --------------------------------------------------
 */

void
iscsi_route_finish_locked(struct iscsi_lun *l, struct iscsi_request *r,
                          int error)
{
    struct iscsi_queue *q = r->queue;

    /* gone already when a ghost counts in its place */
    if (r->ghost || !lun_op_writes(r->io.op))
        lun_tally_end(&r->io);
    r->io.error = error;
    if (!q) {
        if (lun_op_writes(r->io.op))
            l->abandoned_writes--;
        else
            l->abandoned_reads--;
        l->inflight--;
        iscsi_queue_free(r);
        pthread_cond_broadcast(&l->changed);
        return;
    }
    r->place = ISCSI_DONE;
    if (TAILQ_EMPTY(&q->done))
        iscsi_queue_wake_locked(q);
    TAILQ_INSERT_TAIL(&q->done, r, link);
}

/* The owner is told, but the write may still take effect: its ghost stays. */
static void
finish_haunted_locked(struct iscsi_nexus *n, struct iscsi_lun *l,
                      struct iscsi_request *r, int error)
{
    struct iscsi_ghost *g = r->ghost;

    g->io.op = r->io.op;
    g->io.tally = r->io.tally;
    r->ghost = NULL;
    SLIST_INSERT_HEAD(&n->ghosts, g, link);
    n->nghosts++;
    iscsi_route_finish_locked(l, r, error);
}

/* ---- placing --------------------------------------------------------------
 */

static void
hold_locked(struct iscsi_lun *l, struct iscsi_request *r)
{
    r->place = ISCSI_HELD;
    TAILQ_INSERT_TAIL(&l->held, r, link);
}

static bool
registered_for_locked(const struct iscsi_lun *l, const struct iscsi_request *r)
{
    return l->opt->fence == LUN_FENCE_DRAIN ||
           (l->registration == LUN_REGISTERED &&
            r->io.registration_no == l->registration_no);
}

void
iscsi_route_locked(struct iscsi_lun *l, struct iscsi_request *r)
{
    bool write = lun_op_writes(r->io.op);
    bool member;
    struct iscsi_path *p;

    if (write && !registered_for_locked(l, r)) {
        iscsi_route_finish_locked(l, r, -EBADE);
        return;
    }
    member =
        write || (r->io.op == LUN_FLUSH && l->registration == LUN_REGISTERED);
    p = write && any_dirty_locked(l) ? NULL : choose_locked(l, member);
    if (p) {
        r->place = ISCSI_INBOX;
        r->path = p;
        if (TAILQ_EMPTY(&p->inbox))
            iscsi_path_wake(p);
        TAILQ_INSERT_TAIL(&p->inbox, r, link);
    } else if (iscsi_route_good_locked(l) > 0) {
        hold_locked(l, r);
    } else {
        iscsi_route_finish_locked(l, r, -ENOLINK);
    }
}

void
iscsi_route_held_locked(struct iscsi_lun *l)
{
    struct iscsi_requests again = TAILQ_HEAD_INITIALIZER(again);
    struct iscsi_request *r;

    TAILQ_CONCAT(&again, &l->held, link);
    while ((r = TAILQ_FIRST(&again))) {
        TAILQ_REMOVE(&again, r, link);
        iscsi_route_locked(l, r);
    }
}

/* ---- a path has failed -------------------------------------------------- */

/* Nobody may take them any more: tell their owners.  The graves keep ghosts. */
static void
strand_locked(struct iscsi_lun *l, int error)
{
    struct iscsi_nexus *n;
    struct iscsi_request *r;

    TAILQ_FOREACH(n, &l->graves, link)
    {
        while ((r = TAILQ_FIRST(&n->lost))) {
            TAILQ_REMOVE(&n->lost, r, link);
            finish_haunted_locked(n, l, r, error);
        }
    }
}

/* Where a request of a failed path goes; it is in no list. */
static void
unseat_locked(struct iscsi_lun *l, struct iscsi_nexus *n,
              struct iscsi_request *r)
{
    bool orphan = r->in_target && lun_op_writes(r->io.op);

    r->in_target = false;
    r->resume_ms = 0;
    r->path = NULL;
    if (orphan) {
        r->place = ISCSI_LOST;
        TAILQ_INSERT_TAIL(&n->lost, r, link);
    } else if (!r->queue) {
        iscsi_route_finish_locked(l, r, -ENOLINK);
    } else {
        hold_locked(l, r);
    }
}

void
iscsi_route_path_lost_locked(struct iscsi_path *p)
{
    struct iscsi_lun *l = p->lun;
    struct iscsi_nexus *n = p->nexus;
    struct iscsi_request *r;

    iscsi_control_fail_all_locked(p);
    p->nexus = NULL;
    while ((r = TAILQ_FIRST(&p->sent))) {
        TAILQ_REMOVE(&p->sent, r, link);
        unseat_locked(l, n, r);
    }
    while ((r = TAILQ_FIRST(&p->inbox))) {
        TAILQ_REMOVE(&p->inbox, r, link);
        unseat_locked(l, n, r);
    }
    p->nsent = 0;
    if (n) {
        n->died_ms = clock_ms();
        if (n->key != 0 || iscsi_route_dirty_locked(n))
            TAILQ_INSERT_TAIL(&l->graves, n, link);
        else
            free(n);
    }
    if (iscsi_route_good_locked(l) == 0)
        strand_locked(l, -ENOLINK);
    else if (l->opt->fence == LUN_FENCE_PR && l->registration != LUN_REGISTERED)
        strand_locked(l, -EBADE);
    iscsi_route_held_locked(l);
}

/* ---- fenced, or fenced off ---------------------------------------------- */

void
iscsi_route_fenced_locked(struct iscsi_lun *l)
{
    struct iscsi_request *r;
    struct iscsi_request *next;

    for (size_t i = 0; i < l->npaths; i++) {
        struct iscsi_path *p = &l->paths[i];

        for (r = TAILQ_FIRST(&p->inbox); r; r = next) {
            next = TAILQ_NEXT(r, link);
            if (!lun_op_writes(r->io.op))
                continue;
            TAILQ_REMOVE(&p->inbox, r, link);
            iscsi_route_finish_locked(l, r, -EBADE);
        }
    }
    strand_locked(l, -EBADE);
    iscsi_route_held_locked(l); /* refuses what is held */
}

void
iscsi_route_settle_locked(struct iscsi_lun *l, struct iscsi_nexus *n)
{
    struct iscsi_requests again = TAILQ_HEAD_INITIALIZER(again);
    struct iscsi_ghost *g;
    struct iscsi_request *r;

    TAILQ_REMOVE(&l->graves, n, link);
    while ((g = SLIST_FIRST(&n->ghosts))) {
        SLIST_REMOVE_HEAD(&n->ghosts, link);
        lun_tally_end(&g->io);
        free(g);
    }
    /* before what came later, so that a long queue cannot starve them */
    TAILQ_CONCAT(&again, &n->lost, link);
    while ((r = TAILQ_LAST(&again, iscsi_requests))) {
        TAILQ_REMOVE(&again, r, link);
        if (!r->queue) {
            iscsi_route_finish_locked(l, r, -ENOLINK);
            continue;
        }
        r->place = ISCSI_HELD;
        TAILQ_INSERT_HEAD(&l->held, r, link);
    }
    free(n);
    pthread_cond_broadcast(&l->changed);
}
