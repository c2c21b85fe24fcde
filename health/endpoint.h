/* SPDX-License-Identifier: BSD-3-Clause */
/* What detour-health serves on the network. */
#ifndef DETOUR_HEALTH_ENDPOINT_H
#define DETOUR_HEALTH_ENDPOINT_H

#include "health/gather.h"

/* An answer serves all who ask within this time: with 64 LUNs it takes some
 * 10 ms to make, and strangers may ask as often as they like. */
#define ENDPOINT_SHARED_MS 100

struct endpoint;

/* endpoint_start - answer on the addresses of c->health, or on this host's.
 *
 * GET and HEAD of /, /health, /metrics, /status and /cluster; nothing can be
 * changed.  Each connection carries one request and is cut after ten seconds.
 *
 * errors:  NULL, said with log_error
 * owns:    c and g must live until endpoint_stop
 */
struct endpoint *endpoint_start(const struct config *c, struct gather *g);

/* endpoint_stop - NULL is fine. */
void endpoint_stop(struct endpoint *e);

#endif
