/* SPDX-License-Identifier: BSD-3-Clause */
/* To which peers connections are kept, which of them may serve, and what a
 * session is made of.  The links are played: their status is what the test
 * says. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/clock.h"
#include "plugin/peers.h"

#define HOSTS 4 /* we are the first; peer 0 is host b, half way round */
#define PEERS (HOSTS - 1)
#define MANY  16
#define GIB   (UINT64_C(1) << 30)

/* ---- links -------------------------------------------------------------- */

struct link {
    char peer[16];
    bool ended, went; /* went: it was asked for GO */
};

static struct peers *peers;

static struct {
    struct link_status says[MANY]; /* every link to the host's status */
    int go_result;
    int join_result;      /* of link_go_begin, by and by */
    uint64_t join_size;   /* that those links tell, if not 0 */
    struct link *used[2]; /* what session_run came to, each once */
    unsigned nused;
    unsigned links[MANY];  /* how many there are */
    uint64_t later_ms;     /* the clock is ahead */
    unsigned waited_alone; /* destroyed before the others were told to end */
    unsigned told_to_end, gos, breaks;
    bool yield_inside; /* in the middle of the first GO */
    char go_name[EXPORT_NAME_MAX + 1];
    enum link_failure fails_as; /* each link, once, when it is created */
} t;

struct link *__wrap_link_create(const struct link_options *opt);
void __wrap_link_end(struct link *k);
void __wrap_link_destroy(struct link *k);
void __wrap_link_get_status(struct link *k, struct link_status *st);
int __wrap_link_go(struct link *k, const char *name, uint64_t deadline_ms);
int __wrap_link_go_begin(struct link *k, const char *name,
                         uint64_t deadline_ms);
int __wrap_link_go_result(struct link *k);
int __wrap_link_run(struct link *k, struct link_command *c, bool *sent);
void __wrap_link_break(struct link *k);

int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);

int
__wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    int r = __real_clock_gettime(id, ts);

    ts->tv_sec += (time_t)(t.later_ms / 1000);
    return r;
}

static unsigned
linked_hosts(void)
{
    unsigned n = 0;

    for (size_t i = 0; i < MANY; i++)
        n += t.links[i] > 0;
    return n;
}

static size_t
host_of(const struct link *k)
{
    return (size_t)(k->peer[0] - 'a');
}

struct link *
__wrap_link_create(const struct link_options *opt)
{
    struct link *k = calloc(1, sizeof *k);

    snprintf(k->peer, sizeof k->peer, "%s", opt->peer);
    atomic_fetch_add(&opt->failures->of[t.fails_as], 1);
    t.links[host_of(k)]++;
    return k;
}

void
__wrap_link_end(struct link *k)
{
    k->ended = true;
    t.told_to_end++;
}

void
__wrap_link_destroy(struct link *k)
{
    if (!k)
        return;
    t.links[host_of(k)]--;
    if (!k->ended)
        t.waited_alone++;
    free(k);
}

void
__wrap_link_get_status(struct link *k, struct link_status *st)
{
    *st = t.says[host_of(k)];
    if (!k->went)
        return;
    st->state = t.join_result == 0 ? LINK_LIVE : LINK_DEAD;
    if (t.join_size)
        st->size = t.join_size;
}

int
__wrap_link_go(struct link *k, const char *name, uint64_t deadline_ms)
{
    (void)k;
    (void)deadline_ms;
    t.gos++;
    if (t.yield_inside)
        peers_yield(peers, true);
    snprintf(t.go_name, sizeof t.go_name, "%s", name);
    return t.go_result;
}

int
__wrap_link_go_begin(struct link *k, const char *name, uint64_t deadline_ms)
{
    k->went = true;
    return __wrap_link_go(k, name, deadline_ms);
}

int
__wrap_link_go_result(struct link *k)
{
    assert_true(k->went);
    return t.join_result;
}

int
__wrap_link_run(struct link *k, struct link_command *c, bool *sent)
{
    (void)c;
    (void)sent;
    if (t.nused == 0 || t.used[0] != k)
        t.used[t.nused++ % 2] = k;
    return 0;
}

void
__wrap_link_break(struct link *k)
{
    (void)k;
    t.breaks++;
}

/* ---- the cluster -------------------------------------------------------- */

static char names[HOSTS][2] = {"a", "c", "b", "d"};
static char *addresses[] = {(char *)"127.0.0.1"};
static struct config_host hosts[HOSTS];
static const struct config_host *members[HOSTS];
static struct config cfg;
static struct config_lun lun;
static struct peers_lun want;

