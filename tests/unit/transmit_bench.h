/* SPDX-License-Identifier: BSD-3-Clause */
/* The data path of one connection over a socket pair, against a LUN whose
 * requests come back when the test says so. */
#ifndef DETOUR_TESTS_TRANSMIT_BENCH_H
#define DETOUR_TESTS_TRANSMIT_BENCH_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "proxy/nbd.h"
#include "proxy/transmit.h"

#define SIZE     (1u << 20)
#define MAX_IO   65536u
#define REQUESTS 8
#define PATIENCE 5000 /* ms, before a test is lost */

/* ---- the LUN ------------------------------------------------------------ */

struct fake_io {
    struct lun_io io; /* first */
    bool finished;
    struct fake_io *next;
};

static struct fake {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int fd; /* eventfd */
    struct fake_io *first, **end;
    unsigned under_way, got, submitted, abandoned;
    unsigned most; /* that were ever under way */
    bool at_once;  /* requests come back by themselves */
    bool no_memory;
} fake;

struct lun_queue *__wrap_lun_queue_create(struct lun *l);
void __wrap_lun_queue_destroy(struct lun_queue *q);
int __wrap_lun_queue_fd(struct lun_queue *q);
struct lun_io *__wrap_lun_io_get(struct lun_queue *q, size_t room);
void __wrap_lun_io_put(struct lun_io *io);
void __wrap_lun_submit(struct lun_queue *q, struct lun_io *io);
size_t __wrap_lun_reap(struct lun_queue *q, struct lun_io **ios, size_t max,
                       uint64_t deadline_ms);
int __wrap_lun_extents(struct lun *l, uint64_t offset, uint64_t count,
                       struct lun_extent *extents, size_t max,
                       uint64_t deadline_ms);

static inline void
wake(void)
{
    uint64_t one = 1;

    assert_int_equal(write(fake.fd, &one, sizeof one), sizeof one);
}

struct lun_queue *
__wrap_lun_queue_create(struct lun *l)
{
    (void)l;
    return (struct lun_queue *)&fake;
}

void
__wrap_lun_queue_destroy(struct lun_queue *q)
{
    if (!q)
        return;
    pthread_mutex_lock(&fake.lock);
    while (fake.first) {
        struct fake_io *f = fake.first;

        fake.first = f->next;
        fake.abandoned += !f->finished;
        fake.got--;
        free(f->io.data);
        free(f);
    }
    fake.end = &fake.first;
    fake.under_way = 0;
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.lock);
}

int
__wrap_lun_queue_fd(struct lun_queue *q)
{
    (void)q;
    return fake.fd;
}

struct lun_io *
__wrap_lun_io_get(struct lun_queue *q, size_t room)
{
    struct fake_io *f;

    if (fake.no_memory)
        return NULL;
    f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->io.data = malloc(room + 1);
    assert_non_null(f->io.data);
    f->io.queue = q;
    pthread_mutex_lock(&fake.lock);
    fake.got++;
    pthread_mutex_unlock(&fake.lock);
    return &f->io;
}

void
__wrap_lun_io_put(struct lun_io *io)
{
    if (!io)
        return;
    pthread_mutex_lock(&fake.lock);
    fake.got--;
    pthread_mutex_unlock(&fake.lock);
    free(io->data);
    free(io);
}

static inline void
finish_locked(struct fake_io *f, int error)
{
    f->io.error = error;
    f->finished = true;
    fake.under_way--;
    for (uint64_t i = 0; f->io.op == LUN_READ && i < f->io.count; i++)
        f->io.data[i] = (char)((f->io.offset + i) >> 9);
    wake();
}

void
__wrap_lun_submit(struct lun_queue *q, struct lun_io *io)
{
    struct fake_io *f = (struct fake_io *)io;

    (void)q;
    pthread_mutex_lock(&fake.lock);
    f->finished = false;
    f->next = NULL;
    *fake.end = f;
    fake.end = &f->next;
    fake.submitted++;
    fake.under_way++;
    if (fake.under_way > fake.most)
        fake.most = fake.under_way;
    if (fake.at_once)
        finish_locked(f, 0);
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.lock);
}

size_t
__wrap_lun_reap(struct lun_queue *q, struct lun_io **ios, size_t max,
                uint64_t deadline_ms)
{
    struct fake_io **p;
    uint64_t n64;
    size_t n = 0;

    (void)q;
    assert_int_equal(deadline_ms, 0);
    pthread_mutex_lock(&fake.lock);
    (void)!read(fake.fd, &n64, sizeof n64);
    for (p = &fake.first; *p && n < max;) {
        struct fake_io *f = *p;

        if (!f->finished) {
            p = &f->next;
            continue;
        }
        *p = f->next;
        ios[n++] = &f->io;
    }
    for (fake.end = &fake.first; *fake.end; fake.end = &(*fake.end)->next)
        ;
    pthread_mutex_unlock(&fake.lock);
    return n;
}

int
__wrap_lun_extents(struct lun *l, uint64_t offset, uint64_t count,
                   struct lun_extent *extents, size_t max, uint64_t deadline_ms)
{
    (void)l;
    (void)offset;
    (void)max;
    (void)deadline_ms;
    extents[0] = (struct lun_extent){.count = 512, .hole = true};
    extents[1] = (struct lun_extent){.count = count};
    return 2;
}

