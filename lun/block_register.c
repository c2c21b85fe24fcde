/* SPDX-License-Identifier: BSD-3-Clause */
/* A host's registration on a kernel device, shared by its processes. */
#include <errno.h>
#include <string.h>

#include "common/log.h"
#include "lun/block_pr.h"
#include "lun/epoch.h"
#include "lun/hostlock.h"
#include "lun/key.h"
#include "lun/wait.h"

/* lun_register and its kin: one owner's thread at a time, lun_fence: any.
 *
 * The host has one nexus (for each path), and so one key for all of its
 * processes: that of the last epoch in statedir.  Each process holds the
 * host's lock shared while it may write.  Registering anew needs it
 * exclusively, which means that every process has drained:
 *
 *   the key of the last epoch is on the LUN    keep it: a process that
 *                                              started, or another one that
 *                                              has registered anew
 *   it is not: we were fenced                  every process notices (a
 *                                              conflict, the monitor's tick),
 *                                              drains, comes here
 *   it is, but writes met a conflict: a path   a new epoch makes the key
 *   came back that is not registered           stale for the others, who
 *                                              drain and come here as well
 *
 * A late path is not simply registered with the present key: a fence may
 * have taken that key away meanwhile, and the REGISTER would give it back to
 * what the fence was for. */

static uint64_t
key_of(const struct block *b, unsigned host, uint32_t epoch)
{
    return key_pack((struct key){b->opt->cluster_number, host, epoch});
}

/* The key that the host's processes agree on now; 0: none, or errno. */
static uint64_t
host_key(const struct block *b)
{
    uint32_t epoch = epoch_last(b->opt->statedir, b->opt->name);

    return epoch ? key_of(b, b->opt->host_number, epoch) : 0;
}

static bool
has_key(const struct pr_block_state *s, uint64_t key)
{
    for (size_t i = 0; i < s->nkeys; i++)
        if (s->keys[i] == key)
            return key != 0;
    return false;
}

/* ---- registering ------------------------------------------------- */

static int
wait_for_orphans(struct block *b, uint64_t deadline_ms)
{
    bool none;

    int err = block_succeed(b, deadline_ms);

    if (err)
        return err;
    if (!job_group_wait(b->registers, deadline_ms))
        return -ETIMEDOUT;
    pthread_mutex_lock(&b->lock);
    while (b->orphans > 0 && wait_cond(&b->moved, &b->lock, deadline_ms))
        ;
    none = b->orphans == 0;
    pthread_mutex_unlock(&b->lock);
    return none ? 0 : -ETIMEDOUT;
}

/* The key is ours, and a reservation makes it count. */
static int
provide_reservation(struct block *b, const struct pr_block_state *s,
                    uint64_t key, uint64_t deadline_ms)
{
    struct pr_block_state now;
    int err;

    if (s->reserved)
        return s->usable_type ? 0 : -EBUSY;
    err = block_pr_reserve(b, key, deadline_ms);
    if (err != -EBADE)
        return err;
    /* another host was quicker */
    err = block_pr_look(b, &now, deadline_ms);
    if (err)
        return err;
    return !now.reserved ? -EAGAIN : now.usable_type ? 0 : -EBUSY;
}

/* May the key on the LUN be kept?  Not the one that met a conflict. */
static bool
keepable(struct block *b, uint64_t key, const struct pr_block_state *s)
{
    bool stale;

    pthread_mutex_lock(&b->lock);
    stale = b->registration == LUN_FENCED && b->key == key;
    pthread_mutex_unlock(&b->lock);
    return !stale && has_key(s, key);
}

/* Under the exclusive lock.
 * errors:  1 another process has registered meanwhile; else 0 or -errno */
