/* SPDX-License-Identifier: BSD-3-Clause */
/* The set of things that may be so, carried from one event to the next.
 *
 *   event          state          becomes
 *   change begins  any            the same
 *   read begins    any            the same; the read has it if it is that value
 *   change ends    older          the change took effect and stays
 *     (done)       newer          the same; or it took effect again and stays
 *     (maybe)      any            the same; or it took effect and stays
 *   change fails   any            the same: it is under way for longer
 *   read ends      has it         the same
 *                  has it not     all under way took effect, one that makes its
 *                                 value last; without one this cannot be so
 *
 * "older" is a value that was there before the change began.  A change that is
 * done also ends the failed ones that were over before it began (cell.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/blockcheck/cell.h"

void
cell_init(struct cell *c)
{
    memset(c, 0, sizeof *c);
}

void
cell_fini(struct cell *c)
{
    free(c->changes);
    free(c->states);
    free(c->next);
    cell_init(c);
}

/* Room for one more element behind the n that are there. */
static bool
grow(void **array, size_t *room, size_t n, size_t size)
{
    size_t want = *room ? *room * 2 : 16;
    void *bigger;

    if (n < *room)
        return true;
    bigger = realloc(*array, want * size);
    if (!bigger)
        return false;
    *array = bigger;
    *room = want;
    return true;
}

/* A state of the next moment.  One that has seen more reads than another that
 * is the same otherwise makes that one needless. */
static void
add_next(struct cell *c, const struct cell_state *s)
{
    for (size_t i = 0; i < c->nnext; i++) {
        struct cell_state *t = &c->next[i];

        if (t->any != s->any || t->value != s->value ||
            t->since_ns != s->since_ns)
            continue;
        if ((t->seen & s->seen) == s->seen)
            return;
        if ((t->seen & s->seen) == t->seen) {
            t->seen = s->seen;
            return;
        }
    }
    if (!grow((void **)&c->next, &c->room_next, c->nnext, sizeof *c->next)) {
        c->no_memory = true;
        return;
    }
    c->next[c->nnext++] = *s;
}

static void
add_stays(struct cell *c, uint64_t value, uint64_t now_ns, uint64_t seen)
{
    const struct cell_state s = {
        .value = value, .since_ns = now_ns, .seen = seen};

    add_next(c, &s);
}

static int
step(struct cell *c)
{
    struct cell_state *states = c->states;
    size_t room = c->room_states;

    c->states = c->next;
    c->nstates = c->nnext;
    c->room_states = c->room_next;
    c->next = states;
    c->nnext = 0;
    c->room_next = room;
    return c->no_memory ? -ENOMEM : 0;
}

int
cell_reset(struct cell *c, const uint64_t *value)
{
    const struct cell_state s = {.any = !value, .value = value ? *value : 0};

    c->nchanges = 0;
    c->nnext = 0;
    c->used = 0;
    c->no_memory = false;
    add_next(c, &s);
    return step(c);
}

/* ---- reads --------------------------------------------------------------- */

static bool
being_made(const struct cell *c, uint64_t value)
{
    for (size_t i = 0; i < c->nchanges; i++)
        if (c->changes[i].value == value)
            return true;
    return false;
}

/* The reads whose value some change under way makes. */
static uint64_t
satisfied(const struct cell *c)
{
    uint64_t mask = 0;

    for (uint64_t left = c->used; left != 0; left &= left - 1) {
        int i = __builtin_ctzll(left);

        if (being_made(c, c->reads[i].value))
            mask |= UINT64_C(1) << i;
    }
    return mask;
}

int
cell_read_begins(struct cell *c, uint32_t id, uint64_t value)
{
    uint64_t bit;
    int i;

    if (c->used == UINT64_MAX)
        return -ENOSPC;
    i = __builtin_ctzll(~c->used);
    bit = UINT64_C(1) << i;
    c->used |= bit;
    c->reads[i].id = id;
    c->reads[i].value = value;
    for (size_t k = 0; k < c->nstates; k++)
        if (c->states[k].any || c->states[k].value == value)
            c->states[k].seen |= bit;
    return 0;
}

static int
slot_of(const struct cell *c, uint32_t id)
{
    for (uint64_t left = c->used; left != 0; left &= left - 1)
        if (c->reads[__builtin_ctzll(left)].id == id)
            return __builtin_ctzll(left);
    return -1;
}

int
cell_read_ends(struct cell *c, uint32_t id)
{
    int i = slot_of(c, id);
    uint64_t bit;
    bool made;

    if (i < 0)
        return 0; /* it was left out */
    bit = UINT64_C(1) << i;
    made = being_made(c, c->reads[i].value);
    for (size_t k = 0; k < c->nstates; k++) {
        struct cell_state s = c->states[k];

        if (s.seen & bit) {
            s.seen &= ~bit;
            add_next(c, &s);
        } else if (made) {
            /* as old as can be: what made it can take effect again */
            add_stays(c, c->reads[i].value, 0, s.seen & ~bit);
        }
    }
    c->used &= ~bit;
    if (c->nnext == 0 && !c->no_memory)
        return -EILSEQ;
    return step(c);
}

/* ---- changes ---------------------------------------------------------- */

int
cell_change_begins(struct cell *c, uint32_t id, uint32_t client, uint64_t value,
                   uint64_t now_ns)
{
    if (!grow((void **)&c->changes, &c->room_changes, c->nchanges,
              sizeof *c->changes))
        return -ENOMEM;
    c->changes[c->nchanges++] = (struct cell_change){.value = value,
                                                     .start_ns = now_ns,
                                                     .told_ns = UINT64_MAX,
                                                     .over_ns = UINT64_MAX,
                                                     .id = id,
                                                     .client = client};
    return 0;
}

static void
drop_change(struct cell *c, size_t i)
{
    c->changes[i] = c->changes[--c->nchanges];
}

/* Failed changes that were over when this one began. */
static void
drop_failed(struct cell *c, const struct cell_change *done)
{
    for (size_t i = c->nchanges; i-- > 0;) {
        const struct cell_change *f = &c->changes[i];
        uint64_t over = f->client == done->client ? f->told_ns : f->over_ns;

        if (over < done->start_ns)
            drop_change(c, i);
    }
}

static int
end_change(struct cell *c, size_t i, bool certain, uint64_t now_ns)
{
    const struct cell_change change = c->changes[i];
    uint64_t all = satisfied(c);

    drop_change(c, i);
    if (certain)
        drop_failed(c, &change);
    for (size_t k = 0; k < c->nstates; k++) {
        struct cell_state s = c->states[k];

        if (!certain || s.since_ns >= change.start_ns)
            add_next(c, &s);
        add_stays(c, change.value, now_ns, s.seen | all);
    }
    return step(c);
}

static size_t
index_of(const struct cell *c, uint32_t id)
{
    size_t i = 0;

    while (i < c->nchanges && c->changes[i].id != id)
        i++;
    return i;
}

int
cell_change_ends(struct cell *c, uint32_t id, enum cell_end end,
                 uint64_t now_ns)
{
    size_t i = index_of(c, id);

    return i < c->nchanges ? end_change(c, i, end == CELL_DONE, now_ns) : 0;
}

void
cell_change_fails(struct cell *c, uint32_t id, uint64_t now_ns,
                  uint64_t over_ns)
{
    size_t i = index_of(c, id);

    if (i == c->nchanges)
        return;
    c->changes[i].told_ns = now_ns;
    c->changes[i].over_ns = over_ns;
}
