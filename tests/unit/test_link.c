/* SPDX-License-Identifier: BSD-3-Clause */
/* Links without TLS: states, commands, and every way a connection can end,
 * against a small server of our own (link_peer.h). */
#include <linux/sockios.h>
#include <sched.h>
#include <sys/ioctl.h>

#include "common/link_impl.h"
#include "tests/unit/link_peer.h"

struct fixture {
    struct peer *peer;
    struct link_options opt;
    struct link *link;
    struct link_failures failures;
};

static int
setup_refusing(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);

    f->peer = peer_create();
    f->opt = options_for(f->peer->port);
    f->opt.failures = &f->failures;
    changes = 0;
    *state = f;
    return 0;
}

static int
setup(void **state)
{
    setup_refusing(state);
    peer_start(((struct fixture *)*state)->peer);
    return 0;
}

static int
teardown(void **state)
{
    struct fixture *f = *state;

    link_destroy(f->link);
    peer_stop(f->peer);
    free(f);
    return 0;
}

static int
run_one(struct fixture *f, enum link_op op, unsigned flags, void *data,
        uint64_t offset, uint64_t count)
{
    struct link_command c = {.op = op,
                             .flags = flags,
                             .data = data,
                             .offset = offset,
                             .count = count};
    bool sent;

    return link_run(f->link, &c, &sent);
}

/* ---- up to LIVE ---- */

static void
test_link_parks_and_learns_the_export(void **state)
{
    struct fixture *f = *state;
    struct link_status st;

    f->link = link_at(&f->opt);
    eventually(status_of(f->link).would_serve);
    st = status_of(f->link);
    assert_int_equal(st.state, LINK_PARKED);
    assert_int_equal(st.size, sizeof f->peer->store);
    assert_int_equal(st.flags, 0x16d);
    assert_int_equal(st.block_min, 512);
    assert_int_equal(st.block_preferred, 4096);
    assert_int_equal(st.block_max, 1 << 20);
    /* what a peer says cannot break a line of our log */
    assert_string_equal(st.description, "detour 1 state=serving?load=3");
    assert_true(st.info_ms >= st.since_ms && st.rtt_us > 0);
    assert_string_equal(st.error, "");
    assert_true(changes >= 2);
}

static void
test_link_keeps_asking_info_on_one_connection(void **state)
{
    struct fixture *f = *state;

    f->link = link_at(&f->opt);
    eventually(f->peer->infos >= 5);
    assert_int_equal(f->peer->connections, 1);
}

static void
test_link_info_refused_stays_parked_with_peers_words(void **state)
{
    struct fixture *f = *state;

    f->peer->on_info = PEER_REFUSES;
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).info_ms);
    assert_int_equal(state_of(f->link), LINK_PARKED);
    assert_false(status_of(f->link).would_serve);
    assert_string_equal(status_of(f->link).refusal, f->peer->refusal);
    f->peer->on_info = PEER_ANSWERS;
    eventually(status_of(f->link).would_serve);
    assert_string_equal(status_of(f->link).refusal, "");
    assert_int_equal(f->peer->connections, 1);
}

/* They end in JSON and in people's terminals. */
static void
test_link_peers_words_become_plain_text(void **state)
{
    struct fixture *f = *state;

    f->peer->on_info = PEER_REFUSES;
    f->peer->refusal = "n\xc3\xb6 \xff\x1b[2J";
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).info_ms);
    assert_string_equal(status_of(f->link).refusal, "n?? ??[2J");
}

static void
test_link_go_refused_stays_parked_and_may_ask_again(void **state)
{
    struct fixture *f = *state;

    f->opt.standby_interval_ms = PATIENCE_MS; /* no INFO wipes refusal out */
    f->peer->on_go = PEER_REFUSES;
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).would_serve);
    assert_int_equal(link_go(f->link, "disk?generation=7", CLOCK_NEVER),
                     -EACCES);
    assert_string_equal(f->peer->go_name, "disk?generation=7");
    assert_int_equal(state_of(f->link), LINK_PARKED);
    assert_string_equal(status_of(f->link).refusal, f->peer->refusal);
    f->peer->on_go = PEER_ANSWERS;
    assert_int_equal(link_go(f->link, "disk?generation=8", CLOCK_NEVER), 0);
    assert_string_equal(f->peer->go_name, "disk?generation=8");
    assert_int_equal(state_of(f->link), LINK_LIVE);
    assert_int_equal(f->peer->connections, 1);
}

