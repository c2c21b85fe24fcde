/* SPDX-License-Identifier: BSD-3-Clause */
/* The control socket: answers, refusals, and clients that misbehave. */
#include <errno.h>
#include <grp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/clock.h"
#include "health/control.h"

#define PATIENCE_MS 5000

static struct {
    char dir[64], path[96];
    struct control *c;
    atomic_uint calls;
    size_t reply_bytes; /* of /big */
} t;

/* ---- the clock and the credentials, replaced --------------------------- */

static atomic_uint_least64_t clock_ahead_ms;
static atomic_uint peer_uid, peer_gid;

int __real_clock_gettime(clockid_t id, struct timespec *ts);
int __wrap_clock_gettime(clockid_t id, struct timespec *ts);
int __real_getsockopt(int fd, int level, int name, void *v, socklen_t *len);
int __wrap_getsockopt(int fd, int level, int name, void *v, socklen_t *len);

int
__wrap_clock_gettime(clockid_t id, struct timespec *ts)
{
    int r = __real_clock_gettime(id, ts);

    ts->tv_sec += (time_t)(atomic_load(&clock_ahead_ms) / 1000);
    return r;
}

int
__wrap_getsockopt(int fd, int level, int name, void *v, socklen_t *len)
{
    int r = __real_getsockopt(fd, level, name, v, len);

    if (r == 0 && level == SOL_SOCKET && name == SO_PEERCRED)
        *(struct ucred *)v = (struct ucred){.pid = getpid(),
                                            .uid = atomic_load(&peer_uid),
                                            .gid = atomic_load(&peer_gid)};
    return r;
}

/* ---- the handler ------------------------------------------------------- */

static unsigned
handle(void *opaque, const char *method, const char *path, const json_t *body,
       json_t **reply)
{
    char *text;

    assert_ptr_equal(opaque, &t);
    atomic_fetch_add(&t.calls, 1);
    if (!strcmp(path, "/empty"))
        return 200;
    if (!strcmp(path, "/conflict")) {
        *reply = json_pack("{s:s}", "error", "draining");
        return 409;
    }
    if (!strcmp(path, "/big")) {
        text = malloc(t.reply_bytes + 1);
        memset(text, 'x', t.reply_bytes);
        text[t.reply_bytes] = '\0';
        *reply = json_pack("{s:s}", "text", text);
        free(text);
        return 200;
    }
    if (!strcmp(path, "/caller")) {
        char by[64];

        control_caller(by, sizeof by);
        *reply = json_pack("{s:s}", "by", by);
        return 200;
    }
    if (strcmp(path, "/echo"))
        return 404;
    *reply = json_pack("{s:s, s:O?}", "method", method, "body", body);
    return 200;
}

static int
start(void **state)
{
    (void)state;
    memset(&t, 0, sizeof t);
    strcpy(t.dir, "/tmp/test_control.XXXXXX");
    assert_non_null(mkdtemp(t.dir));
    snprintf(t.path, sizeof t.path, "%s/c.sock", t.dir);
    atomic_store(&clock_ahead_ms, 0);
    atomic_store(&peer_uid, geteuid());
    atomic_store(&peer_gid, 54321);
    t.c = control_start(t.path, handle, &t);
    assert_non_null(t.c);
    return 0;
}

static int
stop(void **state)
{
    char cmd[96];

    (void)state;
    control_stop(t.c);
    assert_int_equal(access(t.path, F_OK), -1);
    snprintf(cmd, sizeof cmd, "rm -r %s", t.dir);
    return system(cmd);
}

/* ---- a client ---------------------------------------------------------- */

static int
dial(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    memcpy(a.sun_path, t.path, sizeof t.path);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0)
        fail_msg("connect: %s", strerror(errno));
    return fd;
}

static void
say(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

        if (n <= 0)
            return; /* cut off: what comes back tells */
        text += n;
        len -= (size_t)n;
    }
}

/* Reads until the server closes; returns the length, or -1 when it does not
 * in time. */
static ssize_t
listen_to_the_end(int fd, char *buf, size_t room)
{
    uint64_t deadline = clock_ms() + PATIENCE_MS;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t len = 0;
    ssize_t n;

    for (;;) {
        if (poll(&p, 1, clock_left_ms(deadline, clock_ms())) <= 0)
            return -1;
        n = recv(fd, buf + len, room - 1 - len, 0);
        if (n <= 0)
            break;
        len += (size_t)n;
        if (len == room - 1)
            break;
    }
    buf[len] = '\0';
    return (ssize_t)len;
}

