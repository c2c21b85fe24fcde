/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the VMs' I/O goes: the decision, apart from doing it.
 *
 * A pure function of (state, event, view, time), docs/design.md section 4.  The
 * router (router_move.c) performs what is decided here and tells how it ended.
 */
#ifndef DETOUR_PLUGIN_ROUTE_H
#define DETOUR_PLUGIN_ROUTE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "plugin/latch.h"

#define ROUTE_PEERS_MAX 64
#define ROUTE_SELF      (-1) /* this host, where a peer's index may stand */

enum route_phase {
    ROUTE_QUEUEING,   /* nowhere to go: requests wait */
    ROUTE_OPENING,    /* asking a peer: requests wait, but see ROUTE_DO_OPEN */
    ROUTE_REDIRECTED, /* through a peer */
    ROUTE_RETURNING,  /* getting the right to write here: likewise */
    ROUTE_LOCAL,      /* over our own paths */
};
#define ROUTE_PHASES 5

struct route_options {
    size_t npeers;
    bool reservations; /* fence = pr: suspects can be fenced; without, their
                          writes' ranges are waited for (orphans.h) */
    unsigned failback_after_ms, failback_max_ms, failback_jitter_ms;
    unsigned settle_ms;    /* at start, how long our own paths may take */
    unsigned retry_ms;     /* QUEUEING: pause between two rounds of asking */
    unsigned switch_limit; /* latch.h */
};

/* What is known of a peer now. */
struct route_peer {
    bool ready;    /* a fresh parked connection, and it would serve */
    bool slow;     /* its own paths are */
    uint64_t load; /* requests it carries for others */
};

/* What is known of the world now. */
struct route_view {
    bool local_usable;      /* verdict good or degraded */
    bool local_lost;        /* verdict lost */
    bool local_fenced;      /* our registration is gone */
    bool local_slow;        /* usable, and a peer that is not slow is better */
    uint64_t local_good_ms; /* since when it has been usable, and not slow where
                               that counts; 0: it is not */
    unsigned local_orphans; /* writes of ours that have not come back */
    bool local_registered;  /* we could write there at once */
    bool held; /* somebody met trouble on the route, and will tell of it */
    const struct route_peer *peers; /* options.npeers of them */
};

enum route_event_kind {
    ROUTE_EV_TICK,        /* time passed, or the view changed */
    ROUTE_EV_LOCAL_ERROR, /* a request came back with a path error */
    ROUTE_EV_FENCED,      /* a write met a reservation conflict */
    ROUTE_EV_PEER_LOST,   /* a connection of the route broke */
    ROUTE_EV_PEER_ERROR,  /* the peer answered with a path error */
    ROUTE_EV_PEER_DRAINS, /* the peer asks us to leave */
    ROUTE_EV_OPENED,      /* ROUTE_DO_OPEN ended well */
    ROUTE_EV_REFUSED,     /* ROUTE_DO_OPEN did not */
    ROUTE_EV_HOME,        /* ROUTE_DO_HOME ended well */
    ROUTE_EV_HOME_FAILED, /* ROUTE_DO_HOME did not */
    ROUTE_EV_REDIRECT,    /* an order; peer: whom, or ROUTE_SELF for any */
    ROUTE_EV_RETURN,      /* an order */
};
#define ROUTE_EVENTS 12

struct route_event {
    enum route_event_kind kind;
    int peer;        /* ROUTE_EV_REDIRECT */
    const char *why; /* for people, or NULL */
    uint64_t for_ms; /* ROUTE_EV_REDIRECT: ends by itself; 0: never */
};

enum route_do {
    ROUTE_DO_NOTHING,
    /* Leave the present route (cleanly if r->leave_clean), then open one to
     * r->peer under r->generation, fencing r's suspects.  With none, and
     * cleanly, it may be asked for first: while requests still flow, so that
     * the present route is the one to stay on should that fail. */
    ROUTE_DO_OPEN,
    /* Leave the present route likewise, fence the suspects that are not us,
     * register, and serve here. */
    ROUTE_DO_HOME,
};

