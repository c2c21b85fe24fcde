/* SPDX-License-Identifier: BSD-3-Clause */
/* Sessions: connections that stood by and have GO now. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "plugin/peers_impl.h"

/* NBD proto.md, "Transmission flags" */
#define NBD_SEND_TRIM   0x0020u
#define NBD_SEND_ZEROES 0x0040u

/* What an NBD server takes that does not tell: proto.md, "Block size
 * constraints". */
#define MAX_IO_UNTOLD (32u << 20)

static int
format_go(const struct peers *p, const struct peers_request *rq, bool fence,
          char *buf)
{
    struct export_name name = {.generation = rq->generation};

    snprintf(name.lun, sizeof name.lun, "%s", p->lun->name);
    snprintf(name.client, sizeof name.client, "%s", p->client);
    snprintf(name.id, sizeof name.id, "%s", rq->id);
    for (size_t i = 0; fence && i < rq->nfence; i++)
        snprintf(name.fence[name.nfence++], EXPORT_WORD_MAX, "%s",
                 rq->fence[i]->name);
    return export_name_format(&name, buf);
}

/* p->lock is held. */
static bool
is_given_up(const struct peers *p, const struct peers_request *rq)
{
    return atomic_load(&p->interrupted) || (rq->yields && p->yield);
}

/* errors: as link_go; -ESHUTDOWN given up; -ESTALE smaller than ours now */
static int
go(struct peers *p, struct link *k, const char *name,
   const struct peers_request *rq)
{
    struct link_status st;
    bool stop;
    int r;

    pthread_mutex_lock(&p->lock);
    p->going = k;
    p->going_yields = rq->yields;
    stop = is_given_up(p, rq);
    pthread_mutex_unlock(&p->lock);
    r = stop ? -ESHUTDOWN : link_go(k, name, rq->deadline_ms);
    pthread_mutex_lock(&p->lock);
    p->going = NULL;
    if (is_given_up(p, rq)) /* whatever it answered, it was broken */
        r = -ESHUTDOWN;
    pthread_mutex_unlock(&p->lock);
    if (r < 0)
        return r;
    link_get_status(k, &st);
    if (st.size >= rq->size)
        return 0;
    link_break(k);
    return -ESTALE;
}

static void
say_why(struct link *k, int r, char *why, size_t len)
{
    struct link_status st;

    link_get_status(k, &st);
    if (r == -EACCES && st.refusal[0])
        snprintf(why, len, "refused: %s", st.refusal);
    else if (r == -ESHUTDOWN)
        snprintf(why, len, "no longer asked");
    else if (st.error[0])
        snprintf(why, len, "%s", st.error);
    else
        snprintf(why, len, "%s", strerror(-r));
}

static struct session_limits
limits_of(const struct link_status *st)
{
    uint32_t most = st->block_max;

    return (struct session_limits){
        .size = st->size,
        .max_io = most != 0 && most < MAX_IO_UNTOLD ? most : MAX_IO_UNTOLD,
        .can_trim = st->flags & NBD_SEND_TRIM,
        .can_zero = st->flags & NBD_SEND_ZEROES,
    };
}

/* Link i of peer has answered GO: the first of s. */
static void
take_first(struct peers *p, struct peer *peer, size_t i, struct session *s)
{
    struct link_status st;

    link_get_status(peer->links[i], &st);
    s->limits = limits_of(&st);
    pthread_mutex_lock(&p->lock);
    s->links[0] = peer->links[i];
    s->nlinks = 1;
    peer->links[i] = NULL;
    peer->serving = true;
    pthread_mutex_unlock(&p->lock);
}

/* Ask link i of peer for GO; it joins s when it has answered. */
static void
let_join(struct peers *p, struct peer *peer, size_t i, struct session *s,
         const struct peers_request *rq)
{
    char name[EXPORT_NAME_MAX + 1];

    if (format_go(p, rq, false, name) < 0 ||
        link_go_begin(peer->links[i], name, rq->deadline_ms) < 0)
        return;
    pthread_mutex_lock(&p->lock);
    s->joining[s->njoining++] = peer->links[i];
    peer->links[i] = NULL;
    pthread_mutex_unlock(&p->lock);
}

/* Can a connection that joins do all that was told of s? */
static bool
fits(const struct session *s, const struct link_status *st)
{
    struct session_limits its = limits_of(st);

    return st->state == LINK_LIVE && its.size >= s->limits.size &&
           its.max_io >= s->limits.max_io &&
           its.can_trim >= s->limits.can_trim &&
           its.can_zero >= s->limits.can_zero;
}

void
session_grow(struct session *s)
{
    size_t left = 0;

    for (size_t i = 0; i < s->njoining; i++) {
        struct link *k = s->joining[i];
        struct link_status st;

        if (link_go_result(k) == -EINPROGRESS) {
            s->joining[left++] = k;
            continue;
        }
        link_get_status(k, &st);
        if (fits(s, &st)) {
            s->links[s->nlinks] = k;
            s->nlinks++; /* from here on others use it */
        } else {
            log_info("lun %s: another connection to %s does not join: %s",
                     s->peers->lun->name, s->peer->host->name,
                     st.error[0]     ? st.error
                     : st.refusal[0] ? st.refusal
                                     : "it serves something else");
            link_destroy(k);
        }
    }
    s->njoining = left;
}

