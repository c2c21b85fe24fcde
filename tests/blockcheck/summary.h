/* SPDX-License-Identifier: BSD-3-Clause */
/* How long requests took and how they ended, from a history. */
#ifndef BLOCKCHECK_SUMMARY_H
#define BLOCKCHECK_SUMMARY_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tests/blockcheck/trace.h"

#define SUMMARY_BUCKETS 40 /* of latency: one for each power of two of us */
#define SUMMARY_ERRNOS  134

struct summary {
    uint64_t requests;
    uint64_t by_kind[REQUEST_KINDS];
    uint64_t errors; /* told by the server */
    uint64_t by_errno[SUMMARY_ERRNOS];
    uint64_t lost;       /* with their connection */
    uint64_t unanswered; /* when it all ended */
    uint64_t latency[SUMMARY_BUCKETS];
    uint64_t slowest_ns; /* request that was answered */
    uint64_t stall_ns;
    uint64_t stall_begin_ns;
};

/* A stretch in which the machine itself stood still. */
struct summary_pause {
    uint64_t begin_ns, end_ns;
};

/* summary_make - count.  The longest stall is the longest time without a
 * success while something was wanted: a request was under way, or the last ones
 * had failed or were lost.
 *
 * errors:  -ENOMEM
 */
int summary_make(const struct trace *h, struct summary *s);

/* summary_print - all of it, for people. */
void summary_print(const struct summary *s, FILE *to);

/* summary_machine_ns - how much of the longest stall lies in these pauses. */
uint64_t summary_machine_ns(const struct summary *s,
                            const struct summary_pause *pauses, size_t n);

#endif
