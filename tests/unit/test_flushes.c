/* SPDX-License-Identifier: BSD-3-Clause */
/* Which flush would find nothing to do: one after the other, and in any order
 * against a LUN with a cache. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "plugin/flushes.h"

static void
test_flushes_first_one_is_not_idle(void **state)
{
    struct flushes f = {0};

    (void)state;
    assert_false(flushes_idle(&f, 1));
    flushes_done(&f, 1, f.marks);
    assert_true(flushes_idle(&f, 1));
}

static void
test_flushes_mark_is_a_reason(void **state)
{
    struct flushes f = {0};

    (void)state;
    flushes_done(&f, 1, f.marks);
    flushes_mark(&f);
    assert_false(flushes_idle(&f, 1));
}

static void
test_flushes_mark_since_it_began_is_a_reason(void **state)
{
    struct flushes f = {0};
    uint64_t marks = f.marks;

    (void)state;
    flushes_mark(&f);
    flushes_done(&f, 1, marks);
    assert_false(flushes_idle(&f, 1));
}

/* Also when the answer of one by the old opening is heard after that. */
static void
test_flushes_new_opening_is_a_reason(void **state)
{
    struct flushes f = {0};

    (void)state;
    flushes_done(&f, 1, f.marks);
    assert_false(flushes_idle(&f, 2));
    flushes_done(&f, 2, f.marks);
    flushes_done(&f, 1, f.marks);
    assert_false(flushes_idle(&f, 2));
}

static void
test_flushes_overtaken_one_does_no_harm(void **state)
{
    struct flushes f = {0};
    uint64_t early = f.marks;

    (void)state;
    flushes_mark(&f);
    flushes_done(&f, 1, f.marks);
    flushes_done(&f, 1, early);
    assert_false(flushes_idle(&f, 1));
}

/* ---- a LUN with a cache ---------------------------------------------------
 */

#define WRITES  8
#define FLUSHES 4
#define STEPS   200000

enum where {
    NOWHERE,
    UNDER_WAY,
    CACHED, /* the LUN has it, nobody was told */
    TOLD,   /* the same, and the VM knows */
};

struct flush {
    bool under_way;
    bool takes[WRITES]; /* what was in the cache when it came */
    uint64_t serial, marks;
};

struct world {
    struct flushes f;
    enum where writes[WRITES];
    bool safe[WRITES];
    struct flush flushes[FLUSHES];
    uint64_t serial, chance;
    unsigned idle;
};

static unsigned
below(struct world *w, unsigned n)
{
    w->chance = w->chance * 6364136223846793005ULL + 1442695040888963407ULL;
    return (unsigned)(w->chance >> 33) % n;
}

static void
step_write(struct world *w, unsigned i)
{
    switch (w->writes[i]) {
    case NOWHERE:
        w->writes[i] = UNDER_WAY;
        w->safe[i] = false;
        break;
    case UNDER_WAY:
        w->writes[i] = CACHED;
        break;
    case CACHED:
        flushes_mark(&w->f); /* and then the answer */
        w->writes[i] = TOLD;
        break;
    case TOLD:
        w->writes[i] = NOWHERE; /* the VM makes another one */
        break;
    }
}

static void
begin_flush(struct world *w, struct flush *fl)
{
    if (flushes_idle(&w->f, w->serial)) {
        w->idle++;
        for (unsigned i = 0; i < WRITES; i++)
            assert_true(w->writes[i] != TOLD || w->safe[i]);
        return;
    }
    *fl = (struct flush){true, {0}, w->serial, w->f.marks};
    for (unsigned i = 0; i < WRITES; i++)
        fl->takes[i] = w->writes[i] >= CACHED;
}

static void
end_flush(struct world *w, struct flush *fl, bool good)
{
    fl->under_way = false;
    if (!good) {
        flushes_mark(&w->f);
        return;
    }
    for (unsigned i = 0; i < WRITES; i++)
        w->safe[i] |= fl->takes[i];
    flushes_done(&w->f, fl->serial, fl->marks);
}

/* Another one takes its place, which no flush under way has seen. */
static void
forget_write(struct world *w, unsigned i)
{
    for (unsigned n = 0; n < FLUSHES; n++)
        w->flushes[n].takes[i] = false;
}

static void
test_flushes_idle_one_leaves_nothing_unsafe(void **state)
{
    struct world w = {.serial = 1, .chance = 77};

    (void)state;
    for (unsigned s = 0; s < STEPS; s++) {
        unsigned i = below(&w, WRITES);
        struct flush *fl = &w.flushes[below(&w, FLUSHES)];

        switch (below(&w, 8)) {
        case 0: /* seldom, so that some flushes find nothing */
            if (w.writes[i] == NOWHERE)
                forget_write(&w, i);
            step_write(&w, i);
            break;
        case 1:
            w.serial += below(&w, 50) == 0;
            break;
        default:
            if (fl->under_way)
                end_flush(&w, fl, below(&w, 5) != 0);
            else
                begin_flush(&w, fl);
            break;
        }
    }
    assert_true(w.idle > STEPS / 100);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flushes_first_one_is_not_idle),
        cmocka_unit_test(test_flushes_mark_is_a_reason),
        cmocka_unit_test(test_flushes_mark_since_it_began_is_a_reason),
        cmocka_unit_test(test_flushes_new_opening_is_a_reason),
        cmocka_unit_test(test_flushes_overtaken_one_does_no_harm),
        cmocka_unit_test(test_flushes_idle_one_leaves_nothing_unsafe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
