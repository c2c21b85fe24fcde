/* SPDX-License-Identifier: BSD-3-Clause */
/* The judge of one unit against a slow one that simply tries everything. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/blockcheck/cell.h"
#include "tests/blockcheck/stamp.h"

#define CHANGES 4
#define READS   3
#define ALL     (CHANGES + READS)
#define VALUES  4
#define CASES   30000

enum how {
    DONE,
    MAYBE,
    FAILED
};

/* Requests 0 to CHANGES - 1 are changes, the rest reads.  Times are 1 to
 * 2 * ALL, each used once. */
struct request {
    unsigned start, end; /* end 0: never */
    unsigned value, client;
    unsigned over; /* of a failure: when the client is served again; 0: never */
    enum how how;
};

struct history {
    unsigned initial;
    struct request r[ALL];
};

/* ---- the slow judge --------------------------------------------------- */

/* All that matters at one moment, in 26 bits: which change was the last to take
 * effect (CHANGES: none), which ever did, which reads have seen their value,
 * and for each change which others took effect after it. */
struct moment {
    unsigned last, done, seen, after[CHANGES];
};

#define KEYS (1u << 26)

static uint8_t *known; /* a bit for each key */
static uint32_t *keys; /* those that are known */
static size_t nkeys;

static uint32_t
key_of(const struct moment *m)
{
    uint32_t key = m->last | m->done << 3 | m->seen << 7;

    for (unsigned i = 0; i < CHANGES; i++)
        key |= m->after[i] << (10 + 4 * i);
    return key;
}

static struct moment
moment_of(uint32_t key)
{
    struct moment m = {
        .last = key & 7, .done = key >> 3 & 15, .seen = key >> 7 & 7};

    for (unsigned i = 0; i < CHANGES; i++)
        m.after[i] = key >> (10 + 4 * i) & 15;
    return m;
}

static void
add_moment(const struct moment *m)
{
    uint32_t key = key_of(m);

    if (known[key / 8] & 1u << key % 8)
        return;
    known[key / 8] |= (uint8_t)(1u << key % 8);
    keys[nkeys++] = key;
}

static void
take_effect(struct moment m, unsigned i)
{
    m.last = i;
    m.done |= 1u << i;
    for (unsigned k = 0; k < CHANGES; k++)
        m.after[k] |= 1u << i;
    m.after[i] = 0;
    add_moment(&m);
}

static void
see(const struct history *h, struct moment m, unsigned reads)
{
    unsigned value = m.last == CHANGES ? h->initial : h->r[m.last].value;

    for (unsigned i = 0; i < READS; i++)
        if ((reads & 1u << i) && h->r[CHANGES + i].value == value)
            m.seen |= 1u << i;
    add_moment(&m);
}

/* Everything that can happen before the next event, in any order. */
static void
close_over(const struct history *h, unsigned changes, unsigned reads)
{
    for (size_t i = 0; i < nkeys; i++) {
        struct moment m = moment_of(keys[i]);

        see(h, m, reads);
        for (unsigned k = 0; k < CHANGES; k++)
            if (changes & 1u << k)
                take_effect(m, k);
    }
}

typedef bool fits_fn(const struct moment *m, unsigned i, unsigned gone);

static bool
change_fits(const struct moment *m, unsigned i, unsigned gone)
{
    return (m->done & 1u << i) && !(m->after[i] & gone);
}

static bool
read_fits(const struct moment *m, unsigned i, unsigned gone)
{
    (void)gone;
    return m->seen & 1u << i;
}

static bool
keep(fits_fn *fits, unsigned i, unsigned gone)
{
    size_t n = nkeys;

    nkeys = 0;
    for (size_t k = 0; k < n; k++) {
        struct moment m = moment_of(keys[k]);

        if (fits(&m, i, gone))
            keys[nkeys++] = keys[k];
        else
            known[keys[k] / 8] &= (uint8_t) ~(1u << keys[k] % 8);
    }
    return nkeys > 0;
}

/* Failed changes that were over before change i began. */
static unsigned
over_before(const struct history *h, unsigned i)
{
    unsigned gone = 0;

    for (unsigned k = 0; k < CHANGES; k++) {
        const struct request *f = &h->r[k];
        unsigned over = f->client == h->r[i].client ? f->end : f->over;

        if (f->how == FAILED && f->end != 0 && over != 0 &&
            over < h->r[i].start)
            gone |= 1u << k;
    }
    return gone;
}

/* The read that cannot be, or -1. */
static int
try_everything(const struct history *h)
{
    const struct moment first = {.last = CHANGES};
    unsigned changes = 0, reads = 0, gone;
    bool ok = true;
    int culprit = -1;

    nkeys = 0;
    add_moment(&first);
    for (unsigned now = 1; now <= 2 * ALL && ok; now++)
        for (unsigned i = 0; i < ALL && ok; i++) {
            bool change = i < CHANGES;
            unsigned bit = change ? 1u << i : 1u << (i - CHANGES);

            if (h->r[i].start == now)
                *(change ? &changes : &reads) |= bit;
            if (h->r[i].start == now)
                close_over(h, changes, reads);
            if (h->r[i].end != now || (change && h->r[i].how == FAILED))
                continue;
            gone = change && h->r[i].how == DONE ? over_before(h, i) : 0;
            if (change && h->r[i].how == DONE)
                ok = keep(change_fits, i, gone);
            else if (!change)
                ok = keep(read_fits, i - CHANGES, 0);
            culprit = (int)i;
            *(change ? &changes : &reads) &= ~(bit | (change ? gone : 0));
        }
    for (size_t k = 0; k < nkeys; k++)
        known[keys[k] / 8] = 0;
    return ok ? -1 : culprit;
}

