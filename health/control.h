/* SPDX-License-Identifier: BSD-3-Clause */
/* Each process' own socket: HTTP over a Unix socket, JSON in and out. */
#ifndef DETOUR_HEALTH_CONTROL_H
#define DETOUR_HEALTH_CONTROL_H

#include <jansson.h>

struct control;

/* control_handler - answer one request.
 *
 * method is "GET" or "POST", path begins with '/', body is the parsed JSON
 * body or NULL.  Stores the answer in *reply (a new reference; NULL: an
 * empty object) and returns the HTTP status: 200, or 4xx and 5xx with
 * {"error": text}.  Called from control's thread; it must not block on the
 * device (status has to work while every path hangs).
 */
typedef unsigned (*control_handler)(void *opaque, const char *method,
                                    const char *path, const json_t *body,
                                    json_t **reply);

/* control_start - listen on socket_path (mode 0600) and answer.
 *
 * A stale socket file that nobody listens on is replaced; one that somebody
 * listens on is an error (errno EADDRINUSE).  Callers are root, our own user,
 * or nobody: peer credentials are checked (SO_PEERCRED).  Requests larger
 * than 64 KiB and slow or idle clients (10 s) are cut off.
 *
 * errors:  NULL and errno
 * owns:    ended with control_stop; opaque must live until then
 */
struct control *control_start(const char *socket_path, control_handler handler,
                              void *opaque);

/* control_caller - who sent the request that is being handled, for the log:
 * "uid 0 (pid 4711)".  Only inside a handler, on its thread. */
void control_caller(char *text, size_t len);

/* control_let_read - let members of a Unix group GET, too; never command.
 *
 * The socket file becomes theirs (mode 0660).  NULL: nothing happens.  That
 * there is no such group, or that we may not give it the file, is logged:
 * the process serves on without being watched.
 */
void control_let_read(struct control *c, const char *group);

/* control_stop - stop listening, remove the socket file; NULL is fine. */
void control_stop(struct control *c);

#endif