/* Wait until n requests have been submitted in all. */
static inline void
await_submitted(unsigned n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE / 1000;
    pthread_mutex_lock(&fake.lock);
    while (fake.submitted < n)
        assert_int_equal(
            pthread_cond_timedwait(&fake.changed, &fake.lock, &until), 0);
    pthread_mutex_unlock(&fake.lock);
}

/* The request of that offset comes back. */
static inline void
finish(uint64_t offset, int error)
{
    struct fake_io *f;

    pthread_mutex_lock(&fake.lock);
    for (f = fake.first; f && f->io.offset != offset; f = f->next)
        ;
    assert_non_null(f);
    finish_locked(f, error);
    pthread_mutex_unlock(&fake.lock);
}

/* ---- the connection ----------------------------------------------------- */

struct bench {
    struct stream stream;
    int fd; /* the client's end */
    int wake_fd;
    _Atomic int order;
    struct session_member member;
    _Atomic uint64_t host_held;
    uint64_t held_by_others; /* of host_held, on other connections */
    struct transmit_options opt;
    struct extents *extents;
    pthread_t thread;
    enum transmit_end end;
    char why[128];
    _Atomic int path_error;
};

static inline void
note_path_error(void *opaque, int error)
{
    atomic_store(&((struct bench *)opaque)->path_error, error);
}

static inline void *
run(void *opaque)
{
    struct bench *b = opaque;

    b->end = transmit_run(&b->opt, b->why, sizeof b->why);
    shutdown(b->stream.fd, SHUT_RDWR);
    return NULL;
}

static inline int
setup(void **state)
{
    const struct timeval patience = {.tv_sec = PATIENCE / 1000};
    struct bench *b = calloc(1, sizeof *b);
    int fds[2];

    fake = (struct fake){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
    fake.end = &fake.first;
    pthread_mutex_init(&fake.lock, NULL);
    pthread_cond_init(&fake.changed, NULL);
    if (!b || socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0)
        return -1;
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    setsockopt(fds[1], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fds[1], SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    stream_init_take_fd(&b->stream, fds[0]);
    b->fd = fds[1];
    b->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    b->extents = extents_create(NULL, 1000);
    b->opt = (struct transmit_options){
        .id = "test",
        .stream = &b->stream,
        .wake_fd = b->wake_fd,
        .order = &b->order,
        .extents = b->extents,
        .export = {.size = SIZE,
                   .block_size = 512,
                   .max_io = MAX_IO,
                   .flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_TRIM |
                            NBD_FLAG_SEND_WRITE_ZEROES},
        .registration_no = 3,
        .member = &b->member,
        .max_requests = REQUESTS,
        .host_held = &b->host_held,
        .path_error = note_path_error,
        .opaque = b,
    };
    *state = b;
    return 0;
}

static inline void
begin(struct bench *b)
{
    atomic_store(&b->host_held, b->held_by_others);
    assert_int_equal(pthread_create(&b->thread, NULL, run, b), 0);
}

/* How it ended; nothing of it may be left. */
static inline enum transmit_end
ended(struct bench *b)
{
    pthread_join(b->thread, NULL);
    b->thread = 0;
    assert_int_equal(fake.got, 0);
    assert_int_equal(atomic_load(&b->member.inflight), 0);
    assert_int_equal(atomic_load(&b->member.oldest_ms), 0);
    assert_int_equal(atomic_load(&b->host_held), b->held_by_others);
    return b->end;
}

static inline int
teardown(void **state)
{
    struct bench *b = *state;

    if (b->thread) { /* a test that failed half-way */
        atomic_store(&b->order, SESSION_ABANDON);
        wake();
        shutdown(b->fd, SHUT_RDWR);
        pthread_join(b->thread, NULL);
    }
    extents_destroy(b->extents);
    stream_fini(&b->stream, false);
    close(b->fd);
    close(b->wake_fd);
    close(fake.fd);
    free(b);
    return 0;
}

static inline void
send_all(struct bench *b, const void *data, size_t len)
{
    assert_int_equal(send(b->fd, data, len, MSG_NOSIGNAL), len);
}

static inline void
ask(struct bench *b, uint16_t type, uint16_t flags, uint64_t cookie,
    uint64_t offset, uint32_t count)
{
    uint8_t wire[NBD_REQUEST_SIZE];

    nbd_put32(wire, NBD_REQUEST_MAGIC);
    nbd_put16(wire + 4, flags);
    nbd_put16(wire + 6, type);
    nbd_put64(wire + 8, cookie);
    nbd_put64(wire + 16, offset);
    nbd_put32(wire + 24, count);
    send_all(b, wire, sizeof wire);
}

static inline void
receive(struct bench *b, void *data, size_t len)
{
    assert_int_equal(recv(b->fd, data, len, MSG_WAITALL), len);
}

static inline void
expect(struct bench *b, uint64_t cookie, uint32_t error)
{
    uint8_t wire[16];

    receive(b, wire, sizeof wire);
    assert_int_equal(nbd_get32(wire), NBD_SIMPLE_MAGIC);
    assert_int_equal(nbd_get64(wire + 8), cookie);
    assert_int_equal(nbd_get32(wire + 4), error);
}

static inline void
expect_closed(struct bench *b)
{
    char c;

    assert_int_equal(recv(b->fd, &c, 1, 0), 0);
}

static inline void
order(struct bench *b, enum session_order o)
{
    uint64_t one = 1;

    atomic_store(&b->order, (int)o);
    assert_int_equal(write(b->wake_fd, &one, sizeof one), sizeof one);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
