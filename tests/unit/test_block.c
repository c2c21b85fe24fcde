/* SPDX-License-Identifier: BSD-3-Clause */
/* The block backend on files and loop devices that answer. */
#include "tests/unit/lun_fixture.h"

#include <poll.h>
#include <pthread.h>

#include "tests/unit/no_ring.h"

#define MIB (1u << 20)

/* ---- opening ----------------------------------------------------- */

static void
test_device_string_without_slash_is_refused(void **state)
{
    struct lun_options opt = fixture_options("vm1.img");

    (void)state;
    errno = 0;
    assert_null(lun_create(&opt));
    assert_int_equal(errno, EINVAL);
}

static void
test_rundir_missing_is_refused(void **state)
{
    struct lun_options opt = fixture_options(fixture_file("disk", MIB));

    (void)state;
    opt.rundir = "/nonexistent/detour";
    errno = 0;
    assert_null(lun_create(&opt));
    assert_int_equal(errno, ENOENT);
}

static void
test_file_is_known(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", 3 * MIB));
    struct lun_status st = status_of(l);
    struct lun_path path;

    (void)state;
    assert_int_equal(st.size, 3 * MIB);
    assert_true(st.block_size >= 512 && st.block_size <= 4096);
    assert_true(st.preferred >= st.block_size);
    assert_memory_equal(st.id, "file.", 5);
    assert_true(st.can_zero && st.can_trim && st.can_extents);
    assert_false(st.readonly);
    assert_int_equal(st.paths_good, 1);
    assert_int_equal(st.paths_known, 1);
    assert_int_equal(lun_get_paths(l, &path, 1), 1);
    assert_int_equal(path.state, LUN_PATH_GOOD);
    assert_string_equal(path.error, "");
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_missing_file_is_opened_when_it_comes(void **state)
{
    struct lun_options opt = fixture_options(fixture_path("disk"));
    struct lun *l = lun_create(&opt);
    struct lun_path path;

    (void)state;
    assert_non_null(l);
    eventually(lun_get_paths(l, &path, 1) == 1 &&
               path.state == LUN_PATH_FAILED);
    assert_string_equal(path.error, strerror(ENOENT));
    assert_int_equal(status_of(l).paths_good, 0);
    fixture_file("disk", MIB);
    eventually(status_of(l).known);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_unexpected_identity_is_never_served(void **state)
{
    struct lun_options opt = fixture_options(fixture_file("disk", MIB));
    struct lun_queue *q;
    struct lun *l;

    (void)state;
    opt.expected_id = "naa.600140500000000000000000000000aa";
    l = lun_create(&opt);
    assert_non_null(l);
    eventually(status_of(l).wrong_id);
    assert_false(status_of(l).known);
    q = lun_queue_create(l);
    assert_int_equal(carry_out(q, LUN_READ, 0, 4096, 0), -ESTALE);
    assert_int_equal(lun_register(l, soon()), -ESTALE);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_replaced_file_is_never_served(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);

    (void)state;
    fixture_file("other", MIB);
    assert_int_equal(rename(fixture_path("other"), fixture_path("disk")), 0);
    eventually(status_of(l).wrong_id);
    assert_int_equal(carry_out(q, LUN_WRITE, 0, 4096, 1), -ESTALE);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_growth_is_seen(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);

    (void)state;
    assert_int_equal(carry_out(q, LUN_WRITE, MIB, 4096, 1), -ENOSPC);
    fixture_file("disk", 2 * MIB);
    eventually(status_of(l).size == 2 * MIB);
    assert_int_equal(carry_out(q, LUN_WRITE, MIB, 4096, 1), 0);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_file_that_shrank_fails_reads(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);

    (void)state;
    fixture_file("disk", MIB / 2);
    assert_int_equal(carry_out(q, LUN_READ, MIB / 2, 4096, 0), -EIO);
    assert_int_equal(carry_out(q, LUN_READ, MIB / 2 - 4096, 8192, 0), -EIO);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

/* ---- refusals ---------------------------------------------------- */

struct refusal {
    enum lun_op op;
    unsigned flags;
    uint64_t offset, count;
    int error;
};

static void
test_wrong_requests_are_refused(void **state)
{
    const struct refusal refusals[] = {
        {LUN_READ, 0, 1, 4096, -EINVAL},
        {LUN_READ, 0, 0, 100, -EINVAL},
        {LUN_READ, 0, 0, 0, -EINVAL},
        {LUN_READ, 0, MIB, 4096, -EINVAL},
        {LUN_READ, 0, MIB - 4096, 8192, -EINVAL},
        {LUN_READ, 0, UINT64_MAX - 4095, 8192, -EINVAL},
        {LUN_READ, 1u << 7, 0, 4096, -EINVAL},
        {LUN_WRITE, 0, 4096, 777, -EINVAL},
        {LUN_WRITE, 0, MIB - 4096, 8192, -ENOSPC},
        {LUN_WRITE, 0, UINT64_MAX - 4095, 4096, -ENOSPC},
        {LUN_ZERO, 0, MIB, 4096, -ENOSPC},
        {LUN_TRIM, 0, MIB, 4096, -EINVAL},
        {LUN_ZERO, 0, 0, 64 * MIB, -EINVAL},
        {(enum lun_op)99, 0, 0, 4096, -EINVAL},
    };
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);

    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        const struct refusal *r = &refusals[i];
        struct lun_io *io = lun_io_get(q, 8192);

        io->op = r->op;
        io->flags = r->flags;
        io->offset = r->offset;
        io->count = r->count;
        assert_true(lun_run(q, io, soon()));
        if (io->error != r->error)
            fail_msg("refusal %zu: %d", i, io->error);
        lun_io_put(io);
    }
    assert_int_equal(status_of(l).inflight, 0);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_more_than_the_room_is_refused(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_io *io = lun_io_get(q, 4096);

    (void)state;
    io->op = LUN_READ;
    io->count = 8192;
    assert_true(lun_run(q, io, soon()));
    assert_int_equal(io->error, -EINVAL);
    lun_io_put(io);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_readonly_refuses_writes(void **state)
{
    struct lun_options opt = fixture_options(fixture_file("disk", MIB));
    struct lun_queue *q;
    struct lun *l;

    (void)state;
    opt.readonly = true;
    l = fixture_lun(&opt);
    q = lun_queue_create(l);
    assert_true(status_of(l).readonly);
    assert_int_equal(carry_out(q, LUN_WRITE, 0, 4096, 1), -EROFS);
    assert_int_equal(carry_out(q, LUN_TRIM, 0, 4096, 0), -EROFS);
    assert_int_equal(carry_out(q, LUN_ZERO, 0, 4096, 0), -EROFS);
    assert_int_equal(carry_out(q, LUN_FLUSH, 0, 0, 0), 0);
    assert_int_equal(carry_out(q, LUN_READ, 0, 4096, 0), 0);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_too_early_is_refused(void **state)
{
    struct lun_options opt = fixture_options(fixture_path("disk"));
    struct lun *l = lun_create(&opt);
    struct lun_queue *q = lun_queue_create(l);

    (void)state;
    assert_int_equal(carry_out(q, LUN_READ, 0, 4096, 0), -EAGAIN);
    assert_int_equal(lun_register(l, soon()), -ENOLINK);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_refused_request_makes_fd_readable(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    struct pollfd fd = {.fd = lun_queue_fd(q), .events = POLLIN};
    struct lun_io *got[4];

    (void)state;
    assert_int_equal(poll(&fd, 1, 0), 0);
    lun_submit(q, request(q, LUN_READ, 1, 4096, 0));
    assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
    assert_int_equal(lun_reap(q, got, 4, 0), 1);
    assert_int_equal(got[0]->error, -EINVAL);
    lun_io_put(got[0]);
    assert_int_equal(poll(&fd, 1, 0), 0);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_abandoned_refusal_is_forgotten(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_io *io = request(q, LUN_READ, 1, 4096, 0), *got;

    (void)state;
    lun_submit(q, io);
    lun_submit(q, request(q, LUN_READ, 2, 4096, 0));
    lun_abandon(io);
    assert_int_equal(lun_reap(q, &got, 1, soon()), 1);
    assert_int_equal(got->offset, 2);
    lun_io_put(got);
    assert_int_equal(lun_reap(q, &got, 1, 0), 0);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

/* ---- waiting ----------------------------------------------------- */

static void
test_fd_is_readable_when_something_is_done(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    struct pollfd fd = {.fd = lun_queue_fd(q), .events = POLLIN};
    const enum lun_op ops[] = {LUN_READ, LUN_WRITE, LUN_FLUSH, LUN_ZERO};
    struct lun_io *got;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        lun_submit(q, request(q, ops[i], 0, 4096, 0));
        assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
        eventually(lun_reap(q, &got, 1, 0) == 1);
        assert_int_equal(got->error, 0);
        lun_io_put(got);
        assert_int_equal(lun_reap(q, &got, 1, 0), 0);
        assert_int_equal(poll(&fd, 1, 0), 0);
    }
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void *
interrupt(void *q)
{
    lun_queue_interrupt(q);
    return NULL;
}

static void
test_interrupt_ends_a_reap(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_io *got;

    (void)state;
    for (int i = 0; i < 200; i++) {
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, interrupt, q), 0);
        assert_int_equal(lun_reap(q, &got, 1, CLOCK_NEVER), 0);
        pthread_join(thread, NULL);
    }
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_interrupt_makes_fd_readable(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    struct pollfd fd = {.fd = lun_queue_fd(q), .events = POLLIN};
    struct lun_io *got;

    (void)state;
    lun_queue_interrupt(q);
    assert_int_equal(poll(&fd, 1, PATIENCE_MS), 1);
    assert_int_equal(lun_reap(q, &got, 1, 0), 0);
    assert_int_equal(poll(&fd, 1, 0), 0);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_reap_of_nothing_waits_until_the_deadline(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    uint64_t deadline_ms = clock_ms() + 50;
    struct lun_io *got;

    (void)state;
    assert_int_equal(lun_reap(q, &got, 1, deadline_ms), 0);
    assert_true(clock_ms() >= deadline_ms);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_destroyed_queue_forgets_what_was_done(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_tally *t = lun_tally_create();

    (void)state;
    for (int i = 0; i < 20; i++) {
        struct lun_queue *q = lun_queue_create(l);

        for (unsigned j = 0; j < 16; j++) {
            struct lun_io *io =
                request(q, j & 1 ? LUN_WRITE : LUN_ZERO, j * 4096, 4096, 1);

            io->tally = t;
            lun_submit(q, io);
        }
        lun_queue_destroy(q);
    }
    assert_true(lun_tally_wait(t, soon()));
    eventually(status_of(l).inflight == 0);
    assert_int_equal(status_of(l).orphans, 0);
    lun_tally_put(t);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

/* ---- the same bytes ---------------------------------------------- */

#define MODEL_SIZE  (4 * MIB)
#define MODEL_DEPTH 24
#define LANE        (MODEL_SIZE / MODEL_DEPTH & ~4095u)

struct model {
    unsigned char *bytes;
    bool *certain; /* of each 512 bytes; not after a trim */
    unsigned seed;
    unsigned block; /* of the device, 512-byte units */
};

static unsigned
draw(struct model *m, unsigned below)
{
    return (unsigned)rand_r(&m->seed) % below;
}

/* A random request inside one lane, so that those under way at once do not
 * overlap; what it does is done in the model as well. */
static struct lun_io *
random_request(struct lun_queue *q, struct model *m, unsigned lane)
{
    const enum lun_op ops[] = {LUN_READ, LUN_READ,  LUN_WRITE, LUN_WRITE,
                               LUN_ZERO, LUN_FLUSH, LUN_TRIM,  LUN_WRITE};
    unsigned blocks = LANE / 512 / m->block, first = draw(m, blocks);
    unsigned n = 1 + draw(m, draw(m, 8) ? 16 : blocks);
    enum lun_op op = ops[draw(m, 8)];
    int fill = (int)draw(m, 255) + 1;
    uint64_t offset, count;
    struct lun_io *io;

    if (n > blocks - first)
        n = blocks - first;
    offset = (uint64_t)lane * LANE + (uint64_t)first * m->block * 512;
    count = (uint64_t)n * m->block * 512;
    io = request(q, op, offset, op == LUN_FLUSH ? 0 : count, fill);
    io->flags = draw(m, 4) ? 0 : LUN_FUA;
    if (op == LUN_ZERO && draw(m, 2))
        io->flags |= LUN_NO_HOLE;
    if (op == LUN_WRITE || op == LUN_ZERO) {
        memset(m->bytes + offset, op == LUN_WRITE ? fill : 0, count);
        memset(m->certain + offset / 512, true, count / 512);
    } else if (op == LUN_TRIM) {
        memset(m->certain + offset / 512, false, count / 512);
    }
    return io;
}

static void
check_read(const struct model *m, const struct lun_io *io)
{
    for (uint64_t at = 0; at < io->count; at += 512)
        if (m->certain[(io->offset + at) / 512] &&
            memcmp(io->data + at, m->bytes + io->offset + at, 512) != 0)
            fail_msg("other bytes at %llu",
                     (unsigned long long)(io->offset + at));
}

static void
run_model(struct lun *l, unsigned rounds)
{
    struct lun_queue *q = lun_queue_create(l);
    struct model m = {.bytes = calloc(1, MODEL_SIZE),
                      .certain = malloc(MODEL_SIZE / 512),
                      .seed = 20260101,
                      .block = status_of(l).block_size / 512};
    struct lun_io *got[MODEL_DEPTH];

    assert_non_null(q);
    memset(m.certain, true, MODEL_SIZE / 512);
    for (unsigned round = 0; round < rounds; round++) {
        unsigned depth = 1 + draw(&m, MODEL_DEPTH), left = depth;

        for (unsigned lane = 0; lane < depth; lane++)
            lun_submit(q, random_request(q, &m, lane));
        while (left > 0) {
            size_t n = lun_reap(q, got, MODEL_DEPTH, soon());

            assert_in_range(n, 1, left);
            left -= (unsigned)n;
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(got[i]->error, 0);
                if (got[i]->op == LUN_READ)
                    check_read(&m, got[i]);
                lun_io_put(got[i]);
            }
        }
    }
    assert_int_equal(status_of(l).inflight, 0);
    lun_queue_destroy(q);
    free(m.bytes);
    free(m.certain);
}

static void
test_file_keeps_what_was_written(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MODEL_SIZE));

    (void)state;
    run_model(l, 150);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_loop_device_keeps_what_was_written(void **state)
{
    struct loop loop = loop_attach(fixture_file("disk", MODEL_SIZE), true);
    struct lun_options opt = fixture_options(loop.path);
    struct lun_status st;
    struct lun *l;

    (void)state;
    if (loop.fd < 0) {
        print_message("# no loop device: %s\n", strerror(errno));
        skip();
    }
    l = fixture_lun(&opt);
    st = status_of(l);
    assert_memory_equal(st.id, "file.", 5); /* that of its file */
    assert_false(st.can_extents);
    run_model(l, 150);
    assert_int_equal(lun_destroy(l, soon()), 0);
    loop_detach(&loop);
}

static void
test_write_is_in_the_file_when_it_is_done(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    char want[8192], got[8192];
    int fd = open(fixture_path("disk"), O_RDONLY | O_CLOEXEC);

    (void)state;
    memset(want, 0x42, sizeof want);
    assert_int_equal(carry_out(q, LUN_WRITE, 12288, sizeof want, 0x42), 0);
    assert_int_equal(pread(fd, got, sizeof got, 12288), sizeof got);
    assert_memory_equal(got, want, sizeof got);
    close(fd);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

/* ---- extents ----------------------------------------------------- */

static void
test_extents_tell_holes_from_data(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_extent e[8];

    (void)state;
    assert_int_equal(carry_out(q, LUN_WRITE, 65536, 65536, 1), 0);
    assert_int_equal(lun_extents(l, 0, MIB, e, 8, soon()), 3);
    assert_int_equal(e[0].count, 65536);
    assert_true(e[0].hole);
    assert_int_equal(e[1].count, 65536);
    assert_false(e[1].hole);
    assert_int_equal(e[2].count, MIB - 131072);
    assert_true(e[2].hole);
    assert_int_equal(lun_extents(l, 98304, 65536, e, 1, soon()), 1);
    assert_int_equal(e[0].count, 32768);
    assert_false(e[0].hole);
    assert_int_equal(lun_extents(l, 1, 4096, e, 8, soon()), -EINVAL);
    assert_int_equal(lun_extents(l, MIB, 4096, e, 8, soon()), -EINVAL);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
test_zero_without_hole_stays_allocated(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_io *io = request(q, LUN_ZERO, 0, MIB, 0);
    struct stat st;

    (void)state;
    io->flags = LUN_NO_HOLE;
    assert_true(lun_run(q, io, soon()));
    assert_int_equal(io->error, 0);
    lun_io_put(io);
    assert_int_equal(stat(fixture_path("disk"), &st), 0);
    assert_true(st.st_blocks * 512 >= MIB);
    assert_int_equal(carry_out(q, LUN_ZERO, 0, MIB, 0), 0);
    assert_int_equal(stat(fixture_path("disk"), &st), 0);
    assert_true(st.st_blocks * 512 < MIB);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

/* ---- drain ------------------------------------------------------- */

static void
test_drain_registers_once(void **state)
{
    struct lun *l = fixture_lun_on(fixture_file("disk", MIB));

    (void)state;
    assert_int_equal(status_of(l).registration, LUN_UNREGISTERED);
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(status_of(l).registration, LUN_REGISTERED);
    assert_int_equal(status_of(l).registration_no, 1);
    assert_int_equal(status_of(l).key, 0);
    lun_release(l);
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(status_of(l).registration_no, 1);
    assert_int_equal(lun_fence(l, 2, soon()), -EOPNOTSUPP);
    assert_int_equal(lun_check_registration(l, soon()), 0);
    lun_destroy(l, soon());
}

/* Whoever has seen that the LUN is known may use it. */
static void
test_known_lun_takes_requests(void **state)
{
    struct lun_options opt = fixture_options(fixture_file("disk", MIB));

    (void)state;
    for (int i = 0; i < 300; i++) {
        struct lun *l = lun_create(&opt);
        struct lun_queue *q = lun_queue_create(l);
        struct lun_io *io = request(q, LUN_READ, 0, 4096, 0), *done;

        while (!status_of(l).known)
            sched_yield();
        lun_submit(q, io);
        assert_int_equal(lun_reap(q, &done, 1, soon()), 1);
        assert_int_equal(done->error, 0);
        lun_io_put(done);
        lun_queue_destroy(q);
        assert_int_equal(lun_destroy(l, soon()), 0);
    }
}

static int
setup(void **state)
{
    no_ring_setup(state);
    return fixture_setup(state);
}

#define test(f) no_ring_tests(f, setup, fixture_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_device_string_without_slash_is_refused),
        test(test_rundir_missing_is_refused),
        test(test_file_is_known),
        test(test_missing_file_is_opened_when_it_comes),
        test(test_unexpected_identity_is_never_served),
        test(test_replaced_file_is_never_served),
        test(test_growth_is_seen),
        test(test_file_that_shrank_fails_reads),
        test(test_wrong_requests_are_refused),
        test(test_more_than_the_room_is_refused),
        test(test_readonly_refuses_writes),
        test(test_too_early_is_refused),
        test(test_refused_request_makes_fd_readable),
        test(test_abandoned_refusal_is_forgotten),
        test(test_fd_is_readable_when_something_is_done),
        test(test_interrupt_ends_a_reap),
        test(test_interrupt_makes_fd_readable),
        test(test_reap_of_nothing_waits_until_the_deadline),
        test(test_destroyed_queue_forgets_what_was_done),
        test(test_file_keeps_what_was_written),
        test(test_loop_device_keeps_what_was_written),
        test(test_write_is_in_the_file_when_it_is_done),
        test(test_extents_tell_holes_from_data),
        test(test_zero_without_hole_stays_allocated),
        test(test_drain_registers_once),
        test(test_known_lun_takes_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
