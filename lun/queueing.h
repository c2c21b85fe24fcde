/* SPDX-License-Identifier: BSD-3-Clause */
/* A map that queues I/O without a path (no_path_retry): when to say so, and
 * when to have it fail instead.  No I/O, no clock, no thread.
 *
 * What a map queues, nothing can take elsewhere: it hangs in the kernel, and
 * a write among it is an orphan until a path is back.  The kernel's order to
 * fail it works at once, but multipathd puts queueing back within a second
 * unless it is told as well; multipathd alone may be slow, hang or be gone.
 * So both are told, again and again until the map queues no more:
 *
 *   t=0      the LUN's own paths are given up: the kernel's order, and
 *            multipathd is asked
 *   t=0.25   the map queues still, or again: the kernel's order once more
 *   t=1      and multipathd is asked once more
 *
 * Queueing that ended and is back was put back by multipathd: it is asked at
 * once.
 *
 * Nothing puts queueing back when the paths are: the next outage would only
 * take longer.  multipathd does so itself when it is started or configured
 * anew. */
#ifndef DETOUR_LUN_QUEUEING_H
#define DETOUR_LUN_QUEUEING_H

#include <stdbool.h>
#include <stdint.h>

#define QUEUEING_ORDER_MS 250
#define QUEUEING_ASK_MS   1000

/* All zeroes: nothing was seen yet. */
struct queueing {
    bool queues;       /* the map did when last seen */
    bool failing;      /* the owner wanted it to fail when last told */
    uint64_t order_ms; /* no order to the kernel before */
    uint64_t ask_ms;   /* multipathd is not asked before */
    unsigned orders;   /* to the kernel, since the start */
};

struct queueing_sample {
    bool known;  /* the map could be read */
    bool queues; /* and it queues */
    bool fail;   /* the own paths are given up */
};

enum queueing_do {
    QUEUEING_WARN = 1,  /* it queues now, and did not before: say so */
    QUEUEING_TELL = 2,  /* it does no more: say so */
    QUEUEING_ORDER = 4, /* dm_fail_queued */
    QUEUEING_ASK = 8,   /* multipathd's disablequeueing */
};

/* queueing_step - returns what to do, a sum of enum queueing_do. */
unsigned queueing_step(struct queueing *q, const struct queueing_sample *s,
                       uint64_t now_ms);

#endif