static void
nothing(void *opaque)
{
    (void)opaque;
}

static struct link_status
parked(void)
{
    struct link_status st = {.state = LINK_PARKED,
                             .would_serve = true,
                             .info_ms = 1,
                             .size = GIB,
                             .block_min = 512};

    snprintf(st.description, sizeof st.description,
             "detour 1 id=naa.6001 state=serving load=0 sessions=0");
    return st;
}

static int
setup(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    for (size_t i = 0; i < HOSTS; i++) {
        hosts[i] = (struct config_host){.name = names[i],
                                        .number = (unsigned)i + 1,
                                        .addresses = addresses,
                                        .naddresses = 1};
        members[i] = &hosts[i];
        t.says[i] = parked();
    }
    cfg = (struct config){.hosts = hosts, .nhosts = HOSTS, .self = hosts};
    lun = (struct config_lun){.name = (char *)"vm",
                              .hosts = members,
                              .nhosts = HOSTS,
                              .standby_peers = 2,
                              .connections = 2};
    want = (struct peers_lun){.id = "naa.6001", .size = GIB, .block_size = 512};
    peers = peers_create(&cfg, &lun, "main", NULL, nothing, NULL);
    return peers ? 0 : -1;
}

static int
teardown(void **state)
{
    (void)state;
    peers_destroy(peers);
    for (size_t i = 0; i < HOSTS; i++)
        assert_int_equal(t.links[i], 0);
    return 0;
}

static bool
is_ready(int peer)
{
    struct route_peer view[PEERS];

    peers_view(peers, &want, view);
    return view[peer].ready;
}

/* ---- standby ------------------------------------------------------------ */

/* ---- whom we lean on ---------------------------------------------------- */

/* The index in the configuration of the host's nth peer, of as many. */
static size_t
nth_peer(size_t self, size_t n, int nth)
{
    static char name[] = "x";
    struct config_host many[MANY];
    const struct config_host *all[MANY];
    struct config config = {.hosts = many, .nhosts = n, .self = &many[self]};
    struct config_lun one = {
        .name = (char *)"vm", .hosts = all, .nhosts = n, .standby_peers = 2};
    struct peers *p;
    size_t found;

    for (size_t i = 0; i < n; i++) {
        many[i] = (struct config_host){.name = name, .number = (unsigned)i + 1};
        all[i] = &many[i];
    }
    p = peers_create(&config, &one, "main", NULL, nothing, NULL);
    assert_non_null(p);
    assert_int_equal(peers_count(p), n - 1);
    found = (size_t)(peers_host(p, nth) - many);
    peers_destroy(p);
    return found;
}

static void
test_peers_neighbours_lean_on_different_distant_hosts(void **state)
{
    (void)state;
    for (size_t self = 0; self < MANY; self++) {
        assert_int_equal(nth_peer(self, MANY, 0), (self + 8) % MANY);
        assert_int_equal(nth_peer(self, MANY, 1), (self + 4) % MANY);
        assert_int_equal(nth_peer(self, MANY, 2), (self + 12) % MANY);
    }
}

static void
test_peers_few_at_a_time_are_asked_while_none_is_ready(void **state)
{
    static char name[MANY][2];
    struct config_host many[MANY];
    const struct config_host *all[MANY];
    struct config config = {.hosts = many, .nhosts = MANY, .self = many};
    struct config_lun one = lun;
    struct peers *p;

    (void)state;
    one.hosts = all;
    one.nhosts = MANY;
    for (size_t i = 0; i < MANY; i++) {
        name[i][0] = (char)('a' + i);
        many[i] = (struct config_host){.name = name[i],
                                       .number = (unsigned)i + 1,
                                       .addresses = addresses,
                                       .naddresses = 1};
        all[i] = &many[i];
        t.says[i] = (struct link_status){.state = LINK_CONNECTING};
    }
    p = peers_create(&config, &one, "main", NULL, nothing, NULL);
    peers_tend(p, &want, 0);
    peers_tend(p, &want, 0);
    assert_int_equal(linked_hosts(), 4);
    t.later_ms = 3 * 2000;
    peers_tend(p, &want, 0);
    assert_int_equal(linked_hosts(), 7);
    /* those that must are asked at once */
    peers_tend(p, &want, UINT64_C(1) << 14);
    assert_int_equal(linked_hosts(), 8);
    /* who is ready stays, although those before are not */
    for (int i = 5; i < 7; i++)
        t.says[peers_host(p, i) - many] = parked();
    peers_tend(p, &want, 0);
    peers_tend(p, &want, 0);
    assert_int_equal(linked_hosts(), 7);
    peers_destroy(p);
}

