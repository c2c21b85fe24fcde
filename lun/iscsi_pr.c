/* SPDX-License-Identifier: BSD-3-Clause */
/* The right to write: registrations of many nexuses that live and die as one.
 *
 * Every login is another nexus and registers a key of its own.  A key value
 * is used for one REGISTER, once, so that a key that is gone from the LUN
 * stays gone.  A registration (registration_no) is a set of nexuses, its
 * members.  Writes are sent on members only, hence never before the REGISTER
 * of their nexus was answered.
 *
 * What has to hold.  Let F be a fence of this host by another one that ended
 * at time f: F's last READ KEYS, at f, showed no key of ours, and every key
 * that it removed it removed with all that was under way through its nexus.
 *
 *   (A) No write admitted under a registration that began before f takes
 *       effect after f.
 *   (B) A registration that is over (LUN_FENCED) is never continued.
 *
 * How.  A fresh nexus joins the present registration so:
 *
 *   1. READ KEYS shows the key of at least one member (else: over)
 *   2. its own REGISTER is sent and, at time t1, answered
 *   3. READ KEYS, at t2 > t1, shows its own key and still that of at least
 *      one member, dead or alive.  Only then it is a member.
 *
 * A member m that is seen at t2 was on the LUN from when it was seen itself
 * in step 3 up to t2, without a gap.  By induction over the joins some
 * member's key was on the LUN at every moment from the beginning of the
 * registration to t2.  So f is not in between: it lies before the beginning,
 * or after t2.  If after t2, the new key was there before f and not at f:
 * F removed it and cut its nexus off.  The fencer loops until it sees no key,
 * so either it sees the new key, or we see the old ones gone.  That gives (A);
 * (B) because no way leads from LUN_FENCED to LUN_REGISTERED but a new number.
 *
 * A key whose REGISTER was never answered proves nothing in step 3, since it
 * may land at any time: only answered ones make members.  If it does land it
 * hurts nobody, as no write ever follows it on its nexus; it is looked for
 * and removed.
 *
 * When a member's path dies its key stays, and what was sent on it and not
 * answered may take effect at any time: its grave (iscsi_fence.c).
 *
 * After a fence every member's session is reset; lun_register begins anew
 * with fresh nexuses only.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/log.h"
#include "common/point.h"
#include "common/rules.h"
#include "lun/epoch.h"
#include "lun/iscsi_impl.h"
#include "lun/key.h"
#include "lun/wait.h"

/* between two attempts while a path is there */
#define RETRY_MS 20

/* ---- turns and ways ----------------------------------------------------- */

bool
iscsi_pr_turn_locked(struct iscsi_lun *l, uint64_t deadline_ms)
{
    while (l->busy)
        if (!wait_cond(&l->changed, &l->lock, deadline_ms))
            return false;
    l->busy = true;
    return true;
}

void
iscsi_pr_turn_over_locked(struct iscsi_lun *l)
{
    l->busy = false;
    pthread_cond_broadcast(&l->changed);
}

static bool
fits_locked(const struct iscsi_lun *l, const struct iscsi_path *p,
            enum iscsi_wanted wanted)
{
    const struct iscsi_nexus *n = p->nexus;

    if (!n || p->dropped[0] != '\0')
        return false;
    return wanted == ISCSI_MEMBER ? iscsi_member_locked(l, n) : n->key == 0;
}

bool
iscsi_pr_via_locked(struct iscsi_lun *l, enum iscsi_wanted wanted,
                    uint64_t deadline_ms, struct iscsi_via *via)
{
    struct iscsi_path *best = NULL;

    for (size_t i = 0; i < l->npaths; i++) {
        struct iscsi_path *p = &l->paths[i];

        if (fits_locked(l, p, wanted) && (!best || p->silent < best->silent))
            best = p;
    }
    if (!best)
        return false;
    *via = (struct iscsi_via){best, best->nexus->id, best->nexus->key,
                              deadline_ms};
    return true;
}

/* A portal may answer every probe and no command. */
bool
iscsi_pr_attempt_locked(struct iscsi_lun *l, uint64_t deadline_ms,
                        struct iscsi_via *via)
{
    uint64_t now_ms = clock_ms();
    bool others = false;

    if (!iscsi_pr_via_locked(l, ISCSI_MEMBER, deadline_ms, via))
        return false;
    for (size_t i = 0; i < l->npaths && !others; i++)
        others = &l->paths[i] != via->path &&
                 fits_locked(l, &l->paths[i], ISCSI_MEMBER) &&
                 l->paths[i].silent <= via->path->silent;
    if (others && deadline_ms > now_ms)
        via->deadline_ms = now_ms + (deadline_ms - now_ms) / 2;
    return true;
}

