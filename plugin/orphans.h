/* SPDX-License-Identifier: BSD-3-Clause */
/* The ranges of writes that left on a route and were not answered: with
 * "fence = drain" nobody can be cut off, so that what overlaps them waits
 * until they have come back (docs/design.md section 5).
 *
 * Reads need not wait.  The write was not answered, so that either content
 * is right; once its data has been read it is on the LUN, and nothing but a
 * newer write, which waits, can take its place.
 *
 * No lock and no thread: the gate's lock guards a set.
 */
#ifndef DETOUR_PLUGIN_ORPHANS_H
#define DETOUR_PLUGIN_ORPHANS_H

#include <stdbool.h>
#include <stdint.h>

#include "lun/lun.h"

/* One write, trim or zero.  Made before it is sent, since nothing may fail
 * once it is lost. */
struct orphan {
    struct lun_tally *tally; /* counts it on our own paths; never NULL */
    /* set by orphans_add */
    uint64_t offset, count; /* bytes */
    int carrier;            /* the peer's index, or ROUTE_SELF */
    uint64_t serial;        /* of the gate's opening it left by */
    struct orphan *next;
};

/* All zeroes: none.  Read n, but leave the list alone. */
struct orphans {
    struct orphan *first;
    unsigned n;
};

/* orphan_create - errors: NULL, errno ENOMEM */
struct orphan *orphan_create(void);

/* orphan_destroy - NULL is fine. */
void orphan_destroy(struct orphan *o);

/* orphans_add - o, whose fields are set, is under way.  owns: set takes o */
void orphans_add(struct orphans *set, struct orphan *o);

/* orphans_overlap - may one of them still change any of these bytes? */
bool orphans_overlap(const struct orphans *set, uint64_t offset,
                     uint64_t count);

/* orphans_settle - forget those of our own paths that have come back.
 *
 * returns: how many */
unsigned orphans_settle(struct orphans *set);

/* orphans_clear - forget those of carrier: nothing that left by the opening
 * serial, or by one before it, is under way any more.
 *
 * returns: how many */
unsigned orphans_clear(struct orphans *set, int carrier, uint64_t serial);

/* orphans_count - how many of carrier are left. */
unsigned orphans_count(const struct orphans *set, int carrier);

/* orphans_fini - forget all of them. */
void orphans_fini(struct orphans *set);

#endif
