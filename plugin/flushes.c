/* SPDX-License-Identifier: BSD-3-Clause */
/* Flushes: what was marked since the last good one. */
#include "plugin/flushes.h"

void
flushes_mark(struct flushes *f)
{
    f->marks++;
}

void
flushes_done(struct flushes *f, uint64_t serial, uint64_t marks)
{
    /* One that was overtaken sets this back: one FLUSH more, never less. */
    f->flushed = marks;
    f->serial = serial;
}

bool
flushes_idle(const struct flushes *f, uint64_t serial)
{
    return f->serial == serial && f->flushed == f->marks;
}
