/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of who polls a LIVE link's socket: its thread or a worker. */
#include <dirent.h>

#include "common/link_impl.h"
#include "tests/unit/link_fixture.h"

static enum link_leader
leader_of(struct link *k)
{
    enum link_leader leader;

    pthread_mutex_lock(&k->lock);
    leader = k->leader;
    pthread_mutex_unlock(&k->lock);
    return leader;
}

static void
flush(struct link *k)
{
    struct link_command c = {.op = LINK_FLUSH};
    bool sent;

    assert_int_equal(link_run(k, &c, &sent), 0);
}

/* How often the link's thread has gone to sleep. */
static unsigned long
sleeps_of_thread(void)
{
    DIR *d = opendir("/proc/self/task");
    unsigned long n = 0, found = 0;
    const struct dirent *e;

    assert_non_null(d);
    while ((e = readdir(d))) {
        char path[300], line[128];
        bool ours = false;
        FILE *status;

        snprintf(path, sizeof path, "/proc/self/task/%s/status", e->d_name);
        status = fopen(path, "r");
        while (status && fgets(line, sizeof line, status)) {
            ours = ours || strcmp(line, "Name:\tdetour-link\n") == 0;
            if (ours && sscanf(line, "voluntary_ctxt_switches: %lu", &n) == 1)
                found++;
        }
        if (status)
            fclose(status);
    }
    closedir(d);
    assert_int_equal(found, 1);
    return n;
}

static void
test_lead_lone_commands_let_the_thread_sleep(void **state)
{
    struct fixture *f = *state;
    unsigned long before;

    f->link = live_link(&f->opt);
    eventually(leader_of(f->link) == LINK_LED_BY_NOBODY);
    before = sleeps_of_thread();
    for (int i = 0; i < 200; i++)
        flush(f->link);
    assert_in_range(sleeps_of_thread() - before, 0, 20);
    assert_int_equal(f->peer->commands, 200);
}

/* One leads, and the other one's answer comes after its own. */
static void
start_two(struct fixture *f, struct job *j)
{
    f->peer->on_command = PEER_TICKETS;
    f->link = live_link(&f->opt);
    eventually(leader_of(f->link) == LINK_LED_BY_NOBODY);
    job_start(&j[0], f->link, LINK_READ, 0, 512);
    eventually(f->peer->commands == 1);
    assert_int_equal(leader_of(f->link), LINK_LED_BY_WORKER);
    job_start(&j[1], f->link, LINK_READ, 512, 512);
    eventually(f->link->unanswered == 2);
}

static void
test_lead_goes_to_the_thread_when_others_wait(void **state)
{
    struct fixture *f = *state;
    struct job j[2];

    start_two(f, j);
    f->peer->tickets = 1;
    job_end(&j[0]);
    assert_int_equal(j[0].result, 0);
    assert_int_equal(leader_of(f->link), LINK_LED_BY_THREAD);
    f->peer->tickets = 1;
    job_end(&j[1]);
    assert_int_equal(j[1].result, 0);
    eventually(leader_of(f->link) == LINK_LED_BY_NOBODY);
}

static void
test_lead_is_taken_up_again_after_the_thread(void **state)
{
    struct fixture *f = *state;
    struct job j[2];

    start_two(f, j);
    f->peer->tickets = 2;
    job_end(&j[0]);
    job_end(&j[1]);
    eventually(leader_of(f->link) == LINK_LED_BY_NOBODY);
    job_start(&j[0], f->link, LINK_READ, 0, 512);
    eventually(f->peer->commands == 3);
    assert_int_equal(leader_of(f->link), LINK_LED_BY_WORKER);
    f->peer->tickets = 1;
    job_end(&j[0]);
    assert_int_equal(j[0].result, 0);
}

/* The thread leads while j[1] is unanswered; it lets go of that only when
 * nothing is. */
static void
test_lead_of_the_thread_lasts_while_something_is_unanswered(void **state)
{
    struct fixture *f = *state;
    struct job j[3];

    start_two(f, j);
    f->peer->tickets = 1;
    job_end(&j[0]);
    job_start(&j[2], f->link, LINK_READ, 1024, 512);
    eventually(f->link->unanswered == 2);
    assert_int_equal(leader_of(f->link), LINK_LED_BY_THREAD);
    f->peer->tickets = 2;
    job_end(&j[1]);
    job_end(&j[2]);
    assert_int_equal(j[1].result, 0);
    assert_int_equal(j[2].result, 0);
}

static int
our_socket(struct link *k)
{
    int fd;

    pthread_mutex_lock(&k->lock);
    fd = k->fd;
    pthread_mutex_unlock(&k->lock);
    return fd;
}

/* The leader is in poll for an answer that does not come; another command
 * does not go into the socket at once, and the leader must send its rest. */
static void
test_lead_sends_the_rest_of_another_command(void **state)
{
    struct fixture *f = *state;
    const size_t big = sizeof f->peer->store;
    const int tight = 4096;
    struct job j[2];

    f->peer->on_command = PEER_SILENT;
    f->link = live_link(&f->opt);
    assert_int_equal(setsockopt(our_socket(f->link), SOL_SOCKET, SO_SNDBUF,
                                &tight, sizeof tight),
                     0);
    eventually(leader_of(f->link) == LINK_LED_BY_NOBODY);
    job_start(&j[0], f->link, LINK_READ, 0, 512);
    eventually(f->peer->commands == 1);
    f->peer->on_command = PEER_DEAF;
    job_start(&j[1], f->link, LINK_WRITE, 0, big);
    eventually(f->link->unanswered == 2);
    f->peer->on_command = PEER_SILENT;
    eventually(f->peer->stream == big);
    assert_int_equal(leader_of(f->link), LINK_LED_BY_WORKER);
    link_break(f->link);
    job_end(&j[0]);
    job_end(&j[1]);
}