static int
register_anew(struct block *b, uint64_t deadline_ms)
{
    struct pr_block_state s;
    struct block_slaves tried;
    uint32_t epoch;
    int err = block_pr_look(b, &s, deadline_ms);

    if (err)
        return err;
    if (keepable(b, host_key(b), &s))
        return 1;
    if (s.reserved && !s.usable_type)
        return -EBUSY;
    epoch = epoch_next(b->opt->statedir, b->opt->name);
    if (epoch == 0)
        return -errno;
    err = block_pr_register(b, key_of(b, b->opt->host_number, epoch), &tried,
                            deadline_ms);
    if (err)
        return err;
    pthread_mutex_lock(&b->lock);
    b->tried = tried;
    pthread_mutex_unlock(&b->lock);
    return 0;
}

/* Tell the host's other processes that the key is to be replaced. */
static int
call_off(struct block *b, uint64_t key, const struct pr_block_state *s)
{
    if (!has_key(s, key))
        return 0; /* they see that for themselves */
    return epoch_next(b->opt->statedir, b->opt->name) ? 0 : -errno;
}

static void
adopt_key(struct block *b, uint64_t key)
{
    pthread_mutex_lock(&b->lock);
    if (b->registration_no == 0 || b->registration == LUN_FENCED ||
        b->key != key)
        b->registration_no++;
    b->registration = LUN_REGISTERED;
    b->key = key;
    memset(b->cut_off, 0, sizeof b->cut_off);
    pthread_mutex_unlock(&b->lock);
    log_info("lun %s: registered with key %016llx", b->name,
             (unsigned long long)key);
}

/* One round: shared lock, look; else exclusive lock, register, and let the
 * next round look again, since flock may let another process in between.
 * errors:  1 go round again */
static int
round_of(struct block *b, uint64_t deadline_ms)
{
    struct pr_block_state s;
    uint64_t key;
    int err = hostlock_shared(b->lock_fd, deadline_ms);

    if (err)
        return err;
    key = host_key(b);
    err = block_pr_look(b, &s, deadline_ms);
    if (err)
        return err;
    if (keepable(b, key, &s)) {
        err = provide_reservation(b, &s, key, deadline_ms);
        if (!err)
            adopt_key(b, key);
        return err;
    }
    err = call_off(b, key, &s);
    if (!err)
        err = hostlock_exclusive(b->lock_fd, deadline_ms);
    if (!err)
        err = register_anew(b, deadline_ms);
    return err < 0 ? err : 1;
}

static int
check_device(struct block *b)
{
    int err = 0;

    pthread_mutex_lock(&b->lock);
    if (b->wrong_id)
        err = -ESTALE;
    else if (!b->device)
        err = -ENOLINK;
    pthread_mutex_unlock(&b->lock);
    return err;
}

static int
register_pr(struct block *b, uint64_t deadline_ms)
{
    bool stands;
    int err;

    do
        err = round_of(b, deadline_ms);
    while (err > 0 && clock_ms() < deadline_ms);
    if (err == 0)
        return 0;
    pthread_mutex_lock(&b->lock);
    stands = b->registration == LUN_REGISTERED;
    if (stands)
        b->registration = LUN_UNREGISTERED;
    b->drop_lock = true;
    block_drop_lock_locked(b);
    pthread_mutex_unlock(&b->lock);
    return err > 0 ? -ETIMEDOUT : err;
}

int
block_register(void *opaque, uint64_t deadline_ms)
{
    struct block *b = opaque;
    int err = check_device(b);

    if (!err)
        err = wait_for_orphans(b, deadline_ms);
    if (err)
        return err;
    pthread_mutex_lock(&b->lock);
    b->drop_lock = false; /* if there still is one that is to be dropped */
    pthread_mutex_unlock(&b->lock);
    if (b->opt->fence == LUN_FENCE_PR)
        err = register_pr(b, deadline_ms);
    else if (b->lock_fd >= 0)
        err = hostlock_shared(b->lock_fd, deadline_ms);
    block_changed(b);
    return err;
}

void
block_release(void *opaque)
{
    struct block *b = opaque;

    pthread_mutex_lock(&b->lock);
    if (b->registration == LUN_REGISTERED)
        b->registration = LUN_UNREGISTERED;
    b->drop_lock = true;
    block_drop_lock_locked(b);
    pthread_mutex_unlock(&b->lock);
    block_changed(b);
}

