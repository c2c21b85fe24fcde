/* SPDX-License-Identifier: BSD-3-Clause */
/* /metrics: this host in Prometheus' text format. */
#ifndef DETOUR_HEALTH_METRICS_H
#define DETOUR_HEALTH_METRICS_H

#include <jansson.h>
#include <stdio.h>

#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* metrics_write - every number of documents_status.
 *
 * Of a process that is silent there is only detour_process_up 0 and the age of
 * its last answer: Prometheus shall see a gap, not old numbers.
 *
 * source:  prometheus.io/docs/instrumenting/exposition_formats, and
 *          .../writing_exporters for names, units and labels
 */
void metrics_write(FILE *f, const json_t *status);

#endif
