/* SPDX-License-Identifier: BSD-3-Clause */
/* The recent past of one number. */
#include "health/history.h"

static uint64_t
oldest(uint64_t step)
{
    return step < HISTORY_STEPS ? 0 : step - HISTORY_STEPS + 1;
}

void
history_add(struct history *h, double value, uint64_t now_ms)
{
    uint64_t step = now_ms / HISTORY_STEP_MS;
    uint64_t clear = h->last + 1;

    if (h->last == 0)
        h->first = clear = step;
    if (clear < oldest(step))
        clear = oldest(step);
    for (; clear <= step; clear++)
        h->most[clear % HISTORY_STEPS] = -1;
    if (step > h->last)
        h->last = step;
    if (value > h->most[step % HISTORY_STEPS])
        h->most[step % HISTORY_STEPS] = value;
}

json_t *
history_json(const struct history *h, uint64_t now_ms)
{
    uint64_t now = now_ms / HISTORY_STEP_MS, i = oldest(now);
    json_t *a = json_array();

    if (h->last == 0)
        return a;
    if (i < h->first)
        i = h->first;
    for (; i <= now; i++) {
        double v = i <= h->last ? h->most[i % HISTORY_STEPS] : -1;

        if (json_array_append_new(a, v < 0 ? json_null() : json_real(v))) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}