static void
test_peers_each_host_is_once_the_nth_of_another(void **state)
{
    (void)state;
    for (size_t n = 2; n <= MANY; n++) {
        for (int nth = 0; nth < (int)n - 1; nth++) {
            unsigned leaning[MANY] = {0};

            for (size_t self = 0; self < n; self++) {
                size_t peer = nth_peer(self, n, nth);

                assert_int_not_equal(peer, self);
                assert_int_equal(leaning[peer]++, 0);
            }
        }
    }
}

static void
test_peers_as_many_as_shall_stand_by(void **state)
{
    (void)state;
    peers_tend(peers, &want, 0);
    assert_int_equal(t.links[1], 2);
    assert_int_equal(t.links[2], 2);
    assert_int_equal(t.links[3], 0);
}

static void
test_peers_the_next_stands_in_until_the_first_is_back(void **state)
{
    (void)state;
    t.says[1].state = LINK_CONNECTING;
    peers_tend(peers, &want, 0);
    assert_int_equal(t.links[3], 2);
    t.says[1] = parked();
    peers_tend(peers, &want, 0);
    assert_int_equal(t.links[3], 0);
}

/* Without reservations only the suspect itself can clear the suspicion. */
static void
test_peers_who_must_be_kept_is_kept(void **state)
{
    (void)state;
    peers_tend(peers, &want, 1u << 2);
    assert_int_equal(t.links[3], 2);
    assert_true(is_ready(2));
    peers_tend(peers, &want, 0);
    assert_int_equal(t.links[3], 0);
}

/* ---- who may serve ------------------------------------------------------ */

static void
test_peers_another_lun_is_not_ready(void **state)
{
    (void)state;
    peers_tend(peers, &want, 0);
    assert_true(is_ready(0));
    t.says[1].size = GIB / 2;
    assert_false(is_ready(0));
    t.says[1] = parked();
    snprintf(t.says[1].description, sizeof t.says[1].description,
             "detour 1 id=naa.6002 state=serving load=0 sessions=0");
    assert_false(is_ready(0));
}

static void
test_peers_read_only_is_enough_for_readers(void **state)
{
    (void)state;
    t.says[1].flags = 1u << 1;
    peers_tend(peers, &want, 0);
    assert_false(is_ready(0));
    want.readonly = true;
    assert_true(is_ready(0));
}

/* What the VMs were promised must go on every route. */
static void
test_peers_larger_blocks_than_ours_are_not_ready(void **state)
{
    (void)state;
    t.says[1].block_min = 4096;
    peers_tend(peers, &want, 0);
    assert_false(is_ready(0));
    want.block_size = 4096;
    assert_true(is_ready(0));
    want.block_size = 0; /* nothing promised yet */
    assert_true(is_ready(0));
}

static void
test_peers_late_answer_is_not_ready(void **state)
{
    (void)state;
    peers_tend(peers, &want, 0);
    t.says[1].info_sent_ms = clock_ms() - 10000;
    assert_false(is_ready(0));
}

/* ---- sessions ----------------------------------------------------------- */

static int
open_first(struct session **s)
{
    struct peers_request rq = {.peer = 0,
                               .generation = 7,
                               .id = want.id,
                               .size = want.size,
                               .fence = {&hosts[3]},
                               .nfence = 1};
    char why[256];

    return peers_open(peers, &rq, s, why, sizeof why);
}

static void
test_peers_session_takes_its_connections(void **state)
{
    struct session *s;

    (void)state;
    peers_tend(peers, &want, 0);
    assert_int_equal(open_first(&s), 0);
    assert_int_equal(t.gos, 2);
    /* the first GO has fenced; the second need not */
    assert_string_equal(t.go_name, "vm?client=main&generation=7&id=naa.6001");
    peers_tend(peers, &want, 0);
    assert_int_equal(t.links[1], 4); /* two serve, two stand by */
    session_close(s);
    assert_int_equal(t.links[1], 2);
}

/* How many connections the session uses. */
static unsigned
used_by(struct session *s)
{
    struct link_command c = {.op = LINK_FLUSH};
    bool sent;

    t.nused = 0;
    for (int i = 0; i < 2; i++)
        session_run(s, &c, &sent);
    return t.nused;
}

