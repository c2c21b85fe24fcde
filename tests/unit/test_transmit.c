/* SPDX-License-Identifier: BSD-3-Clause */
/* The data path of one connection over a socket pair, against a LUN whose
 * requests come back when the test says so. */
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

/* ---- the LUN ----------------------------------------------------------- */

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

static void
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

static void
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
static void
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
static void
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

/* ---- the connection ---------------------------------------------------- */

struct bench {
    struct stream stream;
    int fd; /* the client's end */
    int wake_fd;
    _Atomic int order;
    struct session_member member;
    struct transmit_options opt;
    struct extents *extents;
    pthread_t thread;
    enum transmit_end end;
    char why[128];
    _Atomic int path_error;
};

static void
note_path_error(void *opaque, int error)
{
    atomic_store(&((struct bench *)opaque)->path_error, error);
}

static void *
run(void *opaque)
{
    struct bench *b = opaque;

    b->end = transmit_run(&b->opt, b->why, sizeof b->why);
    shutdown(b->stream.fd, SHUT_RDWR);
    return NULL;
}

static int
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
        .path_error = note_path_error,
        .opaque = b,
    };
    *state = b;
    return 0;
}

static void
begin(struct bench *b)
{
    assert_int_equal(pthread_create(&b->thread, NULL, run, b), 0);
}

/* How it ended; nothing of it may be left. */
static enum transmit_end
ended(struct bench *b)
{
    pthread_join(b->thread, NULL);
    b->thread = 0;
    assert_int_equal(fake.got, 0);
    assert_int_equal(atomic_load(&b->member.inflight), 0);
    assert_int_equal(atomic_load(&b->member.oldest_ms), 0);
    return b->end;
}

static int
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

static void
send_all(struct bench *b, const void *data, size_t len)
{
    assert_int_equal(send(b->fd, data, len, MSG_NOSIGNAL), len);
}

static void
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

static void
receive(struct bench *b, void *data, size_t len)
{
    assert_int_equal(recv(b->fd, data, len, MSG_WAITALL), len);
}

static void
expect(struct bench *b, uint64_t cookie, uint32_t error)
{
    uint8_t wire[16];

    receive(b, wire, sizeof wire);
    assert_int_equal(nbd_get32(wire), NBD_SIMPLE_MAGIC);
    assert_int_equal(nbd_get64(wire + 8), cookie);
    assert_int_equal(nbd_get32(wire + 4), error);
}

static void
expect_closed(struct bench *b)
{
    char c;

    assert_int_equal(recv(b->fd, &c, 1, 0), 0);
}

static void
order(struct bench *b, enum session_order o)
{
    uint64_t one = 1;

    atomic_store(&b->order, (int)o);
    assert_int_equal(write(b->wake_fd, &one, sizeof one), sizeof one);
}

/* ---- tests ------------------------------------------------------------- */

static void
test_transmit_read_brings_the_data(void **state)
{
    struct bench *b = *state;
    static const uint32_t counts[] = {512, 16384, 65536};
    char data[65536];

    begin(b);
    fake.at_once = true;
    for (size_t i = 0; i < 3; i++) {
        ask(b, NBD_CMD_READ, 0, i, 4096, counts[i]);
        expect(b, i, 0);
        receive(b, data, counts[i]);
        for (uint32_t k = 0; k < counts[i]; k++)
            assert_int_equal(data[k], (char)((4096 + k) >> 9));
    }
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(b->member.bytes_read, 512 + 16384 + 65536);
}