static unsigned
status_of(const char *answer)
{
    unsigned status;

    return sscanf(answer, "HTTP/1.1 %u", &status) == 1 ? status : 0;
}

/* One whole exchange; the answer's body, if asked for, in *body. */
static unsigned
ask(const char *method, const char *path, const char *text, size_t len,
    json_t **body)
{
    char head[256], buf[8192];
    const char *rest;
    int fd = dial();

    snprintf(head, sizeof head,
             "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", method,
             path, len);
    say(fd, head, strlen(head));
    say(fd, text, len);
    assert_true(listen_to_the_end(fd, buf, sizeof buf) > 0);
    close(fd);
    rest = strstr(buf, "\r\n\r\n");
    assert_non_null(rest);
    if (body)
        *body = json_loads(rest + 4, 0, NULL);
    return status_of(buf);
}

static void
assert_error(json_t *body, const char *text)
{
    const char *error = json_string_value(json_object_get(body, "error"));

    assert_non_null(error);
    if (!strstr(error, text))
        fail_msg("error is '%s', not '%s'", error, text);
    json_decref(body);
}

static void
assert_still_answers(void)
{
    assert_int_equal(ask("GET", "/empty", "", 0, NULL), 200);
}

/* ---- answers ----------------------------------------------------------- */

static void
test_control_hands_the_body_over(void **state)
{
    json_t *b = NULL;

    (void)state;
    assert_int_equal(ask("POST", "/echo", "{\"lun\":\"vm1\"}", 13, &b), 200);
    assert_string_equal(json_string_value(json_object_get(b, "method")),
                        "POST");
    assert_string_equal(
        json_string_value(json_object_get(json_object_get(b, "body"), "lun")),
        "vm1");
    json_decref(b);
}

static void
test_control_knows_who_asks(void **state)
{
    char me[64];
    json_t *b = NULL;

    (void)state;
    atomic_store(&peer_uid, geteuid());
    snprintf(me, sizeof me, "uid %ld (pid %ld)", (long)geteuid(),
             (long)getpid());
    assert_int_equal(ask("POST", "/caller", "", 0, &b), 200);
    assert_string_equal(json_string_value(json_object_get(b, "by")), me);
    json_decref(b);
}

static void
test_control_answers_an_empty_object_for_no_reply(void **state)
{
    json_t *b = NULL;

    (void)state;
    assert_int_equal(ask("GET", "/empty", "", 0, &b), 200);
    assert_true(json_is_object(b));
    assert_int_equal(json_object_size(b), 0);
    json_decref(b);
    assert_int_equal(ask("GET", "/nothing", "", 0, NULL), 404);
}

static void
test_control_passes_the_handlers_status_on(void **state)
{
    json_t *b = NULL;

    (void)state;
    assert_int_equal(ask("POST", "/conflict", "", 0, &b), 409);
    assert_error(b, "draining");
}

static void
test_control_refuses_bad_json(void **state)
{
    static const char *const bad[] = {
        "{", "{\"a\":1,\"a\":2}", "{} x", "\xff\xfe", "[1]", "null"};
    json_t *b = NULL;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(ask("POST", "/echo", bad[i], strlen(bad[i]), &b), 400);
        assert_error(b, "");
    }
    assert_int_equal(atomic_load(&t.calls), 0);
}

static void
test_control_refuses_other_methods(void **state)
{
    json_t *b = NULL;

    (void)state;
    assert_int_equal(ask("DELETE", "/echo", "", 0, &b), 405);
    assert_error(b, "only GET and POST");
    assert_int_equal(ask("PUT", "/echo", "{}", 2, NULL), 405);
    assert_int_equal(ask("HEAD", "/echo", "", 0, NULL), 405);
    assert_int_equal(atomic_load(&t.calls), 0);
}

static void
test_control_refuses_other_users(void **state)
{
    json_t *b = NULL;

    (void)state;
    atomic_store(&peer_uid, 12345);
    assert_int_equal(ask("GET", "/echo", "", 0, &b), 403);
    assert_error(b, "only root");
    assert_int_equal(atomic_load(&t.calls), 0);
    atomic_store(&peer_uid, 0);
    assert_still_answers();
}

