/* SPDX-License-Identifier: BSD-3-Clause */
/* Condition variables that wait on the clock of common/clock.h. */
#ifndef DETOUR_LUN_WAIT_H
#define DETOUR_LUN_WAIT_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "common/clock.h"

/* wait_cond_init - a condition for wait_cond; ended like any other. */
static inline void
wait_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* wait_cond - pthread_cond_wait up to a deadline (CLOCK_NEVER: for ever).
 *
 * returns: false when the deadline has come; else true, perhaps for nothing
 */
static inline bool
wait_cond(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline_ms)
{
    struct timespec ts = {.tv_sec = (time_t)(deadline_ms / 1000),
                          .tv_nsec = (long)(deadline_ms % 1000) * 1000000};

    if (deadline_ms == CLOCK_NEVER)
        return pthread_cond_wait(cond, lock) == 0;
    return pthread_cond_timedwait(cond, lock, &ts) != ETIMEDOUT;
}

#endif
