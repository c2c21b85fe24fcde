/* SPDX-License-Identifier: BSD-3-Clause */
/* A list: there are as many orphans as requests were under way, at most. */
#include "plugin/orphans.h"

#include <stdlib.h>

#include "plugin/route.h"

struct orphan *
orphan_create(void)
{
    struct orphan *o = calloc(1, sizeof *o);

    if (!o)
        return NULL;
    o->tally = lun_tally_create();
    if (!o->tally) {
        free(o);
        return NULL;
    }
    return o;
}

void
orphan_destroy(struct orphan *o)
{
    if (!o)
        return;
    lun_tally_put(o->tally);
    free(o);
}

void
orphans_add(struct orphans *set, struct orphan *o)
{
    o->next = set->first;
    set->first = o;
    set->n++;
}

bool
orphans_overlap(const struct orphans *set, uint64_t offset, uint64_t count)
{
    for (const struct orphan *o = set->first; o; o = o->next) {
        if (o->offset < offset + count && offset < o->offset + o->count)
            return true;
    }
    return false;
}

/* Forget those for which gone() is true. */
static unsigned
sweep(struct orphans *set,
      bool (*gone)(const struct orphan *o, int carrier, uint64_t serial),
      int carrier, uint64_t serial)
{
    unsigned n = 0;

    for (struct orphan **at = &set->first; *at;) {
        struct orphan *o = *at;

        if (!gone(o, carrier, serial)) {
            at = &o->next;
            continue;
        }
        *at = o->next;
        orphan_destroy(o);
        n++;
    }
    set->n -= n;
    return n;
}

static bool
came_back(const struct orphan *o, int carrier, uint64_t serial)
{
    (void)serial;
    return o->carrier == carrier && lun_tally_count(o->tally) == 0;
}

unsigned
orphans_settle(struct orphans *set)
{
    return sweep(set, came_back, ROUTE_SELF, 0);
}

static bool
is_of(const struct orphan *o, int carrier, uint64_t serial)
{
    return o->carrier == carrier && o->serial <= serial;
}

unsigned
orphans_clear(struct orphans *set, int carrier, uint64_t serial)
{
    return sweep(set, is_of, carrier, serial);
}

unsigned
orphans_count(const struct orphans *set, int carrier)
{
    unsigned n = 0;

    for (const struct orphan *o = set->first; o; o = o->next)
        n += o->carrier == carrier;
    return n;
}

static bool
any(const struct orphan *o, int carrier, uint64_t serial)
{
    (void)o;
    (void)carrier;
    (void)serial;
    return true;
}

void
orphans_fini(struct orphans *set)
{
    sweep(set, any, 0, 0);
}