static void
test_peers_session_serves_before_all_have_joined(void **state)
{
    struct session *s;

    (void)state;
    t.join_result = -EINPROGRESS;
    peers_tend(peers, &want, 0);
    assert_int_equal(open_first(&s), 0);
    session_grow(s);
    assert_int_equal(used_by(s), 1);
    t.join_result = 0;
    session_grow(s);
    assert_int_equal(used_by(s), 2);
    session_close(s);
    assert_int_equal(t.links[1], 0);
}

static void
test_peers_session_closes_with_those_that_join(void **state)
{
    struct session *s;

    (void)state;
    t.join_result = -EINPROGRESS;
    peers_tend(peers, &want, 0);
    assert_int_equal(open_first(&s), 0);
    session_close(s);
    assert_int_equal(t.links[1], 0);
    assert_int_equal(t.waited_alone, 0);
}

static void
test_peers_who_cannot_join_does_no_harm(void **state)
{
    struct session *s;

    (void)state;
    t.join_result = -ENOTCONN;
    peers_tend(peers, &want, 0);
    assert_int_equal(open_first(&s), 0);
    session_grow(s);
    assert_int_equal(used_by(s), 1);
    assert_int_equal(t.links[1], 1);
    session_close(s);
}

static void
test_peers_a_smaller_size_does_not_join(void **state)
{
    struct session *s;

    (void)state;
    t.join_size = GIB / 2;
    peers_tend(peers, &want, 0);
    assert_int_equal(open_first(&s), 0);
    session_grow(s);
    assert_int_equal(used_by(s), 1);
    session_close(s);
}

static void
test_peers_a_refusal_is_not_asked_for_twice(void **state)
{
    struct session *s;

    (void)state;
    t.go_result = -EACCES;
    peers_tend(peers, &want, 0);
    assert_int_equal(open_first(&s), -EACCES);
    assert_int_equal(t.gos, 1);
    assert_non_null(strstr(t.go_name, "fence=d"));
}

/* It has grown, and a host without paths has no way to know. */
static void
test_peers_a_larger_lun_is_ready_and_opened(void **state)
{
    struct session *s;

    (void)state;
    t.says[1].size = 2 * GIB;
    peers_tend(peers, &want, 0);
    assert_true(is_ready(0));
    assert_int_equal(open_first(&s), 0);
    session_close(s);
}

static void
test_peers_interrupted_never_opens_again(void **state)
{
    struct session *s;

    (void)state;
    peers_tend(peers, &want, 0);
    peers_interrupt(peers);
    assert_int_equal(open_first(&s), -ESHUTDOWN);
    assert_int_equal(t.gos, 0);
}

/* While it waits for an answer, and before it has begun to. */
static void
test_peers_yield_gives_up_only_what_yields(void **state)
{
    struct peers_request rq = {
        .peer = 0, .generation = 7, .id = want.id, .size = want.size};
    struct session *s;
    char why[256];

    (void)state;
    peers_tend(peers, &want, 0);
    rq.yields = t.yield_inside = true;
    t.go_result = -ENOTCONN; /* what a broken connection ends with */
    assert_int_equal(peers_open(peers, &rq, &s, why, sizeof why), -ESHUTDOWN);
    assert_int_equal(t.gos, 1);
    assert_int_equal(t.breaks, 1);
    assert_string_equal(why, "no longer asked");
    t.go_result = 0;
    assert_int_equal(peers_open(peers, &rq, &s, why, sizeof why), -ESHUTDOWN);
    assert_int_equal(t.gos, 1);

    rq.yields = false;
    assert_int_equal(peers_open(peers, &rq, &s, why, sizeof why), 0);
    session_close(s);
    assert_int_equal(t.breaks, 1);
    peers_yield(peers, false);
    peers_tend(peers, &want, 0);
    rq.yields = true;
    t.yield_inside = false;
    assert_int_equal(peers_open(peers, &rq, &s, why, sizeof why), 0);
    session_close(s);
}

/* For a question aside: nothing is sent yet, and no session takes it. */
static void
test_peers_take_lends_one_connection(void **state)
{
    struct peers_request rq = {
        .peer = 0, .generation = 8, .id = want.id, .size = want.size};
    char name[EXPORT_NAME_MAX + 1];
    struct link *k;

    (void)state;
    assert_null(peers_take(peers, &rq, name)); /* there is none yet */
    peers_tend(peers, &want, 0);
    k = peers_take(peers, &rq, name);
    assert_non_null(k);
    assert_string_equal(name, "vm?client=main&generation=8&id=naa.6001");
    assert_int_equal(t.gos, 0);
    peers_tend(peers, &want, 0);
    assert_int_equal(t.links[1], 3); /* its place was taken */
    __wrap_link_destroy(k);
    t.says[1].would_serve = false;
    assert_null(peers_take(peers, &rq, name));
}

