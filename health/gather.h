/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks this host's processes, and the other hosts, again and again. */
#ifndef DETOUR_HEALTH_GATHER_H
#define DETOUR_HEALTH_GATHER_H

#include "health/picture.h"

struct gather;

/* gather_start - keep a picture of what c's processes and hosts say.
 *
 * Two threads: one for processes, one for hosts, so that a network that hangs
 * makes no process look silent.  When is told in health/picture.h.
 *
 * errors:  NULL and errno
 * owns:    c must live until gather_stop
 */
struct gather *gather_start(const struct config *c);

/* gather_stop - returns within PICTURE_HOST_TIMEOUT_MS; NULL is fine. */
void gather_stop(struct gather *g);

/* gather_lock, gather_unlock - look at the picture, for as long as it takes
 * to write it down.
 *
 * threads: any, one at a time
 */
const struct picture *gather_lock(struct gather *g);
void gather_unlock(struct gather *g);

#endif
