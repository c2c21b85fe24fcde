/* SPDX-License-Identifier: BSD-3-Clause */
/* One LUN as this host shares it with peers: the LUN itself, its monitor, the
 * sessions on it, and the thread that keeps its registration. */
#ifndef DETOUR_PROXY_SHARE_H
#define DETOUR_PROXY_SHARE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/config.h"
#include "common/export.h"
#include "health/monitor.h"
#include "lun/lun.h"
#include "proxy/extents.h"
#include "proxy/serve.h"
#include "proxy/session.h"

struct share;

/* Why a peer's INFO or GO is refused. */
struct refusal {
    uint32_t code; /* NBD_REP_ERR_* */
    char text[320];
};

/* share_create - begin to reach and to watch a LUN of c.
 *
 * Returns at once, whatever state the LUN is in.
 *
 * errors:  NULL and errno, said with log_error
 * owns:    c must outlive it; ended with share_destroy
 */
struct share *share_create(const struct config *c, const struct config_lun *l);

/* share_destroy - stop watching and let go; NULL is fine.
 *
 * No member and no call may be left.  Waits for orphans until deadline_ms. */
void share_destroy(struct share *s, uint64_t deadline_ms);

/* share_config, share_lun, share_extents - its parts, lent until
 * share_destroy.  threads: any */
const struct config_lun *share_config(const struct share *s);
struct lun *share_lun(struct share *s);
struct extents *share_extents(struct share *s);

/* share_info - would a session be let in now?  All that share_open checks
 * but for generation and fencing.
 *
 * id: the identity the peer expects, or ""
 * errors:  -EACCES and *why
 */
int share_info(struct share *s, const char *id, struct lun_status *st,
               struct export_info *info, struct refusal *why);

/* What a peer asks for, and what it got. */
struct share_request {
    const struct config_host *peer; /* by its certificate */
    const struct export_name *name;
    uint64_t deadline_ms;
    struct session_member *member;
    /* filled in by share_open */
    struct lun_status status;
    uint64_t registration_no; /* its writes are admitted under this one */
    struct lun_tally *tally;  /* of its session; valid until share_leave */
};

/* share_open - let a session in: docs/design.md section 5, steps 1 to 4.
 *
 * Blocks, up to the deadline.  On success the member belongs to the session
 * and gets orders until share_leave.
 *
 * errors:  -EACCES and *why
 * threads: any
 */
int share_open(struct share *s, struct share_request *r, struct refusal *why);

/* share_leave - the member submits nothing any more, and has abandoned what
 * was still under way. */
void share_leave(struct share *s, struct session_member *m);

/* share_drain - stop, or begin again, to serve peers. */
void share_drain(struct share *s, bool on);

/* share_order_all - for the end of the process. */
void share_order_all(struct share *s, enum session_order o);

/* share_path_error - a request came back with -errno of class PATH or FENCED:
 * judge at once. */
void share_path_error(struct share *s, int error);

/* What is to be shown of a share; reasons are copies. */
struct share_status {
    struct serve serve;
    bool drain;
    struct session_counts counts;
    unsigned long fences, fences_failed; /* of hosts, for others */
    struct monitor_status monitor;
};

/* share_get_status - never blocks on the device.  threads: any */
void share_get_status(struct share *s, struct share_status *st);

/* share_each_session - call f for every session, under the share's lock. */
void share_each_session(struct share *s,
                        void (*f)(void *opaque, const struct session *x),
                        void *opaque);

/* share_each_work - session_each_work, likewise. */
void share_each_work(struct share *s,
                     void (*f)(void *opaque, const struct session_client *c,
                               const struct session_work *w),
                     void *opaque);

#endif