/* Would the peer serve over this parked connection, which may be NULL? */
static bool
is_ready(struct link *k, const struct peers_lun *want)
{
    struct export_info info;
    struct link_status st;

    if (!k)
        return false;
    link_get_status(k, &st);
    return !peers_link_problem(&st, want, &info, clock_ms());
}

int
peers_open(struct peers *p, const struct peers_request *rq,
           struct session **out, char *why, size_t whylen)
{
    struct peer *peer = &p->peers[rq->peer];
    struct peers_lun want = {.size = rq->size, .readonly = true};
    struct session *s = calloc(1, sizeof *s);
    char name[EXPORT_NAME_MAX + 1];
    int r, first = -ENOTCONN;

    if (!s)
        return -ENOMEM;
    s->peers = p;
    s->peer = peer;
    snprintf(want.id, sizeof want.id, "%s", rq->id);
    snprintf(why, whylen, "no connection is ready");
    for (size_t i = 0;
         i < LINKS_MAX && s->nlinks + s->njoining < p->lun->connections; i++) {
        if (!is_ready(peer->links[i], &want))
            continue;
        if (s->nlinks > 0) {
            let_join(p, peer, i, s, rq);
            continue;
        }
        r = format_go(p, rq, true, name);
        if (r == 0)
            r = go(p, peer->links[i], name, rq);
        if (r == 0) {
            take_first(p, peer, i, s);
            continue;
        }
        first = r;
        say_why(peer->links[i], r, why, whylen);
        if (r == -EACCES || r == -ESHUTDOWN)
            break; /* the peer said no: its other connections will too */
    }
    if (s->nlinks == 0) {
        free(s);
        return first;
    }
    *out = s;
    return 0;
}

struct link *
peers_take(struct peers *p, const struct peers_request *rq,
           char name[EXPORT_NAME_MAX + 1])
{
    struct peer *peer = &p->peers[rq->peer];
    struct peers_lun want = {.size = rq->size, .readonly = true};
    struct link *k = NULL;

    snprintf(want.id, sizeof want.id, "%s", rq->id);
    if (format_go(p, rq, false, name) < 0)
        return NULL;
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < LINKS_MAX && !k; i++) {
        if (!is_ready(peer->links[i], &want))
            continue;
        k = peer->links[i];
        peer->links[i] = NULL;
    }
    pthread_mutex_unlock(&p->lock);
    return k;
}

bool
peers_answers(struct peers *p, int peer)
{
    uint64_t now = clock_ms();
    bool answers;

    pthread_mutex_lock(&p->lock);
    answers = p->peers[peer].serving;
    for (size_t i = 0; i < LINKS_MAX && !answers; i++) {
        struct link_status st;

        if (!p->peers[peer].links[i])
            continue;
        link_get_status(p->peers[peer].links[i], &st);
        answers = st.state == LINK_PARKED && st.info_ms != 0 &&
                  !(st.info_sent_ms && now > st.info_sent_ms + FRESH_MS);
    }
    pthread_mutex_unlock(&p->lock);
    return answers;
}

void
peers_interrupt(struct peers *p)
{
    pthread_mutex_lock(&p->lock);
    atomic_store(&p->interrupted, true);
    if (p->going)
        link_break(p->going);
    pthread_mutex_unlock(&p->lock);
}

void
peers_yield(struct peers *p, bool yield)
{
    pthread_mutex_lock(&p->lock);
    p->yield = yield;
    if (yield && p->going && p->going_yields)
        link_break(p->going);
    pthread_mutex_unlock(&p->lock);
}

const struct session_limits *
session_limits(const struct session *s)
{
    return &s->limits;
}

int
session_run(struct session *s, struct link_command *c, bool *sent)
{
    unsigned turn =
        atomic_fetch_add_explicit(&s->turn, 1, memory_order_relaxed);

    return link_run(s->links[turn % s->nlinks], c, sent);
}

bool
session_broken(struct session *s, char *why, size_t whylen)
{
    for (size_t i = 0; i < s->nlinks; i++) {
        struct link_status st;

        link_get_status(s->links[i], &st);
        if (st.state == LINK_LIVE)
            continue;
        snprintf(why, whylen, "connection to %s lost: %s", s->peer->host->name,
                 st.error[0] ? st.error : "closed");
        return true;
    }
    return false;
}

uint64_t
session_oldest_ms(struct session *s)
{
    uint64_t oldest = 0;

    for (size_t i = 0; i < s->nlinks; i++) {
        uint64_t t = link_oldest_ms(s->links[i]);

        if (t && (oldest == 0 || t < oldest))
            oldest = t;
    }
    return oldest;
}

void
session_break(struct session *s)
{
    for (size_t i = 0; i < s->nlinks; i++)
        link_break(s->links[i]);
}

void
session_retire(struct session *s)
{
    if (!s || s->retired)
        return;
    s->retired = true;
    pthread_mutex_lock(&s->peers->lock);
    s->peer->serving = false;
    pthread_mutex_unlock(&s->peers->lock);
}

void
session_close(struct session *s)
{
    if (!s)
        return;
    session_retire(s);
    for (size_t i = 0; i < s->njoining; i++)
        s->links[s->nlinks++] = s->joining[i];
    peers_end_links(s->links, s->nlinks);
    free(s);
}