struct route {
    enum route_phase phase;
    uint64_t since_ms;   /* of the phase */
    char reason[192];    /* of the last change, for people */
    int peer;            /* OPENING, REDIRECTED: index; else ROUTE_SELF */
    int served_by;       /* who carried the I/O last; ROUTE_SELF: us */
    uint64_t generation; /* the last one used */
    bool left;           /* the last route was: nobody carries the I/O */
    /* since_ms and redirected_ms as they were before the move */
    uint64_t stayed_since_ms, stayed_redirected_ms;
    bool leave_clean; /* let what is under way finish before leaving */
    bool manual;      /* redirected by order: no return by itself */
    int wanted;       /* by order: this peer first; ROUTE_SELF: any */
    /* of a manual redirection: when it ends by itself; 0: it does not */
    uint64_t manual_until_ms;

    /* through whom an orphan of ours may still travel */
    bool suspect_self;
    uint64_t suspect_peers; /* bit i: peer i */

    /* without reservations: of these suspects no ranges are known, since a
     * predecessor's writes are meant; the whole LUN waits for them */
    bool unknown_self;
    uint64_t unknown_peers;
    /* a suspect that nobody can fence or ask: no route until it is cleared */
    bool stray;

    bool pace;            /* this round looks for peers that are not slow */
    uint64_t tried;       /* bit i: peer i was asked in this round */
    bool tried_home;      /* in this round */
    uint64_t retry_at_ms; /* QUEUEING: when the next round begins */
    uint64_t hold_down_ms;
    uint64_t home_ms;        /* when LOCAL was last reached; 0: never */
    uint64_t home_failed_ms; /* when a return last failed; 0: never */
    bool quiet;              /* RETURNING: from a peer that served well */
    bool ordered;            /* an order began the move that is under way */
    struct latch latch;      /* shut: no return by itself */
    uint64_t started_ms;

    /* told, and never looked at here */
    unsigned long changes;                             /* of phase */
    unsigned long entered[ROUTE_PHASES][ROUTE_EVENTS]; /* by what event */
    uint64_t redirected_ms; /* in all, but for the present stay */
};

/* route_init - begin at now_ms: QUEUEING, nothing known.
 *
 * The caller then sets generation and suspects from what its predecessor
 * left on disk. */
void route_init(struct route *r, const struct route_options *opt,
                uint64_t now_ms);

/* route_step - what to do about an event.
 *
 * r->phase is changed to what it is while the action is performed (OPENING,
 * RETURNING) or, where nothing is to be done, to where it ends.  After an
 * action the caller must step again with its result.
 */
enum route_do route_step(struct route *r, const struct route_options *opt,
                         const struct route_view *view,
                         const struct route_event *ev, uint64_t now_ms);

/* route_left - the present route has been left, until the next arrival; dirty:
 * a write, trim or zero that went over it was not answered, so that its carrier
 * is a suspect. */
void route_left(struct route *r, bool dirty);

/* route_cleared - nothing that went by way of peer (or ROUTE_SELF) is under
 * way any more. */
void route_cleared(struct route *r, int peer);

/* route_still_right - may the action go on, now that route_left has told
 * whether there are suspects?  Only without reservations, or with a
 * stray, can it be false: then step with ROUTE_EV_REFUSED or
 * ROUTE_EV_HOME_FAILED instead. */
bool route_still_right(const struct route *r, const struct route_options *opt,
                       const struct route_view *view);

/* route_next_ms - when route_step wants a TICK at the latest. */
uint64_t route_next_ms(const struct route *r, const struct route_options *opt,
                       const struct route_view *view, uint64_t now_ms);

/* route_hold_down_ms - how long our own paths must be good before a return. */
uint64_t route_hold_down_ms(const struct route *r,
                            const struct route_options *opt);

/* route_holds - do requests wait in this phase, once the route before it was
 * left? */
bool route_holds(enum route_phase p);
const char *route_event_name(enum route_event_kind k);
const char *route_phase_name(enum route_phase p);

#endif
