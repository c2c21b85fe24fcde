/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of a connection's data path, for transmit*.c only.
 *
 * One thread runs it: transmit.c is its loop, transmit_receive.c makes jobs of
 * what the stream brings, transmit_lun.c has them carried out.  Others reach
 * it through *order and wake_fd, and the extents' worker through answered,
 * under status_lock.
 *
 * A job is in one place at a time: free, taking its payload, under way at
 * the LUN (running, oldest first) or at the extents' worker, or in the
 * outbox.
 */
#ifndef DETOUR_PROXY_TRANSMIT_IMPL_H
#define DETOUR_PROXY_TRANSMIT_IMPL_H

#include <pthread.h>

#include "lun/lun.h"
#include "proxy/outbox.h"
#include "proxy/transmit.h"

#define TRANSMIT_REAP_AT_ONCE 64

struct job {
    struct request r;
    struct outbox_reply reply; /* in the outbox */
    struct lun_io *io;         /* ours unless running; or NULL */
    struct lun_io *doubted;    /* ours: its error is doubted, io reads the
                                  first block meanwhile; or NULL */
    struct extents_job *status;
    uint64_t sent_ms; /* to the LUN; valid while running */
    uint32_t done;    /* bytes, of a range that goes in parts */
    uint32_t charged; /* bytes of the host's that are its own */
    bool running;
    struct job *next, *prev; /* of running; next also of free and answered */
    struct transmit *transmit;
};

struct transmit {
    const struct transmit_options *opt;
    struct lun_queue *queue;
    char *why;
    size_t whylen;
    enum transmit_end end;
    bool ended;

    struct job *jobs, *free;
    struct job *oldest, *newest; /* running at the LUN */
    unsigned busy;               /* not free */
    unsigned running;            /* at the LUN */
    uint64_t held;               /* bytes of payloads */

    bool readable;        /* the stream may have more */
    bool quitting;        /* DISC came: answer what is left, then go */
    uint64_t drain_ms;    /* since when we drain; 0: we do not */
    uint64_t received_ms; /* last request */
    struct job *writing;  /* takes its payload */
    size_t writing_got;
    struct job *skipping; /* will be answered with skip_error ... */
    int skip_error;
    uint64_t skip; /* ... after so many bytes of payload */

    pthread_mutex_t status_lock;
    struct job *answered; /* guarded by status_lock */

    size_t in_start, in_stop;
    uint8_t in[TRANSMIT_EARLY_MAX];
    struct outbox outbox;
};

/* transmit_stop - the connection ends; the first reason counts. */
void transmit_stop(struct transmit *t, enum transmit_end how, const char *fmt,
                   ...) __attribute__((format(printf, 3, 4)));

/* ---- transmit_job.c ---------------------------------------------------- */

/* transmit_payload - how many bytes a request brings or asks for. */
uint32_t transmit_payload(const struct request *r);

/* transmit_job_take - the job of a request.
 *
 * shapes:  t->free is not NULL
 * owns:    t; it is free again when its answer has gone to the stream
 */
struct job *transmit_job_take(struct transmit *t, const struct request *r);

/* transmit_job_charge - j's payload counts as its host's from now on.
 *
 * returns: what all of its connections hold now */
uint64_t transmit_job_charge(struct transmit *t, struct job *j);

/* transmit_job_discharge - it does not any more; more than once is fine. */
void transmit_job_discharge(struct transmit *t, struct job *j);

/* transmit_job_answer - 0 or -errno to the client.
 *
 * owns:    j goes to the outbox, and so does what a READ has read */
void transmit_job_answer(struct transmit *t, struct job *j, int error);

/* transmit_job_gone - the answer r of a job has left, and the job is free;
 * opaque is its struct transmit.  For outbox_init. */
void transmit_job_gone(void *opaque, struct outbox_reply *r);

/* ---- transmit_lun.c ---------------------------------------------------- */

/* transmit_lun_run - j->io is complete: to the LUN with it. */
void transmit_lun_run(struct transmit *t, struct job *j);

/* transmit_lun_next_part - the next part of a trim or zero, which may be
 * longer than what the LUN takes at once; false: all of it is done. */
bool transmit_lun_next_part(struct transmit *t, struct job *j);

/* transmit_lun_came_back - j was reaped, with whatever result. */
void transmit_lun_came_back(struct transmit *t, struct job *j);

/* transmit_lun_collect - answer what has come back; returns how many. */
size_t transmit_lun_collect(struct transmit *t);

/* ---- transmit_status.c ------------------------------------------------- */

/* transmit_status_ask - have the extents' worker look; it may also answer at
 * once, with -ENOMEM. */
void transmit_status_ask(struct transmit *t, struct job *j);

/* transmit_status_answer - pass on what the worker has found. */
void transmit_status_answer(struct transmit *t);

/* ---- transmit_receive.c ------------------------------------------------ */

/* transmit_receive - turn what the stream brings into jobs, as far as they may
 * be taken on, and for no more than a turn. */
void transmit_receive(struct transmit *t);

/* transmit_wants_more - is anything of the stream wanted now? */
bool transmit_wants_more(const struct transmit *t);

/* transmit_can_parse - would transmit_receive get on with what was read?
 * Answers that have gone may have made room for it. */
bool transmit_can_parse(const struct transmit *t);

#endif
