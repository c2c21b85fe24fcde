/* SPDX-License-Identifier: BSD-3-Clause */
/* The plugin's side of its control socket: status and orders. */
#ifndef DETOUR_PLUGIN_ORDERS_H
#define DETOUR_PLUGIN_ORDERS_H

#include <jansson.h>

/* orders_handle - GET /status; POST /redirect, /return, /confirm-dead.
 *
 * The control_handler of a plugin; opaque is its struct router.
 *
 * returns: 200; 400, 404, 405, 409, 500 with {"error": text} in *reply
 * owns:    *reply is the caller's
 * threads: control's; never blocks on the device
 */
unsigned orders_handle(void *opaque, const char *method, const char *path,
                       const json_t *body, json_t **reply);

#endif
