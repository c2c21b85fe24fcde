/* SPDX-License-Identifier: BSD-3-Clause */
/* Lets a peer's session in: docs/design.md section 5, "Sessions", steps 1 to 4.
 *
 * Each connection comes here with its own thread and may block up to its
 * deadline.  The share's lock is given up while the device is touched or
 * another session is waited for; what was true before is then looked at
 * again (the last step).
 */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/point.h"
#include "common/rules.h"
#include "proxy/nbd.h"
#include "proxy/share_impl.h"

static int refuse(struct refusal *why, uint32_t code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static int
refuse(struct refusal *why, uint32_t code, const char *fmt, ...)
{
    va_list ap;

    why->code = code;
    va_start(ap, fmt);
    vsnprintf(why->text, sizeof why->text, fmt, ap);
    va_end(ap);
    return -EACCES;
}

/* Step 1: may anybody be let in? */
static int
check_locked(struct share *s, const char *id, struct lun_status *st,
             struct refusal *why)
{
    const char *name = s->config->name;

    lun_get_status(s->lun, st);
    if (s->drain)
        return refuse(why, NBD_REP_ERR_SHUTDOWN, "%s: draining", name);
    if (st->known && id[0] && strcmp(st->id, id) != 0)
        return refuse(why, NBD_REP_ERR_INVALID,
                      "%s: another LUN: here it is %s, not %s", name, st->id,
                      id);
    if (s->serve.state != SERVE_SERVING)
        return refuse(why, NBD_REP_ERR_SHUTDOWN, "%s: not serving: %s: %s",
                      name, serve_state_name(s->serve.state), s->serve.reason);
    if (s->config->fence == CONFIG_FENCE_PR &&
        (st->registration != LUN_REGISTERED ||
         st->registration_no != s->serve.registration_no))
        return refuse(why, NBD_REP_ERR_SHUTDOWN, "%s: not registered", name);
    if (!st->known || st->block_size == 0 || st->max_io < st->block_size)
        return refuse(why, NBD_REP_ERR_SHUTDOWN, "%s: size not known", name);
    return 0;
}

int
share_info(struct share *s, const char *id, struct lun_status *st,
           struct export_info *info, struct refusal *why)
{
    struct session_counts n;
    int rc;

    pthread_mutex_lock(&s->lock);
    rc = check_locked(s, id, st, why);
    n = session_sweep(&s->sessions);
    info->load = n.inflight;
    info->sessions = n.sessions;
    info->slow = s->slow;
    snprintf(info->id, sizeof info->id, "%s", st->id);
    snprintf(info->state, sizeof info->state, "%s",
             serve_state_name(s->serve.state));
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* What is wrong with the name itself, before anything is done for it. */
static int
check_name(struct share *s, const struct export_name *e, struct refusal *why)
{
    if (!e->client[0] && (e->generation || e->nfence))
        return refuse(why, NBD_REP_ERR_INVALID,
                      "generation and fence need a client");
    if (e->client[0] && !e->generation)
        return refuse(why, NBD_REP_ERR_INVALID,
                      "client needs a generation above 0");
    for (size_t i = 0; i < e->nfence; i++) {
        const struct config_host *h = config_host(s->hosts, e->fence[i]);

        if (!h)
            return refuse(why, NBD_REP_ERR_INVALID,
                          "fence: no such host here: %s", e->fence[i]);
        if (h == s->hosts->self)
            return refuse(why, NBD_REP_ERR_INVALID,
                          "fence: %s is this very host", h->name);
    }
    return 0;
}

/* Step 2, and the first half of 3: lower generations are told to end. */
static int
claim_locked(struct share *s, const struct share_request *r,
             struct refusal *why)
{
    const struct export_name *e = r->name;
    uint64_t seen;

    switch (session_claim(&s->sessions, r->peer->name, e->client, e->generation,
                          &seen)) {
    case 0:
        return 0;
    case -ESTALE:
        return refuse(why, NBD_REP_ERR_POLICY,
                      "generation %" PRIu64 " is older than %" PRIu64,
                      e->generation, seen);
    case -ENOSPC:
        return refuse(why, NBD_REP_ERR_POLICY, "too many clients of %s",
                      r->peer->name);
    default:
        return refuse(why, NBD_REP_ERR_SHUTDOWN, "out of memory");
    }
}

/* Step 3: wait until what lower generations had submitted is finished. */
static int
wait_older_locked(struct share *s, const struct share_request *r,
                  struct refusal *why)
{
    const struct export_name *e = r->name;
    struct session *old;

    while ((old = session_older(&s->sessions, r->peer->name, e->client,
                                e->generation))) {
        uint64_t generation = old->generation;
        bool in_time;

        if (old->members) {
            in_time = wait_cond(&s->changed, &s->lock, r->deadline_ms);
        } else {
            old->pins++;
            pthread_mutex_unlock(&s->lock);
            in_time = lun_tally_wait(old->tally, r->deadline_ms);
            pthread_mutex_lock(&s->lock);
            old->pins--;
        }
        if (!in_time)
            return refuse(why, NBD_REP_ERR_SHUTDOWN,
                          "%s: requests of generation %" PRIu64
                          " have not come back",
                          s->config->name, generation);
        if (s->serve.state != SERVE_SERVING || s->drain)
            return refuse(why, NBD_REP_ERR_SHUTDOWN, "%s: not serving: %s",
                          s->config->name, s->serve.reason);
    }
    return 0;
}

/* Step 4.  The names were checked by check_name. */
static int
fence_hosts(struct share *s, const struct share_request *r, struct refusal *why)
{
    for (size_t i = 0; i < r->name->nfence; i++) {
        const struct config_host *h = config_host(s->hosts, r->name->fence[i]);
        int rc = lun_fence(s->lun, h->number, r->deadline_ms);

        pthread_mutex_lock(&s->lock);
        if (rc)
            s->fences_failed++;
        else
            s->fences++;
        pthread_mutex_unlock(&s->lock);
        if (rc) {
            log_warning("lun %s: cannot fence %s for %s: %s", s->config->name,
                        h->name, r->peer->name, strerror(-rc));
            return refuse(why, NBD_REP_ERR_SHUTDOWN, "%s: cannot fence %s: %s",
                          s->config->name, h->name, strerror(-rc));
        }
        log_info("lun %s: fenced %s for %s", s->config->name, h->name,
                 r->peer->name);
    }
    return 0;
}

/* Is all that was found at the beginning still true?  Then let it in. */
static int
join_locked(struct share *s, struct share_request *r, struct refusal *why)
{
    const struct export_name *e = r->name;
    int rc = check_locked(s, e->id, &r->status, why);

    if (rc)
        return rc;
    if (s->serve.registration_no != r->registration_no)
        return refuse(why, NBD_REP_ERR_SHUTDOWN,
                      "%s: registered anew meanwhile", s->config->name);
    rc = session_join(&s->sessions, r->peer->name, e->client, e->generation,
                      r->member);
    if (rc == -ESTALE)
        return refuse(why, NBD_REP_ERR_POLICY,
                      "generation %" PRIu64 " has been superseded",
                      e->generation);
    if (rc)
        return refuse(why, NBD_REP_ERR_SHUTDOWN, "out of memory");
    r->tally = r->member->session->tally;
    return 0;
}

int
share_open(struct share *s, struct share_request *r, struct refusal *why)
{
    const struct export_name *e = r->name;
    int rc = check_name(s, e, why);

    if (rc)
        return rc;
    point_pass(POINT_GO_RECEIVED);
    pthread_mutex_lock(&s->lock);
    rc = check_locked(s, e->id, &r->status, why);
    r->registration_no = s->serve.registration_no;
    if (!rc && e->client[0]) {
        rc = claim_locked(s, r, why);
        point_pass(POINT_OLDER_TOLD);
        if (!rc && rule_kept(RULE_WAIT))
            rc = wait_older_locked(s, r, why);
        point_pass(POINT_OLDER_GONE);
    }
    if (!rc && e->nfence > 0 && rule_kept(RULE_FENCE)) {
        pthread_mutex_unlock(&s->lock);
        rc = fence_hosts(s, r, why);
        point_pass(POINT_FENCED);
        pthread_mutex_lock(&s->lock);
    }
    if (!rc)
        rc = join_locked(s, r, why);
    if (!rc)
        point_pass(POINT_LET_IN);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

void
share_leave(struct share *s, struct session_member *m)
{
    pthread_mutex_lock(&s->lock);
    session_leave(&s->sessions, m);
    s->kicked = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}
