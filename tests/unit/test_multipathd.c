/* SPDX-License-Identifier: BSD-3-Clause */
/* multipathd's socket: answering, absent, hanging, restarted half way. */
#include "tests/unit/fake_multipathd.h"

#include "lun/multipathd.h"

static struct multipathd m;

/* Drive the command to its end as the watcher's loop does. */
static int
finish(uint64_t deadline_ms)
{
    for (;;) {
        struct pollfd p = {.fd = multipathd_fd(&m),
                           .events = multipathd_events(&m)};
        int got = multipathd_go_on(&m, clock_ms());

        if (got != 0)
            return got;
        assert_true(clock_ms() < deadline_ms + PATIENCE_MS);
        assert_true(multipathd_fd(&m) >= 0);
        poll(&p, 1, clock_left_ms(deadline_ms, clock_ms()));
    }
}

static int
ask(const char *command, unsigned timeout_ms)
{
    uint64_t deadline_ms = clock_ms() + timeout_ms;
    int err = multipathd_ask(&m, command, deadline_ms);

    return err ? err : finish(deadline_ms);
}

static int
setup_absent(void **state)
{
    int err = fixture_setup(state);

    multipathd_init(&m, fake_daemon_name());
    return err;
}

static int
setup(void **state)
{
    int err = setup_absent(state);

    fake_daemon_start();
    return err;
}

static int
teardown(void **state)
{
    multipathd_fini(&m);
    fake_daemon_stop();
    return fixture_teardown(state);
}

/* ---- talking ----------------------------------------------------- */

static void
test_command_is_answered(void **state)
{
    (void)state;
    assert_int_equal(ask("disablequeueing map dm-3", PATIENCE_MS), 1);
    assert_string_equal(m.reply, "ok\n");
    assert_string_equal(fake_daemon.last_order, "disablequeueing map dm-3");
    assert_int_equal(multipathd_fd(&m), -1);
    assert_int_equal(multipathd_go_on(&m, clock_ms()), 0);
}

/* Larger than a socket's buffer takes at once, and in pieces. */
static void
test_commands_follow_one_another(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        char text[4000];

        memset(text, 'a' + i, sizeof text);
        text[sizeof text - 1] = '\0';
        fake_daemon_set(DAEMON_ANSWERS, text);
        assert_int_equal(ask("show map dm-3 json", PATIENCE_MS), 1);
        assert_string_equal(m.reply, text);
    }
}

static void
test_absent_daemon_is_known_at_once(void **state)
{
    (void)state;
    assert_int_equal(ask("show map dm-3 json", PATIENCE_MS), -ECONNREFUSED);
    assert_int_equal(multipathd_fd(&m), -1);
}

static void
test_hanging_daemon_costs_no_more_than_the_deadline(void **state)
{
    uint64_t begun_ms = clock_ms();

    (void)state;
    fake_daemon_set(DAEMON_HANGS, "");
    assert_int_equal(ask("show map dm-3 json", 50), -ETIMEDOUT);
    assert_true(clock_ms() >= begun_ms + 50);
    assert_int_equal(multipathd_fd(&m), -1);
}

static void
test_answer_that_stops_short_is_given_up(void **state)
{
    (void)state;
    fake_daemon_set(DAEMON_STOPS_SHORT, "{\"map\": {}}");
    assert_int_equal(ask("show map dm-3 json", 50), -ETIMEDOUT);
    assert_null(m.reply);
}

/* Nobody accepts, and the backlog is full: connect would wait. */
static void
test_full_backlog_is_no_wait(void **state)
{
    struct multipathd others[64];
    int err = 0, n = 0;

    (void)state;
    fake_daemon_set(DAEMON_HANGS, "");
    assert_int_equal(multipathd_ask(&m, "show map dm-3 json", soon()), 0);
    while (err == 0 && n < 64) {
        multipathd_init(&others[n], fake_daemon.name);
        err = multipathd_ask(&others[n++], "show map dm-3 json", soon());
        assert_int_equal(multipathd_go_on(&m, clock_ms()), 0);
    }
    assert_int_equal(err, -EAGAIN);
    while (n > 0)
        multipathd_fini(&others[--n]);
}

static void
test_daemon_that_dies_half_way_is_told(void **state)
{
    (void)state;
    fake_daemon_set(DAEMON_DIES, "");
    assert_int_equal(ask("show map dm-3 json", PATIENCE_MS), -ECONNRESET);
    fake_daemon_set(DAEMON_ANSWERS, "back");
    assert_int_equal(ask("show map dm-3 json", PATIENCE_MS), 1);
    assert_string_equal(m.reply, "back");
}

static void
test_endless_answer_is_refused(void **state)
{
    (void)state;
    fake_daemon_set(DAEMON_BABBLES, "x");
    assert_int_equal(ask("show map dm-3 json", PATIENCE_MS), -EBADMSG);
}

