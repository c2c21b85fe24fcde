/* SPDX-License-Identifier: BSD-3-Clause */
/* Parked connections to peers, and sessions made from them.
 *
 * Threads: the router tends, opens and closes; workers run commands on a
 * session; the status socket reports.  lock guards the table of links, not
 * what the links do, and is never held while one is destroyed.
 */
#include "plugin/peers.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"

#define LINKS_MAX 16

/* NBD proto.md, "Transmission flags" */
#define NBD_READ_ONLY   0x0002u
#define NBD_SEND_TRIM   0x0020u
#define NBD_SEND_ZEROES 0x0040u

/* What an NBD server takes that does not tell: proto.md, "Block size
 * constraints". */
#define MAX_IO_UNTOLD (32u << 20)

/* A parked connection whose NBD_OPT_INFO has been unanswered for this long is
 * not asked to serve: its peer, or the network to it, may just have died. */
#define FRESH_MS 400

/* While too few peers are ready, so much later one more of them is asked: not
 * all at once, since many hosts that are slow together would be kept so by the
 * handshakes of each with all others. */
#define WIDEN_MS 2000

struct peer {
    const struct config_host *host;
    struct link *links[LINKS_MAX]; /* parked or getting there; or NULL */
    bool serving;    /* a session of ours is open to it: ask it oftener */
    bool mismatched; /* it serves another LUN: said once */
    struct link_failures failures; /* of all its links since the start */
};

struct peers {
    const struct config_lun *lun;
    const char *tls_dir;
    char client[EXPORT_WORD_MAX];
    char info_name[EXPORT_NAME_MAX + 1];
    void (*changed)(void *opaque);
    void *opaque;
    atomic_bool interrupted;
    uint64_t short_since_ms; /* too few are ready; 0: enough.  peers_tend's */

    pthread_mutex_t lock;
    struct peer peers[ROUTE_PEERS_MAX]; /* links, serving guarded by lock */
    size_t npeers;
    struct link *going; /* inside link_go; guarded by lock */
};

struct session {
    struct peers *peers;
    struct peer *peer;
    struct link *links[LINKS_MAX]; /* the first nlinks; those are fixed */
    atomic_size_t nlinks;          /* at least 1, and grows */
    struct session_limits limits;  /* fixed while open */
    /* router only: asked for GO and not answered when it was opened */
    struct link *joining[LINKS_MAX];
    size_t njoining;
    atomic_uint turn;
};

/* ---- the table --------------------------------------------------------- */

static bool
is_listed(const struct peers *p, const struct config_host *h)
{
    for (size_t i = 0; i < p->npeers; i++)
        if (p->peers[i].host == h)
            return true;
    return false;
}

static size_t
reversed(size_t n, unsigned bits)
{
    size_t r = 0;

    for (; bits > 0; bits--, n >>= 1)
        r = r << 1 | (n & 1);
    return r;
}

/* Peers by their distance behind ourselves in the configuration, in this order:
 * a half of the hosts, a quarter, three quarters, an eighth, ...  Hosts that
 * stand together, and lose the SAN together, do not stand by for one another,
 * and lean on different ones; and each host is the nth of exactly one other. */
static void
list_peers(struct peers *p, const struct config *cfg)
{
    size_t self = (size_t)(cfg->self - cfg->hosts);
    unsigned bits = 0;

    while ((size_t)1 << bits < cfg->nhosts)
        bits++;
    for (size_t i = 1; i < (size_t)1 << bits; i++) {
        size_t distance = reversed(i, bits) * cfg->nhosts >> bits;
        const struct config_host *h =
            &cfg->hosts[(self + distance) % cfg->nhosts];

        if (distance > 0 && config_lun_has(p->lun, h) && !is_listed(p, h) &&
            p->npeers < ROUTE_PEERS_MAX)
            p->peers[p->npeers++].host = h;
    }
}

