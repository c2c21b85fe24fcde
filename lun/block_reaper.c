/* SPDX-License-Identifier: BSD-3-Clause */
/* Takes abandoned requests out of rings whose owners may never come again. */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/log.h"
#include "lun/block.h"

/* One thread.  It watches, edge by edge, the rings that hold something
 * abandoned.  An owner that waits in the kernel reaps what comes itself
 * (q->owner_waits), since the reaper would eat what the owner is to wake up
 * for; in all other cases the reaper drains the ring.  Only the reaper ends
 * a watch, so that an event it was told of never names a queue that is
 * gone. */

#define EVENTS 16

/* q holds a reference for the watch from here on. */
static void
watch_locked(struct block_queue *q)
{
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.ptr = q};

    if (epoll_ctl(q->b->reaper_epoll, EPOLL_CTL_ADD, q->ring.ring_fd, &ev) <
        0) {
        log_error("lun %s: cannot watch abandoned requests: %s", q->b->name,
                  strerror(errno));
        return;
    }
    q->watched = true;
    q->refs++;
}

void
block_reaper_watch_locked(struct block_queue *q)
{
    if (!q->watched)
        watch_locked(q);
}

void
block_reaper_kick(struct block *b)
{
    uint64_t one = 1;

    (void)!write(b->reaper_wake, &one, sizeof one);
}

void
block_reaper_take(struct block_queue *q)
{
    struct block *b = q->b;

    pthread_mutex_lock(&b->lock);
    q->next = b->handed_over;
    b->handed_over = q;
    pthread_mutex_unlock(&b->lock);
    block_reaper_kick(b);
}

/* Drain a ring; end the watch when nothing abandoned is left in it. */
static void
look(struct block *b, struct block_queue *q)
{
    struct lun_io *orphans = NULL;
    uint64_t conflict = 0;
    bool over;

    pthread_mutex_lock(&q->lock);
    if (!q->owner_waits || q->dead)
        conflict = block_queue_drain_locked(q, &orphans);
    if (q->done && !q->dead)
        block_queue_wake_locked(q);
    over = q->dead ? q->in_ring == 0 : q->given_up == 0;
    if (over && q->watched) {
        q->watched = false;
        epoll_ctl(b->reaper_epoll, EPOLL_CTL_DEL, q->ring.ring_fd, NULL);
    } else {
        over = false;
    }
    pthread_mutex_unlock(&q->lock);
    block_queue_settle(b, orphans, conflict);
    if (over)
        block_queue_put(q);
}

static void
take_over(struct block *b)
{
    struct block_queue *q, *next;
    uint64_t n;
    bool lost;

    (void)!read(b->reaper_wake, &n, sizeof n);
    pthread_mutex_lock(&b->lock);
    q = b->handed_over;
    b->handed_over = NULL;
    pthread_mutex_unlock(&b->lock);
    for (; q; q = next) {
        next = q->next;
        pthread_mutex_lock(&q->lock);
        block_reaper_watch_locked(q);
        lost = !q->watched && q->in_ring > 0;
        pthread_mutex_unlock(&q->lock);
        if (lost)
            continue; /* the kernel may still write to it: leave it be */
        look(b, q);
        block_queue_put(q); /* the owner's reference */
    }
}

static bool
wanted(struct block *b)
{
    bool more;

    pthread_mutex_lock(&b->lock);
    more = !b->stop || b->handed_over || b->orphans + b->orphan_reads > 0;
    pthread_mutex_unlock(&b->lock);
    return more;
}

static void *
reap(void *opaque)
{
    struct block *b = opaque;
    struct epoll_event events[EVENTS];

    while (wanted(b)) {
        int n = epoll_wait(b->reaper_epoll, events, EVENTS, -1);
        bool kicked = false;

        for (int i = 0; i < n; i++) {
            if (events[i].data.ptr)
                look(b, events[i].data.ptr);
            else
                kicked = true;
        }
        /* last: a queue that is let go here may be among the events */
        if (kicked)
            take_over(b);
    }
    block_thread_end(b);
    return NULL;
}

int
block_reaper_start(struct block *b)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};

    b->reaper_epoll = epoll_create1(EPOLL_CLOEXEC);
    b->reaper_wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (b->reaper_epoll < 0 || b->reaper_wake < 0 ||
        epoll_ctl(b->reaper_epoll, EPOLL_CTL_ADD, b->reaper_wake, &ev) < 0)
        return -errno;
    return block_thread(b, reap);
}
