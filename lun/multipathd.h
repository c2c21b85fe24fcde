/* SPDX-License-Identifier: BSD-3-Clause */
/* multipathd's command socket, never waited for.
 *
 * multipathd may be absent, hang while LUNs time out, or be restarted with a
 * command under way.  So this is a state machine that somebody's poll loop
 * drives, with a deadline for each command, and nothing that decides anything
 * asks for its answer. */
#ifndef DETOUR_LUN_MULTIPATHD_H
#define DETOUR_LUN_MULTIPATHD_H

#include <stddef.h>
#include <stdint.h>

#include "lun/lun.h"
#include "lun/sysfs.h"

/* Its name in the abstract namespace, without the NUL before it. */
#define MULTIPATHD_SOCKET "/org/kernel/linux/storage/multipathd"

#define MULTIPATHD_REPLY_MAX (1 << 18) /* bytes; a map of 32 paths: 20 KiB */

struct multipathd {
    char socket[108]; /* fixed */
    int fd;           /* -1: nothing is under way */
    uint64_t deadline_ms;
    /* what is sent: the length, then the command with its NUL */
    char out[sizeof(size_t) + 128];
    size_t out_len, out_done;
    /* what comes: the same */
    size_t in_len, in_done; /* with the length's own bytes */
    char *reply;            /* NULL before its length is known */
};

/* multipathd_init - socket: the name of its socket; NULL: the usual one. */
void multipathd_init(struct multipathd *m, const char *socket);

/* multipathd_fini - give up what is under way. */
void multipathd_fini(struct multipathd *m);

/* multipathd_ask - begin a command; one that is under way is given up.
 *
 * errors:  -ECONNREFUSED nobody listens; -EAGAIN its backlog is full, it
 *          hangs; -EPERM who listens is neither root nor us; -E2BIG
 */
int multipathd_ask(struct multipathd *m, const char *command,
                   uint64_t deadline_ms);

/* multipathd_fd, multipathd_events - for poll(); -1: nothing is under way. */
int multipathd_fd(const struct multipathd *m);
short multipathd_events(const struct multipathd *m);

/* multipathd_go_on - send and read what can be; call it when its descriptor
 * is ready and when its deadline has come.
 *
 * returns: 1 answered: m->reply holds the text until the next command;
 *          0 not yet, or nothing is under way; -errno it will not be:
 *          -ETIMEDOUT, -ECONNRESET it ended, -EBADMSG, -ENOMEM
 */
int multipathd_go_on(struct multipathd *m, uint64_t now_ms);

/* ---- the answer to "show map NAME json" -------------------------- */

struct multipathd_path {
    char name[SYSFS_NAME_MAX]; /* "sdb" */
    char checker[32];          /* "tur" */
    char state[32];            /* what it found: "ready", "faulty", ... */
    int priority;
};

struct multipathd_map {
    char queueing[32]; /* its word for no_path_retry: "on", "off", "5 chk" */
    size_t npaths;
    struct multipathd_path paths[LUN_PATH_MAX]; /* as many as fit */
};

/* multipathd_parse_map - pure; what is missing is "".
 *
 * errors:  -EBADMSG it is no map; map is empty then
 * source:  PRINT_JSON_MAP, PRINT_JSON_PATH in libmultipath/print.h
 */
int multipathd_parse_map(const char *json, struct multipathd_map *map);

#endif