static void
test_new_command_gives_up_the_old_one(void **state)
{
    (void)state;
    fake_daemon_set(DAEMON_HANGS, "");
    assert_int_equal(multipathd_ask(&m, "show map dm-3 json", soon()), 0);
    fake_daemon_set(DAEMON_ANSWERS, "");
    assert_int_equal(ask("disablequeueing map dm-3", PATIENCE_MS), 1);
    assert_string_equal(m.reply, "ok\n");
}

static void
test_command_too_long_is_refused(void **state)
{
    char command[400];

    (void)state;
    memset(command, 'x', sizeof command);
    command[sizeof command - 1] = '\0';
    assert_int_equal(multipathd_ask(&m, command, soon()), -E2BIG);
    assert_int_equal(multipathd_fd(&m), -1);
}

/* ---- what it shows ----------------------------------------------- */

static void
test_map_is_read(void **state)
{
    static const char json[] =
        "{\n   \"major_version\": 0,\n   \"minor_version\": 1,\n   \"map\":{\n"
        "\"name\" : \"vmstore\", \"uuid\" : \"36001405\", \"sysfs\" : \"dm-3\","
        "\"queueing\" : \"on\", \"paths\" : 2, \"path_groups\": ["
        "{\"selector\" : \"service-time 0\", \"pri\" : 50, \"paths\": ["
        "{\"dev\" : \"sdb\", \"dev_t\" : \"8:16\", \"chk_st\" : \"ready\","
        " \"checker\" : \"tur\", \"pri\" : 50}]},"
        "{\"pri\" : 10, \"paths\": [{\"dev\" : \"sdc\", \"chk_st\" : "
        "\"faulty\", \"checker\" : \"directio\", \"pri\" : 10}]}]}}\n";
    struct multipathd_map map;

    (void)state;
    assert_int_equal(multipathd_parse_map(json, &map), 0);
    assert_string_equal(map.queueing, "on");
    assert_int_equal(map.npaths, 2);
    assert_string_equal(map.paths[0].name, "sdb");
    assert_string_equal(map.paths[0].checker, "tur");
    assert_string_equal(map.paths[0].state, "ready");
    assert_int_equal(map.paths[0].priority, 50);
    assert_string_equal(map.paths[1].name, "sdc");
    assert_string_equal(map.paths[1].state, "faulty");
}

static void
test_what_is_no_map_is_refused(void **state)
{
    static const char *const texts[] = {
        "",     "fail\n", "timeout\n",    "permission deny: need to be root\n",
        "{",    "[]",     "{\"map\": 7}", "{\"maps\": []}",
        "null",
    };
    struct multipathd_map map;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        map.npaths = 7;
        assert_int_equal(multipathd_parse_map(texts[i], &map), -EBADMSG);
        assert_int_equal(map.npaths, 0);
    }
}

/* Of the wrong kind, too many, too long: none of it hurts. */
static void
test_strange_maps_are_read_as_far_as_they_go(void **state)
{
    char text[8192] = "{\"map\": {\"path_groups\": [{\"paths\": [";
    struct multipathd_map map;

    (void)state;
    assert_int_equal(
        multipathd_parse_map("{\"map\": {\"queueing\": 1, \"path_groups\": "
                             "[7, {\"paths\": [7, {\"dev\": 8}, {\"dev\": "
                             "\"sdq\", \"pri\": 1e9}]}]}}",
                             &map),
        0);
    assert_int_equal(map.npaths, 1);
    assert_string_equal(map.paths[0].name, "sdq");
    for (int i = 0; i < 40; i++)
        sprintf(text + strlen(text), "%s{\"dev\": \"%0100d\"}", i ? "," : "",
                i);
    strcat(text, "]}]}}");
    assert_int_equal(multipathd_parse_map(text, &map), 0);
    assert_int_equal(map.npaths, LUN_PATH_MAX);
    assert_int_equal(strlen(map.paths[0].name), SYSFS_NAME_MAX - 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_command_is_answered),
        TEST(test_commands_follow_one_another),
        cmocka_unit_test_setup_teardown(test_absent_daemon_is_known_at_once,
                                        setup_absent, teardown),
        TEST(test_hanging_daemon_costs_no_more_than_the_deadline),
        TEST(test_answer_that_stops_short_is_given_up),
        TEST(test_full_backlog_is_no_wait),
        TEST(test_daemon_that_dies_half_way_is_told),
        TEST(test_endless_answer_is_refused),
        TEST(test_new_command_gives_up_the_old_one),
        TEST(test_command_too_long_is_refused),
        cmocka_unit_test(test_map_is_read),
        cmocka_unit_test(test_what_is_no_map_is_refused),
        cmocka_unit_test(test_strange_maps_are_read_as_far_as_they_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
