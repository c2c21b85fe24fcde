/* SPDX-License-Identifier: BSD-3-Clause */
/* Questions about extents: asked of the extents' worker, answered by the
 * connection's own thread. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "proxy/transmit_impl.h"

/* From the extents' worker. */
static void
status_done(struct extents_job *e)
{
    struct transmit *t = e->owner;
    struct job *j = e->opaque;
    uint64_t one = 1;

    pthread_mutex_lock(&t->status_lock);
    j->next = t->answered;
    t->answered = j;
    pthread_mutex_unlock(&t->status_lock);
    (void)!write(t->opt->wake_fd, &one, sizeof one);
}

void
transmit_status_ask(struct transmit *t, struct job *j)
{
    /* Behind the question's memory the reply is put together. */
    struct extents_job *e = malloc(sizeof *e + REQUEST_STATUS_MAX);

    if (!e) {
        transmit_job_answer(t, j, -ENOMEM);
        return;
    }
    e->offset = j->r.offset;
    e->count = j->r.count;
    e->owner = t;
    e->opaque = j;
    e->done = status_done;
    j->status = e;
    extents_ask(t->opt->extents, e);
}

void
transmit_status_answer(struct transmit *t)
{
    struct job *j, *next;

    pthread_mutex_lock(&t->status_lock);
    j = t->answered;
    t->answered = NULL;
    pthread_mutex_unlock(&t->status_lock);
    for (; j; j = next) {
        uint8_t *bytes = (uint8_t *)(j->status + 1);

        next = j->next;
        j->reply.head_len = 0;
        j->reply.data = bytes;
        j->reply.len =
            request_status(&j->r, j->status->extents, j->status->n, bytes);
        outbox_add(&t->outbox, &j->reply);
    }
}