static void
test_link_refused_go_goes_on_asking_info(void **state)
{
    struct fixture *f = *state;
    unsigned before;

    f->peer->on_go = PEER_REFUSES;
    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    assert_int_equal(link_go(f->link, "disk", CLOCK_NEVER), -EACCES);
    before = f->peer->infos;
    eventually(f->peer->infos >= before + 2);
    assert_int_equal(f->peer->connections, 1);
}

static void
test_link_go_begun_is_answered_later(void **state)
{
    struct fixture *f = *state;
    unsigned before;

    f->peer->on_go = PEER_SILENT;
    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    assert_int_equal(link_go_begin(f->link, "disk", CLOCK_NEVER), 0);
    assert_int_equal(link_go_begin(f->link, "disk", CLOCK_NEVER), -EBUSY);
    eventually(state_of(f->link) == LINK_GOING);
    assert_int_equal(link_go_result(f->link), -EINPROGRESS);
    before = changes;
    link_break(f->link);
    eventually(link_go_result(f->link) == -ENOTCONN);
    eventually(changes > before);
}

static void
test_link_go_begun_and_granted_is_live(void **state)
{
    struct fixture *f = *state;

    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    assert_int_equal(link_go_begin(f->link, "disk", CLOCK_NEVER), 0);
    eventually(link_go_result(f->link) == 0);
    assert_int_equal(state_of(f->link), LINK_LIVE);
}

static void
test_link_go_before_parked_is_busy(void **state)
{
    struct fixture *f = *state;

    f->peer->on_connect = PEER_SILENT;
    f->link = link_at(&f->opt);
    assert_int_equal(link_go(f->link, "disk", CLOCK_NEVER), -EBUSY);
}

static void
test_link_go_unanswered_ends_at_its_deadline(void **state)
{
    struct fixture *f = *state;
    uint64_t start_ms, took_ms;

    f->peer->on_go = PEER_SILENT;
    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    start_ms = clock_ms();
    assert_int_equal(link_go(f->link, "disk", start_ms + 200), -ETIMEDOUT);
    took_ms = clock_ms() - start_ms;
    assert_true(took_ms >= 199 && took_ms < 5000);
    assert_int_equal(state_of(f->link), LINK_DEAD);
    assert_int_equal(link_go(f->link, "disk", CLOCK_NEVER), -EBUSY);
}

static void
test_link_go_unanswered_ends_at_open_timeout(void **state)
{
    struct fixture *f = *state;

    f->opt.open_timeout_ms = 1000;
    f->peer->on_go = PEER_SILENT;
    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    assert_int_equal(link_go(f->link, "disk", CLOCK_NEVER), -ETIMEDOUT);
    assert_int_equal(state_of(f->link), LINK_DEAD);
}

static void
test_link_peer_closes_instead_of_go_is_dead(void **state)
{
    struct fixture *f = *state;

    f->peer->on_go = PEER_CLOSES;
    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    assert_int_equal(link_go(f->link, "disk", CLOCK_NEVER), -ENOTCONN);
    assert_int_equal(state_of(f->link), LINK_DEAD);
    assert_string_not_equal(status_of(f->link).error, "");
}

static void
test_link_go_behind_an_info_that_is_never_answered(void **state)
{
    struct fixture *f = *state;

    f->opt.link_timeout_ms = 1000;
    f->peer->on_info = PEER_SILENT;
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).info_sent_ms);
    assert_int_equal(link_go(f->link, "disk", CLOCK_NEVER), -ENOTCONN);
    assert_int_equal(state_of(f->link), LINK_DEAD);
    assert_non_null(strstr(status_of(f->link).error, "NBD_OPT_INFO"));
    assert_int_equal(f->peer->gos, 0);
}

