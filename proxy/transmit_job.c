/* SPDX-License-Identifier: BSD-3-Clause */
/* The jobs of one connection: one for each request that it may have open. */
#include <stdlib.h>

#include "proxy/nbd.h"
#include "proxy/transmit_impl.h"

uint32_t
transmit_payload(const struct request *r)
{
    return r->type == NBD_CMD_READ || r->type == NBD_CMD_WRITE ? r->count : 0;
}

struct job *
transmit_job_take(struct transmit *t, const struct request *r)
{
    struct job *j = t->free;

    t->free = j->next;
    *j = (struct job){.r = *r, .transmit = t};
    t->busy++;
    t->held += transmit_payload(r);
    atomic_store(&t->opt->member->inflight, t->busy);
    return j;
}

uint64_t
transmit_job_charge(struct transmit *t, struct job *j)
{
    j->charged = transmit_payload(&j->r);
    return atomic_fetch_add(t->opt->host_held, j->charged) + j->charged;
}

void
transmit_job_discharge(struct transmit *t, struct job *j)
{
    if (j->charged > 0)
        atomic_fetch_sub(t->opt->host_held, j->charged);
    j->charged = 0;
}

static void
job_free(struct transmit *t, struct job *j)
{
    lun_io_put(j->io);
    transmit_job_discharge(t, j);
    free(j->status);
    t->busy--;
    t->held -= transmit_payload(&j->r);
    j->io = NULL;
    j->status = NULL;
    j->next = t->free;
    t->free = j;
    atomic_store(&t->opt->member->inflight, t->busy);
}

void
transmit_job_gone(void *opaque, struct outbox_reply *r)
{
    struct job *j = (struct job *)((char *)r - offsetof(struct job, reply));

    job_free(opaque, j);
}

void
transmit_job_answer(struct transmit *t, struct job *j, int error)
{
    j->reply.head_len =
        request_reply(&j->r, &t->opt->export, error, j->reply.head);
    if (!error && j->r.type == NBD_CMD_READ) {
        j->reply.data = j->io->data;
        j->reply.len = j->r.count;
        atomic_fetch_add(&t->opt->member->bytes_read, j->r.count);
    } else {
        /* the payload's memory is not needed while the reply waits */
        lun_io_put(j->io);
        j->io = NULL;
    }
    outbox_add(&t->outbox, &j->reply);
}
