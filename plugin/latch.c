/* SPDX-License-Identifier: BSD-3-Clause */
/* Counts switches of the route: no I/O, no clock, no thread. */
#include "plugin/latch.h"

#include <string.h>

unsigned
latch_count(const struct latch *l, uint64_t now_ms)
{
    unsigned long known =
        l->switches < LATCH_LIMIT_MAX ? l->switches : LATCH_LIMIT_MAX;
    unsigned n = 0;

    for (unsigned long i = 0; i < known; i++)
        n += now_ms - l->at_ms[i] < LATCH_WINDOW_MS;
    return n;
}

void
latch_switched(struct latch *l, unsigned limit, bool away, uint64_t now_ms)
{
    l->at_ms[l->switches++ % LATCH_LIMIT_MAX] = now_ms;
    if (away && limit > 0 && latch_count(l, now_ms) >= limit)
        l->shut = true;
}

void
latch_home(struct latch *l)
{
    l->shut = false;
}

void
latch_open(struct latch *l)
{
    memset(l, 0, sizeof *l);
}

void
latch_tick(struct latch *l, uint64_t good_ms, uint64_t now_ms)
{
    if (l->shut && good_ms != 0 && now_ms >= good_ms + LATCH_WINDOW_MS)
        latch_open(l);
}
