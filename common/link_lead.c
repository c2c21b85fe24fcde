/* SPDX-License-Identifier: BSD-3-Clause */
/* Who runs libnbd's loop on a LIVE link: its thread, or a worker that waits.
 *
 * A worker whose command is the only one waits for its own answer, and so
 * leads: it polls the socket in place of the link's thread, which would only
 * have to wake it.  As soon as there are others whose answers it would have to
 * pass on, the thread leads, since it need not stop when one of them has come.
 *
 *   who leads    event                                     then leads
 *   ---------    -----                                     ----------
 *   the thread   about to sleep, nothing unanswered        nobody
 *   nobody       a command begins                          its worker
 *   a worker     its command has ended, nothing unanswered nobody
 *   a worker     its command has ended, others have not    the thread, woken
 *   a worker     the socket tells of an end, libnbd fails  the thread, woken
 *
 * So there is a leader whenever something is unanswered.  The thread always
 * sees the end of the connection, and acts on it, whoever leads: the worker
 * leaves that, and its reason, to the thread.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/link_impl.h"

void
link_lead_begin_locked(struct link *k, struct link_wait *w)
{
    w->leads = k->leader == LINK_LED_BY_NOBODY;
    if (w->leads) {
        w->thread = pthread_self();
        k->leader = LINK_LED_BY_WORKER;
    }
    atomic_fetch_add(&k->unanswered, 1);
}

/* link_conn_drop may wait for it. */
static void
hand_on_locked(struct link *k, struct link_wait *w, enum link_leader next)
{
    w->leads = false;
    k->leader = next;
    if (next == LINK_LED_BY_THREAD)
        link_wake(k);
    pthread_cond_broadcast(&k->cond);
}

void
link_lead_end_locked(struct link *k, struct link_wait *w)
{
    if (w->leads)
        hand_on_locked(k, w,
                       atomic_load(&k->unanswered) ? LINK_LED_BY_THREAD
                                                   : LINK_LED_BY_NOBODY);
}

bool
link_lead_by_thread(struct link *k)
{
    if (k->status.state != LINK_LIVE)
        return true;
    /* Nobody takes it from the thread. */
    if (k->leading && atomic_load(&k->unanswered) > 0)
        return true;
    pthread_mutex_lock(&k->lock);
    if (k->leader == LINK_LED_BY_THREAD && atomic_load(&k->unanswered) == 0)
        k->leader = LINK_LED_BY_NOBODY;
    k->leading = k->leader == LINK_LED_BY_THREAD;
    pthread_mutex_unlock(&k->lock);
    return k->leading;
}

void
link_lead_ended(struct link_wait *w)
{
    struct link *k = w->link;
    uint64_t one = 1;

    atomic_store(&w->ended, true);
    atomic_fetch_sub(&k->unanswered, 1);
    /* Its worker may be in poll, and the socket have nothing to say.  The
     * write cannot fail but for a counter that is full, and readable then. */
    if (w->leads && !pthread_equal(w->thread, pthread_self()))
        (void)!write(k->lead_fd, &one, sizeof one);
}

/* One round; false when the connection is, or may be, at its end. */
static bool
lead_once(struct link *k)
{
    struct pollfd fds[2] = {{.fd = k->fd},
                            {.fd = k->lead_fd, .events = POLLIN}};
    unsigned direction = nbd_aio_get_direction(k->nbd);
    uint64_t dummy;
    int n, r = 0;

    fds[0].events = link_conn_events(direction);
    atomic_store(&k->watching, (unsigned)fds[0].events);
    n = poll(fds, 2, -1);
    atomic_store(&k->watching, 0);
    if (n <= 0)
        return true; /* EINTR: look again */
    if (fds[1].revents)
        (void)!read(k->lead_fd, &dummy, sizeof dummy);
    if (fds[0].revents & ~(POLLIN | POLLOUT))
        return false;
    if (fds[0].revents & POLLIN)
        r = nbd_aio_notify_read(k->nbd);
    else if (fds[0].revents & POLLOUT)
        r = nbd_aio_notify_write(k->nbd);
    if (r == -1)
        link_conn_note_reason(k);
    return r == 0 && nbd_aio_get_direction(k->nbd) != 0;
}

void
link_lead_wait(struct link *k, struct link_wait *w)
{
    while (w->leads && !atomic_load(&w->ended)) {
        if (lead_once(k))
            continue;
        pthread_mutex_lock(&k->lock);
        hand_on_locked(k, w, LINK_LED_BY_THREAD);
        pthread_mutex_unlock(&k->lock);
    }
    /* Posted last of all: w may go when this has returned. */
    while (sem_wait(&w->done) == -1 && errno == EINTR)
        ;
}