static void *
break_when_going(void *opaque)
{
    struct fixture *f = opaque;

    wait_until(f->peer->gos);
    link_break(f->link);
    return NULL;
}

static void
test_link_break_ends_go(void **state)
{
    struct fixture *f = *state;
    pthread_t t;

    f->peer->on_go = PEER_SILENT;
    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    assert_int_equal(pthread_create(&t, NULL, break_when_going, f), 0);
    assert_int_equal(link_go(f->link, "disk", CLOCK_NEVER), -ENOTCONN);
    pthread_join(t, NULL);
    assert_int_equal(state_of(f->link), LINK_DEAD);
}

/* ---- CONNECTING, again and again ---- */

static void
test_link_info_unanswered_reconnects(void **state)
{
    struct fixture *f = *state;

    f->opt.link_timeout_ms = 1000;
    f->peer->on_info = PEER_SILENT;
    f->link = link_at(&f->opt);
    eventually(strstr(status_of(f->link).error,
                      "NBD_OPT_INFO was not answered in 1000 ms"));
    /* negotiated anew it is still no peer that answers */
    eventually(state_of(f->link) == LINK_PARKED);
    assert_int_equal(status_of(f->link).info_ms, 0);
    assert_non_null(strstr(status_of(f->link).error, "large packets"));
    f->peer->on_info = PEER_ANSWERS;
    eventually(status_of(f->link).would_serve);
    assert_true(f->peer->connections >= 2);
}

static void
test_link_negotiation_bounded_by_open_timeout(void **state)
{
    struct fixture *f = *state;

    f->opt.open_timeout_ms = 500;
    f->peer->on_connect = PEER_SILENT;
    f->link = link_at(&f->opt);
    eventually(strstr(status_of(f->link).error, "not negotiated in 500 ms"));
    assert_int_equal(state_of(f->link), LINK_CONNECTING);
    assert_true(f->failures.of[LINK_FAIL_UNREACHABLE] > 0);
    assert_int_equal(f->failures.of[LINK_FAIL_REFUSED], 0);
    f->peer->on_connect = PEER_ANSWERS;
    eventually(state_of(f->link) == LINK_PARKED);
}

static void
test_link_refused_until_the_server_appears(void **state)
{
    struct fixture *f = *state;

    f->link = link_at(&f->opt);
    eventually(strstr(status_of(f->link).error, "Connection refused"));
    assert_int_equal(state_of(f->link), LINK_CONNECTING);
    assert_true(f->failures.of[LINK_FAIL_UNREACHABLE] > 0);
    assert_int_equal(f->failures.of[LINK_FAIL_REFUSED], 0);
    peer_start(f->peer);
    /* it was refused until an answer shows that all is well */
    eventually(status_of(f->link).would_serve);
    assert_string_equal(status_of(f->link).error, "");
}

static void
test_link_parked_peer_goes_and_comes_back(void **state)
{
    struct fixture *f = *state;
    unsigned before;

    f->opt.standby_interval_ms = PATIENCE_MS; /* only poll can tell */
    f->link = link_at(&f->opt);
    eventually(status_of(f->link).would_serve);
    before = f->peer->connections;
    shutdown(f->peer->fd, SHUT_RDWR);
    eventually(f->peer->connections > before);
    eventually(status_of(f->link).would_serve);
}

static void
test_link_break_while_parked_reconnects(void **state)
{
    struct fixture *f = *state;

    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    link_break(f->link);
    eventually(f->peer->connections == 2);
    eventually(status_of(f->link).would_serve);
}

static void
test_link_create_wants_an_address(void **state)
{
    struct fixture *f = *state;

    f->opt.address = "localhost";
    assert_null(link_create(&f->opt));
    assert_int_equal(errno, EINVAL);
}

/* ---- commands ---- */

