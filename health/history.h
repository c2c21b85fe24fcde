/* SPDX-License-Identifier: BSD-3-Clause */
/* The recent past of one number, for a small curve. */
#ifndef DETOUR_HEALTH_HISTORY_H
#define DETOUR_HEALTH_HISTORY_H

#include <jansson.h>
#include <stdint.h>

/* Ten minutes. */
#define HISTORY_STEPS   120
#define HISTORY_STEP_MS 5000

/* All zero: nothing was heard yet. */
struct history {
    double most[HISTORY_STEPS]; /* by step modulo HISTORY_STEPS; < 0: nothing
                                   was heard in that step */
    uint64_t first, last;       /* steps, of time since the clock's start */
};

/* history_add - value was seen at now_ms; a step keeps the largest. */
void history_add(struct history *h, double value, uint64_t now_ms);

/* history_json - the steps up to now as an array, the oldest first; null where
 * nothing was heard.
 *
 * errors:  NULL when there is no memory
 */
json_t *history_json(const struct history *h, uint64_t now_ms);

#endif