static void
test_control_lets_a_group_read_and_not_command(void **state)
{
    struct group *g = getgrgid(getegid());
    struct stat st;

    (void)state;
    assert_non_null(g);
    control_let_read(t.c, g->gr_name);
    assert_int_equal(stat(t.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0660);
    assert_int_equal(st.st_gid, getegid());
    atomic_store(&peer_uid, 12345);
    atomic_store(&peer_gid, getegid());
    assert_int_equal(ask("GET", "/echo", "", 0, NULL), 200);
    assert_int_equal(ask("POST", "/echo", "{}", 2, NULL), 403);
    assert_int_equal(atomic_load(&t.calls), 1);
}

static void
test_control_readers_keep_no_order_waiting(void **state)
{
    char buf[512];
    int fd[40];

    (void)state;
    atomic_store(&peer_uid, 12345);
    for (int i = 0; i < 40; i++)
        fd[i] = dial();
    /* closed: all of them have been accepted */
    assert_true(listen_to_the_end(fd[39], buf, sizeof buf) >= 0);
    atomic_store(&peer_uid, geteuid());
    assert_still_answers();
    for (int i = 0; i < 40; i++)
        close(fd[i]);
    assert_still_answers();
}

static void
test_control_readers_come_again(void **state)
{
    struct group *g = getgrgid(getegid());

    (void)state;
    assert_non_null(g);
    control_let_read(t.c, g->gr_name);
    atomic_store(&peer_uid, 12345);
    atomic_store(&peer_gid, getegid());
    for (int i = 0; i < 100; i++)
        assert_int_equal(ask("GET", "/echo", "", 0, NULL), 200);
}

static void
test_control_of_a_group_that_is_not_there_stays_closed(void **state)
{
    struct stat st;

    (void)state;
    control_let_read(t.c, NULL);
    control_let_read(t.c, "no-such-group");
    assert_int_equal(stat(t.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void
test_control_takes_64_KiB_and_refuses_more(void **state)
{
    size_t max = 64 * 1024;
    char *text = malloc(max + 1);
    json_t *b = NULL;

    (void)state;
    memset(text, ' ', max + 1);
    memcpy(text, "{}", 2);
    assert_int_equal(ask("POST", "/empty", text, max, NULL), 200);
    assert_int_equal(ask("POST", "/empty", text, max + 1, &b), 413);
    assert_error(b, "64 KiB");
    assert_int_equal(atomic_load(&t.calls), 1);
    free(text);
}

/* ---- clients that misbehave
 * --------------------------------------------------- */

static void
test_control_cuts_a_body_that_does_not_tell_its_length(void **state)
{
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: x\r\n"
                               "Transfer-Encoding: chunked\r\n\r\n";
    char chunk[4096 + 8], buf[4096];
    int fd = dial();

    (void)state;
    memcpy(chunk, "1000\r\n", 6);
    memset(chunk + 6, ' ', 4096);
    memcpy(chunk + 6 + 4096, "\r\n", 2);
    say(fd, head, sizeof head - 1);
    for (int i = 0; i < 17; i++)
        say(fd, chunk, sizeof chunk);
    assert_true(listen_to_the_end(fd, buf, sizeof buf) >= 0);
    assert_int_not_equal(status_of(buf), 200);
    close(fd);
    assert_int_equal(atomic_load(&t.calls), 0);
    assert_still_answers();
}

static void
test_control_survives_garbage(void **state)
{
    static const char *const garbage[] = {
        "\r\n\r\n\r\n",
        "GET\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "GET / HTTP/9.9\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: "
        "99999999999999999999999\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        "zz\r\n",
    };
    char buf[4096];
    size_t i;

    (void)state;
    for (i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        int fd = dial();

        say(fd, garbage[i], strlen(garbage[i]));
        shutdown(fd, SHUT_WR);
        assert_still_answers(); /* this one has been accepted now */
        atomic_fetch_add(&clock_ahead_ms, 11000);
        assert_still_answers();
        if (listen_to_the_end(fd, buf, sizeof buf) < 0)
            fail_msg("garbage %zu is kept", i);
        assert_int_not_equal(status_of(buf), 200);
        close(fd);
    }
    assert_int_equal(atomic_load(&t.calls), 2 * i);
}

static void
test_control_refuses_an_endless_header(void **state)
{
    char line[1024], buf[4096];
    int fd = dial();

    (void)state;
    memset(line, 'a', sizeof line);
    say(fd, "GET /echo HTTP/1.1\r\nHost: x\r\nX: ", 32);
    for (int i = 0; i < 80; i++)
        say(fd, line, sizeof line);
    assert_true(listen_to_the_end(fd, buf, sizeof buf) >= 0);
    assert_int_not_equal(status_of(buf), 200);
    close(fd);
    assert_still_answers();
}

/* A client that goes on sending, byte by byte, is cut like an idle one. */
static void
test_control_cuts_slow_clients_after_10_s(void **state)
{
    static const char head[] = "GET /echo HTTP/1.1\r\nHost: x\r\nX: ";
    char buf[512];
    int idle = dial(), slow = dial();

    (void)state;
    say(slow, head, sizeof head - 1);
    assert_still_answers(); /* both have been accepted now */
    atomic_store(&clock_ahead_ms, 9000);
    say(slow, "a", 1);
    assert_still_answers();
    atomic_store(&clock_ahead_ms, 11000);
    say(slow, "a", 1);
    assert_true(listen_to_the_end(slow, buf, sizeof buf) >= 0);
    assert_int_not_equal(status_of(buf), 200);
    assert_true(listen_to_the_end(idle, buf, sizeof buf) >= 0);
    close(idle);
    close(slow);
    assert_still_answers();
}

static void
test_control_answers_a_half_closed_client(void **state)
{
    static const char text[] = "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n";
    char buf[4096];
    int fd = dial();

    (void)state;
    say(fd, text, sizeof text - 1);
    shutdown(fd, SHUT_WR);
    assert_true(listen_to_the_end(fd, buf, sizeof buf) > 0);
    assert_int_equal(status_of(buf), 200);
    close(fd);
}

static void
test_control_survives_a_client_gone_amid_its_answer(void **state)
{
    static const char text[] = "GET /big HTTP/1.1\r\nHost: x\r\n\r\n";
    char buf[1024];

    (void)state;
    t.reply_bytes = 8 * 1024 * 1024;
    for (int i = 0; i < 5; i++) {
        int fd = dial();

        say(fd, text, sizeof text - 1);
        assert_int_equal(recv(fd, buf, sizeof buf, MSG_WAITALL), sizeof buf);
        close(fd);
        assert_still_answers();
    }
}

static void
test_control_answers_while_others_do_not_read(void **state)
{
    static const char text[] = "GET /big HTTP/1.1\r\nHost: x\r\n\r\n";
    int fd[8];

    (void)state;
    t.reply_bytes = 1024 * 1024;
    for (int i = 0; i < 8; i++) {
        fd[i] = dial();
        say(fd[i], text, sizeof text - 1);
    }
    assert_still_answers();
    for (int i = 0; i < 8; i++)
        close(fd[i]);
}

static void
test_control_answers_100_clients_at_once(void **state)
{
    static const char text[] = "GET /empty HTTP/1.1\r\nHost: x\r\n\r\n";
    char buf[4096];
    int fd[100];

    (void)state;
    for (int i = 0; i < 100; i++)
        fd[i] = dial();
    for (int i = 0; i < 100; i++)
        say(fd[i], text, sizeof text - 1);
    for (int i = 0; i < 100; i++) {
        assert_true(listen_to_the_end(fd[i], buf, sizeof buf) > 0);
        assert_int_equal(status_of(buf), 200);
        close(fd[i]);
    }
    assert_int_equal(atomic_load(&t.calls), 100);
}

/* All places taken, and all given free at one go: libmicrohttpd looks at the
 * listening socket again only when it is run once more. */
static void
test_control_accepts_again_after_all_places_were_taken(void **state)
{
    static const char expect[] = "POST /empty HTTP/1.1\r\nHost: x\r\n"
                                 "Content-Length: 2\r\n"
                                 "Expect: 100-continue\r\n\r\n";
    char buf[512];
    int fd[32];

    (void)state;
    for (int i = 0; i < 32; i++)
        fd[i] = dial();
    /* the last is spoken to, so all have been accepted; none has ended */
    say(fd[31], expect, sizeof expect - 1);
    assert_int_equal(recv(fd[31], buf, 12, MSG_WAITALL), 12);
    assert_memory_equal(buf, "HTTP/1.1 100", 12);
    atomic_store(&clock_ahead_ms, 11000);
    say(fd[0], "G", 1);
    for (int i = 0; i < 32; i++)
        assert_true(listen_to_the_end(fd[i], buf, sizeof buf) >= 0);
    assert_still_answers();
    for (int i = 0; i < 32; i++)
        close(fd[i]);
}

/* ---- the socket file
 * ------------------------------------------------------------ */

static void
test_control_socket_is_the_owners_alone(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(stat(t.path, &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0600);
}

static void
test_control_refuses_a_path_in_use(void **state)
{
    (void)state;
    errno = 0;
    assert_null(control_start(t.path, handle, &t));
    assert_int_equal(errno, EADDRINUSE);
    assert_still_answers();
}

static void
test_control_replaces_a_stale_socket(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    control_stop(t.c);
    memcpy(a.sun_path, t.path, sizeof t.path);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    close(fd);
    t.c = control_start(t.path, handle, &t);
    assert_non_null(t.c);
    assert_still_answers();
}

static void
test_control_leaves_other_files_alone(void **state)
{
    char file[112], longer[200];
    FILE *f;

    (void)state;
    snprintf(file, sizeof file, "%s/file", t.dir);
    f = fopen(file, "w");
    fclose(f);
    assert_null(control_start(file, handle, &t));
    assert_int_equal(errno, ENOTSOCK);
    assert_int_equal(access(file, F_OK), 0);

    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_null(control_start(longer, handle, &t));
    assert_int_equal(errno, ENAMETOOLONG);

    snprintf(file, sizeof file, "%s/none/c.sock", t.dir);
    assert_null(control_start(file, handle, &t));
    assert_int_equal(errno, ENOENT);
}

/* Somebody removed our file and another process took its place. */
static void
test_control_stop_leaves_a_successors_socket(void **state)
{
    struct control *first = t.c;

    (void)state;
    unlink(t.path);
    t.c = control_start(t.path, handle, &t);
    assert_non_null(t.c);
    control_stop(first);
    assert_still_answers();
}

static void *
start_one(void *arg)
{
    (void)arg;
    return control_start(t.path, handle, &t);
}

static void
test_control_of_many_starting_at_once_one_wins(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct control *winner;
    pthread_t threads[8];
    void *c;
    int fd;

    (void)state;
    control_stop(t.c);
    memcpy(a.sun_path, t.path, sizeof t.path);
    for (int round = 0; round < 20; round++) {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
        close(fd);
        for (int i = 0; i < 8; i++)
            pthread_create(&threads[i], NULL, start_one, NULL);
        winner = NULL;
        for (int i = 0; i < 8; i++) {
            pthread_join(threads[i], &c);
            if (c) {
                assert_null(winner);
                winner = c;
            }
        }
        assert_non_null(winner);
        assert_still_answers();
        control_stop(winner);
    }
    t.c = NULL;
}

static void
test_control_stop_does_not_wait_for_clients(void **state)
{
    static const char text[] = "GET /big HTTP/1.1\r\nHost: x\r\n\r\n";
    uint64_t before;
    int idle, reading;
    char byte;

    (void)state;
    t.reply_bytes = 1024 * 1024;
    idle = dial();
    reading = dial();
    say(reading, text, sizeof text - 1);
    assert_int_equal(recv(reading, &byte, 1, 0), 1);
    before = clock_ms();
    control_stop(t.c);
    assert_true(clock_ms() - before < 1000);
    t.c = NULL;
    close(idle);
    close(reading);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_control_hands_the_body_over),
        TEST(test_control_knows_who_asks),
        TEST(test_control_answers_an_empty_object_for_no_reply),
        TEST(test_control_passes_the_handlers_status_on),
        TEST(test_control_refuses_bad_json),
        TEST(test_control_refuses_other_methods),
        TEST(test_control_refuses_other_users),
        TEST(test_control_lets_a_group_read_and_not_command),
        TEST(test_control_readers_keep_no_order_waiting),
        TEST(test_control_readers_come_again),
        TEST(test_control_of_a_group_that_is_not_there_stays_closed),
        TEST(test_control_takes_64_KiB_and_refuses_more),
        TEST(test_control_cuts_a_body_that_does_not_tell_its_length),
        TEST(test_control_survives_garbage),
        TEST(test_control_refuses_an_endless_header),
        TEST(test_control_cuts_slow_clients_after_10_s),
        TEST(test_control_answers_a_half_closed_client),
        TEST(test_control_survives_a_client_gone_amid_its_answer),
        TEST(test_control_answers_while_others_do_not_read),
        TEST(test_control_answers_100_clients_at_once),
        TEST(test_control_accepts_again_after_all_places_were_taken),
        TEST(test_control_socket_is_the_owners_alone),
        TEST(test_control_refuses_a_path_in_use),
        TEST(test_control_replaces_a_stale_socket),
        TEST(test_control_leaves_other_files_alone),
        TEST(test_control_stop_leaves_a_successors_socket),
        TEST(test_control_of_many_starting_at_once_one_wins),
        TEST(test_control_stop_does_not_wait_for_clients),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