/* ---- the real one ----------------------------------------------------- */

static int
change_event(struct cell *c, const struct request *r, unsigned i, unsigned now)
{
    if (r->start == now)
        return cell_change_begins(c, i, r->client, r->value, now);
    if (r->how != FAILED)
        return cell_change_ends(c, i, r->how == DONE ? CELL_DONE : CELL_MAYBE,
                                now);
    cell_change_fails(c, i, now, r->over ? r->over : UINT64_MAX);
    return 0;
}

static int
one_event(struct cell *c, const struct history *h, unsigned i, unsigned now)
{
    const struct request *r = &h->r[i];

    if (r->start != now && r->end != now)
        return 0;
    if (i < CHANGES)
        return change_event(c, r, i, now);
    return r->start == now ? cell_read_begins(c, i, r->value)
                           : cell_read_ends(c, i);
}

static int
judge(struct cell *c, const struct history *h)
{
    uint64_t initial = h->initial;
    int r = cell_reset(c, &initial);

    for (unsigned now = 1; now <= 2 * ALL; now++)
        for (unsigned i = 0; i < ALL; i++) {
            assert_true(r == 0);
            r = one_event(c, h, i, now);
            if (r == -EILSEQ)
                return (int)i;
        }
    return -1;
}

/* ---- random histories
 * --------------------------------------------------------- */

static uint64_t random_state;

static unsigned
below(unsigned n)
{
    random_state = stamp_mix(random_state);
    return (unsigned)(random_state % n);
}

/* Requests of all lengths, at times that are all different. */
static void
make_times(struct history *h)
{
    unsigned open[ALL], nopen = 0, begun = 0;

    for (unsigned now = 1; now <= 2 * ALL; now++) {
        unsigned which;

        if (begun < ALL && (nopen == 0 || below(2) == 0)) {
            h->r[begun].start = now;
            open[nopen++] = begun++;
            continue;
        }
        which = below(nopen);
        h->r[open[which]].end = now;
        open[which] = open[--nopen];
    }
}

static void
make_history(struct history *h)
{
    const enum how hows[] = {DONE, DONE, DONE, MAYBE, FAILED};

    memset(h, 0, sizeof *h);
    make_times(h);
    h->initial = below(VALUES);
    for (unsigned i = 0; i < ALL; i++) { /* reads come last: mix them in */
        unsigned k = below(ALL);
        struct request t = h->r[i];

        h->r[i] = h->r[k];
        h->r[k] = t;
    }
    for (unsigned i = 0; i < ALL; i++) {
        h->r[i].value = below(VALUES);
        h->r[i].client = below(2);
        h->r[i].how = hows[below(5)];
        if (i < CHANGES && h->r[i].how == FAILED && below(3) == 0)
            h->r[i].end = 0;
        if (h->r[i].end != 0 && below(3) != 0)
            h->r[i].over = h->r[i].end + below(2 * ALL);
    }
}

static void
print_history(const struct history *h)
{
    print_message("initial %u\n", h->initial);
    for (unsigned i = 0; i < ALL; i++)
        print_message("%s %u of %u: %u to %u, value %u, end %d, over %u\n",
                      i < CHANGES ? "change" : "read", i, h->r[i].client,
                      h->r[i].start, h->r[i].end, h->r[i].value,
                      (int)h->r[i].how, h->r[i].over);
}

static void
test_cell_agrees_with_trying_everything(void **state)
{
    struct history h;
    struct cell c;
    unsigned impossible = 0;

    (void)state;
    known = calloc(KEYS / 8, 1);
    keys = malloc(KEYS * sizeof *keys);
    assert_true(known && keys);
    cell_init(&c);
    random_state = 1;
    for (unsigned i = 0; i < CASES; i++) {
        int slow, fast;

        make_history(&h);
        slow = try_everything(&h);
        fast = judge(&c, &h);
        if (slow != fast)
            print_history(&h);
        assert_int_equal(slow, fast);
        impossible += slow >= 0;
    }
    assert_in_range(impossible, CASES / 10, CASES - CASES / 10);
    cell_fini(&c);
    free(known);
    free(keys);
}

static void
test_cell_too_many_reads_are_left_out(void **state)
{
    uint64_t zero = 0;
    struct cell c;

    (void)state;
    cell_init(&c);
    assert_int_equal(cell_reset(&c, &zero), 0);
    for (uint32_t i = 0; i < CELL_READS; i++)
        assert_int_equal(cell_read_begins(&c, i, 0), 0);
    assert_int_equal(cell_read_begins(&c, CELL_READS, 1), -ENOSPC);
    assert_int_equal(cell_read_ends(&c, CELL_READS), 0);
    for (uint32_t i = 0; i < CELL_READS; i++)
        assert_int_equal(cell_read_ends(&c, i), 0);
    cell_fini(&c);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cell_agrees_with_trying_everything),
        cmocka_unit_test(test_cell_too_many_reads_are_left_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
