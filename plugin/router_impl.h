/* SPDX-License-Identifier: BSD-3-Clause */
/* What the parts of the router share: its state, and who guards what.
 *
 * router.c performs, router_order.c takes orders, router_status.c tells.
 */
#ifndef DETOUR_PLUGIN_ROUTER_IMPL_H
#define DETOUR_PLUGIN_ROUTER_IMPL_H

#include <pthread.h>

#include "health/monitor.h"
#include "plugin/peers.h"
#include "plugin/router.h"
#include "plugin/state.h"
#include "plugin/tlsdir.h"

#define ASKED_MS 60000 /* a peer that was ordered stays connected this long */

/* One order, one report for each opening of the gate (its sender holds the
 * gate, so that there is no second one); between two looks at the events the
 * router's thread opens at most three times. */
#define EVENTS_MAX 8

struct posted {
    enum route_event_kind kind;
    uint64_t serial; /* of the gate's opening it is about; 0: an order */
    int peer;
    char why[192];
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
    bool outside; /* the last route was left */
    struct state state;

    pthread_mutex_t register_lock; /* around lun_register */

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
    uint64_t asked_ms;     /* when */
    struct route shown;    /* copy of route */
    struct peers_lun want; /* identity and size to ask peers for */
    struct route_peer shown_peers[ROUTE_PEERS_MAX];
    uint64_t started_ms;
};

/* router_post - append an event for the router's thread.
 *
 * An order replaces the one that waits.  A report must not be lost: its
 * sender has held the gate.  threads: any; r->lock not held
 */
void router_post(struct router *r, const struct posted *ev);

#endif