/* The nexus of via, as long as it is its path's. */
static struct iscsi_nexus *
nexus_locked(const struct iscsi_via *via)
{
    struct iscsi_nexus *n = via->path->nexus;

    return n && n->id == via->nexus ? n : NULL;
}

/* ---- standing and falling ----------------------------------------------- */

static bool
proves_locked(const struct iscsi_lun *l, const struct iscsi_nexus *n,
              const struct iscsi_keys *keys)
{
    return n && n->registration_no == l->registration_no &&
           n->registration_no != 0 && iscsi_reserve_has(keys, n->key);
}

bool
iscsi_pr_standing_locked(const struct iscsi_lun *l,
                         const struct iscsi_keys *keys)
{
    const struct iscsi_nexus *n;

    for (size_t i = 0; i < l->npaths; i++)
        if (proves_locked(l, l->paths[i].nexus, keys))
            return true;
    TAILQ_FOREACH(n, &l->graves, link)
    if (proves_locked(l, n, keys))
        return true;
    return false;
}

/* Fresh logins for all that ever registered: they are other nexuses. */
static void
renew_locked(struct iscsi_lun *l, const char *why)
{
    for (size_t i = 0; i < l->npaths; i++)
        if (l->paths[i].nexus && l->paths[i].nexus->key != 0)
            iscsi_path_drop_locked(&l->paths[i], ISCSI_RENEW, why);
}

void
iscsi_pr_end_locked(struct iscsi_lun *l, const char *why)
{
    if (l->registration != LUN_REGISTERED)
        return;
    log_warning("lun %s: fenced: %s; registration %" PRIu64 " is over",
                l->opt->name, why, l->registration_no);
    l->registration = LUN_FENCED;
    renew_locked(l, "fenced");
    iscsi_route_fenced_locked(l);
    pthread_cond_broadcast(&l->changed);
}

void
iscsi_pr_conflict_locked(struct iscsi_path *p)
{
    struct iscsi_lun *l = p->lun;

    if (iscsi_member_locked(l, p->nexus) && l->opt->fence == LUN_FENCE_PR)
        iscsi_pr_end_locked(l, "a write met a reservation conflict");
}

/* ---- keys --------------------------------------------------------------- */

static int
make_key(const struct iscsi_lun *l, uint64_t *key)
{
    const struct lun_options *opt = l->opt;
    uint32_t epoch = epoch_next(opt->statedir, opt->name);
    int err = errno;

    if (epoch == 0) {
        log_error("lun %s: no epoch from %s: %s", opt->name, opt->statedir,
                  strerror(err));
        return -err;
    }
    *key = key_pack((struct key){opt->cluster_number, opt->host_number, epoch});
    return 0;
}

/* What the REGISTER's answer, or its absence, means for the nexus. */
static int
note_register(struct iscsi_lun *l, struct iscsi_via *via, uint64_t key, int err)
{
    struct iscsi_nexus *n;

    pthread_mutex_lock(&l->lock);
    n = nexus_locked(via);
    if (!n) {
        err = -ENOLINK; /* a grave by now, unanswered to be on the safe side */
    } else if (err == 0) {
        n->answered = true;
        l->key = via->key = key;
    } else if (err == -ETIMEDOUT || err == -ENOLINK) {
        iscsi_path_drop_locked(via->path, ISCSI_FAIL, "REGISTER: no answer");
    } else {
        n->key = 0; /* refused: it is not there */
        iscsi_path_drop_locked(via->path, ISCSI_FAIL, "REGISTER refused");
    }
    pthread_mutex_unlock(&l->lock);
    return err;
}

/* Gives a fresh nexus its key; it is no member yet. */
static int
register_nexus(struct iscsi_lun *l, struct iscsi_via *via)
{
    struct iscsi_nexus *n;
    uint64_t key = 0;
    int err = make_key(l, &key);

    if (err)
        return err;
    pthread_mutex_lock(&l->lock);
    n = nexus_locked(via);
    if (n)
        n->key = key;
    if (n && !rule_kept(RULE_ANSWER)) {
        n->registration_no = l->registration_no;
        n->answered = true;
    }
    pthread_mutex_unlock(&l->lock);
    if (!n)
        return -ENOLINK;
    err = iscsi_inherit_save(l);
    if (err) {
        pthread_mutex_lock(&l->lock);
        n = nexus_locked(via);
        if (n)
            n->key = 0; /* it was not sent */
        pthread_mutex_unlock(&l->lock);
        return err;
    }
    point_pass(POINT_REGISTER);
    err = iscsi_reserve_register(via, key);
    point_pass(POINT_REGISTERED);
    return note_register(l, via, key, err);
}

