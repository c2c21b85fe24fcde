/* SPDX-License-Identifier: BSD-3-Clause */
/* A map that queues I/O without a path (no_path_retry): when to say so, and
 * when to have it fail instead. */
#include "lun/queueing.h"

unsigned
queueing_step(struct queueing *q, const struct queueing_sample *s,
              uint64_t now_ms)
{
    unsigned todo = 0;

    if (s->fail && !q->failing)
        q->order_ms = q->ask_ms = now_ms;
    q->failing = s->fail;
    if (s->known && s->queues != q->queues) {
        todo |= s->queues ? QUEUEING_WARN : QUEUEING_TELL;
        q->queues = s->queues;
        q->ask_ms = now_ms; /* who put it back has not been told */
    }
    /* As it was last seen: that the map cannot be read just now is no reason
     * to let I/O hang. */
    if (!q->queues || !s->fail)
        return todo;
    if (now_ms >= q->order_ms) {
        todo |= QUEUEING_ORDER;
        q->order_ms = now_ms + QUEUEING_ORDER_MS;
        q->orders++;
    }
    if (now_ms >= q->ask_ms) {
        todo |= QUEUEING_ASK;
        q->ask_ms = now_ms + QUEUEING_ASK_MS;
    }
    return todo;
}
