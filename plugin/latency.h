/* SPDX-License-Identifier: BSD-3-Clause */
/* How long the VMs waited, by route and operation, as histograms. */
#ifndef DETOUR_PLUGIN_LATENCY_H
#define DETOUR_PLUGIN_LATENCY_H

#include <jansson.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lun/lun.h"

#define LATENCY_OPS    5 /* of enum lun_op */
#define LATENCY_BOUNDS 16

/* The upper ends of the buckets, in microseconds; one more is without end.
 * From a read out of a cache to what a guest's disk driver forgives. */
#define LATENCY_BOUNDS_US                                                      \
    {                                                                          \
        100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000,  \
            500000, 1000000, 5000000, 30000000, 60000000                       \
    }

struct latency_histogram {
    _Atomic uint64_t buckets[LATENCY_BOUNDS + 1];
    _Atomic uint64_t sum_us, bytes;
};

/* All zeroes: nothing was answered yet. */
struct latency {
    struct latency_histogram of[2][LATENCY_OPS]; /* [redirected][operation] */
};

/* latency_note - a request was answered after us microseconds.
 *
 * redirected: by a peer; threads: any */
void latency_note(struct latency *l, bool redirected, enum lun_op op,
                  uint64_t us, uint64_t bytes);

/* latency_json - an array of what there was:
 *
 *   {"route": "local" or "redirected", "operation", "bytes", "sum_us",
 *    "count", "buckets": [[US, COUNT], ...]}
 *
 * with how many took at most US microseconds.
 *
 * errors:  NULL when there is no memory; threads: any
 */
json_t *latency_json(const struct latency *l);

#endif
