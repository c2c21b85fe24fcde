/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads of a LUN's first block that may hang, at most two of them. */
#ifndef DETOUR_HEALTH_PROBER_H
#define DETOUR_HEALTH_PROBER_H

#include <stdbool.h>
#include <stdint.h>

#include "lun/lun.h"

/* One that hangs must not be the last: the second tells whether it is the
 * device.  More would only pile up in a dead one. */
#define PROBER_MAX 2

struct prober_slot {
    struct lun_io *io; /* NULL: free */
    uint64_t sent_us;
};

struct prober {
    struct lun_queue *queue;
    struct prober_slot slots[PROBER_MAX];
};

struct prober_result {
    int error; /* 0 or -errno */
    uint64_t sent_ms;
    unsigned us; /* how long it took */
};

/* prober_init - errors: -errno
 * threads: all calls from one thread at a time */
int prober_init(struct prober *p, struct lun *l);

/* prober_fini - abandon what is under way; never waits for the device. */
void prober_fini(struct prober *p);

/* prober_send - errors: -EBUSY PROBER_MAX are under way; -ENOMEM
 *
 * It leaves with the next prober_collect, at the latest. */
int prober_send(struct prober *p, uint32_t block_size);

/* prober_collect - take one finished probe, waiting for it up to deadline_ms
 * (0: not at all) or an interrupt; false: none. */
bool prober_collect(struct prober *p, struct prober_result *r,
                    uint64_t deadline_ms);

/* prober_interrupt - end the prober_collect that waits, or that comes next;
 * threads: any */
void prober_interrupt(struct prober *p);

/* prober_oldest_ms, prober_newest_ms - when the oldest and the newest that
 * are under way left; 0: none. */
uint64_t prober_oldest_ms(const struct prober *p);
uint64_t prober_newest_ms(const struct prober *p);

/* prober_overdue - how many left timeout_ms or longer before now_ms? */
unsigned prober_overdue(const struct prober *p, unsigned timeout_ms,
                        uint64_t now_ms);

#endif