static void
test_link_commands_reach_the_peer(void **state)
{
    struct fixture *f = *state;
    char out[4096], in[4096];

    f->link = live_link(&f->opt);
    memset(out, 0x5a, sizeof out);
    assert_int_equal(run_one(f, LINK_WRITE, LINK_FUA, out, 8192, 4096), 0);
    assert_int_equal(f->peer->last_flags, 1);
    assert_int_equal(run_one(f, LINK_READ, 0, in, 8192, 4096), 0);
    assert_memory_equal(in, out, sizeof in);
    assert_int_equal(run_one(f, LINK_FLUSH, 0, NULL, 0, 0), 0);
    assert_int_equal(run_one(f, LINK_TRIM, 0, NULL, 0, 4096), 0);
    assert_int_equal(run_one(f, LINK_ZERO, LINK_NO_HOLE, NULL, 0, 4096), 0);
    assert_int_equal(f->peer->last_flags, 2);
    assert_int_equal(f->peer->commands, 5);
}

static void
test_link_extents_as_told_and_cut_to_the_range(void **state)
{
    struct fixture *f = *state;
    struct link_extent e[4];
    struct link_command c = {.op = LINK_EXTENTS,
                             .offset = 4096,
                             .count = 8192,
                             .extents = e,
                             .max_extents = 4};
    bool sent;

    f->link = live_link(&f->opt);
    assert_int_equal(link_run(f->link, &c, &sent), 0);
    assert_int_equal(c.n_extents, 2);
    assert_int_equal(e[0].count, 4096);
    assert_int_equal(e[0].flags, 3);
    assert_int_equal(e[1].count, 4096); /* the peer told of 8192 */
    assert_int_equal(e[1].flags, 0);
    c.max_extents = 1;
    assert_int_equal(link_run(f->link, &c, &sent), 0);
    assert_int_equal(c.n_extents, 1);
}

static void
extents_are_one_of_data(struct fixture *f, unsigned commands)
{
    struct link_extent e[2];
    struct link_command c = {
        .op = LINK_EXTENTS, .count = 8192, .extents = e, .max_extents = 2};
    bool sent;

    assert_int_equal(link_run(f->link, &c, &sent), 0);
    assert_int_equal(c.n_extents, 1);
    assert_int_equal(e[0].count, 8192);
    assert_int_equal(e[0].flags, 0);
    assert_int_equal(f->peer->commands, commands);
}

static void
test_link_extents_not_negotiated_are_data(void **state)
{
    struct fixture *f = *state;

    f->peer->no_contexts = true;
    f->link = live_link(&f->opt);
    extents_are_one_of_data(f, 0);
}

static void
test_link_extents_without_length_are_data(void **state)
{
    struct fixture *f = *state;

    f->peer->on_command = PEER_CHEATS;
    f->link = live_link(&f->opt);
    extents_are_one_of_data(f, 1);
}

static void
test_link_peers_errors_are_passed_on(void **state)
{
    static const struct {
        unsigned nbd;
        int err;
    } map[] = {{1, EPERM},    {5, EIO},         {22, EINVAL}, {28, ENOSPC},
               {95, ENOTSUP}, {108, ESHUTDOWN}, {12, ENOMEM}};
    struct fixture *f = *state;
    char data[512] = "";

    f->link = live_link(&f->opt);
    for (size_t i = 0; i < sizeof map / sizeof map[0]; i++) {
        f->peer->command_error = map[i].nbd;
        assert_int_equal(run_one(f, LINK_WRITE, 0, data, 0, 512), -map[i].err);
        assert_int_equal(run_one(f, LINK_READ, 0, data, 0, 512), -map[i].err);
    }
    assert_int_equal(state_of(f->link), LINK_LIVE);
}

static void
test_link_read_that_brings_too_little_fails(void **state)
{
    struct fixture *f = *state;
    char data[4096];

    f->peer->on_command = PEER_CHEATS;
    f->link = live_link(&f->opt);
    assert_int_equal(run_one(f, LINK_READ, 0, data, 0, 4096), -EIO);
}