static void
test_transmit_many_large_reads_at_once(void **state)
{
    struct bench *b = *state;
    char *data = malloc(MAX_IO);

    begin(b);
    fake.at_once = true;
    for (unsigned i = 0; i < 40; i++)
        ask(b, NBD_CMD_READ, 0, i, i * 512ull, i % 2 ? MAX_IO : 512);
    for (unsigned i = 0; i < 40; i++) {
        uint8_t wire[16];
        uint64_t cookie;

        receive(b, wire, sizeof wire);
        cookie = nbd_get64(wire + 8);
        receive(b, data, cookie % 2 ? MAX_IO : 512);
        assert_int_equal(data[0], (char)cookie);
        assert_int_equal(data[511], (char)cookie);
    }
    free(data);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_write_carries_payload_flags_and_registration(void **state)
{
    struct bench *b = *state;
    char *data = malloc(MAX_IO);
    struct lun_io *io;

    begin(b);
    for (unsigned i = 0; i < MAX_IO; i++)
        data[i] = (char)(i * 7);
    ask(b, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 5, 8192, MAX_IO);
    send_all(b, data, MAX_IO);
    await_submitted(1);
    io = &fake.first->io;
    assert_int_equal(io->op, LUN_WRITE);
    assert_int_equal(io->flags, LUN_FUA);
    assert_int_equal(io->registration_no, 3);
    assert_memory_equal(io->data, data, MAX_IO);
    assert_true(atomic_load(&b->member.oldest_ms) > 0);
    finish(8192, 0);
    expect(b, 5, 0);
    free(data);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_answers_as_requests_finish(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    ask(b, NBD_CMD_TRIM, 0, 2, 512, 512);
    await_submitted(2);
    finish(512, 0);
    expect(b, 2, 0);
    finish(0, -ENOSPC);
    expect(b, 1, NBD_ENOSPC);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_refused_write_skips_its_payload(void **state)
{
    struct bench *b = *state;
    char data[1024] = {0};

    begin(b);
    ask(b, NBD_CMD_WRITE, 0, 1, SIZE, 1024);
    send_all(b, data, 700);
    send_all(b, data, 324);
    ask(b, NBD_CMD_WRITE, 0, 2, 1, 512);
    send_all(b, data, 512);
    ask(b, 99, 0, 3, 0, 512);
    ask(b, NBD_CMD_CACHE, 0, 4, 0, 512);
    expect(b, 1, NBD_ENOSPC);
    expect(b, 2, NBD_EINVAL);
    expect(b, 3, NBD_EINVAL);
    expect(b, 4, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(fake.submitted, 0);
}

static void
test_transmit_out_of_memory_is_answered(void **state)
{
    struct bench *b = *state;
    char data[512] = {0};

    fake.no_memory = true;
    begin(b);
    ask(b, NBD_CMD_WRITE, 0, 1, 0, 512);
    send_all(b, data, 512);
    expect(b, 1, NBD_ENOMEM);
    ask(b, NBD_CMD_READ, 0, 2, 0, 512);
    expect(b, 2, NBD_ENOMEM);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_path_error_is_never_answered(void **state)
{
    static const int errors[] = {-ENOLINK, -ENODEV, -ETIMEDOUT, -EBADE};
    struct bench *b = *state;

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        begin(b);
        ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
        await_submitted(1);
        finish(0, errors[i]);
        expect_closed(b);
        assert_int_equal(ended(b), TRANSMIT_DEVICE);
        assert_int_equal(b->path_error, errors[i]);
        teardown(state);
        assert_int_equal(setup(state), 0);
        b = *state;
    }
}

/* An EIO came back; now the first block is read, to see who is to blame. */
static void
doubt(struct bench *b)
{
    const struct lun_io *io;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 4096, 512);
    await_submitted(1);
    finish(4096, -EIO);
    await_submitted(2);
    io = &fake.first->io;
    assert_int_equal(io->op, LUN_READ);
    assert_int_equal(io->offset, 0);
    assert_int_equal(io->count, 512);
    assert_int_equal(io->registration_no, 0);
}

static void
test_transmit_doubtful_error_is_answered_when_paths_work(void **state)
{
    static const int errors[] = {0, -ENODATA}; /* both came from the device */
    struct bench *b = *state;

    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        doubt(b);
        finish(0, errors[i]);
        expect(b, 1, NBD_EIO);
        ask(b, NBD_CMD_TRIM, 0, 2, 4096, 512);
        await_submitted(3);
        finish(4096, 0);
        expect(b, 2, 0);
        ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
        assert_int_equal(ended(b), TRANSMIT_DISC);
        assert_int_equal(b->path_error, 0);
        teardown(state);
        assert_int_equal(setup(state), 0);
        b = *state;
    }
}

static void
test_transmit_doubtful_error_of_dead_paths_is_not_answered(void **state)
{
    struct bench *b = *state;

    doubt(b);
    finish(0, -ENOLINK);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DEVICE);
    assert_int_equal(b->path_error, -EIO);
}

static void
test_transmit_doubtful_error_without_memory_is_not_answered(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 4096, 512);
    await_submitted(1);
    fake.no_memory = true;
    finish(4096, -EIO);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DEVICE);
}

static void
test_transmit_doubt_that_hangs_is_abandoned(void **state)
{
    struct bench *b = *state;

    doubt(b);
    order(b, SESSION_ABANDON);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_ORDERED);
    assert_int_equal(fake.abandoned, 1);
}

