/* SPDX-License-Identifier: BSD-3-Clause */
/* A multipathd for tests: its socket, and the ways it can fail. */
#ifndef DETOUR_TESTS_FAKE_MULTIPATHD_H
#define DETOUR_TESTS_FAKE_MULTIPATHD_H

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/lun_fixture.h"

enum fake_daemon_mood {
    DAEMON_ANSWERS,
    DAEMON_HANGS,       /* takes a command and says nothing */
    DAEMON_STOPS_SHORT, /* as it does, half way through its answer */
    DAEMON_DIES,        /* takes a command and closes */
    DAEMON_BABBLES,     /* its answer is longer than anything may be */
};

/* One thread, one connection at a time. */
static struct {
    char name[64];
    int listen_fd, stop_fd;
    pthread_t thread;

    pthread_mutex_t lock;
    /* guarded by lock */
    enum fake_daemon_mood mood;
    char map[4096];    /* its answer to "show map" */
    char queueing[32]; /* its answer to "disablequeueing" */
    char last_order[128];
    unsigned shown, ordered;
} fake_daemon = {
    .listen_fd = -1, .stop_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

static inline bool
fake_daemon_read(int fd, void *buf, size_t n)
{
    return recv(fd, buf, n, MSG_WAITALL) == (ssize_t)n;
}

/* Returns what to say to a command. */
static inline const char *
fake_daemon_obey(const char *command)
{
    if (strncmp(command, "show map ", 9) == 0) {
        fake_daemon.shown++;
        return fake_daemon.map;
    }
    fake_daemon.ordered++;
    snprintf(fake_daemon.last_order, sizeof fake_daemon.last_order, "%s",
             command);
    return fake_daemon.queueing;
}

/* Until the other side hangs up, or the test ends. */
static inline void
fake_daemon_hang(int fd)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLRDHUP},
                          {.fd = fake_daemon.stop_fd, .events = POLLIN}};

    poll(p, 2, -1);
}

static inline void
fake_daemon_serve(int fd)
{
    char command[128], reply[4200];
    size_t len, n;
    enum fake_daemon_mood mood;

    if (!fake_daemon_read(fd, &len, sizeof len) || len > sizeof command ||
        !fake_daemon_read(fd, command, len) || command[len - 1] != '\0')
        return;
    pthread_mutex_lock(&fake_daemon.lock);
    mood = fake_daemon.mood;
    snprintf(reply, sizeof reply, "%s", fake_daemon_obey(command));
    pthread_mutex_unlock(&fake_daemon.lock);
    n = strlen(reply) + 1;
    len = mood == DAEMON_BABBLES ? (size_t)-1 : n;
    if (mood == DAEMON_STOPS_SHORT)
        n /= 2;
    if (mood == DAEMON_HANGS)
        fake_daemon_hang(fd);
    if (mood == DAEMON_DIES || mood == DAEMON_HANGS)
        return;
    (void)!send(fd, &len, sizeof len, MSG_NOSIGNAL);
    (void)!send(fd, reply, n, MSG_NOSIGNAL);
    if (mood == DAEMON_STOPS_SHORT)
        fake_daemon_hang(fd);
}

static inline void *
fake_daemon_run(void *arg)
{
    struct pollfd p[2] = {{.fd = fake_daemon.listen_fd, .events = POLLIN},
                          {.fd = fake_daemon.stop_fd, .events = POLLIN}};

    while (poll(p, 2, -1) > 0 && !p[1].revents) {
        int fd = accept4(fake_daemon.listen_fd, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            continue;
        fake_daemon_serve(fd);
        close(fd);
    }
    return arg;
}

/* A name of this test's own, also when nobody listens there. */
static inline const char *
fake_daemon_name(void)
{
    snprintf(fake_daemon.name, sizeof fake_daemon.name,
             "detour-test-multipathd-%d-%.20s", (int)getpid(),
             strrchr(fixture_dir, '/') + 1);
    return fake_daemon.name;
}

static inline void
fake_daemon_start(void)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t n = strlen(fake_daemon_name());

    fake_daemon.mood = DAEMON_ANSWERS;
    fake_daemon.shown = fake_daemon.ordered = 0;
    fake_daemon.map[0] = fake_daemon.last_order[0] = '\0';
    strcpy(fake_daemon.queueing, "ok\n");
    memcpy(a.sun_path + 1, fake_daemon.name, n);
    fake_daemon.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fake_daemon.stop_fd = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(
        bind(fake_daemon.listen_fd, (const struct sockaddr *)&a,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n)),
        0);
    assert_int_equal(listen(fake_daemon.listen_fd, 8), 0);
    assert_int_equal(
        pthread_create(&fake_daemon.thread, NULL, fake_daemon_run, NULL), 0);
}

/* Also when it was not started. */
static inline void
fake_daemon_stop(void)
{
    if (fake_daemon.listen_fd < 0)
        return;
    eventfd_write(fake_daemon.stop_fd, 1);
    pthread_join(fake_daemon.thread, NULL);
    close(fake_daemon.listen_fd);
    close(fake_daemon.stop_fd);
    fake_daemon.listen_fd = fake_daemon.stop_fd = -1;
}

static inline void
fake_daemon_set(enum fake_daemon_mood mood, const char *map)
{
    pthread_mutex_lock(&fake_daemon.lock);
    fake_daemon.mood = mood;
    snprintf(fake_daemon.map, sizeof fake_daemon.map, "%s", map);
    pthread_mutex_unlock(&fake_daemon.lock);
}

static inline unsigned
fake_daemon_count(const unsigned *field)
{
    unsigned n;

    pthread_mutex_lock(&fake_daemon.lock);
    n = *field;
    pthread_mutex_unlock(&fake_daemon.lock);
    return n;
}

#endif
