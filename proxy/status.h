/* SPDX-License-Identifier: BSD-3-Clause */
/* What the proxy answers on its control socket. */
#ifndef DETOUR_PROXY_STATUS_H
#define DETOUR_PROXY_STATUS_H

#include <jansson.h>

#include "proxy/server.h"

/* status_handle - a control_handler; opaque is the struct server.
 *
 *   GET /status            everything, below
 *   POST /drain, /undrain  body empty, or {"lun": NAME}
 *
 *   {"process": "proxy", "pid", "version", "host", "uptime_s", "draining",
 *    "connections", "refused", "tls_errors",
 *    "luns": [{"lun", "state", "reason", "since_s", "draining", "fences",
 *              "fences_failed", "lun_status": see health/report.h,
 *              "sessions": [{"host", "client", "generation", "age_s",
 *                            "unfinished_writes",
 *                            "connections": [{"address", "age_s", "inflight",
 *                              "requests", "bytes_read",
 *                              "bytes_written"}]}],
 *              "clients": [{"host", "client", "requests", "bytes_read",
 *                           "bytes_written"}]}]}
 *
 * client and generation are null for a plain NBD client; clients has all that
 * there have been.
 */
unsigned status_handle(void *opaque, const char *method, const char *path,
                       const json_t *body, json_t **reply);

#endif