struct peers *
peers_create(const struct config *cfg, const struct config_lun *lun,
             const char *client, const char *tls_dir,
             void (*changed)(void *opaque), void *opaque)
{
    struct peers *p = calloc(1, sizeof *p);
    struct export_name name = {.pad = EXPORT_PAD};

    if (!p)
        return NULL;
    p->lun = lun;
    p->tls_dir = tls_dir;
    p->changed = changed;
    p->opaque = opaque;
    pthread_mutex_init(&p->lock, NULL);
    snprintf(p->client, sizeof p->client, "%s", client);
    snprintf(name.lun, sizeof name.lun, "%s", lun->name);
    snprintf(name.client, sizeof name.client, "%s", client);
    if (export_name_format(&name, p->info_name) < 0) {
        peers_destroy(p);
        errno = ENAMETOOLONG;
        return NULL;
    }
    list_peers(p, cfg);
    return p;
}

/* All at once: each may take its time over the farewell.  NULL is fine. */
static void
end_links(struct link **links, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (links[i])
            link_end(links[i]);
    }
    for (size_t i = 0; i < n; i++)
        link_destroy(links[i]);
}

static void
drop_links(struct peers *p, struct peer *peer)
{
    struct link *old[LINKS_MAX];

    pthread_mutex_lock(&p->lock);
    memcpy(old, peer->links, sizeof old);
    memset(peer->links, 0, sizeof peer->links);
    pthread_mutex_unlock(&p->lock);
    end_links(old, LINKS_MAX);
}

void
peers_destroy(struct peers *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->npeers; i++) {
        for (size_t j = 0; j < LINKS_MAX; j++) {
            if (p->peers[i].links[j])
                link_end(p->peers[i].links[j]);
        }
    }
    for (size_t i = 0; i < p->npeers; i++)
        drop_links(p, &p->peers[i]);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

size_t
peers_count(const struct peers *p)
{
    return p->npeers;
}

const struct config_host *
peers_host(const struct peers *p, int peer)
{
    return p->peers[peer].host;
}

int
peers_find(const struct peers *p, const char *host)
{
    for (size_t i = 0; i < p->npeers; i++) {
        if (strcmp(p->peers[i].host->name, host) == 0)
            return (int)i;
    }
    return ROUTE_SELF;
}

/* ---- what a peer says -------------------------------------------------- */

/* Why a link cannot be used now, for people; NULL: it can. */
static const char *
link_problem(const struct link_status *st, const struct peers_lun *want,
             struct export_info *info, uint64_t now_ms)
{
    memset(info, 0, sizeof *info);
    if (st->state != LINK_PARKED)
        return st->error[0] ? st->error : "connecting";
    if (st->info_ms == 0)
        return st->error[0] ? st->error : "not asked yet";
    if (!st->would_serve)
        return st->refusal[0] ? st->refusal : "refuses";
    if (st->info_sent_ms && now_ms > st->info_sent_ms + FRESH_MS)
        return "does not answer";
    if (export_info_parse(st->description, info) < 0)
        return "is no detour proxy";
    if (want->id[0] == '\0')
        return "our own LUN is not known yet";
    if (strcmp(info->id, want->id) != 0)
        return "serves another LUN under this name";
    /* a larger one has grown and we could not see it yet */
    if (st->size < want->size)
        return "its LUN is smaller than ours: if it has grown, its host has "
               "not seen that yet";
    if (want->block_size != 0 && st->block_min > want->block_size)
        return "its blocks are larger than those that VMs were told";
    if ((st->flags & NBD_READ_ONLY) && !want->readonly)
        return "serves the LUN read-only";
    return NULL;
}

static void
warn_mismatch(struct peers *p, struct peer *peer,
              const struct export_info *info, const struct link_status *st,
              const struct peers_lun *want)
{
    bool other = info->id[0] && want->id[0] && strcmp(info->id, want->id) != 0;
    bool smaller = st->would_serve && st->size < want->size;

    if (other && !peer->mismatched)
        log_error("lun %s: peer %s serves %s under this name, ours is %s: it "
                  "is not used; correct its device",
                  p->lun->name, peer->host->name, info->id, want->id);
    else if (smaller && !peer->mismatched)
        log_warning("lun %s: peer %s sees %llu bytes of it, we see %llu: it is "
                    "not used before it sees the new size",
                    p->lun->name, peer->host->name,
                    (unsigned long long)st->size,
                    (unsigned long long)want->size);
    peer->mismatched = other || smaller;
}

/* Is peer ready?  problem: of its last link that is not. */
static bool
look_locked(struct peers *p, struct peer *peer, const struct peers_lun *want,
            struct export_info *info, char *problem, size_t len)
{
    uint64_t now = clock_ms();
    struct link_status st;
    bool ready = false;

