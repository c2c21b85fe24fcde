/* SPDX-License-Identifier: BSD-3-Clause */
/* The peers of a LUN: parked connections to the best of them, and sessions
 * made from these when the route opens. */
#ifndef DETOUR_PLUGIN_PEERS_H
#define DETOUR_PLUGIN_PEERS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "common/export.h"
#include "common/link.h"
#include "lun/lun.h"
#include "plugin/route.h"

struct peers;
struct session;

/* What a peer's export must look like before it is asked to serve us. */
struct peers_lun {
    char id[LUN_ID_MAX]; /* "": not known, so that nobody can be asked */
    uint64_t size;       /* bytes, as far as we know; a peer may have seen it
                            grow since; 0: not known */
    uint32_t block_size; /* bytes, as the VMs were told; 0: not yet */
    bool readonly;       /* reading is enough */
};

/* peers_create - park connections to the first standby_peers peers that
 * answer: first the one half way round the configuration from ourselves.
 *
 * changed is called from other threads without locks and must not block.
 *
 * errors:  NULL and errno
 * owns:    cfg and lun must outlive it; ended with peers_destroy, after all
 *          sessions
 */
struct peers *peers_create(const struct config *cfg,
                           const struct config_lun *lun, const char *client,
                           const char *tls_dir, void (*changed)(void *opaque),
                           void *opaque);

/* peers_destroy - end all connections; NULL is fine. */
void peers_destroy(struct peers *p);

/* peers_count, peers_host, peers_find - the peers, by index; ROUTE_SELF where
 * there is no such host.  threads: any */
size_t peers_count(const struct peers *p);
const struct config_host *peers_host(const struct peers *p, int peer);
int peers_find(const struct peers *p, const char *host);

/* peers_tend - keep as many connections parked as there should be.
 *
 * keep: bit i: to peer i in any case, since nobody else will do
 *
 * For the router, whenever something changed; threads: the router's only, as
 * peers_open. */
void peers_tend(struct peers *p, const struct peers_lun *want, uint64_t keep);

/* peers_view - fill out[peers_count]: who is ready to serve us, and how well.
 * threads: any */
void peers_view(struct peers *p, const struct peers_lun *want,
                struct route_peer *out);

/* peers_learn - what a peer says of the LUN, when we could not ask it
 * ourselves: size (and block size) of an export whose identity is want->id.
 *
 * returns: false: nobody tells
 */
bool peers_learn(struct peers *p, const struct peers_lun *want, uint64_t *size,
                 uint32_t *block_size);

struct peers_request {
    int peer;
    uint64_t generation;
    const char *id;
    uint64_t size; /* of the LUN: at least so many bytes; 0: not known */
    const struct config_host *fence[EXPORT_FENCE_MAX];
    size_t nfence;
    uint64_t deadline_ms;
    bool yields; /* given up by peers_yield */
};

/* peers_open - open a session: GO on the peer's parked connections.
 *
 * Waits for the first of them alone, which fences; the others are asked then,
 * and join when they have answered: session_grow.
 *
 * errors:  -errno, and why says what the peer said; 0: *s is the caller's,
 *          ended with session_close
 */
int peers_open(struct peers *p, const struct peers_request *rq,
               struct session **s, char *why, size_t whylen);

/* peers_take - a parked connection to rq->peer, for another purpose than a
 * session; name: what to GO to under rq->generation, without any fence.
 *
 * returns: NULL: none is ready
 * owns:    the caller, ended with link_destroy
 */
struct link *peers_take(struct peers *p, const struct peers_request *rq,
                        char name[EXPORT_NAME_MAX + 1]);

/* peers_answers - does its proxy answer us now, whatever it says?
 * threads: any */
bool peers_answers(struct peers *p, int peer);

/* peers_interrupt - make a peers_open that waits fail now; it fails for ever
 * after.  threads: any */
void peers_interrupt(struct peers *p);

/* peers_yield - make a peers_open that yields fail now (true), or in future
 * (false): the route that serves meanwhile is in trouble.  threads: any */
void peers_yield(struct peers *p, bool yield);

/* What the peer's export can do: the least of the session's connections. */
struct session_limits {
    uint64_t size;   /* bytes; what is behind them is refused */
    uint32_t max_io; /* bytes of a READ or WRITE */
    bool can_trim, can_zero;
};

/* session_limits - lent until session_close. */
const struct session_limits *session_limits(const struct session *s);

/* session_grow - take in the connections that have answered GO by now.
 * threads: the router's */
void session_grow(struct session *s);

/* session_run - link_run on one of the session's connections.
 * threads: many at once, until session_close */
int session_run(struct session *s, struct link_command *c, bool *sent);

/* session_broken - did a connection of it break?  why: which and how. */
bool session_broken(struct session *s, char *why, size_t whylen);

/* session_oldest_ms - when its oldest unanswered command left; 0: none. */
uint64_t session_oldest_ms(struct session *s);

/* session_break - reset its connections: whoever waits gets -ENOTCONN. */
void session_break(struct session *s);

/* session_retire - it serves nobody any more, and another one to the same peer
 * may be opened; session_close follows.  NULL is fine. */
void session_retire(struct session *s);

/* session_close - end it, in up to 500 ms; nobody may be inside session_run.
 * NULL is fine. */
void session_close(struct session *s);

/* peers_report - an array for the status answer; threads: any. */
json_t *peers_report(struct peers *p, const struct peers_lun *want);

#endif
