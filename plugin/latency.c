/* SPDX-License-Identifier: BSD-3-Clause */
/* Histograms of how long the VMs waited.
 *
 * Threads: every worker counts, control's thread reads; each number is an
 * atomic of its own, and a reader may be between two of them. */
#include "plugin/latency.h"

static const uint64_t bounds_us[LATENCY_BOUNDS] = LATENCY_BOUNDS_US;

static const char *const op_names[LATENCY_OPS] = {
    [LUN_READ] = "read", [LUN_WRITE] = "write", [LUN_FLUSH] = "flush",
    [LUN_TRIM] = "trim", [LUN_ZERO] = "zero",
};

void
latency_note(struct latency *l, bool redirected, enum lun_op op, uint64_t us,
             uint64_t bytes)
{
    struct latency_histogram *h = &l->of[redirected][op];
    size_t i = 0;

    while (i < LATENCY_BOUNDS && us > bounds_us[i])
        i++;
    atomic_fetch_add_explicit(&h->buckets[i], 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->sum_us, us, memory_order_relaxed);
    atomic_fetch_add_explicit(&h->bytes, bytes, memory_order_relaxed);
}

static json_t *
histogram(const struct latency_histogram *h, const char *route, const char *op)
{
    json_t *buckets = json_array();
    uint64_t count = 0;

    for (size_t i = 0; i < LATENCY_BOUNDS; i++) {
        count += atomic_load(&h->buckets[i]);
        if (json_array_append_new(buckets,
                                  json_pack("[I, I]", (json_int_t)bounds_us[i],
                                            (json_int_t)count)) < 0) {
            json_decref(buckets);
            return NULL;
        }
    }
    count += atomic_load(&h->buckets[LATENCY_BOUNDS]);
    if (count == 0) {
        json_decref(buckets);
        return json_null();
    }
    return json_pack("{s:s, s:s, s:I, s:I, s:I, s:o}", "route", route,
                     "operation", op, "bytes",
                     (json_int_t)atomic_load(&h->bytes), "sum_us",
                     (json_int_t)atomic_load(&h->sum_us), "count",
                     (json_int_t)count, "buckets", buckets);
}

json_t *
latency_json(const struct latency *l)
{
    json_t *a = json_array();

    for (unsigned i = 0; i < 2 * LATENCY_OPS; i++) {
        bool redirected = i >= LATENCY_OPS;
        json_t *h = histogram(&l->of[redirected][i % LATENCY_OPS],
                              redirected ? "redirected" : "local",
                              op_names[i % LATENCY_OPS]);

        if (json_is_null(h))
            continue;
        if (json_array_append_new(a, h) < 0) {
            json_decref(a);
            return NULL;
        }
    }
    return a;
}
