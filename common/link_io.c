/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands on a LIVE link: issued by the caller, ended by libnbd.
 *
 * The caller hands the command to libnbd, which writes it to the socket at
 * once if it can, and sleeps on a semaphore of its own, or polls the socket
 * itself (link_lead.c).  libnbd calls back exactly once for each command that
 * it accepted: with the answer, in the thread that leads, or when the
 * connection dies, in whatever thread found out.
 * Until then the struct link_wait on the caller's stack stays, and posting
 * its semaphore is the last thing that touches it.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "common/clock.h"
#include "common/point.h"
#include "common/link_impl.h"

/* Returns 1 if libnbd shall forget the command now, without the caller having
 * to take its lock again.  But not inside the call that issues it: when that
 * finds the connection dead, it calls back and then still reads the command's
 * cookie (1.14 lib/rw.c, nbd_internal_command_common). */
static int
ended(void *opaque, int *error)
{
    struct link_wait *w = opaque;
    const struct link_command *c = w->command;
    bool retired = atomic_load(&w->issued);

    w->error = *error;
    /* libnbd makes this check only for those who ask it for the result
     * later (1.14 lib/aio.c, aio_command_completed). */
    if (w->error == 0 && c->op == LINK_READ && w->seen != c->count)
        w->error = EIO;
    w->retired = retired;
    link_lead_ended(w);
    sem_post(&w->done);
    return retired;
}

/* Only what goes on where the last part ended counts: of parts that lie one
 * over the other the sum tells nothing, and what none of them filled in is
 * memory of ours that a VM would read. */
static int
read_chunk(void *opaque, const void *data, size_t count, uint64_t offset,
           unsigned status, int *error)
{
    struct link_wait *w = opaque;

    (void)data;
    (void)error;
    if (status != LIBNBD_READ_ERROR && offset == w->command->offset + w->seen)
        w->seen += count;
    return 0;
}

/* Take over as many extents as are wanted and lie in the range; pairs of
 * length and flags.  An extent without a length is not believed. */
static int
got_extents(void *opaque, const char *context, uint64_t offset,
            uint32_t *entries, size_t nr, int *error)
{
    struct link_wait *w = opaque;
    struct link_command *c = w->command;
    uint64_t left = c->count;

    (void)error;
    if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0 ||
        offset != c->offset)
        return 0;
    c->n_extents = 0;
    for (size_t i = 0; i + 1 < nr && left && c->n_extents < c->max_extents;
         i += 2) {
        uint64_t count = entries[i] < left ? entries[i] : left;

        if (count == 0)
            break;
        c->extents[c->n_extents++] =
            (struct link_extent){.count = count, .flags = entries[i + 1]};
        left -= count;
    }
    return 0;
}

static int64_t
issue(struct link *k, struct link_wait *w)
{
    struct link_command *c = w->command;
    nbd_completion_callback done = {.callback = ended, .user_data = w};
    uint32_t fua = c->flags & LINK_FUA ? LIBNBD_CMD_FLAG_FUA : 0;

    switch (c->op) {
    case LINK_READ:
        return nbd_aio_pread_structured(
            k->nbd, c->data, c->count, c->offset,
            (nbd_chunk_callback){.callback = read_chunk, .user_data = w}, done,
            0);
    case LINK_WRITE:
        return nbd_aio_pwrite(k->nbd, c->data, c->count, c->offset, done, fua);
    case LINK_FLUSH:
        return nbd_aio_flush(k->nbd, done, 0);
    case LINK_TRIM:
        return nbd_aio_trim(k->nbd, c->count, c->offset, done, fua);
    case LINK_ZERO:
        if (c->flags & LINK_NO_HOLE)
            fua |= LIBNBD_CMD_FLAG_NO_HOLE;
        return nbd_aio_zero(k->nbd, c->count, c->offset, done, fua);
    case LINK_EXTENTS:
        return nbd_aio_block_status(
            k->nbd, c->count, c->offset,
            (nbd_extent_callback){.callback = got_extents, .user_data = w},
            done, 0);
    }
    return -1;
}

/* See link_conn_poll. */
static void
wake_if_needed(struct link *k)
{
    unsigned direction = nbd_aio_get_direction(k->nbd);

    if (direction == LIBNBD_AIO_DIRECTION_READ)
        return;
    if (direction == 0 || !(atomic_load(&k->watching) & POLLOUT))
        link_wake_leader(k);
}

static bool
begin(struct link *k, struct link_wait *w)
{
    bool live;

    pthread_mutex_lock(&k->lock);
    live = k->status.state == LINK_LIVE;
    if (live) {
        TAILQ_INSERT_TAIL(&k->waits, w, entry);
        link_lead_begin_locked(k, w);
    }
    pthread_mutex_unlock(&k->lock);
    return live;
}

static void
end(struct link *k, struct link_wait *w)
{
    pthread_mutex_lock(&k->lock);
    TAILQ_REMOVE(&k->waits, w, entry);
    link_lead_end_locked(k, w);
    if (k->stop && TAILQ_EMPTY(&k->waits))
        pthread_cond_broadcast(&k->cond);
    pthread_mutex_unlock(&k->lock);
}

/* Returns 0 or -errno; *sent is false when libnbd did not take it. */
static int
carry_out(struct link *k, struct link_wait *w, bool *sent)
{
    int64_t cookie = issue(k, w);

    if (cookie == -1) {
        int err = nbd_get_errno();

        *sent = false;
        atomic_fetch_sub(&k->unanswered, 1);
        if (link_conn_ended(k))
            return -ENOTCONN;
        return err > 0 ? -err : -EINVAL;
    }
    *sent = true;
    atomic_store(&w->issued, true);
    wake_if_needed(k);
    link_lead_wait(k, w);
    if (!w->retired)
        nbd_aio_command_completed(k->nbd, (uint64_t)cookie);
    return -w->error;
}

/* What is not known to be a hole is data. */
static void
one_extent(struct link_command *c)
{
    c->n_extents = 0;
    if (c->max_extents)
        c->extents[c->n_extents++] = (struct link_extent){.count = c->count};
}

int
link_run(struct link *k, struct link_command *c, bool *sent)
{
    struct link_wait w = {.link = k, .command = c, .since_ms = clock_ms()};
    int r;

    *sent = false;
    if (!begin(k, &w))
        return -ENOTCONN;
    if (c->op == LINK_EXTENTS && !k->has_extents) {
        one_extent(c);
        atomic_fetch_sub(&k->unanswered, 1);
        end(k, &w);
        return 0;
    }
    c->n_extents = 0;
    sem_init(&w.done, 0, 0);
    r = carry_out(k, &w, sent);
    if (r == 0 && c->op == LINK_WRITE)
        point_pass(POINT_LINK_WRITTEN);
    sem_destroy(&w.done);
    end(k, &w);
    if (r == 0 && c->op == LINK_EXTENTS && c->n_extents == 0)
        one_extent(c);
    return r;
}

uint64_t
link_oldest_ms(struct link *k)
{
    const struct link_wait *w;
    uint64_t since_ms;

    pthread_mutex_lock(&k->lock);
    w = TAILQ_FIRST(&k->waits);
    since_ms = w ? w->since_ms : 0;
    pthread_mutex_unlock(&k->lock);
    return since_ms;
}
