/* SPDX-License-Identifier: BSD-3-Clause */
/* Calls that may hang, each on a thread of its own that can be left behind. */
#ifndef DETOUR_LUN_JOB_H
#define DETOUR_LUN_JOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Counts the jobs of one kind that were left behind and did not come back. */
struct job_group;

/* A call: work is given a copy of the caller's argument and returns 0 or
 * -errno.  end, if any, is given the copy when work has returned, also long
 * after the caller left; it lets go of what the argument refers to. */
struct job {
    int (*work)(void *arg);
    void (*end)(void *arg);
    void *arg;   /* size bytes, copied in and, in time, out again */
    size_t size; /* bytes */
};

/* job_group_create - max: so many may be stuck before job_run refuses.
 *
 * errors:  NULL and errno
 * owns:    the caller, ended with job_group_destroy
 */
struct job_group *job_group_create(unsigned max);

/* job_group_destroy - NULL is fine; stuck jobs end by themselves. */
void job_group_destroy(struct job_group *g);

/* job_run - carry out a job and wait for it until deadline_ms.
 *
 * errors:  what work returned (j->arg then holds what it left there);
 *          -ETIMEDOUT it was left behind, j->arg is unchanged;
 *          -EAGAIN    too many are stuck, or no thread could be made;
 *          -ENOMEM
 *          work is not called with -EAGAIN and -ENOMEM; end always is, once
 * owns:    j and j->arg stay the caller's
 * threads: any, many at once
 */
int job_run(struct job_group *g, const struct job *j, uint64_t deadline_ms);

/* job_group_stuck - how many were left behind and have not come back. */
unsigned job_group_stuck(struct job_group *g);

/* job_group_wait - wait until none is; false when deadline_ms came first. */
bool job_group_wait(struct job_group *g, uint64_t deadline_ms);

#endif
