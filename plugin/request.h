/* SPDX-License-Identifier: BSD-3-Clause */
/* One request of a VM, from its arrival to its answer. */
#ifndef DETOUR_PLUGIN_REQUEST_H
#define DETOUR_PLUGIN_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "lun/lun.h"
#include "plugin/router.h"

struct request {
    enum lun_op op;
    unsigned flags;  /* LUN_FUA, LUN_NO_HOLE */
    uint64_t offset; /* bytes */
    uint64_t count;  /* bytes; 0 for LUN_FLUSH */
    char *data;      /* READ: filled; WRITE: read only; the VM's buffer */
    /* has the client gone that asked for it?  Called by the thread that runs
     * the request; NULL: nobody can tell */
    bool (*client_gone)(void);
};

/* request_run - carry it out on whatever route there is, for as long as it
 * takes.
 *
 * limit_ms: how long it may be held without a route; 0: for ever
 *
 * errors:  -errno as the LUN answered (docs/design.md section 8: one that
 *          cannot be a path's, or -EIO from a peer twice, or from our own
 *          paths again and again); -EINVAL misaligned or out of range; -EIO
 *          held too long; -ESHUTDOWN; -ECANCELED the client went while it was
 *          held: it is not sent (again)
 * owns:    q and its data stay the caller's and are never touched after the
 *          return
 * threads: many at once; the calling thread keeps a queue of its own
 */
int request_run(struct router *r, const struct request *q, unsigned limit_ms);

/* request_extents - as lun_extents, on whatever route there is.
 *
 * Never waits for a route and never fails because of one: where nothing can
 * be told, the range is allocated. */
int request_extents(struct router *r, uint64_t offset, uint64_t count,
                    struct lun_extent *extents, size_t max);

/* request_thread_init, request_thread_fini - once for the process, before
 * the first and after the last request. */
int request_thread_init(void);
void request_thread_fini(void);

/* request_hand_over - before router_hand_over: from here on a thread that ends
 * leaves what it keeps to the end of the process. */
void request_hand_over(void);

/* request_thread_end - the calling thread has no more requests for now. */
void request_thread_end(void);

#endif
