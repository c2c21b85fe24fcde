/* SPDX-License-Identifier: BSD-3-Clause */
/* Which FLUSH would find nothing to do, and is answered without I/O.
 *
 * QEMU sends two in a row when a VM that migrates has stopped, and each costs
 * the VM a round trip to the array, or to a peer and from there to the array.
 * A FLUSH is left out only where it would repeat another one:
 *
 * - that one went the same way, by the same opening of the route: a new opening
 *   has another carrier, or fenced somebody, or is another process's;
 * - it succeeded, and none has failed since it went inside;
 * - since it went inside no write, trim or zero has ended, answered or given
 *   up, in whatever way.  One that has not ended was not answered, so that nobody
 *   is promised anything;
 * - nobody has connected since: who comes may have written through another
 *   process or another host, whose writes are not counted here.
 *
 * Before an answer reaches a VM its request has been counted; so the FLUSH that
 * a VM sends after the answer goes out.
 *
 * No lock and no thread: the gate's lock guards it.
 */
#ifndef DETOUR_PLUGIN_FLUSHES_H
#define DETOUR_PLUGIN_FLUSHES_H

#include <stdbool.h>
#include <stdint.h>

/* All zeroes: nothing was flushed yet. */
struct flushes {
    uint64_t marks;   /* how often there was a reason to flush */
    uint64_t flushed; /* marks when the last good FLUSH went inside */
    uint64_t serial;  /* the gate's opening it went by; 0: there was none */
};

/* flushes_mark - there is a reason to flush: see above. */
void flushes_mark(struct flushes *f);

/* flushes_done - a FLUSH succeeded that went inside by the opening serial when
 * there were so many marks. */
void flushes_done(struct flushes *f, uint64_t serial, uint64_t marks);

/* flushes_idle - would a FLUSH by the opening serial find nothing to do? */
bool flushes_idle(const struct flushes *f, uint64_t serial);

#endif
