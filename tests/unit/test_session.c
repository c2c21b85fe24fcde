/* SPDX-License-Identifier: BSD-3-Clause */
/* Sessions and generations: who is let in, who is told to go. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "lun/backend.h"
#include "proxy/session.h"

struct peer {
    struct session_member member; /* first: order() casts */
    enum session_order told;
};

static void
told(struct session_member *m, enum session_order o)
{
    ((struct peer *)m)->told = o;
}

static void
peer_init(struct peer *p)
{
    *p = (struct peer){.member = {.order = told, .address = "x"}};
}

/* Claim and join, as a GO does without anybody to wait for. */
static int
come(struct session_table *t, const char *host, const char *client,
     uint64_t generation, struct peer *p)
{
    uint64_t seen;
    int rc = session_claim(t, host, client, generation, &seen);

    peer_init(p);
    return rc ? rc : session_join(t, host, client, generation, &p->member);
}

/* ---- what was done ----------------------------------------------------- */

static void
sum_work(void *opaque, const struct session_client *c,
         const struct session_work *w)
{
    char *to = opaque;

    sprintf(to + strlen(to), "%s/%s %d %d %d;", c->host, c->client,
            (int)w->requests, (int)w->bytes_read, (int)w->bytes_written);
}

static void
assert_work(const struct session_table *t, const char *expected)
{
    char text[256] = "";

    session_each_work(t, sum_work, text);
    assert_string_equal(text, expected);
}

static void
test_session_work_only_grows(void **state)
{
    struct session_table t = {0};
    struct peer p, q, plain;

    (void)state;
    assert_int_equal(come(&t, "a", "vm", 1, &p), 0);
    assert_work(&t, "a/vm 0 0 0;");
    p.member.requests = 3;
    p.member.bytes_read = 20;
    assert_work(&t, "a/vm 3 20 0;");
    assert_int_equal(come(&t, "a", "vm", 2, &q), 0);
    q.member.bytes_written = 7;
    assert_work(&t, "a/vm 3 20 7;");
    session_leave(&t, &p.member);
    session_leave(&t, &q.member);
    assert_work(&t, "a/vm 3 20 7;");
    for (int i = 0; i < 2; i++) {
        peer_init(&plain);
        assert_int_equal(session_join(&t, "a", "", 0, &plain.member), 0);
        plain.member.requests = 1;
        session_leave(&t, &plain.member);
    }
    assert_work(&t, "a/vm 3 20 7;a/ 2 0 0;");
    session_table_fini(&t);
}

static void
test_session_lower_generation_is_stale(void **state)
{
    struct session_table t = {0};
    uint64_t seen = 0;

    (void)state;
    assert_int_equal(session_claim(&t, "a", "vm", 5, &seen), 0);
    assert_int_equal(session_claim(&t, "a", "vm", 4, &seen), -ESTALE);
    assert_int_equal(seen, 5);
    assert_int_equal(session_claim(&t, "a", "vm", 5, &seen), 0);
    assert_int_equal(session_claim(&t, "a", "vm", 6, &seen), 0);
    session_table_fini(&t);
}

static void
test_session_generations_of_others_do_not_matter(void **state)
{
    struct session_table t = {0};
    struct peer p, q, r;

    (void)state;
    assert_int_equal(come(&t, "a", "vm", 5, &p), 0);
    assert_int_equal(come(&t, "b", "vm", 1, &q), 0);
    assert_int_equal(come(&t, "a", "vm2", 1, &r), 0);
    assert_int_equal(p.told | q.told | r.told, SESSION_RUN);
    session_leave(&t, &p.member);
    session_leave(&t, &q.member);
    session_leave(&t, &r.member);
    session_table_fini(&t);
}

static void
test_session_higher_generation_ends_the_lower(void **state)
{
    struct session_table t = {0};
    struct peer old1, old2, new;
    uint64_t seen;

    (void)state;
    assert_int_equal(come(&t, "a", "vm", 1, &old1), 0);
    assert_int_equal(come(&t, "a", "vm", 1, &old2), 0);
    assert_ptr_equal(old1.member.session, old2.member.session);
    assert_int_equal(session_claim(&t, "a", "vm", 2, &seen), 0);
    assert_int_equal(old1.told, SESSION_FINISH);
    assert_int_equal(old2.told, SESSION_FINISH);
    assert_non_null(session_older(&t, "a", "vm", 2));
    session_leave(&t, &old1.member);
    assert_non_null(session_older(&t, "a", "vm", 2));
    session_leave(&t, &old2.member);
    assert_null(session_older(&t, "a", "vm", 2));
    peer_init(&new);
    assert_int_equal(session_join(&t, "a", "vm", 2, &new.member), 0);
    session_leave(&t, &new.member);
    session_table_fini(&t);
}

