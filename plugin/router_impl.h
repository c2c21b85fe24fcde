/* SPDX-License-Identifier: BSD-3-Clause */
/* What the parts of the router share: its state, and who guards what.
 *
 * router.c steps, router_move.c performs, router_start.c begins and ends it,
 * router_order.c takes orders, router_status.c tells, router_lun.c knows the
 * LUN's looks, router_suspects.c through whom writes of ours may still travel.
 */
#ifndef DETOUR_PLUGIN_ROUTER_IMPL_H
#define DETOUR_PLUGIN_ROUTER_IMPL_H

#include <pthread.h>

#include "health/monitor.h"
#include "plugin/drainer.h"
#include "plugin/peers.h"
#include "plugin/router.h"
#include "plugin/state.h"
#include "common/tlsdir.h"

/* one try to register or fence; a stop waits for it */
#define REGISTER_MS 1000
/* a peer that was ordered stays connected this long */
#define ASKED_MS 60000

/* One order, one report for each opening of the gate (its sender holds the
 * gate, so that there is no second one); between two looks at the events the
 * router's thread opens at most three times. */
#define EVENTS_MAX 8

struct posted {
    enum route_event_kind kind;
    uint64_t serial; /* of the gate's opening it is about; 0: an order */
    int peer;
    char why[192];
    uint64_t for_ms; /* an order to redirect: ends by itself; 0: never */
};

/* A suspect that is no peer for this LUN any more: a predecessor left writes
 * with it, and the configuration was changed since. */
struct stray {
    char name[STATE_NAME_MAX];
    const struct config_host *host; /* NULL: no section [host] either */
};

/* What drainer.h was asked last. */
struct drain {
    int peer;
    uint64_t serial;  /* of the gate's last opening then */
    uint64_t next_ms; /* not again before */
};

struct router {
    struct router_options opt;
    struct route_options route_opt;
    struct gate gate;
    struct latency latency;
    struct lun *lun;
    struct monitor *monitor;
    struct peers *peers;
    struct state_file *state_file;
    struct tlsdir *tls_dir;
    pthread_t thread, registrar;
    bool have_thread, have_registrar;

    /* router's thread only */
    struct route route;
    struct session *session;
    struct session *retired; /* of the last route; to be closed */
    struct state state;
    int save_error; /* of the last try to put state on disk; 0: none */
    struct drainer *drainer;
    struct drain drain;

    pthread_mutex_t register_lock; /* around lun_register */

    _Atomic uint32_t block_size; /* of the LUN; 0: nobody was told yet */

    pthread_mutex_t lock;
    pthread_cond_t wake;   /* the router's thread */
    pthread_cond_t known;  /* router_get_lun */
    pthread_cond_t enlist; /* the registrar */
    /* guarded by lock */
    bool changed, stopping, closing, want_registration;
    uint64_t closing_ms;       /* when closing was set */
    uint64_t register_next_ms; /* the registrar's next try */
    struct posted events[EVENTS_MAX];
    size_t nevents;
    int asked_peer; /* an order named it and it was not ready; or ROUTE_SELF */
    uint64_t asked_ms;                    /* when */
    struct route shown;                   /* copy of route */
    struct stray strays[STATE_HOSTS_MAX]; /* written by the router's thread */
    size_t nstrays;
    char dead[STATE_NAME_MAX]; /* by order: to be forgotten; "": nobody */
    char dead_by[64];          /* whose order */
    struct peers_lun want;     /* identity and size to ask peers for */
    /* What the open session carries; UINT64_MAX: there is none.  The LUN may
     * have grown since it was opened. */
    uint64_t session_size;
    struct route_peer shown_peers[ROUTE_PEERS_MAX];
    uint64_t started_ms;
};

static inline const char *
router_lun_name(const struct router *r)
{
    return r->opt.lun->name;
}

/* router_post - append an event for the router's thread.
 *
 * An order replaces the one that waits.  A report must not be lost: its
 * sender has held the gate.  threads: any; r->lock not held
 */
void router_post(struct router *r, const struct posted *ev);

/* router_is_closing - are we told to end?  threads: any */
bool router_is_closing(struct router *r);

/* ---- router.c ------------------------------------------------------------ */

/* router_thread, router_registrar - the two threads, for pthread_create; the
 * first ends when closing is set, the second with stopping. */
void *router_thread(void *opaque);
void *router_registrar(void *opaque);

/* ---- router_move.c; the router's thread only ----------------------------- */

/* How an action ended, for the next step. */
struct outcome {
    struct route_event ev; /* its why may be the text below */
    char why[320];
};

/* router_leave - leave the present route, if we are on one: nobody is inside
 * any more when this returns; the session waits for router_close_retired. */
void router_leave(struct router *r);

/* router_close_retired - close the session of the last route; its connections
 * take up to 500 ms over the farewell. */
void router_close_retired(struct router *r);

/* router_may_prepare - may the route that act leads to be made ready while the
 * present one serves?
 *
 * Only for a clean move, which leaves nothing behind that has to be fenced
 * first.  To the peer that serves now it may not: GO there closes the session
 * it has. */
bool router_may_prepare(struct router *r, enum route_do act);

/* router_perform - ROUTE_DO_OPEN or ROUTE_DO_HOME. */
void router_perform(struct router *r, enum route_do act,
                    const struct route_view *view, struct outcome *o);

/* router_peers_to_keep - peers to stay connected to, whoever else is ready:
 * without reservations only a suspect itself can clear the suspicion, and an
 * order names one. */
uint64_t router_peers_to_keep(struct router *r);

/* ---- router_lun.c -------------------------------------------------------- */

/* router_learn - size and identity, from our own paths first; what they say is
 * kept for the successor.  The router's thread only. */
void router_learn(struct router *r, const struct lun_status *st);

/* ---- router_suspects.c; the router's thread only, or before it is ------- */

/* router_inherit_suspects - from r->state, what a predecessor left. */
void router_inherit_suspects(struct router *r);

/* router_has_suspects - is there anybody to wait for? */
bool router_has_suspects(const struct router *r);

/* router_bit - of a peer's index, ROUTE_SELF: none, in a set of peers. */
static inline uint64_t
router_bit(int peer)
{
    return peer == ROUTE_SELF ? 0 : UINT64_C(1) << peer;
}

/* router_save - put on disk who may hold writes of ours, and whom we use or
 * are about to use: our own paths (local), a set of peers.
 *
 * errors:  as state_save, and logged when it is not that of the last try */
int router_save(struct router *r, bool local, uint64_t peers);

/* router_arrived - the route is open and has cleared suspects: save it. */
void router_arrived(struct router *r);

/* router_stayed - a move came to nothing: who would have served us is no longer
 * kept on disk. */
void router_stayed(struct router *r);

/* router_add_fences - whom the peer that is asked has to fence.
 *
 * errors:  -E2BIG more suspects than an export's name holds */
int router_add_fences(struct router *r, struct peers_request *rq);

/* router_fence_suspects - fence them ourselves, all that are not us.
 *
 * errors:  as lun_fence; *which: at whom it failed */
int router_fence_suspects(struct router *r, const struct config_host **which);

/* router_tend_suspects - carry out confirm-dead; without reservations see
 * whose writes have come back. */
void router_tend_suspects(struct router *r);

/* router_ask_suspects - without reservations: ask a suspect that the route
 * does not lead to whether our writes have come back. */
void router_ask_suspects(struct router *r, const struct route_view *view);

#endif
