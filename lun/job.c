/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls that may hang, each on a thread of its own that can be left behind. */
#include "lun/job.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "lun/wait.h"

/* Callers of job_run enter from any thread; each running job has a detached
 * thread.  A thread stuck in the kernel cannot be ended, so that everything
 * it touches is its own: the copy of the argument and a reference on the
 * group. */
struct job_group {
    unsigned max; /* fixed */

    pthread_mutex_t lock;
    pthread_cond_t moved; /* some job ended */

    /* guarded by lock */
    unsigned refs;  /* the owner's, and one for each running job */
    unsigned stuck; /* left behind */
};

struct running {
    struct job_group *group;
    int (*work)(void *arg);
    void (*end)(void *arg);

    /* guarded by group->lock */
    bool done, left;
    int answer;

    size_t size;
    _Alignas(max_align_t) char arg[]; /* the thread's until done */
};

struct job_group *
job_group_create(unsigned max)
{
    struct job_group *g = calloc(1, sizeof *g);

    if (!g)
        return NULL;
    g->max = max;
    g->refs = 1;
    pthread_mutex_init(&g->lock, NULL);
    wait_cond_init(&g->moved);
    return g;
}

static void
put_group(struct job_group *g)
{
    bool last;

    pthread_mutex_lock(&g->lock);
    last = --g->refs == 0;
    pthread_mutex_unlock(&g->lock);
    if (!last)
        return;
    pthread_cond_destroy(&g->moved);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

void
job_group_destroy(struct job_group *g)
{
    if (g)
        put_group(g);
}

static void *
run(void *opaque)
{
    struct running *r = opaque;
    struct job_group *g = r->group;
    int answer = r->work(r->arg);
    bool left;

    if (r->end)
        r->end(r->arg);
    pthread_mutex_lock(&g->lock);
    r->answer = answer;
    r->done = true;
    left = r->left;
    if (left)
        g->stuck--;
    pthread_cond_broadcast(&g->moved);
    pthread_mutex_unlock(&g->lock);
    if (left)
        free(r);
    put_group(g);
    return NULL;
}

/* Make the job's thread; it owns a reference on the group from here on. */
static int
start(struct job_group *g, struct running *r)
{
    pthread_attr_t attr;
    pthread_t thread;
    int err = 0;

    pthread_mutex_lock(&g->lock);
    if (g->stuck >= g->max)
        err = -EAGAIN;
    else
        g->refs++;
    pthread_mutex_unlock(&g->lock);
    if (err)
        return err;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    err = -pthread_create(&thread, &attr, run, r);
    pthread_attr_destroy(&attr);
    if (err)
        put_group(g);
    return err;
}

int
job_run(struct job_group *g, const struct job *j, uint64_t deadline_ms)
{
    struct running *r = calloc(1, sizeof *r + j->size);
    int err = -ENOMEM;

    if (r) {
        *r = (struct running){
            .group = g, .work = j->work, .end = j->end, .size = j->size};
        memcpy(r->arg, j->arg, j->size);
        err = start(g, r);
    }
    if (err) {
        if (j->end)
            j->end(j->arg);
        free(r);
        return err;
    }
    pthread_mutex_lock(&g->lock);
    while (!r->done && wait_cond(&g->moved, &g->lock, deadline_ms))
        ;
    if (!r->done) {
        r->left = true;
        g->stuck++;
        pthread_mutex_unlock(&g->lock);
        return -ETIMEDOUT;
    }
    pthread_mutex_unlock(&g->lock);
    err = r->answer;
    memcpy(j->arg, r->arg, j->size);
    free(r);
    return err;
}

unsigned
job_group_stuck(struct job_group *g)
{
    unsigned stuck;

    pthread_mutex_lock(&g->lock);
    stuck = g->stuck;
    pthread_mutex_unlock(&g->lock);
    return stuck;
}

bool
job_group_wait(struct job_group *g, uint64_t deadline_ms)
{
    bool none;

    pthread_mutex_lock(&g->lock);
    while (g->stuck > 0 && wait_cond(&g->moved, &g->lock, deadline_ms))
        ;
    none = g->stuck == 0;
    pthread_mutex_unlock(&g->lock);
    return none;
}
