/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks a LUN which parts are allocated.
 *
 * One worker thread for each LUN; connections enter with their jobs.
 */
#include "proxy/extents.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/clock.h"

struct extents {
    struct lun *lun;
    unsigned timeout_ms;
    pthread_t thread;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* guarded by lock */
    struct extents_job *first, **end;
    const void *asking; /* owner of the job that is being asked, or NULL */
    bool forget;        /* and nobody wants its answer */
    bool stop;
};

static void
ask(struct extents *x, struct extents_job *j)
{
    int n = lun_extents(x->lun, j->offset, j->count, j->extents,
                        REQUEST_EXTENTS, clock_ms() + x->timeout_ms);

    if (n > 0) {
        j->n = (size_t)n;
        return;
    }
    /* Not to know is no error: "allocated" is never wrong. */
    j->extents[0] = (struct lun_extent){.count = j->count};
    j->n = 1;
}

static void *
work(void *arg)
{
    struct extents *x = arg;

    pthread_mutex_lock(&x->lock);
    while (!x->stop) {
        struct extents_job *j = x->first;

        if (!j) {
            pthread_cond_wait(&x->changed, &x->lock);
            continue;
        }
        x->first = j->next;
        if (!x->first)
            x->end = &x->first;
        x->asking = j->owner;
        x->forget = false;
        pthread_mutex_unlock(&x->lock);
        ask(x, j);
        pthread_mutex_lock(&x->lock);
        x->asking = NULL;
        if (!x->forget)
            j->done(j);
        pthread_cond_broadcast(&x->changed);
    }
    pthread_mutex_unlock(&x->lock);
    return NULL;
}

struct extents *
extents_create(struct lun *l, unsigned timeout_ms)
{
    struct extents *x = calloc(1, sizeof *x);
    int rc;

    if (!x)
        return NULL;
    x->lun = l;
    x->timeout_ms = timeout_ms;
    x->end = &x->first;
    pthread_mutex_init(&x->lock, NULL);
    pthread_cond_init(&x->changed, NULL);
    rc = pthread_create(&x->thread, NULL, work, x);
    if (rc) {
        pthread_cond_destroy(&x->changed);
        pthread_mutex_destroy(&x->lock);
        free(x);
        errno = rc;
        return NULL;
    }
    return x;
}

void
extents_destroy(struct extents *x)
{
    if (!x)
        return;
    pthread_mutex_lock(&x->lock);
    x->stop = true;
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
    pthread_join(x->thread, NULL);
    pthread_cond_destroy(&x->changed);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

void
extents_ask(struct extents *x, struct extents_job *j)
{
    j->next = NULL;
    pthread_mutex_lock(&x->lock);
    *x->end = j;
    x->end = &j->next;
    pthread_cond_broadcast(&x->changed);
    pthread_mutex_unlock(&x->lock);
}

void
extents_forget(struct extents *x, const void *owner)
{
    struct extents_job **p;

    pthread_mutex_lock(&x->lock);
    for (p = &x->first; *p;) {
        if ((*p)->owner == owner)
            *p = (*p)->next;
        else
            p = &(*p)->next;
    }
    x->end = p;
    while (x->asking == owner) {
        x->forget = true;
        pthread_cond_wait(&x->changed, &x->lock);
    }
    pthread_mutex_unlock(&x->lock);
}
