/* SPDX-License-Identifier: BSD-3-Clause */
/* Counts the writes, trims and zeroes of one session until all came back. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/clock.h"
#include "lun/backend.h"
#include "lun/wait.h"

/* Any thread. */
struct lun_tally {
    pthread_mutex_t lock;
    pthread_cond_t zero;

    /* guarded by lock */
    unsigned count; /* under way */
    unsigned refs;  /* the maker's, and one for each that is under way */
};

struct lun_tally *
lun_tally_create(void)
{
    struct lun_tally *t = calloc(1, sizeof *t);

    if (!t)
        return NULL;
    pthread_mutex_init(&t->lock, NULL);
    wait_cond_init(&t->zero);
    t->refs = 1;
    return t;
}

void
lun_tally_put(struct lun_tally *t)
{
    bool last;

    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    last = --t->refs == 0;
    pthread_mutex_unlock(&t->lock);
    if (!last)
        return;
    pthread_cond_destroy(&t->zero);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void
lun_tally_begin(struct lun_io *io)
{
    struct lun_tally *t = io->tally;

    if (!t || !lun_op_writes(io->op))
        return;
    pthread_mutex_lock(&t->lock);
    t->count++;
    t->refs++;
    pthread_mutex_unlock(&t->lock);
}

void
lun_tally_end(struct lun_io *io)
{
    struct lun_tally *t = io->tally;

    if (!t || !lun_op_writes(io->op))
        return;
    pthread_mutex_lock(&t->lock);
    if (--t->count == 0)
        pthread_cond_broadcast(&t->zero);
    pthread_mutex_unlock(&t->lock);
    lun_tally_put(t);
}

bool
lun_tally_wait(struct lun_tally *t, uint64_t deadline_ms)
{
    bool zero;

    pthread_mutex_lock(&t->lock);
    while (t->count > 0 && wait_cond(&t->zero, &t->lock, deadline_ms))
        ;
    zero = t->count == 0;
    pthread_mutex_unlock(&t->lock);
    return zero;
}

unsigned
lun_tally_count(struct lun_tally *t)
{
    unsigned count;

    pthread_mutex_lock(&t->lock);
    count = t->count;
    pthread_mutex_unlock(&t->lock);
    return count;
}