/* ---- checking ---------------------------------------------------- */

static bool
tried_locked(const struct block *b, const char *name)
{
    for (size_t i = 0; i < b->tried.n; i++)
        if (strcmp(b->tried.names[i], name) == 0)
            return true;
    return false;
}

/* Is there a path that was not good when we registered? */
static bool
path_came_back(struct block *b)
{
    struct device *d = block_device(b);
    struct block_slaves good = {0};
    bool news = false;

    if (d && d->multipath)
        block_good_slaves(d, &good);
    device_put(d);
    pthread_mutex_lock(&b->lock);
    for (size_t i = 0; b->tried.n > 0 && i < good.n && !news; i++)
        news = !tried_locked(b, good.names[i]);
    pthread_mutex_unlock(&b->lock);
    return news;
}

int
block_check_registration(void *opaque, uint64_t deadline_ms)
{
    struct block *b = opaque;
    struct pr_block_state s;
    uint64_t no, key;
    bool registered;
    int err;

    pthread_mutex_lock(&b->lock);
    registered = b->registration == LUN_REGISTERED;
    no = b->registration_no;
    key = b->key;
    pthread_mutex_unlock(&b->lock);
    if (!registered)
        return -EBADE;
    err = block_pr_look(b, &s, deadline_ms);
    if (err && err != -EBADE)
        return err;
    if (err || !has_key(&s, key) || key != host_key(b) || path_came_back(b)) {
        block_fenced(b, no);
        return -EBADE;
    }
    return provide_reservation(b, &s, key, deadline_ms);
}

/* ---- fencing another host ----------------------------------------
 *
 * A key that is gone proves nothing: whoever took it may have died between
 * PREEMPT and LUN RESET, or its abort may not have ended.  Only an abort or a
 * LUN RESET of our own does, and that we remember, as long as the keys have
 * not changed since. */

struct campaign {
    unsigned host;
    uint64_t own, no; /* our key, and the registration it is of */
    bool looked;      /* at the keys, once */
    bool reset_due;   /* a key went away without an abort of ours */
};

/* Every REGISTER and PREEMPT, of anybody, moves the generation: SPC-4 6.15.2.
 */
static bool
cut_off_before(struct block *b, unsigned host, uint32_t generation)
{
    bool yes;

    pthread_mutex_lock(&b->lock);
    yes = b->cut_off_at == generation &&
          (b->cut_off[host / 64] >> host % 64 & 1) != 0;
    pthread_mutex_unlock(&b->lock);
    return yes;
}

static void
note_cut_off(struct block *b, unsigned host, uint32_t generation)
{
    pthread_mutex_lock(&b->lock);
    if (b->cut_off_at != generation)
        memset(b->cut_off, 0, sizeof b->cut_off);
    b->cut_off_at = generation;
    b->cut_off[host / 64] |= (uint64_t)1 << host % 64;
    pthread_mutex_unlock(&b->lock);
}

static void
warn_of_resets(struct block *b)
{
    bool first;

    pthread_mutex_lock(&b->lock);
    first = !b->warned_reset;
    b->warned_reset = true;
    pthread_mutex_unlock(&b->lock);
    if (first)
        log_warning("lun %s: the target has no PREEMPT AND ABORT that could "
                    "be trusted: fencing with LUN RESET, which disturbs every "
                    "host",
                    b->name);
}

static int
preempt(struct block *b, struct campaign *c, uint64_t victim,
        uint64_t deadline_ms)
{
    int err = block_pr_preempt_abort(b, c->own, victim, deadline_ms);

    if (err == 0)
        return 0;
    c->reset_due = true; /* the key goes, or went, in another way */
    if (err != -EOPNOTSUPP)
        return err;
    /* Not before it is sure that the reset can follow. */
    err = block_pr_reset(b, true, deadline_ms);
    if (err)
        return err;
    warn_of_resets(b);
    return block_pr_preempt(b, c->own, victim, deadline_ms);
}