static void
start_lone(struct fixture *f, struct job *j, enum peer_manner manner)
{
    f->peer->on_command = (int)manner;
    f->link = live_link(&f->opt);
    eventually(leader_of(f->link) == LINK_LED_BY_NOBODY);
    job_start(j, f->link, LINK_WRITE, 0, 512);
    eventually(f->peer->commands == 1);
    assert_int_equal(leader_of(f->link), LINK_LED_BY_WORKER);
}

static void
end_not_connected(struct job *j)
{
    job_end(j);
    assert_int_equal(j->result, -ENOTCONN);
    assert_true(j->sent);
}

static void
test_lead_ends_when_the_link_is_broken(void **state)
{
    struct fixture *f = *state;
    struct job j;

    start_lone(f, &j, PEER_SILENT);
    link_break(f->link);
    end_not_connected(&j);
    eventually(state_of(f->link) == LINK_DEAD);
    assert_string_equal(status_of(f->link).error, "broken by order");
    assert_int_equal(our_socket(f->link), -1);
}

static void
test_lead_ends_when_the_peer_closes(void **state)
{
    struct fixture *f = *state;
    struct job j;

    start_lone(f, &j, PEER_SILENT);
    shutdown(f->peer->fd, SHUT_RDWR);
    end_not_connected(&j);
    eventually(state_of(f->link) == LINK_DEAD);
}

static void
test_lead_ends_when_the_link_is_destroyed(void **state)
{
    struct fixture *f = *state;
    struct job j;

    start_lone(f, &j, PEER_SILENT);
    link_destroy(f->link);
    f->link = NULL;
    end_not_connected(&j);
}

/* What the peer says is no NBD: libnbd gives up while the socket is well. */
static void
test_lead_ends_when_the_peer_talks_nonsense(void **state)
{
    struct fixture *f = *state;
    struct job j;

    start_lone(f, &j, PEER_TICKETS);
    f->peer->on_command = PEER_BABBLES;
    f->peer->tickets = 1;
    end_not_connected(&j);
    eventually(state_of(f->link) == LINK_DEAD);
    /* the reason, as the leader heard it */
    assert_non_null(strstr(status_of(f->link).error, "magic"));
}

static void
test_lead_idle_link_sees_its_end(void **state)
{
    struct fixture *f = *state;

    f->link = live_link(&f->opt);
    flush(f->link);
    eventually(leader_of(f->link) == LINK_LED_BY_NOBODY);
    shutdown(f->peer->fd, SHUT_RDWR);
    eventually(state_of(f->link) == LINK_DEAD);
}

#define THREADS  4
#define COMMANDS 300

static atomic_bool endless;

static void *
run_many(void *opaque)
{
    struct job *j = opaque;
    char block[512];

    j->result = 0;
    for (int i = 0; (endless || i < COMMANDS) && j->result == 0; i++) {
        struct link_command c = {
            .op = LINK_READ, .count = sizeof block, .data = block};

        j->result = link_run(j->link, &c, &j->sent);
    }
    return NULL;
}

static void
start_many(struct fixture *f, struct job *j, int n)
{
    for (int i = 0; i < n; i++) {
        j[i].link = f->link;
        assert_int_equal(pthread_create(&j[i].thread, NULL, run_many, &j[i]),
                         0);
    }
}

/* Few threads: the lead changes hands all the time. */
static void
test_lead_changing_hands_leaves_nobody_behind(void **state)
{
    struct fixture *f = *state;
    struct job j[THREADS];

    f->link = live_link(&f->opt);
    endless = false;
    for (int n = 1; n <= THREADS; n++) {
        start_many(f, j, n);
        for (int i = 0; i < n; i++) {
            pthread_join(j[i].thread, NULL);
            assert_int_equal(j[i].result, 0);
        }
    }
    assert_int_equal(f->link->unanswered, 0);
}

/* Each round may catch the leader anywhere. */
static void
test_lead_broken_amid_changing_hands(void **state)
{
    struct fixture *f = *state;
    struct job j[THREADS];

    endless = true;
    for (int round = 0; round < 40; round++) {
        int n = 1 + round % THREADS;

        f->link = live_link(&f->opt);
        f->peer->commands = 0;
        start_many(f, j, n);
        wait_until(f->peer->commands > (unsigned)round * 5);
        if (round / THREADS % 2)
            link_break(f->link);
        else
            shutdown(f->peer->fd, SHUT_RDWR);
        for (int i = 0; i < n; i++) {
            pthread_join(j[i].thread, NULL);
            assert_int_equal(j[i].result, -ENOTCONN);
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
        LINK_TEST(test_lead_lone_commands_let_the_thread_sleep),
        LINK_TEST(test_lead_goes_to_the_thread_when_others_wait),
        LINK_TEST(test_lead_is_taken_up_again_after_the_thread),
        LINK_TEST(test_lead_of_the_thread_lasts_while_something_is_unanswered),
        LINK_TEST(test_lead_sends_the_rest_of_another_command),
        LINK_TEST(test_lead_ends_when_the_link_is_broken),
        LINK_TEST(test_lead_ends_when_the_peer_closes),
        LINK_TEST(test_lead_ends_when_the_link_is_destroyed),
        LINK_TEST(test_lead_ends_when_the_peer_talks_nonsense),
        LINK_TEST(test_lead_idle_link_sees_its_end),
        LINK_TEST(test_lead_changing_hands_leaves_nobody_behind),
        LINK_TEST(test_lead_broken_amid_changing_hands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
