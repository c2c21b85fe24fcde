/* SPDX-License-Identifier: BSD-3-Clause */
/* What a backend must do.  lun.c checks requests; block.c and iscsi.c move the
 * bytes and know when a request has come back: they fill every field of
 * lun_status and call lun_tally_begin and lun_tally_end. */
#ifndef DETOUR_LUN_BACKEND_H
#define DETOUR_LUN_BACKEND_H

#include "lun/lun.h"

/* Chosen by the device string: "iscsi://" or anything else. */
struct lun_backend {
    const char *name;

    /* As the functions of lun.h with the same name.  create gets options
     * that lun.c has copied and that live as long as the backend.  The
     * requests that reach submit are aligned, inside the LUN and of a
     * backend that is known; everything else was refused above. */
    void *(*create)(struct lun *l, const struct lun_options *opt);
    unsigned (*destroy)(void *b, uint64_t deadline_ms);
    void (*get_status)(void *b, struct lun_status *st);
    size_t (*get_paths)(void *b, struct lun_path *paths, size_t max);
    bool (*get_map)(void *b, struct lun_map *map); /* NULL: never one */
    void (*fail_queued)(void *b, bool fail);       /* NULL: nothing queues */

    void *(*queue_create)(void *b);
    void (*queue_destroy)(void *q);
    int (*queue_fd)(void *q);
    void (*queue_interrupt)(void *q);
    struct lun_io *(*io_get)(void *q, size_t room);
    void (*io_put)(void *q, struct lun_io *io);
    void (*submit)(void *q, struct lun_io *io);
    size_t (*reap)(void *q, struct lun_io **ios, size_t max,
                   uint64_t deadline_ms);
    void (*abandon)(void *q, struct lun_io *io);

    int (*extents)(void *b, uint64_t offset, uint64_t count,
                   struct lun_extent *extents, size_t max,
                   uint64_t deadline_ms);
    int (*do_register)(void *b, uint64_t deadline_ms);
    void (*release)(void *b);
    int (*check_registration)(void *b, uint64_t deadline_ms);
    int (*fence)(void *b, unsigned host_number, uint64_t deadline_ms);
};

extern const struct lun_backend lun_backend_block;
extern const struct lun_backend lun_backend_iscsi;

/* lun_changed - a backend tells that lun_get_status has news; any thread,
 * holding no lock of its own.  What requests are checked against (size,
 * limits, registration) is read anew by this call, so that a backend
 * calls it after every change of these, before it lets go of the change's
 * caller.  With LUN_FENCE_DRAIN lun.c keeps the registration's state itself
 * and asks the backend's do_register and release only. */
void lun_changed(struct lun *l);

/* lun_op_writes - may the operation change what is on the LUN? */
static inline bool
lun_op_writes(enum lun_op op)
{
    return op == LUN_WRITE || op == LUN_TRIM || op == LUN_ZERO;
}

/* Counts a tally up at submit and down when a request has come back (or, an
 * orphan, has been proven dead); does nothing for reads and flushes, and for
 * io->tally NULL.  Called by backends, once each for a request. */
void lun_tally_begin(struct lun_io *io);
void lun_tally_end(struct lun_io *io);

#endif
