/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads of a LUN's first block that may hang, at most two of them. */
#include "health/prober.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>

#include "common/clock.h"

/* as clock_ms() would have said at that moment */
static uint64_t
to_ms(uint64_t us)
{
    return us / 1000 + 1;
}

int
prober_init(struct prober *p, struct lun *l)
{
    memset(p, 0, sizeof *p);
    p->queue = lun_queue_create(l);
    return p->queue ? 0 : -errno;
}

void
prober_fini(struct prober *p)
{
    lun_queue_destroy(p->queue);
    memset(p, 0, sizeof *p);
}

int
prober_send(struct prober *p, uint32_t block_size)
{
    struct lun_io *io;
    size_t i = 0;

    while (i < PROBER_MAX && p->slots[i].io)
        i++;
    if (i == PROBER_MAX)
        return -EBUSY;
    io = lun_io_get(p->queue, block_size);
    if (!io)
        return -ENOMEM;
    io->op = LUN_READ;
    io->flags = 0;
    io->offset = 0;
    io->count = block_size;
    io->registration_no = 0;
    io->tally = NULL;
    io->opaque = &p->slots[i];
    p->slots[i].io = io;
    p->slots[i].sent_us = clock_us();
    lun_submit(p->queue, io);
    return 0;
}

bool
prober_collect(struct prober *p, struct prober_result *r, uint64_t deadline_ms)
{
    struct lun_io *io;
    struct prober_slot *slot;
    uint64_t us;

    if (lun_reap(p->queue, &io, 1, deadline_ms) == 0)
        return false;
    slot = io->opaque;
    slot->io = NULL;
    us = clock_us() - slot->sent_us;
    r->error = io->error;
    r->sent_ms = to_ms(slot->sent_us);
    r->us = us > UINT_MAX ? UINT_MAX : (unsigned)us;
    lun_io_put(io);
    return true;
}

void
prober_interrupt(struct prober *p)
{
    lun_queue_interrupt(p->queue);
}

uint64_t
prober_oldest_ms(const struct prober *p)
{
    uint64_t us = 0;

    for (size_t i = 0; i < PROBER_MAX; i++)
        if (p->slots[i].io && (us == 0 || p->slots[i].sent_us < us))
            us = p->slots[i].sent_us;
    return us ? to_ms(us) : 0;
}

uint64_t
prober_newest_ms(const struct prober *p)
{
    uint64_t us = 0;

    for (size_t i = 0; i < PROBER_MAX; i++)
        if (p->slots[i].io && p->slots[i].sent_us > us)
            us = p->slots[i].sent_us;
    return us ? to_ms(us) : 0;
}

unsigned
prober_overdue(const struct prober *p, unsigned timeout_ms, uint64_t now_ms)
{
    unsigned n = 0;

    for (size_t i = 0; i < PROBER_MAX; i++)
        if (p->slots[i].io && to_ms(p->slots[i].sent_us) + timeout_ms <= now_ms)
            n++;
    return n;
}
