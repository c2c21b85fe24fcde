/* SPDX-License-Identifier: BSD-3-Clause */
/* Links without TLS: every way a LIVE one can end, and what then becomes of
 * commands under way. */
#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "common/link_impl.h"
#include "tests/unit/link_fixture.h"

#define JOBS 16

static void
end_jobs_not_connected(struct job *j)
{
    for (int i = 0; i < JOBS; i++) {
        job_end(&j[i]);
        assert_int_equal(j[i].result, -ENOTCONN);
        assert_true(j[i].sent);
    }
}

static void
start_unanswered(struct fixture *f, struct job *j, uint64_t count)
{
    f->peer->on_command = PEER_SILENT;
    f->link = live_link(&f->opt);
    for (int i = 0; i < JOBS; i++)
        job_start(&j[i], f->link, i % 2 ? LINK_WRITE : LINK_READ,
                  (uint64_t)i * count, count);
    eventually(f->peer->commands == JOBS);
}

static void
test_link_break_ends_all_commands_at_once(void **state)
{
    struct fixture *f = *state;
    struct job j[JOBS];
    uint64_t start_ms;

    start_unanswered(f, j, 4096);
    start_ms = clock_ms();
    link_break(f->link);
    end_jobs_not_connected(j);
    assert_true(clock_ms() - start_ms < 5000);
    eventually(state_of(f->link) == LINK_DEAD);
    eventually(f->peer->resets == 1); /* RST, not FIN */
    assert_string_equal(status_of(f->link).error, "broken by order");
}

static void
test_link_peer_closes_with_commands_under_way(void **state)
{
    struct fixture *f = *state;
    struct job j[JOBS];
    struct link_command c = {.op = LINK_FLUSH};
    bool sent = true;

    start_unanswered(f, j, 4096);
    shutdown(f->peer->fd, SHUT_RDWR);
    end_jobs_not_connected(j);
    eventually(state_of(f->link) == LINK_DEAD);
    assert_int_equal(link_run(f->link, &c, &sent), -ENOTCONN);
    assert_false(sent);
    assert_int_equal(f->peer->connections, 1); /* DEAD never comes back */
}

/* The peer does not read: what lies in our socket when the link is broken must
 * never arrive, however long the peer takes. */
static void
test_link_nothing_unsent_leaves_after_break(void **state)
{
    struct fixture *f = *state;
    struct job j[JOBS];
    const int total = JOBS * 8192, roomy = 4 * JOBS * 8192, tight = 4096;
    int fd, here = 0, there = 0;

    f->peer->on_command = PEER_DEAF;
    f->link = live_link(&f->opt);
    fd = our_socket_to(f->peer->port);
    /* Ours takes all of it, the peer's cannot: the kernel's own choice of
     * sizes depends on how busy the machine is. */
    assert_int_equal(
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &roomy, sizeof roomy), 0);
    assert_int_equal(
        setsockopt(f->peer->fd, SOL_SOCKET, SO_RCVBUF, &tight, sizeof tight),
        0);
    for (int i = 0; i < JOBS; i++)
        job_start(&j[i], f->link, LINK_WRITE, 0, 8192);
    eventually(ioctl(fd, SIOCOUTQ, &here) == 0 &&
               ioctl(f->peer->fd, FIONREAD, &there) == 0 &&
               here + there >= total && there < total);
    link_break(f->link);
    for (int i = 0; i < JOBS; i++) {
        job_end(&j[i]);
        assert_int_equal(j[i].result, -ENOTCONN);
        assert_true(j[i].sent);
    }
    eventually(state_of(f->link) == LINK_DEAD);
    f->peer->on_command = PEER_SILENT; /* reads; its answers would reset */
    eventually(f->peer->fd == -1);
    assert_true(f->peer->stream < (unsigned)total);
    assert_int_equal(f->peer->resets, 1);
}

static void
test_link_destroy_idle_says_goodbye(void **state)
{
    struct fixture *f = *state;

    f->link = live_link(&f->opt);
    link_destroy(f->link);
    f->link = NULL;
    eventually(f->peer->disconnects == 1);
    assert_int_equal(f->peer->resets, 0);
}

static void
test_link_destroy_ends_commands_under_way(void **state)
{
    struct fixture *f = *state;
    struct job j[JOBS];

    start_unanswered(f, j, 4096);
    destroy_in_time(f);
    end_jobs_not_connected(j);
}

static int
under_way(struct link *k)
{
    const struct link_wait *w;
    int n = 0;

    pthread_mutex_lock(&k->lock);
    TAILQ_FOREACH(w, &k->waits, entry)
    n++;
    pthread_mutex_unlock(&k->lock);
    return n;
}

static void
test_link_destroy_is_quick_when_the_peer_does_not_read(void **state)
{
    struct fixture *f = *state;
    struct job j[JOBS];

    f->peer->on_command = PEER_DEAF;
    f->link = live_link(&f->opt);
    for (int i = 0; i < JOBS; i++)
        job_start(&j[i], f->link, LINK_WRITE, 0, sizeof f->peer->store);
    eventually(under_way(f->link) == JOBS);
    destroy_in_time(f);
    for (int i = 0; i < JOBS; i++)
        job_end(&j[i]);
}

static void
test_link_destroy_idle_is_quick_when_the_peer_is_deaf(void **state)
{
    struct fixture *f = *state;

    f->peer->on_command = PEER_DEAF;
    f->link = live_link(&f->opt);
    destroy_in_time(f);
}

static void
test_link_destroy_in_every_early_state(void **state)
{
    struct fixture *f = *state;

    link_destroy(NULL);
    f->peer->on_connect = PEER_SILENT;
    f->link = link_at(&f->opt);
    destroy_in_time(f);
    f->peer->on_connect = PEER_ANSWERS;
    f->peer->on_info = PEER_SILENT;
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).info_sent_ms);
    destroy_in_time(f);
}

/* Each round may catch issuing threads anywhere. */
static void
test_link_break_amid_busy_threads(void **state)
{
    struct fixture *f = *state;

    for (int round = 0; round < 20; round++) {
        struct job j[JOBS];

        f->link = live_link(&f->opt);
        for (int i = 0; i < JOBS; i++)
            job_start(&j[i], f->link, i % 2 ? LINK_WRITE : LINK_READ, 0, 65536);
        if (round % 2)
            link_break(f->link);
        else
            shutdown(f->peer->fd, SHUT_RDWR);
        for (int i = 0; i < JOBS; i++) {
            job_end(&j[i]);
            assert_true(j[i].result == 0 || j[i].result == -ENOTCONN);
        }
        eventually(state_of(f->link) == LINK_DEAD);
        link_destroy(f->link);
        f->link = NULL;
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        LINK_TEST(test_link_break_ends_all_commands_at_once),
        LINK_TEST(test_link_peer_closes_with_commands_under_way),
        LINK_TEST(test_link_nothing_unsent_leaves_after_break),
        LINK_TEST(test_link_destroy_idle_says_goodbye),
        LINK_TEST(test_link_destroy_ends_commands_under_way),
        LINK_TEST(test_link_destroy_is_quick_when_the_peer_does_not_read),
        LINK_TEST(test_link_destroy_idle_is_quick_when_the_peer_is_deaf),
        LINK_TEST(test_link_destroy_in_every_early_state),
        LINK_TEST(test_link_break_amid_busy_threads),
    };

    enter_own_network();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
