/* SPDX-License-Identifier: BSD-3-Clause */
/* A route that comes and goes too often stays away from home: counted here.
 *
 * A switch is a move of the VMs' I/O between our own paths and a peer, either
 * way, that nobody ordered.  Each holds requests for a moment, and costs a
 * fence when the paths did not let go of their writes.  The hold-down's
 * doubling slows flapping down; this ends it.  The latch shuts when the route
 * arrives at a peer and there have been so many switches within an hour, that
 * one counted.  Shut, it keeps the route from going home by itself; it never
 * keeps it from leaving a peer that fails, be it for home.
 *
 * It opens by an order to return, when our own paths were good for the whole
 * of an hour, and at home, where it has nothing to do.  Only there the
 * switches are remembered: paths that fail again find it shut at once.
 */
#ifndef DETOUR_PLUGIN_LATCH_H
#define DETOUR_PLUGIN_LATCH_H

#include <stdbool.h>
#include <stdint.h>

#define LATCH_LIMIT_MAX 60
/* in which switches are counted, and for which our own paths must be good */
#define LATCH_WINDOW_MS 3600000u

/* All zeroes: open, and nothing has happened. */
struct latch {
    bool shut;
    unsigned long switches;          /* in all */
    uint64_t at_ms[LATCH_LIMIT_MAX]; /* of the last ones, a ring */
};

/* latch_switched - the I/O has moved to a peer (away), or home.
 *
 * limit: how many switches shut the latch, up to LATCH_LIMIT_MAX; 0: none do
 */
void latch_switched(struct latch *l, unsigned limit, bool away,
                    uint64_t now_ms);

/* latch_home - the route has arrived at home by whatever way. */
void latch_home(struct latch *l);

/* latch_open - by order: open, and forget the switches. */
void latch_open(struct latch *l);

/* latch_tick - open it if our own paths have been good for long enough.
 *
 * good_ms: since when they are; 0: they are not
 */
void latch_tick(struct latch *l, uint64_t good_ms, uint64_t now_ms);

/* latch_count - how many switches there were within the last hour; more than
 * LATCH_LIMIT_MAX are told as that many. */
unsigned latch_count(const struct latch *l, uint64_t now_ms);

#endif