static void
test_transmit_lun_error_is_answered(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_READ, 0, 1, 0, 512);
    await_submitted(1);
    finish(0, -ENODATA);
    expect(b, 1, NBD_EIO);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(b->path_error, 0);
}

static void
test_transmit_long_trim_goes_in_parts(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 512, 2 * MAX_IO + 512);
    for (unsigned i = 0; i < 3; i++) {
        await_submitted(i + 1);
        assert_int_equal(fake.first->io.count, i < 2 ? MAX_IO : 512);
        finish(512 + i * (uint64_t)MAX_IO, 0);
    }
    expect(b, 1, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(fake.submitted, 3);
}

static void
test_transmit_takes_no_more_than_it_may(void **state)
{
    struct bench *b = *state;

    begin(b);
    for (unsigned i = 0; i < REQUESTS + 3; i++)
        ask(b, NBD_CMD_TRIM, 0, i, i * 512ull, 512);
    await_submitted(REQUESTS);
    finish(0, 0);
    expect(b, 0, 0);
    await_submitted(REQUESTS + 1);
    assert_int_equal(fake.most, REQUESTS);
    fake.at_once = true;
    for (unsigned i = 1; i <= REQUESTS; i++)
        finish(i * 512ull, 0);
    for (unsigned i = 1; i < REQUESTS + 3; i++) {
        uint8_t wire[16];

        receive(b, wire, sizeof wire);
    }
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
    assert_int_equal(fake.submitted, REQUESTS + 3);
}

static void
test_transmit_disconnect_waits_for_answers(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_FLUSH, 0, 1, 0, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    await_submitted(1);
    finish(0, 0);
    expect(b, 1, 0);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_client_gone_waits_for_the_device(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    await_submitted(1);
    shutdown(b->fd, SHUT_RDWR);
    finish(0, 0);
    assert_int_equal(ended(b), TRANSMIT_BROKEN);
    assert_int_equal(fake.abandoned, 0);
}

static void
test_transmit_told_to_finish_submits_nothing_more(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 2 * MAX_IO);
    await_submitted(1);
    order(b, SESSION_FINISH);
    expect_closed(b);
    finish(0, 0);
    assert_int_equal(ended(b), TRANSMIT_ORDERED);
    assert_int_equal(fake.submitted, 1);
    assert_int_equal(fake.abandoned, 0);
}

static void
test_transmit_told_to_abandon_does_not_wait(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    await_submitted(1);
    order(b, SESSION_ABANDON);
    assert_int_equal(ended(b), TRANSMIT_ORDERED);
    assert_int_equal(fake.abandoned, 1);
}

static void
test_transmit_abandon_ends_a_hung_finish(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    await_submitted(1);
    order(b, SESSION_FINISH);
    expect_closed(b);
    order(b, SESSION_ABANDON);
    assert_int_equal(ended(b), TRANSMIT_ORDERED);
    assert_int_equal(fake.abandoned, 1);
}

static void
test_transmit_drain_refuses_new_and_answers_old(void **state)
{
    struct bench *b = *state;
    char data[512] = {0};

    begin(b);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    await_submitted(1);
    order(b, SESSION_DRAIN);
    ask(b, NBD_CMD_WRITE, 0, 2, 512, 512);
    send_all(b, data, 512);
    expect(b, 2, NBD_ESHUTDOWN);
    finish(0, 0);
    expect(b, 1, 0);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_DRAINED);
    assert_int_equal(fake.submitted, 1);
}

