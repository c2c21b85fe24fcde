/* SPDX-License-Identifier: BSD-3-Clause */
/* Links without TLS: their states until they are LIVE, and their commands,
 * against a small server of our own (link_peer.h). */
#include "common/link_impl.h"
#include "tests/unit/link_fixture.h"

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

/* ---- up to LIVE --------------------------------------------------------- */

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

/* Its words are listened to only from its first refusal on. */
static void
test_link_that_served_tells_why_it_would_not_any_more(void **state)
{
    struct fixture *f = *state;

    for (int i = 0; i < 2; i++) {
        f->peer->on_info = PEER_ANSWERS;
        if (i == 0)
            f->link = link_at(&f->opt);
        eventually(status_of(f->link).would_serve);
        f->peer->on_info = PEER_REFUSES;
        eventually(status_of(f->link).refusal[0]); /* told by the next INFO */
        assert_false(status_of(f->link).would_serve);
        assert_string_equal(status_of(f->link).refusal, f->peer->refusal);
    }
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

/* ---- CONNECTING, again and again ---------------------------------------- */

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

/* ---- commands ----------------------------------------------------------- */

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
test_link_read_in_parts_must_be_whole(void **state)
{
    struct fixture *f = *state;
    char data[4096];

    memset(f->peer->store + 8192, 0x5a, sizeof data);
    f->peer->on_command = PEER_HALVES;
    f->link = live_link(&f->opt);
    assert_int_equal(run_one(f, LINK_READ, 0, data, 8192, 4096), 0);
    assert_memory_equal(data, f->peer->store + 8192, sizeof data);
    f->peer->on_command = PEER_REPEATS;
    assert_int_equal(run_one(f, LINK_READ, 0, data, 8192, 4096), -EIO);
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

int
main(void)
{
    const struct CMUnitTest tests[] = {
        LINK_TEST(test_link_parks_and_learns_the_export),
        LINK_TEST(test_link_keeps_asking_info_on_one_connection),
        LINK_TEST(test_link_info_refused_stays_parked_with_peers_words),
        LINK_TEST(test_link_that_served_tells_why_it_would_not_any_more),
        LINK_TEST(test_link_peers_words_become_plain_text),
        LINK_TEST(test_link_go_refused_stays_parked_and_may_ask_again),
        LINK_TEST(test_link_refused_go_goes_on_asking_info),
        LINK_TEST(test_link_go_begun_is_answered_later),
        LINK_TEST(test_link_go_begun_and_granted_is_live),
        LINK_TEST(test_link_go_before_parked_is_busy),
        LINK_TEST(test_link_go_unanswered_ends_at_its_deadline),
        LINK_TEST(test_link_go_unanswered_ends_at_open_timeout),
        LINK_TEST(test_link_peer_closes_instead_of_go_is_dead),
        LINK_TEST(test_link_go_behind_an_info_that_is_never_answered),
        LINK_TEST(test_link_break_ends_go),
        LINK_TEST(test_link_info_unanswered_reconnects),
        LINK_TEST(test_link_negotiation_bounded_by_open_timeout),
        cmocka_unit_test_setup_teardown(
            test_link_refused_until_the_server_appears, setup_refusing,
            teardown),
        LINK_TEST(test_link_parked_peer_goes_and_comes_back),
        LINK_TEST(test_link_break_while_parked_reconnects),
        LINK_TEST(test_link_create_wants_an_address),
        LINK_TEST(test_link_commands_reach_the_peer),
        LINK_TEST(test_link_extents_as_told_and_cut_to_the_range),
        LINK_TEST(test_link_extents_not_negotiated_are_data),
        LINK_TEST(test_link_extents_without_length_are_data),
        LINK_TEST(test_link_peers_errors_are_passed_on),
        LINK_TEST(test_link_read_that_brings_too_little_fails),
        LINK_TEST(test_link_read_in_parts_must_be_whole),
        LINK_TEST(test_link_impossible_request_is_not_sent),
        LINK_TEST(test_link_command_before_live_is_not_sent),
        LINK_TEST(test_link_oldest_is_the_first_unanswered),
    };

    enter_own_network();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
