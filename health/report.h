/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of a status answer that plugin and proxy have in common. */
#ifndef DETOUR_HEALTH_REPORT_H
#define DETOUR_HEALTH_REPORT_H

#include <jansson.h>

#include "health/monitor.h"

/* report_lun - what is known of a LUN's own paths, as a JSON object:
 *
 *   {"id", "size", "block_size",
 *    "verdict": {"state", "reason", "since_s"},
 *    "paths": [{"name", "state", "since_s", "error", "detail"}],
 *    "map": {"name", "queueing", "age_s", "orders", "multipathd"},
 *    "probe": {"age_s", "us", "stuck", "recent_us", "usual_us"},
 *    "registration": {"state", "number", "key"},
 *    "inflight", "orphans", "orphan_reads"}
 *
 * Ages are seconds before now as numbers; a key is a string of 16 hex digits;
 * what is not known, or is not there, is null.
 *
 * errors:  NULL when there is no memory
 * owns:    a new reference
 */
json_t *report_lun(struct lun *l, const struct monitor_status *st);

/* report_text - s as a JSON string; where it is no UTF-8, every byte that is no
 * ASCII becomes '?'.  Names and errors come from devices, targets and peers:
 * one of them must not cost the whole report.
 *
 * errors, owns: as report_lun
 */
json_t *report_text(const char *s);

#endif
