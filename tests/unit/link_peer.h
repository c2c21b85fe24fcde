/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of links talk to: a small NBD server that answers, refuses,
 * keeps silent or lies as it is told, and nbdkit as a real one. */
#ifndef DETOUR_TESTS_LINK_PEER_H
#define DETOUR_TESTS_LINK_PEER_H

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/link.h"
#include "tests/unit/eventually.h"

#define UNUSED __attribute__((unused))

/* For threads, where cmocka cannot fail a test. */
#define wait_until(condition)                                                  \
    do {                                                                       \
        while (!(condition))                                                   \
            usleep(1000);                                                      \
    } while (0)

static int UNUSED
bound_socket(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_not_equal(fd, -1);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

/* ---- the small server; serves one connection after the other ---- */

enum peer_manner {
    PEER_ANSWERS,
    PEER_REFUSES, /* the option, with text */
    PEER_SILENT,  /* takes the option or command and never answers */
    PEER_CLOSES,  /* instead of an answer */
    PEER_DEAF,    /* commands: does not even read */
    PEER_CHEATS,  /* commands: READ brings half, EXTENTS no length */
    PEER_REPEATS, /* commands: READ brings its first half twice */
    PEER_HALVES,  /* commands: READ brings both, one after the other */
    PEER_TICKETS, /* commands: each answer takes one of tickets */
    PEER_BABBLES, /* commands: what it answers is no NBD */
};

struct peer {
    int listen_fd;
    uint16_t port;
    pthread_t thread;
    bool started;
    /* the test writes, the server reads */
    atomic_int on_connect, on_info, on_go, on_command;
    atomic_uint command_error; /* NBD error number, 0: none */
    atomic_uint tickets;
    atomic_bool no_contexts, stop;
    const char *refusal;
    /* the server writes, the test reads */
    atomic_uint connections, infos, gos, commands, disconnects, resets;
    atomic_uint last_flags;
    atomic_ullong stream; /* bytes read after GO by a deaf server's drain */
    char go_name[256];    /* of the last GO; read it after gos changed */
    atomic_int fd;        /* of the connection, or -1 */
    unsigned char store[1 << 20];
};

/* To the end, so that errno tells how a connection broke. */
static bool UNUSED
get(int fd, void *buf, size_t n)
{
    ssize_t r;

    for (char *at = buf; n; at += r, n -= (size_t)r)
        if ((r = recv(fd, at, n, 0)) <= 0)
            return false;
    return true;
}

static bool
put(int fd, const void *buf, size_t n)
{
    return send(fd, buf, n, MSG_NOSIGNAL) == (ssize_t)n;
}

static bool
put_option_reply(int fd, uint32_t option, uint32_t type, const void *data,
                 size_t len)
{
    struct __attribute__((packed)) {
        uint64_t magic;
        uint32_t option, type, len;
    } h = {htobe64(0x3e889045565a9), htobe32(option), htobe32(type),
           htobe32((uint32_t)len)};

    return put(fd, &h, sizeof h) && put(fd, data, len);
}

static bool
put_export(struct peer *p, int fd, uint32_t option)
{
    static const char text[] = "\0\2detour 1 state=serving\nload=3";
    struct __attribute__((packed)) {
        uint16_t type;
        uint64_t size;
        uint16_t flags; /* flush, fua, trim, zeroes, multi-conn */
    } export = {0, htobe64(sizeof p->store), htobe16(0x16d)};
    struct __attribute__((packed)) {
        uint16_t type;
        uint32_t min, preferred, max;
    } blocks = {htobe16(3), htobe32(512), htobe32(4096), htobe32(1 << 20)};

    return put_option_reply(fd, option, 3, &export, sizeof export) &&
           put_option_reply(fd, option, 3, &blocks, sizeof blocks) &&
           put_option_reply(fd, option, 3, text, sizeof text - 1) &&
           put_option_reply(fd, option, 1, NULL, 0);
}

/* Returns 1 to go on, 2 when GO was granted, 0 at the end. */
static int
serve_info(struct peer *p, int fd, uint32_t option, const char *data)
{
    bool go = option == 7;
    int manner = go ? p->on_go : p->on_info;
    uint32_t n;

    memcpy(&n, data, sizeof n);
    n = be32toh(n);
    if (go && n < sizeof p->go_name) {
        memcpy(p->go_name, data + 4, n);
        p->go_name[n] = '\0';
    }
    go ? p->gos++ : p->infos++;
    switch (manner) {
    case PEER_ANSWERS:
        return put_export(p, fd, option) ? 1 + go : 0;
    case PEER_REFUSES:
        return put_option_reply(fd, option, 0x80000002u, p->refusal,
                                strlen(p->refusal));
    case PEER_SILENT:
        return 1;
    }
    return 0;
}

static int
serve_option(struct peer *p, int fd)
{
    struct __attribute__((packed)) {
        uint64_t magic;
        uint32_t option, len;
    } h;
    char data[8192], context[] = "\0\0\0\7base:allocation";

    if (!get(fd, &h, sizeof h) || be32toh(h.len) > sizeof data ||
        !get(fd, data, be32toh(h.len)))
        return 0;
    h.option = be32toh(h.option);
    switch (h.option) {
    case 6:
    case 7:
        return serve_info(p, fd, h.option, data);
    case 5:
        if (p->on_connect == PEER_CLOSES) { /* amid TLS */
            put_option_reply(fd, h.option, 1, NULL, 0);
            return get(fd, data, 16) ? 0 : 0;
        }
        return put_option_reply(fd, h.option, 0x80000001u, NULL, 0);
    case 8:
        return put_option_reply(fd, h.option, 1, NULL, 0);
    case 10:
        return (p->no_contexts || put_option_reply(fd, h.option, 4, context,
                                                   sizeof context - 1)) &&
               put_option_reply(fd, h.option, 1, NULL, 0);
    case 2:
        put_option_reply(fd, h.option, 1, NULL, 0);
        return 0;
    }
    return put_option_reply(fd, h.option, 0x80000001u, NULL, 0);
}

struct __attribute__((packed)) peer_request {
    uint32_t magic;
    uint16_t flags, type;
    uint64_t handle, offset;
    uint32_t count;
};

static bool
put_part(int fd, const struct peer_request *r, uint16_t flags, uint16_t type,
         const void *head, size_t headlen, const void *data, size_t len)
{
    struct __attribute__((packed)) {
        uint32_t magic;
        uint16_t flags, type;
        uint64_t handle;
        uint32_t len;
    } h = {htobe32(0x668e33ef), htobe16(flags), htobe16(type), r->handle,
           htobe32((uint32_t)(headlen + len))};

    return put(fd, &h, sizeof h) && put(fd, head, headlen) &&
           put(fd, data, len);
}

static bool
put_chunk(int fd, const struct peer_request *r, uint16_t type, const void *head,
          size_t headlen, const void *data, size_t len)
{
    return put_part(fd, r, 1, type, head, headlen, data, len);
}

/* The first half of a READ, and then the second, or the first again. */
static bool
put_halves(struct peer *p, int fd, const struct peer_request *r,
           uint64_t offset, uint32_t half)
{
    uint64_t second = p->on_command == PEER_HALVES ? offset + half : offset;
    uint64_t where[2] = {htobe64(offset), htobe64(second)};

    return put_part(fd, r, 0, 1, &where[0], sizeof where[0], p->store + offset,
                    half) &&
           put_chunk(fd, r, 1, &where[1], sizeof where[1], p->store + second,
                     half);
}

static bool
answer_command(struct peer *p, int fd, const struct peer_request *r,
               uint64_t offset, uint32_t count)
{
    struct __attribute__((packed)) {
        uint32_t error;
        uint16_t len;
    } error = {htobe32(p->command_error), 0};
    uint64_t where = htobe64(offset);
    uint32_t extents[5] = {htobe32(7), htobe32(count / 2), htobe32(3),
                           htobe32(count), 0};

    if (p->command_error)
        return put_chunk(fd, r, 32769, &error, sizeof error, NULL, 0);
    if (p->on_command == PEER_CHEATS)
        count /= 2, extents[1] = 0;
    switch (be16toh(r->type)) {
    case 0:
        if (p->on_command == PEER_REPEATS || p->on_command == PEER_HALVES)
            return put_halves(p, fd, r, offset, count / 2);
        return put_chunk(fd, r, 1, &where, sizeof where, p->store + offset,
                         count);
    case 7:
        return put_chunk(fd, r, 5, extents, sizeof extents, NULL, 0);
    }
    return put_chunk(fd, r, 0, NULL, 0, NULL, 0);
}

static bool
serve_command(struct peer *p, int fd)
{
    struct peer_request r;
    uint64_t offset;
    uint32_t count;
    uint16_t type;

    if (p->on_command == PEER_DEAF)
        wait_until(p->on_command != PEER_DEAF || p->stop);
    if (!get(fd, &r, sizeof r))
        return false;
    type = be16toh(r.type);
    offset = be64toh(r.offset);
    count = be32toh(r.count);
    if (be32toh(r.magic) != 0x25609513 || offset > sizeof p->store ||
        count > sizeof p->store - offset)
        return false;
    if (type == 1) {
        if (!get(fd, p->store + offset, count))
            return false;
        p->stream += count;
    }
    p->last_flags = be16toh(r.flags);
    if (type == 2) {
        p->disconnects++;
        return false;
    }
    p->commands++;
    if (p->on_command == PEER_CLOSES)
        return false;
    if (p->on_command == PEER_TICKETS) {
        wait_until(p->tickets > 0 || p->stop);
        p->tickets--;
    }
    if (p->on_command == PEER_BABBLES)
        return put(fd, "this is no reply to any command", 32);
    return p->on_command == PEER_SILENT ||
           answer_command(p, fd, &r, offset, count);
}

static void
serve_connection(struct peer *p, int fd)
{
    struct __attribute__((packed)) {
        uint64_t magic, option_magic;
        uint16_t flags;
    } hello = {htobe64(0x4e42444d41474943), htobe64(0x49484156454f5054),
               htobe16(3)};
    uint32_t client_flags;
    int r = 1;

    if (p->on_connect == PEER_SILENT)
        wait_until(p->on_connect != PEER_SILENT || p->stop);
    if (!put(fd, &hello, sizeof hello) ||
        !get(fd, &client_flags, sizeof client_flags))
        return;
    while (r == 1)
        r = serve_option(p, fd);
    errno = 0;
    if (r == 2)
        while (serve_command(p, fd))
            errno = 0;
    if (errno == ECONNRESET)
        p->resets++;
}

static void *
peer_run(void *opaque)
{
    struct peer *p = opaque;
    int fd;

    while (!p->stop &&
           (fd = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC)) != -1) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        p->connections++;
        p->fd = fd;
        serve_connection(p, fd);
        p->fd = -1;
        close(fd);
    }
    return NULL;
}

