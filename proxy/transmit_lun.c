/* SPDX-License-Identifier: BSD-3-Clause */
/* Jobs at the LUN: sent, come back, and whose error it is.
 *
 * A request whose error is the path's is never answered: the connection ends
 * instead, and the client asks elsewhere.  An error that may be the LUN's own
 * is answered once our paths have proved to work: the LUN's first block is
 * read for that, in the request's place.
 */
#include <inttypes.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/point.h"
#include "lun/error.h"
#include "proxy/nbd.h"
#include "proxy/transmit_impl.h"

static void
tell_oldest(struct transmit *t)
{
    atomic_store(&t->opt->member->oldest_ms,
                 t->oldest ? t->oldest->sent_ms : 0);
}

void
transmit_lun_run(struct transmit *t, struct job *j)
{
    j->running = true;
    j->sent_ms = clock_ms();
    j->next = NULL;
    j->prev = t->newest;
    if (t->newest)
        t->newest->next = j;
    else
        t->oldest = j;
    t->newest = j;
    t->running++;
    if (t->oldest == j)
        tell_oldest(t);
    lun_submit(t->queue, j->io);
    if (j->r.type == NBD_CMD_WRITE)
        point_pass(POINT_WRITE_SENT);
}

void
transmit_lun_came_back(struct transmit *t, struct job *j)
{
    bool was_oldest = t->oldest == j;

    if (j->prev)
        j->prev->next = j->next;
    else
        t->oldest = j->next;
    if (j->next)
        j->next->prev = j->prev;
    else
        t->newest = j->prev;
    t->running--;
    j->running = false;
    if (was_oldest)
        tell_oldest(t);
}

static bool
is_answer(int error)
{
    enum lun_class class = lun_error_class(error);

    return class != LUN_CLASS_PATH && class != LUN_CLASS_FENCED;
}

static void
device_failed(struct transmit *t, const struct job *j, int error)
{
    t->opt->path_error(t->opt->opaque, error);
    transmit_stop(t, TRANSMIT_DEVICE, "request at %" PRIu64 ": %s (%s)",
                  j->r.offset, strerror(-error),
                  lun_class_name(lun_error_class(error)));
}

/* Read the first block; a read that hangs makes the monitor's probes hang as
 * well, and then we are told to end. */
static void
doubt(struct transmit *t, struct job *j)
{
    uint32_t count = t->opt->export.block_size;
    struct lun_io *io = lun_io_get(t->queue, count);

    if (!io) {
        device_failed(t, j, j->io->error);
        return;
    }
    j->doubted = j->io;
    j->io = io;
    io->op = LUN_READ;
    io->flags = 0;
    io->offset = 0;
    io->count = count;
    io->registration_no = 0;
    io->tally = NULL;
    io->opaque = j;
    transmit_lun_run(t, j);
}

static void
failed(struct transmit *t, struct job *j)
{
    int error = j->io->error;

    if (lun_error_doubtful(error)) {
        doubt(t, j);
        return;
    }
    if (!is_answer(error)) {
        device_failed(t, j, error);
        return;
    }
    log_debug("%s: request at %" PRIu64 ": %s", t->opt->id, j->r.offset,
              strerror(-error));
    transmit_job_answer(t, j, error);
}

/* The first block was read, or not. */
static void
resolve(struct transmit *t, struct job *j)
{
    bool paths_work = is_answer(j->io->error);
    int error = j->doubted->error;

    lun_io_put(j->io);
    j->io = j->doubted;
    j->doubted = NULL;
    if (!paths_work) {
        device_failed(t, j, error);
        return;
    }
    log_debug("%s: request at %" PRIu64 ": %s, and paths work", t->opt->id,
              j->r.offset, strerror(-error));
    transmit_job_answer(t, j, error);
}

bool
transmit_lun_next_part(struct transmit *t, struct job *j)
{
    uint32_t left = j->r.count - j->done;

    if (left == 0)
        return false;
    if (left > t->opt->export.max_io)
        left = t->opt->export.max_io;
    j->io->offset = j->r.offset + j->done;
    j->io->count = left;
    j->done += left;
    transmit_lun_run(t, j);
    return true;
}

static void
succeeded(struct transmit *t, struct job *j)
{
    if (j->r.type == NBD_CMD_WRITE)
        point_pass(POINT_WRITE_DONE);
    transmit_job_answer(t, j, 0);
}

size_t
transmit_lun_collect(struct transmit *t)
{
    struct lun_io *ios[TRANSMIT_REAP_AT_ONCE];
    size_t n = lun_reap(t->queue, ios, TRANSMIT_REAP_AT_ONCE, 0);

    if (n > 0)
        atomic_store(&t->opt->member->answered_ms, clock_ms());
    for (size_t i = 0; i < n; i++)
        transmit_lun_came_back(t, ios[i]->opaque);
    for (size_t i = 0; i < n && !t->ended; i++) {
        struct job *j = ios[i]->opaque;
        bool whole =
            j->r.type != NBD_CMD_TRIM && j->r.type != NBD_CMD_WRITE_ZEROES;

        if (j->doubted)
            resolve(t, j);
        else if (ios[i]->error)
            failed(t, j);
        else if (whole || !transmit_lun_next_part(t, j))
            succeeded(t, j);
    }
    return n;
}
