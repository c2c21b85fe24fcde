/* SPDX-License-Identifier: BSD-3-Clause */
/* Connections to peers that stand by: who, how many, and what they say.
 *
 * Threads: the router tends, opens and closes; workers run commands on a
 * session; the status socket reports.  lock guards the table of links, not
 * what the links do, and is never held while one is destroyed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "plugin/peers_impl.h"

/* NBD proto.md, "Transmission flags" */
#define NBD_READ_ONLY 0x0002u

/* While too few peers are ready, so much later one more of them is asked: not
 * all at once, since many hosts that are slow together would be kept so by the
 * handshakes of each with all others. */
#define WIDEN_MS 2000

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
void
peers_end_links(struct link **links, size_t n)
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
    peers_end_links(old, LINKS_MAX);
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

const char *
peers_link_problem(const struct link_status *st, const struct peers_lun *want,
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
        why = peers_link_problem(&st, want, &said, now);
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
            if (peers_link_problem(&st, want, &info, clock_ms()) == NULL) {
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
