/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks a peer's proxy, aside from the route, whether what we sent it has come
 * back: a GO under a higher generation is answered only then (docs/design.md
 * section 5, "Sessions", step 3).  No request ever follows it. */
#ifndef DETOUR_PLUGIN_DRAINER_H
#define DETOUR_PLUGIN_DRAINER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/link.h"

struct drainer;

/* drainer_create - done is called from another thread, without locks, when an
 * answer is there; it must not block.
 *
 * errors:  NULL and errno
 * owns:    ended with drainer_destroy
 */
struct drainer *drainer_create(void (*done)(void *opaque), void *opaque);

/* drainer_destroy - bounded by drainer_interrupt; NULL is fine. */
void drainer_destroy(struct drainer *d);

/* drainer_ask - send GO for name over a parked link, in the background.
 *
 * errors:  -EBUSY the last answer was not taken yet; -EAGAIN no thread;
 *          -ESHUTDOWN interrupted
 * owns:    k is the drainer's, also on errors; name is copied
 * threads: one, the same as drainer_take
 */
int drainer_ask(struct drainer *d, struct link *k, const char *name,
                uint64_t deadline_ms);

/* drainer_busy - was it asked, and the answer not taken yet? */
bool drainer_busy(const struct drainer *d);

/* drainer_take - the answer, if there is one.
 *
 * result: 0: all has come back; else as link_go, and nothing is known
 * returns: false: not yet, or nothing was asked */
bool drainer_take(struct drainer *d, int *result);

/* drainer_interrupt - end what is under way, now and for ever.
 * threads: any */
void drainer_interrupt(struct drainer *d);

#endif