    snprintf(problem, len, "not connected");
    for (size_t i = 0; i < LINKS_MAX; i++) {
        struct export_info said;
        const char *why;

        if (!peer->links[i])
            continue;
        link_get_status(peer->links[i], &st);
        why = link_problem(&st, want, &said, now);
        if (st.state == LINK_PARKED && st.would_serve)
            warn_mismatch(p, peer, &said, &st, want);
        if (why && !ready)
            snprintf(problem, len, "%s", why);
        if (!why) {
            *info = said;
            ready = true;
        }
    }
    if (ready)
        problem[0] = '\0';
    return ready;
}

void
peers_view(struct peers *p, const struct peers_lun *want,
           struct route_peer *out)
{
    char problem[256];

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->npeers; i++) {
        struct export_info info = {0};

        out[i].ready =
            look_locked(p, &p->peers[i], want, &info, problem, sizeof problem);
        out[i].load = info.load;
        out[i].slow = info.slow;
    }
    pthread_mutex_unlock(&p->lock);
}

bool
peers_learn(struct peers *p, const struct peers_lun *want, uint64_t *size,
            uint32_t *block_size)
{
    struct link_status st;
    struct export_info info;
    bool found = false;

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->npeers && !found; i++) {
        for (size_t j = 0; j < LINKS_MAX && !found; j++) {
            if (!p->peers[i].links[j])
                continue;
            link_get_status(p->peers[i].links[j], &st);
            if (link_problem(&st, want, &info, clock_ms()) == NULL) {
                *size = st.size;
                *block_size = st.block_min;
                found = true;
            }
        }
    }
    pthread_mutex_unlock(&p->lock);
    return found;
}

/* ---- standby ----------------------------------------------------------- */

static size_t
links_wanted(const struct peers *p, const struct peer *peer)
{
    size_t n = p->lun->connections;

    if (n < peer->host->naddresses)
        n = peer->host->naddresses; /* every network stands by */
    return n < LINKS_MAX ? n : LINKS_MAX;
}

static struct link *
make_link(struct peers *p, struct peer *peer, size_t i)
{
    const struct config_timers *t = &p->lun->timers;
    struct link_options opt = {
        .peer = peer->host->name,
        .address = peer->host->addresses[i % peer->host->naddresses],
        .port = peer->host->port,
        .tls_dir = p->tls_dir,
        .info_name = p->info_name,
        .link_timeout_ms = t->link_timeout,
        .open_timeout_ms = t->open_timeout,
        .standby_interval_ms = t->standby_interval,
        .changed = p->changed,
        .opaque = p->opaque,
        .failures = &peer->failures,
    };

    /* The serving peer's standby connections tell, when the serving ones
     * fall silent, whether it is the peer or only one network. */
    if (peer->serving && opt.standby_interval_ms > t->link_timeout / 4)
        opt.standby_interval_ms = t->link_timeout / 4;
    return link_create(&opt);
}

static void
fill(struct peers *p, struct peer *peer)
{
    for (size_t i = 0; i < links_wanted(p, peer); i++) {
        struct link *k = NULL, *dead = NULL;
        struct link_status st;

        if (peer->links[i]) {
            link_get_status(peer->links[i], &st);
            if (st.state != LINK_DEAD)
                continue;
        }
        k = make_link(p, peer, i);
        pthread_mutex_lock(&p->lock);
        dead = peer->links[i];
        peer->links[i] = k;
        pthread_mutex_unlock(&p->lock);
        link_destroy(dead);
    }
}

static bool
is_linked(const struct peer *peer)
{
    for (size_t i = 0; i < LINKS_MAX; i++)
        if (peer->links[i])
            return true;
    return false;
}

/* How many more peers may be connected to now. */
static size_t
more_peers(const struct peers *p)
{
    size_t linked = 0, most = 2 * (size_t)p->lun->standby_peers;

    for (size_t i = 0; i < p->npeers; i++)
        linked += is_linked(&p->peers[i]);
    if (p->short_since_ms)
        most += (clock_ms() - p->short_since_ms) / WIDEN_MS;
    return most > linked ? most - linked : 0;
}

/* Links are kept to the first peers until enough of them are ready; those
 * behind are let go, unless they serve us or must be kept. */