/* Whatever it says, it is not dead. */
static void
test_peers_answers_also_when_it_refuses(void **state)
{
    (void)state;
    assert_false(peers_answers(peers, 0)); /* not connected */
    peers_tend(peers, &want, 0);
    assert_true(peers_answers(peers, 0));
    t.says[1].would_serve = false;
    t.says[1].description[0] = '\0';
    assert_true(peers_answers(peers, 0));
    t.says[1].info_sent_ms = clock_ms() - 10000;
    assert_false(peers_answers(peers, 0));
    t.says[1].info_sent_ms = 0;
    t.says[1].state = LINK_CONNECTING;
    assert_false(peers_answers(peers, 0));
}

static void
test_peers_answers_while_it_serves_us(void **state)
{
    struct session *s;

    (void)state;
    peers_tend(peers, &want, 0);
    assert_int_equal(open_first(&s), 0);
    assert_true(peers_answers(peers, 0));
    session_close(s);
    assert_false(peers_answers(peers, 0));
}

/* A farewell that nobody answers takes a while: once, not for each. */
static void
test_peers_connections_end_together(void **state)
{
    struct session *s;

    (void)state;
    peers_tend(peers, &want, 0);
    assert_int_equal(open_first(&s), 0);
    session_close(s);
    assert_int_equal(t.told_to_end, 2);
    peers_destroy(peers);
    peers = NULL;
    assert_true(t.told_to_end >= 4);
    assert_int_equal(t.waited_alone, 0);
}

static long
failed(int peer, const char *reason)
{
    json_t *all = peers_report(peers, &want);
    json_t *n = json_object_get(
        json_object_get(json_array_get(all, (size_t)peer), "failed"), reason);
    long value = json_is_integer(n) ? (long)json_integer_value(n) : -1;

    json_decref(all);
    return value;
}

/* They outlive the links that failed: a counter never falls. */
static void
test_peers_failures_are_counted_for_each_peer(void **state)
{
    (void)state;
    assert_int_equal(failed(0, "certificate"), 0);
    t.fails_as = LINK_FAIL_CERTIFICATE;
    t.says[1].would_serve = false;
    peers_tend(peers, &want, 0);
    assert_int_equal(failed(0, "certificate"), 2);
    assert_int_equal(failed(2, "certificate"), 2);
    t.says[1].would_serve = true;
    peers_tend(peers, &want, 0); /* the third is not needed any more */
    assert_int_equal(t.links[3], 0);
    assert_int_equal(failed(2, "certificate"), 2);
    t.fails_as = LINK_FAIL_UNREACHABLE;
    t.says[1].state = LINK_DEAD;
    peers_tend(peers, &want, 0);
    assert_int_equal(failed(0, "certificate"), 2);
    assert_int_equal(failed(0, "unreachable"), 2);
    assert_int_equal(failed(0, "refused"), 0);
    assert_int_equal(failed(0, "files"), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_peers_as_many_as_shall_stand_by),
        TEST(test_peers_the_next_stands_in_until_the_first_is_back),
        TEST(test_peers_who_must_be_kept_is_kept),
        TEST(test_peers_another_lun_is_not_ready),
        TEST(test_peers_a_larger_lun_is_ready_and_opened),
        TEST(test_peers_read_only_is_enough_for_readers),
        TEST(test_peers_larger_blocks_than_ours_are_not_ready),
        TEST(test_peers_late_answer_is_not_ready),
        TEST(test_peers_session_takes_its_connections),
        TEST(test_peers_session_serves_before_all_have_joined),
        TEST(test_peers_session_closes_with_those_that_join),
        TEST(test_peers_who_cannot_join_does_no_harm),
        TEST(test_peers_a_smaller_size_does_not_join),
        TEST(test_peers_a_refusal_is_not_asked_for_twice),
        TEST(test_peers_interrupted_never_opens_again),
        TEST(test_peers_yield_gives_up_only_what_yields),
        TEST(test_peers_take_lends_one_connection),
        TEST(test_peers_answers_also_when_it_refuses),
        TEST(test_peers_answers_while_it_serves_us),
        TEST(test_peers_connections_end_together),
        TEST(test_peers_failures_are_counted_for_each_peer),
        TEST(test_peers_neighbours_lean_on_different_distant_hosts),
        TEST(test_peers_few_at_a_time_are_asked_while_none_is_ready),
        TEST(test_peers_each_host_is_once_the_nth_of_another),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