static void
test_link_impossible_request_is_not_sent(void **state)
{
    struct fixture *f = *state;
    char data[512];
    struct link_command c = {
        .op = LINK_READ, .data = data, .offset = 1, .count = 512};
    bool sent = true;

    f->link = live_link(&f->opt);
    assert_int_equal(link_run(f->link, &c, &sent), -EINVAL);
    assert_false(sent);
    assert_int_equal(state_of(f->link), LINK_LIVE);
}

static void
test_link_command_before_live_is_not_sent(void **state)
{
    struct fixture *f = *state;
    struct link_command c = {.op = LINK_FLUSH};
    bool sent = true;

    f->link = link_at(&f->opt);
    eventually(state_of(f->link) == LINK_PARKED);
    assert_int_equal(link_run(f->link, &c, &sent), -ENOTCONN);
    assert_false(sent);
}

static void
test_link_oldest_is_the_first_unanswered(void **state)
{
    struct fixture *f = *state;
    struct job j[2];
    uint64_t before_ms, first_ms;

    f->peer->on_command = PEER_SILENT;
    f->link = live_link(&f->opt);
    assert_int_equal(link_oldest_ms(f->link), 0);
    before_ms = clock_ms();
    job_start(&j[0], f->link, LINK_WRITE, 0, 512);
    eventually(f->peer->commands == 1);
    first_ms = link_oldest_ms(f->link);
    assert_true(first_ms >= before_ms && first_ms <= clock_ms());
    eventually(clock_ms() > first_ms);
    job_start(&j[1], f->link, LINK_WRITE, 0, 512);
    eventually(f->peer->commands == 2);
    assert_int_equal(link_oldest_ms(f->link), first_ms);
    link_break(f->link);
    job_end(&j[0]);
    job_end(&j[1]);
    assert_int_equal(link_oldest_ms(f->link), 0);
}

/* ---- the end of a LIVE link ---- */

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

