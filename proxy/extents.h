/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks a LUN which parts are allocated, beside the connections: the answer
 * may take long, and a connection must not wait for it. */
#ifndef DETOUR_PROXY_EXTENTS_H
#define DETOUR_PROXY_EXTENTS_H

#include <stddef.h>
#include <stdint.h>

#include "lun/lun.h"
#include "proxy/request.h"

struct extents;

struct extents_job {
    uint64_t offset, count; /* set before extents_ask */
    void *owner;            /* of many jobs perhaps: extents_forget */
    void *opaque;           /* the owner's own */
    /* Called when the answer is there, from the worker, under its lock; must
     * not block and must not call back. */
    void (*done)(struct extents_job *j);
    /* n extents, at least one: where nothing is known, all is allocated */
    struct lun_extent extents[REQUEST_EXTENTS];
    size_t n;
    struct extents_job *next;
};

/* extents_create - one worker thread for l; a question is given up, and the
 * range said to be allocated, after timeout_ms.
 *
 * errors:  NULL and errno
 * owns:    ended with extents_destroy; l must outlive it
 */
struct extents *extents_create(struct lun *l, unsigned timeout_ms);

/* extents_destroy - nobody may own a job any more; NULL is fine. */
void extents_destroy(struct extents *x);

/* extents_ask - queue j; it belongs to the worker until done was called. */
void extents_ask(struct extents *x, struct extents_job *j);

/* extents_forget - take back every job of owner.
 *
 * done is not called for them afterwards.  Waits for one that is being asked
 * right now, so up to timeout_ms.  The jobs are the owner's again. */
void extents_forget(struct extents *x, const void *owner);

#endif