void
peers_tend(struct peers *p, const struct peers_lun *want, uint64_t keep)
{
    size_t ready = 0, more = more_peers(p);

    for (size_t i = 0; i < p->npeers; i++) {
        struct peer *peer = &p->peers[i];
        bool must = peer->serving || (keep >> i & 1);
        struct export_info info;
        char problem[256];

        if (!must && ready >= p->lun->standby_peers) {
            drop_links(p, peer);
            continue;
        }
        if (!must && !is_linked(peer)) {
            if (more == 0)
                continue;
            more--;
        }
        fill(p, peer);
        pthread_mutex_lock(&p->lock);
        if (look_locked(p, peer, want, &info, problem, sizeof problem))
            ready++;
        pthread_mutex_unlock(&p->lock);
    }
    if (ready >= p->lun->standby_peers)
        p->short_since_ms = 0;
    else if (!p->short_since_ms)
        p->short_since_ms = clock_ms();
}

/* ---- sessions ---------------------------------------------------------- */

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

/* errors: as link_go; -ESHUTDOWN interrupted; -ESTALE smaller than ours now */
static int
go(struct peers *p, struct link *k, const char *name,
   const struct peers_request *rq)
{
    struct link_status st;
    bool stop;
    int r;

    pthread_mutex_lock(&p->lock);
    p->going = k;
    stop = atomic_load(&p->interrupted);
    pthread_mutex_unlock(&p->lock);
    r = stop ? -ESHUTDOWN : link_go(k, name, rq->deadline_ms);
    pthread_mutex_lock(&p->lock);
    p->going = NULL;
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
        struct export_info info;
        struct link_status st;

        if (!peer->links[i])
            continue;
        link_get_status(peer->links[i], &st);
        if (link_problem(&st, &want, &info, clock_ms()))
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
        struct export_info info;
        struct link_status st;

        if (!peer->links[i])
            continue;
        link_get_status(peer->links[i], &st);
        if (link_problem(&st, &want, &info, clock_ms()))
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
session_close(struct session *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->peers->lock);
    s->peer->serving = false;
    pthread_mutex_unlock(&s->peers->lock);
    for (size_t i = 0; i < s->njoining; i++)
        s->links[s->nlinks++] = s->joining[i];
    end_links(s->links, s->nlinks);
    free(s);
}

/* ---- status ------------------------------------------------------------ */

static json_t *
report_failures(struct link_failures *f)
{
    json_t *o = json_object();

    for (unsigned i = 0; i < LINK_FAILURES; i++)
        json_object_set_new(o, link_failure_name((enum link_failure)i),
                            json_integer((json_int_t)atomic_load(&f->of[i])));
    return o;
}

static json_t *
report_peer(struct peers *p, struct peer *peer, const struct peers_lun *want)
{
    struct export_info info = {0};
    struct link_status st;
    char problem[256];
    bool ready = look_locked(p, peer, want, &info, problem, sizeof problem);
    json_t *links = json_array();

    for (size_t i = 0; i < LINKS_MAX; i++) {
        static const char *const names[] = {
            [LINK_CONNECTING] = "connecting",
            [LINK_PARKED] = "parked",
            [LINK_GOING] = "going",
            [LINK_LIVE] = "live",
            [LINK_DEAD] = "dead",
        };

        if (!peer->links[i])
            continue;
        link_get_status(peer->links[i], &st);
        json_array_append_new(
            links, json_pack("{ss ss ss sI}", "address",
                             peer->host->addresses[i % peer->host->naddresses],
                             "state", names[st.state], "error", st.error,
                             "rtt_us", (json_int_t)st.rtt_us));
    }
    return json_pack("{ss ss ss sb sb sI so so}", "host", peer->host->name,
                     "state", ready ? "ready" : "not ready", "reason", problem,
                     "serving", peer->serving, "slow", info.slow, "load",
                     (json_int_t)info.load, "failed",
                     report_failures(&peer->failures), "links", links);
}

json_t *
peers_report(struct peers *p, const struct peers_lun *want)
{
    json_t *a = json_array();

    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->npeers; i++)
        json_array_append_new(a, report_peer(p, &p->peers[i], want));
    pthread_mutex_unlock(&p->lock);
    return a;
}
