/* SPDX-License-Identifier: BSD-3-Clause */
/* One question at a time, each in a thread of its own, for link_go blocks.
 *
 * Threads: the asker asks and takes, the question's thread answers, anybody
 * interrupts.
 */
#include "plugin/drainer.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/export.h"

struct drainer {
    void (*done)(void *opaque);
    void *opaque;

    /* the asker's; the question's thread reads the last two */
    pthread_t thread;
    bool busy;
    char name[EXPORT_NAME_MAX + 1];
    uint64_t deadline_ms;

    pthread_mutex_t lock;
    /* guarded by lock */
    struct link *link; /* while it may be asked */
    bool answered, interrupted;
    int result;
};

struct drainer *
drainer_create(void (*done)(void *opaque), void *opaque)
{
    struct drainer *d = calloc(1, sizeof *d);

    if (!d)
        return NULL;
    d->done = done;
    d->opaque = opaque;
    pthread_mutex_init(&d->lock, NULL);
    return d;
}

static void *
ask(void *opaque)
{
    struct drainer *d = opaque;
    struct link *k = d->link; /* set before this thread was made */
    int result = link_go(k, d->name, d->deadline_ms);

    pthread_mutex_lock(&d->lock);
    d->link = NULL;
    pthread_mutex_unlock(&d->lock);
    link_destroy(k);
    pthread_mutex_lock(&d->lock);
    d->result = result;
    d->answered = true;
    pthread_mutex_unlock(&d->lock);
    d->done(d->opaque);
    return NULL;
}

int
drainer_ask(struct drainer *d, struct link *k, const char *name,
            uint64_t deadline_ms)
{
    int e = d->busy ? -EBUSY : 0;

    if (e == 0) {
        pthread_mutex_lock(&d->lock);
        e = d->interrupted ? -ESHUTDOWN : 0;
        d->link = e < 0 ? NULL : k;
        d->answered = false;
        pthread_mutex_unlock(&d->lock);
    }
    if (e == 0) {
        snprintf(d->name, sizeof d->name, "%s", name);
        d->deadline_ms = deadline_ms;
        e = -pthread_create(&d->thread, NULL, ask, d);
        d->busy = e == 0;
    }
    if (e == 0)
        return 0;
    if (e != -EBUSY) {
        pthread_mutex_lock(&d->lock);
        d->link = NULL;
        pthread_mutex_unlock(&d->lock);
    }
    link_destroy(k);
    return e;
}

bool
drainer_busy(const struct drainer *d)
{
    return d->busy;
}

bool
drainer_take(struct drainer *d, int *result)
{
    bool answered;

    if (!d->busy)
        return false;
    pthread_mutex_lock(&d->lock);
    answered = d->answered;
    *result = d->result;
    pthread_mutex_unlock(&d->lock);
    if (!answered)
        return false;
    pthread_join(d->thread, NULL);
    d->busy = false;
    return true;
}

void
drainer_interrupt(struct drainer *d)
{
    pthread_mutex_lock(&d->lock);
    d->interrupted = true;
    if (d->link)
        link_break(d->link);
    pthread_mutex_unlock(&d->lock);
}

void
drainer_destroy(struct drainer *d)
{
    if (!d)
        return;
    drainer_interrupt(d);
    if (d->busy)
        pthread_join(d->thread, NULL);
    pthread_mutex_destroy(&d->lock);
    free(d);
}
