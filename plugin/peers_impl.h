/* SPDX-License-Identifier: BSD-3-Clause */
/* What the parts of peers share: peers.c looks after the connections that stand
 * by, peers_session.c makes sessions of them. */
#ifndef DETOUR_PLUGIN_PEERS_IMPL_H
#define DETOUR_PLUGIN_PEERS_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "plugin/peers.h"

#define LINKS_MAX 16

/* A parked connection whose NBD_OPT_INFO has been unanswered for this long is
 * not asked to serve: its peer, or the network to it, may just have died. */
#define FRESH_MS 400

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
    bool going_yields;  /* likewise */
    bool yield;         /* guarded by lock */
};

struct session {
    struct peers *peers;
    struct peer *peer;
    struct link *links[LINKS_MAX]; /* the first nlinks; those are fixed */
    atomic_size_t nlinks;          /* at least 1, and grows */
    struct session_limits limits;  /* fixed while open */
    bool retired;                  /* router only */
    /* router only: asked for GO and not answered when it was opened */
    struct link *joining[LINKS_MAX];
    size_t njoining;
    atomic_uint turn;
};

/* peers_link_problem - why a parked connection would not do; NULL: it would.
 *
 * info: what the peer told of itself, valid with NULL */
const char *peers_link_problem(const struct link_status *st,
                               const struct peers_lun *want,
                               struct export_info *info, uint64_t now_ms);

/* peers_end_links - destroy n links, of which some may be NULL; without the
 * lock. */
void peers_end_links(struct link **links, size_t n);

#endif