/* Its port refuses connections until peer_start. */
static struct peer *UNUSED
peer_create(void)
{
    struct peer *p = calloc(1, sizeof *p);

    assert_non_null(p);
    p->fd = -1;
    p->refusal = "not on its own paths";
    p->listen_fd = bound_socket(&p->port);
    return p;
}

static void UNUSED
peer_start(struct peer *p)
{
    assert_int_equal(listen(p->listen_fd, 16), 0);
    assert_int_equal(pthread_create(&p->thread, NULL, peer_run, p), 0);
    p->started = true;
}

static void UNUSED
peer_stop(struct peer *p)
{
    int fd;

    p->stop = true;
    shutdown(p->listen_fd, SHUT_RDWR);
    fd = p->fd;
    if (fd != -1)
        shutdown(fd, SHUT_RDWR);
    if (p->started)
        pthread_join(p->thread, NULL);
    close(p->listen_fd);
    free(p);
}

/* ---- nbdkit on a socket of ours, so that its port is free for sure ---- */

static pid_t UNUSED
nbdkit_start(int listen_fd, const char *const *arguments)
{
    const char *argv[64] = {"nbdkit", "--foreground", "--exit-with-parent"};
    size_t n = 3;
    pid_t pid;

    while (*arguments)
        argv[n++] = *arguments++;
    assert_int_equal(listen(listen_fd, 16), 0);
    pid = fork();
    assert_int_not_equal(pid, -1);
    if (pid == 0) {
        char me[16];

        snprintf(me, sizeof me, "%d", (int)getpid());
        setenv("LISTEN_PID", me, 1);
        setenv("LISTEN_FDS", "1", 1);
        unsetenv("LD_PRELOAD");
        if (dup2(listen_fd, 3) == 3)
            execvp(argv[0], (char **)argv);
        _exit(127);
    }
    return pid;
}