/* ---- joining ------------------------------------------------------------ */

/* Step 1. */
static int
look_before_join(struct iscsi_lun *l, const struct iscsi_via *via)
{
    struct iscsi_keys keys;
    int err = iscsi_reserve_read_keys(via, &keys);

    if (err)
        return err;
    pthread_mutex_lock(&l->lock);
    if (!iscsi_pr_standing_locked(l, &keys)) {
        iscsi_pr_end_locked(l, "our keys are gone from the LUN");
        err = -EBADE;
    }
    pthread_mutex_unlock(&l->lock);
    return err;
}

/* Step 3. */
static int
look_after_join(struct iscsi_lun *l, const struct iscsi_via *via)
{
    struct iscsi_keys keys;
    struct iscsi_nexus *n;
    int err = iscsi_reserve_read_keys(via, &keys);

    if (err)
        return err;
    pthread_mutex_lock(&l->lock);
    n = nexus_locked(via);
    if (l->registration != LUN_REGISTERED ||
        !iscsi_pr_standing_locked(l, &keys)) {
        iscsi_pr_end_locked(l, "our keys are gone from the LUN");
        err = -EBADE;
    } else if (!n) {
        err = -ENOLINK;
    } else if (!iscsi_reserve_has(&keys, via->key)) {
        iscsi_path_drop_locked(via->path, ISCSI_FAIL, "its key was removed");
        err = -EAGAIN;
    } else {
        n->registration_no = l->registration_no;
        iscsi_route_held_locked(l);
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return err;
}

int
iscsi_pr_join(struct iscsi_lun *l, struct iscsi_via *via)
{
    int err = look_before_join(l, via);

    if (!err)
        err = register_nexus(l, via);
    if (!err)
        err = look_after_join(l, via);
    if (!err)
        log_debug("lun %s: path %s: key %016" PRIx64 " has joined",
                  l->opt->name, via->path->portal, via->key);
    return err;
}

/* ---- registering -------------------------------------------------------- */

/* Is every nexus that registered, but for the one of via, a grave? */
static bool
alone_locked(const struct iscsi_lun *l, const struct iscsi_via *via)
{
    for (size_t i = 0; i < l->npaths; i++) {
        const struct iscsi_nexus *n = l->paths[i].nexus;

        if (n && n->key != 0 && n->id != via->nexus)
            return false;
    }
    return true;
}

/* Buries until nothing is left to do. */
static int
bury_all(struct iscsi_lun *l, const struct iscsi_via *via)
{
    for (;;) {
        bool due;
        int err;

        pthread_mutex_lock(&l->lock);
        due = iscsi_fence_graves_due_locked(l);
        pthread_mutex_unlock(&l->lock);
        if (!due)
            return 0;
        err = iscsi_fence_graves(l, via);
        if (err && err != -EAGAIN)
            return err;
        if (clock_ms() >= via->deadline_ms)
            return -ETIMEDOUT;
    }
}

/* A new number, with via's nexus as its first member, if that is still
 * there; its key was seen after the last grave was closed. */
static int
begin(struct iscsi_lun *l, const struct iscsi_via *via)
{
    struct iscsi_keys keys;
    struct iscsi_nexus *n;
    int err = iscsi_reserve_read_keys(via, &keys);

    if (err)
        return err;
    if (!iscsi_reserve_has(&keys, via->key))
        return -EAGAIN; /* fenced already: from the start with a fresh one */
    pthread_mutex_lock(&l->lock);
    n = nexus_locked(via);
    if (n) {
        l->registration = LUN_REGISTERED;
        n->registration_no = ++l->registration_no;
        iscsi_route_held_locked(l);
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    if (!n)
        return -ENOLINK;
    log_info("lun %s: registered, number %" PRIu64 ", key %016" PRIx64,
             l->opt->name, l->registration_no, via->key);
    return 0;
}

/* The reservation comes before the graves: while there is none, anybody may
 * write, and a late write of ours would land behind its fence. */
static int
register_anew(struct iscsi_lun *l, uint64_t deadline_ms)
{
    struct iscsi_via via;
    bool found;
    int err;

    pthread_mutex_lock(&l->lock);
    renew_locked(l, "to register anew");
    found = iscsi_pr_via_locked(l, ISCSI_FRESH, deadline_ms, &via) &&
            alone_locked(l, &via);
    pthread_mutex_unlock(&l->lock);
    if (!found)
        return -ENOLINK;
    err = register_nexus(l, &via);
    if (!err)
        err = iscsi_reserve_ensure(&via);
    if (!err)
        err = bury_all(l, &via);
    if (!err)
        err = iscsi_setup_mode(&via);
    return err ? err : begin(l, &via);
}

static bool
has_abandoned_locked(const struct iscsi_path *p)
{
    const struct iscsi_request *r;

    TAILQ_FOREACH(r, &p->sent, link)
    if (!r->queue && lun_op_writes(r->io.op))
        return true;
    return false;
}

/* Writes that were given up although their path is good are back soon, or
 * else their sessions end, so that they can be fenced.
 * errors: -EAGAIN they are neither yet */
static int
wait_for_abandoned_locked(struct iscsi_lun *l, uint64_t deadline_ms)
{
    uint64_t until_ms = clock_ms() + l->opt->probe_timeout_ms;
    bool none;

    if (until_ms > deadline_ms)
        until_ms = deadline_ms;
    for (;;) {
        none = true;
        for (size_t i = 0; i < l->npaths; i++)
            none = none && !has_abandoned_locked(&l->paths[i]);
        if (none || !wait_cond(&l->changed, &l->lock, until_ms))
            break;
    }
    for (size_t i = 0; i < l->npaths && !none; i++)
        if (has_abandoned_locked(&l->paths[i]))
            iscsi_path_drop_locked(&l->paths[i], ISCSI_RENEW,
                                   "writes on it were given up");
    return none ? 0 : -EAGAIN;
}

/* It is said that we are registered: is it so?  Then nothing changes. */
static int
keep_registration(struct iscsi_lun *l, uint64_t deadline_ms)
{
    struct iscsi_via via;
    bool member;
    bool fresh;
    int err;

    pthread_mutex_lock(&l->lock);
    err = wait_for_abandoned_locked(l, deadline_ms);
    if (err) {
        pthread_mutex_unlock(&l->lock);
        return err;
    }
    member = iscsi_pr_via_locked(l, ISCSI_MEMBER, deadline_ms, &via);
    fresh = !member && iscsi_pr_via_locked(l, ISCSI_FRESH, deadline_ms, &via);
    pthread_mutex_unlock(&l->lock);
    if (!member && !fresh)
        return -ENOLINK;
    err = member ? iscsi_pr_look(l, &via) : iscsi_pr_join(l, &via);
    return err ? err : bury_all(l, &via);
}

static int
register_once(struct iscsi_lun *l, uint64_t deadline_ms)
{
    bool registered;
    int err;

    pthread_mutex_lock(&l->lock);
    registered = l->registration == LUN_REGISTERED;
    pthread_mutex_unlock(&l->lock);
    if (registered) {
        err = keep_registration(l, deadline_ms);
        if (err != -EBADE)
            return err;
        pthread_mutex_lock(&l->lock);
        iscsi_pr_end_locked(l, "our keys are gone from the LUN");
        pthread_mutex_unlock(&l->lock);
    }
    return register_anew(l, deadline_ms);
}

/* Worth another attempt when something changes, or a little later? */
static bool
passing(int err)
{
    return err == -ENOLINK || err == -EAGAIN || err == -EBADE ||
           err == -ETIMEDOUT;
}

static int
register_until(struct iscsi_lun *l, uint64_t deadline_ms)
{
    for (;;) {
        int err = register_once(l, deadline_ms);
        uint64_t now_ms = clock_ms();
        bool good;

        if (!passing(err))
            return err;
        pthread_mutex_lock(&l->lock);
        if (now_ms < deadline_ms)
            wait_cond(&l->changed, &l->lock,
                      deadline_ms < now_ms + RETRY_MS ? deadline_ms
                                                      : now_ms + RETRY_MS);
        good = iscsi_route_good_locked(l) > 0;
        pthread_mutex_unlock(&l->lock);
        if (clock_ms() >= deadline_ms || l->stopping)
            return good ? -ETIMEDOUT : -ENOLINK;
    }
}

/* Without reservations the graves are the keeper's business alone. */
static int
wait_for_orphans(struct iscsi_lun *l, uint64_t deadline_ms)
{
    bool in_time = true;
    bool good;

    pthread_mutex_lock(&l->lock);
    while (in_time &&
           (l->abandoned_writes > 0 || !TAILQ_EMPTY(&l->graves) || !l->known))
        in_time = wait_cond(&l->changed, &l->lock, deadline_ms);
    good = iscsi_route_good_locked(l) > 0;
    pthread_mutex_unlock(&l->lock);
    if (in_time)
        return 0;
    return good ? -ETIMEDOUT : -ENOLINK;
}

int
iscsi_pr_register(void *b, uint64_t deadline_ms)
{
    struct iscsi_lun *l = b;
    bool wrong;
    bool turn;
    bool no_reset;
    int err;

    if (l->opt->fence == LUN_FENCE_DRAIN)
        return wait_for_orphans(l, deadline_ms);
    pthread_mutex_lock(&l->lock);
    wrong = l->wrong_id;
    turn = !wrong && iscsi_pr_turn_locked(l, deadline_ms);
    pthread_mutex_unlock(&l->lock);
    if (!turn)
        return wrong ? -ESTALE : -ETIMEDOUT;
    err = register_until(l, deadline_ms);
    pthread_mutex_lock(&l->lock);
    if (err && l->wrong_id)
        err = -ESTALE;
    no_reset = l->no_reset;
    iscsi_pr_turn_over_locked(l);
    pthread_mutex_unlock(&l->lock);
    if (err == -EBUSY)
        log_error("lun %s: reserved in another way than \"write exclusive, "
                  "registrants only\": clear that reservation first",
                  l->opt->name);
    else if (err == -EOPNOTSUPP && !no_reset)
        log_error("lun %s: the target knows no persistent reservations: set "
                  "fence = drain",
                  l->opt->name);
    lun_changed(l->owner);
    return err;
}

/* A process' own nexuses serve nobody else: there is no lock to drop. */
void
iscsi_pr_release(void *b)
{
    (void)b;
}

/* ---- checking ----------------------------------------------------------- */

/* A member whose own key is gone while others stand has to log in anew. */
static void
drop_keyless_locked(struct iscsi_lun *l, const struct iscsi_keys *keys)
{
    for (size_t i = 0; i < l->npaths; i++) {
        struct iscsi_nexus *n = l->paths[i].nexus;

        if (n && n->registration_no != 0 && !iscsi_reserve_has(keys, n->key))
            iscsi_path_drop_locked(&l->paths[i], ISCSI_RENEW,
                                   "its key was removed");
    }
}

/* Strays: keys that landed after all. */
static void
find_strays_locked(struct iscsi_lun *l, const struct iscsi_keys *keys)
{
    struct iscsi_nexus *n;

    TAILQ_FOREACH(n, &l->graves, link)
    if (n->missed && iscsi_reserve_has(keys, n->key))
        n->missed = false;
}

int
iscsi_pr_look(struct iscsi_lun *l, const struct iscsi_via *via)
{
    struct iscsi_keys keys;
    int err = iscsi_reserve_read_keys(via, &keys);

    if (err)
        return err;
    pthread_mutex_lock(&l->lock);
    if (!iscsi_pr_standing_locked(l, &keys)) {
        iscsi_pr_end_locked(l, "our keys are gone from the LUN");
        err = -EBADE;
    } else {
        drop_keyless_locked(l, &keys);
        find_strays_locked(l, &keys);
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    if (err)
        return err;
    err = iscsi_reserve_ensure(via);
    return err == -EBADE ? -EAGAIN : err; /* others make and lose it */
}

/* Another path may do where one failed. */
static int
look_until(struct iscsi_lun *l, uint64_t deadline_ms)
{
    for (;;) {
        struct iscsi_via via;
        bool found;
        int err;

        pthread_mutex_lock(&l->lock);
        found = iscsi_pr_attempt_locked(l, deadline_ms, &via);
        pthread_mutex_unlock(&l->lock);
        err = found ? iscsi_pr_look(l, &via) : -ENOLINK;
        if (!found || (err != -ETIMEDOUT && err != -ENOLINK) ||
            clock_ms() >= deadline_ms || l->stopping)
            return err;
    }
}

int
iscsi_pr_check(void *b, uint64_t deadline_ms)
{
    struct iscsi_lun *l = b;
    enum lun_registration before;
    int err = 0;

    pthread_mutex_lock(&l->lock);
    if (!iscsi_pr_turn_locked(l, deadline_ms)) {
        pthread_mutex_unlock(&l->lock);
        return -ETIMEDOUT;
    }
    before = l->registration;
    if (before != LUN_REGISTERED)
        err = before == LUN_FENCED ? -EBADE : 0;
    pthread_mutex_unlock(&l->lock);
    if (before == LUN_REGISTERED)
        err = look_until(l, deadline_ms);
    pthread_mutex_lock(&l->lock);
    iscsi_pr_turn_over_locked(l);
    pthread_mutex_unlock(&l->lock);
    if (err == -EBADE && before == LUN_REGISTERED)
        lun_changed(l->owner);
    return err;
}