static void
test_session_unfinished_write_outlives_its_connection(void **state)
{
    struct session_table t = {0};
    struct lun_io io = {.op = LUN_WRITE};
    struct peer p;

    (void)state;
    come(&t, "a", "vm", 1, &p);
    io.tally = p.member.session->tally;
    lun_tally_begin(&io);
    session_leave(&t, &p.member);
    assert_non_null(session_older(&t, "a", "vm", 2));
    assert_null(session_older(&t, "a", "vm", 1));
    assert_int_equal(session_sweep(&t).pending, 1);
    lun_tally_end(&io);
    assert_null(session_older(&t, "a", "vm", 2));
    session_sweep(&t);
    assert_null(t.sessions);
    session_table_fini(&t);
}

static void
test_session_pinned_is_not_swept(void **state)
{
    struct session_table t = {0};
    struct session *s;
    struct peer p;

    (void)state;
    come(&t, "a", "vm", 1, &p);
    s = p.member.session;
    s->pins++;
    session_leave(&t, &p.member);
    assert_ptr_equal(t.sessions, s);
    s->pins--;
    session_sweep(&t);
    assert_null(t.sessions);
    session_table_fini(&t);
}

static void
test_session_superseded_before_it_joined_is_stale(void **state)
{
    struct session_table t = {0};
    struct peer p;
    uint64_t seen;

    (void)state;
    peer_init(&p);
    session_claim(&t, "a", "vm", 1, &seen);
    session_claim(&t, "a", "vm", 2, &seen);
    assert_int_equal(session_join(&t, "a", "vm", 1, &p.member), -ESTALE);
    assert_null(p.member.session);
    session_table_fini(&t);
}

static void
test_session_generation_is_remembered_without_connections(void **state)
{
    struct session_table t = {0};
    struct peer p;
    uint64_t seen;

    (void)state;
    come(&t, "a", "vm", 9, &p);
    session_leave(&t, &p.member);
    assert_int_equal(session_claim(&t, "a", "vm", 8, &seen), -ESTALE);
    session_table_fini(&t);
}

static void
test_session_plain_clients_have_one_each(void **state)
{
    struct session_table t = {0};
    struct peer p, q;

    (void)state;
    peer_init(&p);
    peer_init(&q);
    assert_int_equal(session_join(&t, "a", "", 0, &p.member), 0);
    assert_int_equal(session_join(&t, "a", "", 0, &q.member), 0);
    assert_ptr_not_equal(p.member.session, q.member.session);
    session_order_all(&t, SESSION_ABANDON);
    assert_int_equal(p.told, SESSION_ABANDON);
    assert_int_equal(q.told, SESSION_ABANDON);
    session_leave(&t, &p.member);
    session_leave(&t, &q.member);
    session_table_fini(&t);
}

static void
test_session_clients_of_one_host_are_bounded(void **state)
{
    struct session_table t = {0};
    char name[32];
    uint64_t seen;

    (void)state;
    for (unsigned i = 0; i < SESSION_CLIENTS_MAX; i++) {
        snprintf(name, sizeof name, "vm%u", i);
        assert_int_equal(session_claim(&t, "a", name, 1, &seen), 0);
    }
    assert_int_equal(session_claim(&t, "a", "more", 1, &seen), -ENOSPC);
    assert_int_equal(session_claim(&t, "a", "vm0", 2, &seen), 0);
    assert_int_equal(session_claim(&t, "b", "more", 1, &seen), 0);
    session_table_fini(&t);
}

static void
test_session_counts_find_the_oldest_request(void **state)
{
    struct session_table t = {0};
    struct session_counts n;
    struct peer p, q, r;

    (void)state;
    come(&t, "a", "vm", 1, &p);
    come(&t, "b", "vm", 1, &q);
    come(&t, "c", "vm", 1, &r);
    assert_int_equal(session_sweep(&t).oldest_ms, 0);
    atomic_store(&p.member.oldest_ms, 30);
    atomic_store(&q.member.oldest_ms, 20);
    atomic_store(&p.member.answered_ms, 10);
    atomic_store(&q.member.answered_ms, 11);
    atomic_store(&q.member.inflight, 4);
    n = session_sweep(&t);
    assert_int_equal(n.oldest_ms, 20);
    assert_int_equal(n.answered_ms, 11);
    assert_int_equal(n.inflight, 4);
    assert_int_equal(n.sessions, 3);
    session_leave(&t, &p.member);
    session_leave(&t, &q.member);
    session_leave(&t, &r.member);
    session_table_fini(&t);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_session_work_only_grows),
        cmocka_unit_test(test_session_lower_generation_is_stale),
        cmocka_unit_test(test_session_generations_of_others_do_not_matter),
        cmocka_unit_test(test_session_higher_generation_ends_the_lower),
        cmocka_unit_test(test_session_unfinished_write_outlives_its_connection),
        cmocka_unit_test(test_session_pinned_is_not_swept),
        cmocka_unit_test(test_session_superseded_before_it_joined_is_stale),
        cmocka_unit_test(
            test_session_generation_is_remembered_without_connections),
        cmocka_unit_test(test_session_plain_clients_have_one_each),
        cmocka_unit_test(test_session_clients_of_one_host_are_bounded),
        cmocka_unit_test(test_session_counts_find_the_oldest_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