static void UNUSED
nbdkit_stop(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* ---- the link's side ---- */

static atomic_uint changes;

static void
count_change(void *opaque)
{
    (void)opaque;
    changes++;
}

static struct link_options UNUSED
options_for(uint16_t port)
{
    return (struct link_options){.peer = "hostb",
                                 .address = "127.0.0.1",
                                 .port = port,
                                 .info_name = "disk",
                                 .link_timeout_ms = 20000,
                                 .open_timeout_ms = 25000,
                                 .standby_interval_ms = 20,
                                 .changed = count_change};
}

static struct link_status
status_of(struct link *k)
{
    struct link_status st;

    link_get_status(k, &st);
    return st;
}

static enum link_state UNUSED
state_of(struct link *k)
{
    return status_of(k).state;
}

static UNUSED struct link *
link_at(const struct link_options *opt)
{
    struct link *k = link_create(opt);

    assert_non_null(k);
    return k;
}

static UNUSED struct link *
live_link(const struct link_options *opt)
{
    struct link *k = link_at(opt);

    eventually(state_of(k) == LINK_PARKED);
    assert_int_equal(link_go(k, "disk?client=a", CLOCK_NEVER), 0);
    assert_int_equal(state_of(k), LINK_LIVE);
    return k;
}

/* One command in a thread of its own. */
struct job {
    pthread_t thread;
    struct link *link;
    struct link_command command;
    int result;
    bool sent;
};

static void *
job_run(void *opaque)
{
    struct job *j = opaque;

    j->result = link_run(j->link, &j->command, &j->sent);
    return NULL;
}

static void UNUSED
job_start(struct job *j, struct link *k, enum link_op op, uint64_t offset,
          uint64_t count)
{
    j->link = k;
    j->command = (struct link_command){.op = op,
                                       .offset = offset,
                                       .count = count,
                                       .data = calloc(1, count + 1)};
    assert_non_null(j->command.data);
    assert_int_equal(pthread_create(&j->thread, NULL, job_run, j), 0);
}

static void UNUSED
job_end(struct job *j)
{
    pthread_join(j->thread, NULL);
    free(j->command.data);
}

#endif
