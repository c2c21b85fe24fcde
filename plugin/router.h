/* SPDX-License-Identifier: BSD-3-Clause */
/* The router: performs what route.c decides for one LUN. */
#ifndef DETOUR_PLUGIN_ROUTER_H
#define DETOUR_PLUGIN_ROUTER_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "lun/lun.h"
#include "plugin/gate.h"
#include "plugin/latency.h"
#include "plugin/route.h"

struct router;

struct router_options {
    const struct config *cfg;
    const struct config_lun *lun;
    const char *client;
};

/* router_start - begin to reach the LUN, its peers, and a route.
 *
 * Returns before any of them answers.
 *
 * errors:  NULL, errno and a message in err
 * owns:    what opt points at must outlive the router; ended by router_stop
 * threads: starts its own, so call it after a fork
 */
struct router *router_start(const struct router_options *opt, char *err,
                            size_t errlen);

/* router_close - requests that wait, and those that come, get -ESHUTDOWN;
 * those under way get up to 1 s.  Returns at once.  threads: any */
void router_close(struct router *r);

/* router_hand_over - end everything, in under 2 s, in a process that ends next
 * and that VMs are connected to: requests that wait, those that come, and those
 * whose route fails now are not answered any more, so that the VMs ask the
 * successor.  Those under way get up to 1 s.
 *
 * The workers stay inside of it; r is never to be freed. */
void router_hand_over(struct router *r);

/* router_stop - end everything, in under 2 s also while all paths hang; NULL
 * is fine.  No worker may be inside a request. */
void router_stop(struct router *r);

/* What the VMs see of the LUN: the same on every route. */
struct router_lun {
    uint64_t size;
    uint32_t block_size, preferred, max_io;
    bool readonly;
};

/* router_get_lun - size and the rest, from our own paths, else from what was
 * known before, else from a peer; waits until one of these tells.
 *
 * errors:  -EIO after limit_ms (0: never), -ESHUTDOWN
 */
int router_get_lun(struct router *r, struct router_lun *l, unsigned limit_ms);

/* router_block_size - as router_get_lun told it, without a lock; 0: it did not
 * yet. */
uint32_t router_block_size(struct router *r);

/* For requests: */
struct gate *router_gate(struct router *r);
struct latency *router_latency(struct router *r);
struct lun *router_own_lun(struct router *r);
/* do writes wait for orphans by range? (fence = drain) */
bool router_by_range(const struct router *r);

/* router_report_error - a request inside the route of serial met this.
 *
 * kind: ROUTE_EV_LOCAL_ERROR, _FENCED, _PEER_LOST, _PEER_ERROR, _PEER_DRAINS.
 * The gate is held at once if the route is still that one; threads: any.
 */
void router_report_error(struct router *r, enum route_event_kind kind,
                         uint64_t serial, int error);

/* The longest time of an order that ends by itself. */
#define ROUTER_ORDER_MAX_S 86400

struct router_order {
    const char *peer; /* NULL: any that is ready */
    uint64_t for_ms;  /* then as by router_return; 0: until router_return */
};

/* router_redirect - send the I/O through a peer.  In place of an order that
 * holds already; a restart of the process forgets it.
 *
 * errors:  -ENOENT, -EHOSTUNREACH and a message in err; 0: ordered, and status
 *          will show it
 */
int router_redirect(struct router *r, const struct router_order *order,
                    char *err, size_t len);

/* router_return - an order: no redirection is wanted any more.  The route comes
 * home at once when it can, else as soon as our own paths are good. */
void router_return(struct router *r);

/* router_confirm_dead - somebody gives his word that a host is powered off:
 * whatever it held of our writes is gone.
 *
 * by: who asked, for the log
 *
 * errors:  -EINVAL this very host; -ENOENT no such host; -EBUSY it answers,
 *          serves us, or another host is just being forgotten; and a message
 *          in err; 0: ordered, and status will show it
 */
int router_confirm_dead(struct router *r, const char *host, const char *by,
                        char *err, size_t len);

/* router_status - the answer to GET /status; never blocks on the device. */
json_t *router_status(struct router *r);

#endif
