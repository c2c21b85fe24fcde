/* SPDX-License-Identifier: BSD-3-Clause */
/* Judges windows of durations against those of the past. */
#include "health/slow.h"

#include <stdlib.h>
#include <string.h>

static int
compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

/* The upper one of two in the middle.  Sorts us; n > 0. */
static uint32_t
median(uint32_t *us, size_t n)
{
    qsort(us, n, sizeof *us, compare);
    return us[n / 2];
}

static void
remember(struct slow_past *p, uint32_t us)
{
    p->us[p->n++ % SLOW_PAST] = us;
}

/* false: too little is known. */
static bool
usual(const struct slow_past *p, uint32_t *us)
{
    size_t n = p->n < SLOW_PAST ? p->n : SLOW_PAST;
    uint32_t sorted[SLOW_PAST];

    if (n < SLOW_PAST_MIN)
        return false;
    memcpy(sorted, p->us, n * sizeof *sorted);
    *us = median(sorted, n);
    return true;
}

static uint64_t
limit_us(const struct slow_options *opt, uint32_t usual_us)
{
    uint64_t least = (uint64_t)opt->least_ms * 1000;
    uint64_t limit = (uint64_t)usual_us * opt->factor;

    return limit > least ? limit : least;
}

void
slow_init(struct slow *s, uint64_t now_ms)
{
    memset(s, 0, sizeof *s);
    s->since_ms = now_ms;
}

unsigned
slow_bucket(uint64_t ms)
{
    unsigned i = 0;

    while (i < SLOW_BUCKETS - 1 && ms >> i)
        i++;
    return i;
}

void
slow_probe(struct slow *s, uint64_t us)
{
    if (s->n < SLOW_SAMPLES)
        s->us[s->n++] = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static void
begin_window(struct slow *s, uint64_t now_ms)
{
    s->since_ms = now_ms;
    s->n = 0;
}

void
slow_pause(struct slow *s, uint64_t now_ms)
{
    begin_window(s, now_ms);
    s->is = s->have_counts = false;
    s->far = s->near = 0;
}

bool
slow_due(const struct slow *s, const struct slow_options *opt, uint64_t now_ms)
{
    return opt->factor != 0 && now_ms >= s->since_ms + opt->window_ms;
}

/* The median of the requests since the window began; false: too few. */
static bool
requests_median(const struct slow *s, const uint64_t *counts, uint32_t *us)
{
    uint64_t all = 0, below = 0;
    unsigned i;

    if (!counts || !s->have_counts)
        return false;
    for (i = 0; i < SLOW_BUCKETS; i++)
        all += counts[i] - s->counts[i];
    if (all < SLOW_REQUESTS)
        return false;
    for (i = 0; i < SLOW_BUCKETS - 1; i++) {
        below += counts[i] - s->counts[i];
        if (below > all / 2)
            break;
    }
    *us = 1000u << i;
    return true;
}

/* Were requests as quick as ever?  false, too, where that cannot be told. */
static bool
requests_contradict(struct slow *s, const struct slow_options *opt,
                    const uint64_t *counts)
{
    uint32_t us, usual_us;
    bool known, quick = false;

    known = requests_median(s, counts, &us);
    if (known && usual(&s->requests, &usual_us))
        quick = us < limit_us(opt, usual_us);
    if (known)
        remember(&s->requests, us);
    s->have_counts = counts != NULL;
    if (counts)
        memcpy(s->counts, counts, sizeof s->counts);
    return quick;
}

/* Whether it is slow, after one more window. */
static bool
conclude(struct slow *s, bool far, bool near)
{
    s->far = far ? s->far + 1 : 0;
    s->near = near ? s->near + 1 : 0;
    if (s->is)
        return s->near < SLOW_NEAR;
    return s->far >= SLOW_FAR;
}

bool
slow_step(struct slow *s, const struct slow_options *opt,
          const uint64_t *counts, uint64_t pending_us, uint64_t now_ms)
{
    bool was = s->is, quick;
    uint32_t us, usual_us;
    uint64_t limit;

    if (!slow_due(s, opt, now_ms))
        return false;
    quick = requests_contradict(s, opt, counts);
    if (pending_us)
        slow_probe(s, pending_us);
    if (s->n > 0) {
        s->recent_us = us = median(s->us, s->n);
        if (usual(&s->probes, &usual_us)) {
            limit = limit_us(opt, usual_us);
            s->usual_us = usual_us;
            s->is = conclude(s, us >= limit && !quick, us < limit / 2 || quick);
        }
        remember(&s->probes, us);
    }
    if (s->is && !was) {
        s->began_us = s->recent_us;
        s->before_us = s->usual_us;
    }
    begin_window(s, now_ms);
    return s->is != was;
}
