/* SPDX-License-Identifier: BSD-3-Clause */
/* The one clock every timer of detour runs on. */
#ifndef DETOUR_CLOCK_H
#define DETOUR_CLOCK_H

#include <stdint.h>
#include <time.h>

/* A deadline that never comes. */
#define CLOCK_NEVER UINT64_MAX

/* clock_ms, clock_us - now, on CLOCK_MONOTONIC.
 *
 * units:   milliseconds, microseconds since an arbitrary start; never 0
 * threads: any
 */
static inline uint64_t
clock_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000 + 1;
}

static inline uint64_t
clock_ms(void)
{
    return clock_us() / 1000 + 1;
}

/* clock_left_ms - how long until deadline_ms, for poll() and its kin.
 *
 * returns: 0 when it has passed, -1 (wait for ever) for CLOCK_NEVER
 */
static inline int
clock_left_ms(uint64_t deadline_ms, uint64_t now_ms)
{
    if (deadline_ms == CLOCK_NEVER)
        return -1;
    if (deadline_ms <= now_ms)
        return 0;
    return deadline_ms - now_ms > 3600000 ? 3600000
                                          : (int)(deadline_ms - now_ms);
}

#endif