static void
test_transmit_drain_taken_back_goes_on(void **state)
{
    struct bench *b = *state;

    begin(b);
    order(b, SESSION_DRAIN);
    ask(b, NBD_CMD_TRIM, 0, 1, 0, 512);
    expect(b, 1, NBD_ESHUTDOWN);
    order(b, SESSION_RUN);
    fake.at_once = true;
    ask(b, NBD_CMD_TRIM, 0, 2, 0, 512);
    expect(b, 2, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_bad_magic_ends_it(void **state)
{
    struct bench *b = *state;
    char rubbish[NBD_REQUEST_SIZE] = "GET / HTTP/1.1";

    begin(b);
    send_all(b, rubbish, sizeof rubbish);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_BROKEN);
}

static void
test_transmit_enormous_write_ends_it(void **state)
{
    struct bench *b = *state;

    begin(b);
    ask(b, NBD_CMD_WRITE, 0, 1, 0, REQUEST_PAYLOAD_MAX + 512);
    expect_closed(b);
    assert_int_equal(ended(b), TRANSMIT_BROKEN);
}

static void
test_transmit_block_status_in_chunks(void **state)
{
    struct bench *b = *state;
    uint8_t wire[24 + 16];

    b->opt.export.structured = b->opt.export.base_allocation = true;
    begin(b);
    ask(b, NBD_CMD_BLOCK_STATUS, 0, 9, 0, 4096);
    receive(b, wire, sizeof wire);
    assert_int_equal(nbd_get32(wire), NBD_STRUCTURED_MAGIC);
    assert_int_equal(nbd_get64(wire + 8), 9);
    assert_int_equal(nbd_get32(wire + 24), 512);
    assert_int_equal(nbd_get32(wire + 28), NBD_STATE_HOLE | NBD_STATE_ZERO);
    assert_int_equal(nbd_get32(wire + 32), 4096 - 512);
    assert_int_equal(nbd_get32(wire + 36), 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_requests_byte_by_byte(void **state)
{
    struct bench *b = *state;
    uint8_t wire[NBD_REQUEST_SIZE + 512] = {0};

    begin(b);
    fake.at_once = true;
    nbd_put32(wire, NBD_REQUEST_MAGIC);
    nbd_put16(wire + 6, NBD_CMD_WRITE);
    nbd_put64(wire + 8, 77);
    nbd_put32(wire + 24, 512);
    for (size_t i = 0; i < sizeof wire; i++)
        send_all(b, wire + i, 1);
    expect(b, 77, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

static void
test_transmit_early_bytes_are_used(void **state)
{
    struct bench *b = *state;
    uint8_t wire[NBD_REQUEST_SIZE] = {0};

    nbd_put32(wire, NBD_REQUEST_MAGIC);
    nbd_put16(wire + 6, NBD_CMD_CACHE);
    nbd_put64(wire + 8, 77);
    nbd_put32(wire + 24, 512);
    b->opt.early = wire;
    b->opt.early_len = sizeof wire;
    begin(b);
    expect(b, 77, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

/* All of them at hand, more than there is room for: what makes room must not
 * be waited for. */
static void
test_transmit_buffered_requests_go_on_when_there_is_room(void **state)
{
    struct bench *b = *state;
    uint8_t wire[5 * REQUESTS][NBD_REQUEST_SIZE] = {0};

    for (unsigned i = 0; i < 5 * REQUESTS; i++) {
        nbd_put32(wire[i], NBD_REQUEST_MAGIC);
        nbd_put16(wire[i] + 6, NBD_CMD_CACHE);
        nbd_put64(wire[i] + 8, i);
        nbd_put32(wire[i] + 24, 512);
    }
    send_all(b, wire, sizeof wire);
    begin(b);
    for (unsigned i = 0; i < 5 * REQUESTS; i++)
        expect(b, i, 0);
    ask(b, NBD_CMD_DISC, 0, 0, 0, 0);
    assert_int_equal(ended(b), TRANSMIT_DISC);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_transmit_read_brings_the_data),
        TEST(test_transmit_many_large_reads_at_once),
        TEST(test_transmit_write_carries_payload_flags_and_registration),
        TEST(test_transmit_answers_as_requests_finish),
        TEST(test_transmit_refused_write_skips_its_payload),
        TEST(test_transmit_out_of_memory_is_answered),
        TEST(test_transmit_path_error_is_never_answered),
        TEST(test_transmit_doubtful_error_is_answered_when_paths_work),
        TEST(test_transmit_doubtful_error_of_dead_paths_is_not_answered),
        TEST(test_transmit_doubtful_error_without_memory_is_not_answered),
        TEST(test_transmit_doubt_that_hangs_is_abandoned),
        TEST(test_transmit_lun_error_is_answered),
        TEST(test_transmit_long_trim_goes_in_parts),
        TEST(test_transmit_takes_no_more_than_it_may),
        TEST(test_transmit_disconnect_waits_for_answers),
        TEST(test_transmit_client_gone_waits_for_the_device),
        TEST(test_transmit_told_to_finish_submits_nothing_more),
        TEST(test_transmit_told_to_abandon_does_not_wait),
        TEST(test_transmit_abandon_ends_a_hung_finish),
        TEST(test_transmit_drain_refuses_new_and_answers_old),
        TEST(test_transmit_drain_taken_back_goes_on),
        TEST(test_transmit_bad_magic_ends_it),
        TEST(test_transmit_enormous_write_ends_it),
        TEST(test_transmit_block_status_in_chunks),
        TEST(test_transmit_requests_byte_by_byte),
        TEST(test_transmit_early_bytes_are_used),
        TEST(test_transmit_buffered_requests_go_on_when_there_is_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