static bool
is_victim(const struct block *b, uint64_t key, unsigned host)
{
    struct key k;

    return key_unpack(key, &k) && k.cluster == b->opt->cluster_number &&
           k.host == host;
}

/* A host's key stands there once for each of its paths. */
static bool
seen_before(const struct pr_block_state *s, size_t i)
{
    for (size_t j = 0; j < i; j++)
        if (s->keys[j] == s->keys[i])
            return true;
    return false;
}

/* Each of the host's keys.  *any: it has one. */
static int
preempt_all(struct block *b, struct campaign *c, const struct pr_block_state *s,
            uint64_t deadline_ms, bool *any)
{
    int err = 0;

    *any = false;
    for (size_t i = 0; i < s->nkeys; i++) {
        if (!is_victim(b, s->keys[i], c->host) || seen_before(s, i))
            continue;
        *any = true;
        err = preempt(b, c, s->keys[i], deadline_ms);
        /* a conflict: somebody took the victim's key away, or ours */
        if (err && err != -EBADE)
            return err;
    }
    return 0;
}

/* Where there is no LUN RESET (NVMe), a host of ours takes a key with the
 * abort or not at all.  Whether that is known here is asked with a key that
 * nobody has: epochs begin at 1. */
static int
ask_for_abort(struct block *b, const struct campaign *c, uint64_t deadline_ms)
{
    uint64_t nobody = key_of(b, b->opt->host_number, 0);
    int err = block_pr_preempt_abort(b, c->own, nobody, deadline_ms);

    return err == -EBADE ? 0 : err;
}

/* The host had no key at generation; end what it may have under way. */
static int
end_commands(struct block *b, struct campaign *c, uint32_t generation,
             uint64_t deadline_ms)
{
    int err = block_pr_reset(b, false, deadline_ms);

    if (err == -EOPNOTSUPP)
        err = ask_for_abort(b, c, deadline_ms);
    else if (!err)
        log_info("lun %s: host %u had no key (any more): LUN RESET", b->name,
                 c->host);
    if (err)
        return err;
    c->reset_due = false;
    note_cut_off(b, c->host, generation);
    return 0;
}

/* One round.
 * returns: 1 the host is cut off; 0 look again; -errno */
static int
fence_round(struct block *b, struct campaign *c, uint64_t deadline_ms)
{
    struct pr_block_state s;
    bool any = false;
    int err = block_pr_look(b, &s, deadline_ms);

    if (err)
        return err;
    if (!has_key(&s, c->own)) {
        block_fenced(b, c->no);
        return -EBADE;
    }
    /* first: without a reservation a host needs no key */
    err = provide_reservation(b, &s, c->own, deadline_ms);
    if (!err)
        err = preempt_all(b, c, &s, deadline_ms, &any);
    if (!err && !any) {
        if (!c->looked)
            c->reset_due = !cut_off_before(b, c->host, s.generation);
        if (!c->reset_due) {
            note_cut_off(b, c->host, s.generation);
            return 1;
        }
        err = end_commands(b, c, s.generation, deadline_ms);
    }
    c->looked = true;
    return err == -EAGAIN ? 0 : err;
}

int
block_fence(void *opaque, unsigned host, uint64_t deadline_ms)
{
    struct block *b = opaque;
    struct campaign c = {.host = host};
    int err;

    pthread_mutex_lock(&b->lock);
    c.own = b->registration == LUN_REGISTERED ? b->key : 0;
    c.no = b->registration_no;
    pthread_mutex_unlock(&b->lock);
    if (!c.own)
        return -EBADE;
    if (host == 0 || host > KEY_HOST_MAX || host == b->opt->host_number)
        return -EINVAL;
    do
        err = fence_round(b, &c, deadline_ms);
    while (err == 0 && clock_ms() < deadline_ms);
    return err > 0 ? 0 : err == 0 ? -ETIMEDOUT : err;
}