static int
our_socket_to(uint16_t port)
{
    for (int fd = 3; fd < 1024; fd++) {
        struct sockaddr_in a;
        socklen_t len = sizeof a;

        if (getpeername(fd, (struct sockaddr *)&a, &len) == 0 &&
            a.sin_family == AF_INET && ntohs(a.sin_port) == port)
            return fd;
    }
    return -1;
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
destroy_in_time(struct fixture *f)
{
    uint64_t start_ms = clock_ms();

    link_destroy(f->link);
    f->link = NULL;
    assert_true(clock_ms() - start_ms <= (getenv("VALGRIND") ? 5000 : 500));
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

/* ---- the network ---- */

static int
socket_option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;

    assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
    return value;
}

static void
test_link_socket_is_tuned(void **state)
{
    struct fixture *f = *state;
    int fd;

    f->opt.link_timeout_ms = 4321;
    f->link = live_link(&f->opt);
    fd = our_socket_to(f->peer->port);
    assert_int_not_equal(fd, -1);
    assert_int_equal(socket_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 4321);
    assert_int_equal(socket_option(fd, IPPROTO_TCP, TCP_NODELAY), 1);
    assert_int_equal(socket_option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
    assert_int_equal(socket_option(fd, IPPROTO_TCP, TCP_KEEPIDLE), 1);
    assert_int_equal(socket_option(fd, IPPROTO_TCP, TCP_KEEPINTVL), 1);
}

/* Everything to the peer is dropped from now on; only in a network of our
 * own, which main made. */
static bool own_network;

static void
swallow(uint16_t port)
{
    char command[256];

    snprintf(command, sizeof command,
             "nft 'add table inet t; add chain inet t o {type filter hook "
             "output priority 0;}; flush chain inet t o; add rule inet t o "
             "tcp dport %u drop; add rule inet t o tcp sport %u drop'",
             port, port);
    assert_int_equal(system(command), 0);
}

static void
test_link_network_lost_ends_commands_after_link_timeout(void **state)
{
    struct fixture *f = *state;
    struct job j;
    uint64_t start_ms;

    if (!own_network)
        skip();
    f->opt.link_timeout_ms = 1000;
    f->link = live_link(&f->opt);
    swallow(f->peer->port);
    start_ms = clock_ms();
    job_start(&j, f->link, LINK_WRITE, 0, 4096);
    job_end(&j);
    assert_int_equal(j.result, -ENOTCONN);
    assert_true(j.sent);
    assert_true(clock_ms() - start_ms >= 900);
    assert_true(clock_ms() - start_ms < 4000);
    eventually(state_of(f->link) == LINK_DEAD);
    assert_string_equal(status_of(f->link).error, "Connection timed out");
}

static void
test_link_network_lost_idle_link_dies_of_keepalive(void **state)
{
    struct fixture *f = *state;

    if (!own_network)
        skip();
    f->opt.link_timeout_ms = 1000;
    f->link = live_link(&f->opt);
    swallow(f->peer->port);
    eventually(state_of(f->link) == LINK_DEAD);
    assert_string_equal(status_of(f->link).error, "Connection timed out");
}

static void
test_link_network_lost_destroy_is_quick(void **state)
{
    struct fixture *f = *state;
    if (!own_network)
        skip();
    f->link = live_link(&f->opt);
    swallow(f->peer->port);
    destroy_in_time(f);
    f->peer->on_connect = PEER_SILENT;
    f->link = link_at(&f->opt); /* its SYN is swallowed too */
    destroy_in_time(f);
}

int
main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        CASE(test_link_parks_and_learns_the_export),
        CASE(test_link_keeps_asking_info_on_one_connection),
        CASE(test_link_info_refused_stays_parked_with_peers_words),
        CASE(test_link_peers_words_become_plain_text),
        CASE(test_link_go_refused_stays_parked_and_may_ask_again),
        CASE(test_link_refused_go_goes_on_asking_info),
        CASE(test_link_go_begun_is_answered_later),
        CASE(test_link_go_begun_and_granted_is_live),
        CASE(test_link_go_before_parked_is_busy),
        CASE(test_link_go_unanswered_ends_at_its_deadline),
        CASE(test_link_go_unanswered_ends_at_open_timeout),
        CASE(test_link_peer_closes_instead_of_go_is_dead),
        CASE(test_link_go_behind_an_info_that_is_never_answered),
        CASE(test_link_break_ends_go),
        CASE(test_link_info_unanswered_reconnects),
        CASE(test_link_negotiation_bounded_by_open_timeout),
        cmocka_unit_test_setup_teardown(
            test_link_refused_until_the_server_appears, setup_refusing,
            teardown),
        CASE(test_link_parked_peer_goes_and_comes_back),
        CASE(test_link_break_while_parked_reconnects),
        CASE(test_link_create_wants_an_address),
        CASE(test_link_commands_reach_the_peer),
        CASE(test_link_extents_as_told_and_cut_to_the_range),
        CASE(test_link_extents_not_negotiated_are_data),
        CASE(test_link_extents_without_length_are_data),
        CASE(test_link_peers_errors_are_passed_on),
        CASE(test_link_read_that_brings_too_little_fails),
        CASE(test_link_impossible_request_is_not_sent),
        CASE(test_link_command_before_live_is_not_sent),
        CASE(test_link_oldest_is_the_first_unanswered),
        CASE(test_link_break_ends_all_commands_at_once),
        CASE(test_link_peer_closes_with_commands_under_way),
        CASE(test_link_nothing_unsent_leaves_after_break),
        CASE(test_link_destroy_idle_says_goodbye),
        CASE(test_link_destroy_ends_commands_under_way),
        CASE(test_link_destroy_is_quick_when_the_peer_does_not_read),
        CASE(test_link_destroy_idle_is_quick_when_the_peer_is_deaf),
        CASE(test_link_destroy_in_every_early_state),
        CASE(test_link_break_amid_busy_threads),
        CASE(test_link_socket_is_tuned),
        CASE(test_link_network_lost_ends_commands_after_link_timeout),
        CASE(test_link_network_lost_idle_link_dies_of_keepalive),
        CASE(test_link_network_lost_destroy_is_quick),
    };

    own_network = unshare(CLONE_NEWNET) == 0 &&
                  system("ip link set lo up && command -v nft >/dev/null") == 0;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
