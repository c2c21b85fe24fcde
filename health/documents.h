/* SPDX-License-Identifier: BSD-3-Clause */
/* The JSON that detour-health serves; docs/status.md tells the fields. */
#ifndef DETOUR_HEALTH_DOCUMENTS_H
#define DETOUR_HEALTH_DOCUMENTS_H

#include <jansson.h>

#include "health/judge.h"

/* documents_status - /status: all that is known of this host.
 *
 * errors:  NULL when there is no memory; so do those below
 * owns:    a new reference; shares p's answers, which never change
 */
json_t *documents_status(const struct picture *p, const struct moment *now);

/* documents_health - /health, made from /status.
 *
 * source:  draft-inadarei-api-health-check-06
 */
json_t *documents_health(const json_t *status, const struct moment *now);

/* documents_http_status - 200 for pass and warn, 503 for fail and all else. */
unsigned documents_http_status(const json_t *health);

/* documents_cluster - /cluster: every member's /status, and who is where.
 *
 * status is this host's own.  A member that is silent, or says what cannot be
 * understood, is "unknown" for each of its LUNs, whatever it last said.
 */
json_t *documents_cluster(const struct picture *p, const json_t *status,
                          const struct moment *now);

/* documents_history - the recent past of each process, for the page:
 * {NAME: {"stall_ms": [...], "probe_us": [...]}}, as history_json has it. */
json_t *documents_history(const struct picture *p, const struct moment *now);

#endif
