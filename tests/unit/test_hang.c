/* SPDX-License-Identifier: BSD-3-Clause */
/* The block backend on a device that hangs: tests/tools/hangfs, as a file
 * (requests go to workers) and below a loop device (they go to io_uring). */
#include "tests/unit/lun_fixture.h"

#include <pthread.h>
#include <sys/file.h>
#include <sys/mount.h>

#include "tests/unit/fake_pr.h"
#include "tests/unit/hang_fixture.h"
#include "tests/unit/no_ring.h"

#define MIB       (1u << 20)
#define PROMPT_MS 2000 /* what must not wait for the device ends before */

#ifdef __SANITIZE_THREAD__
/* Children that start threads are forked while the parent has some. */
const char *__tsan_default_options(void);

const char *
__tsan_default_options(void)
{
    return "die_after_fork=0";
}
#endif

/* ---- nobody is held up ------------------------------------------- */

static void
abandoned_write_keeps_its_data(bool loop)
{
    struct lun *l = fixture_lun_on(device(loop));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_tally *t = lun_tally_create();
    struct lun_status st;
    uint64_t begin_ms;

    tell("hold\n");
    hang_write(q, t, 0x11);
    eventually(tell("held\n") > 0);
    st = status_of(l);
    assert_int_equal(st.orphans, 1);
    assert_int_equal(st.inflight, 1);
    assert_int_equal(lun_tally_count(t), 1);
    assert_false(lun_tally_wait(t, clock_ms() + 20));
    /* memory that is handed out now is not the orphan's */
    for (int i = 0; i < 64; i++)
        lun_io_put(request(q, LUN_WRITE, 0, 4096, 0x22));
    begin_ms = clock_ms();
    lun_queue_destroy(q);
    assert_true(clock_ms() - begin_ms < PROMPT_MS);
    assert_int_equal(status_of(l).orphans, 1);
    tell("go\n");
    assert_true(lun_tally_wait(t, soon()));
    eventually(status_of(l).orphans == 0);
    assert_int_equal(status_of(l).inflight, 0);
    assert_int_equal(byte_at(8192), 0x11);
    lun_tally_put(t);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_abandoned_write_keeps_its_data_file(void **state)
{
    (void)state;
    abandoned_write_keeps_its_data(false);
}

static void
test_abandoned_write_keeps_its_data_loop(void **state)
{
    (void)state;
    abandoned_write_keeps_its_data(true);
}

static void
orphan_ends_while_its_owner_sleeps(bool loop)
{
    struct lun *l = fixture_lun_on(device(loop));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_tally *t = lun_tally_create();

    tell("hold\n");
    hang_write(q, t, 0x33);
    tell("go\n");
    /* no lun_reap, no lun_queue_destroy */
    assert_true(lun_tally_wait(t, soon()));
    eventually(status_of(l).orphans == 0);
    assert_int_equal(carry_out(q, LUN_WRITE, 0, 4096, 1), 0);
    lun_queue_destroy(q);
    lun_tally_put(t);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_orphan_ends_while_its_owner_sleeps_file(void **state)
{
    (void)state;
    orphan_ends_while_its_owner_sleeps(false);
}

static void
test_orphan_ends_while_its_owner_sleeps_loop(void **state)
{
    (void)state;
    orphan_ends_while_its_owner_sleeps(true);
}

/* What is under way beside an abandoned request still reaches its owner. */
static void
owner_gets_what_it_did_not_abandon(bool loop)
{
    struct lun *l = fixture_lun_on(device(loop));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_io *kept, *got[2];

    tell("hold\n");
    hang_write(q, NULL, 0x44);
    kept = request(q, LUN_WRITE, 65536, 4096, 0x55);
    lun_submit(q, kept);
    assert_int_equal(lun_reap(q, got, 2, clock_ms() + 20), 0);
    tell("go\n");
    eventually(status_of(l).orphans == 0); /* the owner looks away */
    assert_int_equal(lun_reap(q, got, 2, soon()), 1);
    assert_ptr_equal(got[0], kept);
    assert_int_equal(kept->error, 0);
    lun_io_put(kept);
    lun_queue_destroy(q);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_owner_gets_what_it_did_not_abandon_file(void **state)
{
    (void)state;
    owner_gets_what_it_did_not_abandon(false);
}

static void
test_owner_gets_what_it_did_not_abandon_loop(void **state)
{
    (void)state;
    owner_gets_what_it_did_not_abandon(true);
}

static void
lun_is_destroyed_in_time(bool loop)
{
    struct lun *l = fixture_lun_on(device(loop));
    struct lun_queue *q = lun_queue_create(l);
    uint64_t begin_ms;

    tell("hold\n");
    hang_write(q, NULL, 0x66);
    eventually(tell("held\n") > 0);
    lun_queue_destroy(q);
    begin_ms = clock_ms();
    assert_int_equal(lun_destroy(l, clock_ms() + 100), 1);
    assert_true(clock_ms() - begin_ms >= 90);
    assert_true(clock_ms() - begin_ms < PROMPT_MS);
}

static void
test_lun_is_destroyed_in_time_file(void **state)
{
    (void)state;
    lun_is_destroyed_in_time(false);
}

static void
test_lun_is_destroyed_in_time_loop(void **state)
{
    (void)state;
    lun_is_destroyed_in_time(true);
}

struct leaver {
    struct lun *l;
    enum lun_op op;
};

/* One request that hangs, and then its thread ends. */
static void *
submit_and_leave(void *opaque)
{
    const struct leaver *leaver = opaque;
    struct lun_queue *q = lun_queue_create(leaver->l);
    struct lun_io *got;

    lun_submit(q, request(q, leaver->op, 0, 4096, 0));
    /* not at the first try: what would block comes back to be sent again */
    eventually(lun_reap(q, &got, 1, clock_ms() + 1) == 0 &&
               tell("held\n") == 1);
    lun_queue_destroy(q);
    return NULL;
}

/* io_uring alone would keep a thread that sent a flush, a trim or a zero
 * from exiting. */
static void
thread_can_exit(bool loop)
{
    const enum lun_op ops[] = {LUN_READ, LUN_WRITE, LUN_FLUSH, LUN_TRIM,
                               LUN_ZERO};
    struct lun *l = fixture_lun_on(device(loop));

    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++) {
        struct leaver leaver = {l, ops[i]};
        bool writes = ops[i] != LUN_READ && ops[i] != LUN_FLUSH;
        struct timespec until;
        pthread_t thread;

        tell("hold\n");
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec += PATIENCE_MS / 1000;
        assert_int_equal(
            pthread_create(&thread, NULL, submit_and_leave, &leaver), 0);
        assert_int_equal(pthread_timedjoin_np(thread, NULL, &until), 0);
        assert_int_equal(status_of(l).orphans, writes);
        assert_int_equal(status_of(l).orphan_reads, !writes);
        tell("go\n");
        eventually(status_of(l).inflight == 0);
    }
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_thread_can_exit_file(void **state)
{
    (void)state;
    thread_can_exit(false);
}

static void
test_thread_can_exit_loop(void **state)
{
    (void)state;
    thread_can_exit(true);
}

/* More writes than there are workers: what was never sent is taken back. */
static void
test_unsent_writes_are_never_sent(void **state)
{
    struct lun *l = fixture_lun_on(device(false));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_tally *t = lun_tally_create();
    struct lun_io *ios[100];
    unsigned landed = 0;

    (void)state;
    tell("hold\n");
    for (unsigned i = 0; i < 100; i++) {
        ios[i] = request(q, LUN_WRITE, i * 4096, 4096, 0x77);
        ios[i]->tally = t;
        lun_submit(q, ios[i]);
    }
    assert_int_equal(lun_reap(q, ios, 0, 0), 0); /* sends them */
    assert_int_equal(lun_reap(q, ios, 1, clock_ms() + 50), 0);
    eventually(tell("held\n") == 64);
    assert_int_equal(status_of(l).inflight, 100);
    lun_queue_destroy(q);
    assert_int_equal(status_of(l).orphans, 64);
    assert_int_equal(lun_tally_count(t), 64);
    tell("go\n");
    assert_true(lun_tally_wait(t, soon()));
    for (unsigned i = 0; i < 100; i++)
        landed += byte_at(i * 4096) == 0x77;
    assert_int_equal(landed, 64);
    lun_tally_put(t);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_zeroes_stop_when_abandoned(void **state)
{
    struct lun *l = fixture_lun_on(device(false));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_io *io;

    (void)state;
    assert_int_equal(carry_out(q, LUN_WRITE, 0, MIB, 0x12), 0);
    io = request(q, LUN_ZERO, 0, MIB, 0);
    io->flags = LUN_NO_HOLE;
    tell("hold\n");
    assert_false(lun_run(q, io, clock_ms() + 50));
    /* fallocate is refused, and writing zeroes must not begin */
    tell("fail 95\n");
    eventually(status_of(l).orphans == 0);
    assert_int_equal(byte_at(0), 0x12);
    lun_queue_destroy(q);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_zeroes_are_written_where_fallocate_is_refused(void **state)
{
    struct lun *l = fixture_lun_on(device(false));
    struct lun_queue *q = lun_queue_create(l);
    struct lun_io *io, *got;

    (void)state;
    assert_int_equal(carry_out(q, LUN_WRITE, 0, MIB, 0x12), 0);
    io = request(q, LUN_ZERO, 4096, MIB - 8192, 0);
    io->flags = LUN_NO_HOLE;
    tell("hold\n");
    lun_submit(q, io);
    eventually(lun_reap(q, &got, 1, clock_ms() + 1) == 0 &&
               tell("held\n") == 1);
    tell("fail 95\n");
    assert_int_equal(lun_reap(q, &got, 1, soon()), 1);
    assert_int_equal(got->error, 0);
    lun_io_put(got);
    assert_int_equal(byte_at(0), 0x12);
    assert_int_equal(byte_at(4096), 0);
    assert_int_equal(byte_at(MIB - 8192), 0);
    assert_int_equal(byte_at(MIB - 4096), 0x12);
    lun_queue_destroy(q);
    assert_int_equal(lun_destroy(l, soon()), 0);
}

static void
test_extents_are_all_data_where_nobody_knows(void **state)
{
    struct lun *l = fixture_lun_on(device(false));
    struct lun_extent e;

    (void)state;
    assert_int_equal(lun_extents(l, 0, MIB, &e, 1, soon()), 1);
    assert_false(e.hole);
    lun_destroy(l, soon());
}

/* ---- registration and locks -------------------------------------- */

static void
test_registering_waits_for_orphans(void **state)
{
    struct lun *l = fixture_lun_on(device(false));
    struct lun_queue *q = lun_queue_create(l);

    (void)state;
    tell("hold\n");
    hang_write(q, NULL, 0x88);
    assert_int_equal(lun_register(l, clock_ms() + 50), -ETIMEDOUT);
    assert_int_equal(status_of(l).registration, LUN_UNREGISTERED);
    tell("go\n");
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(status_of(l).registration, LUN_REGISTERED);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

/* A path that came back is not registered, and conflicts although the key
 * still stands on the LUN. */
static void
test_conflict_ends_the_registration(void **state)
{
    struct lun_options opt = fixture_options(device(false));
    struct lun_queue *q;
    struct lun_io *io, *got;
    struct lun *l;
    uint64_t key;

    (void)state;
    fake_reset();
    opt.fence = LUN_FENCE_PR;
    l = fixture_lun(&opt);
    q = lun_queue_create(l);
    assert_int_equal(lun_register(l, soon()), 0);
    key = status_of(l).key;
    io = request(q, LUN_WRITE, 0, 4096, 1);
    io->registration_no = 1;
    tell("hold\n");
    lun_submit(q, io);
    eventually(lun_reap(q, &got, 1, clock_ms() + 1) == 0 &&
               tell("held\n") == 1);
    tell("fail 52\n"); /* EBADE */
    assert_int_equal(lun_reap(q, &got, 1, soon()), 1);
    assert_int_equal(got->error, -EBADE);
    lun_io_put(got);
    eventually(status_of(l).registration == LUN_FENCED);
    assert_int_equal(fake.keys[1], key);
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(status_of(l).registration_no, 2);
    assert_true(status_of(l).key != key);
    assert_int_equal(fake.keys[1], status_of(l).key);
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

/* Could another process register anew now? */
static bool
lock_is_free(void)
{
    int fd = open(fixture_path("vm1.lock"), O_RDWR | O_CLOEXEC);
    bool free_now;

    assert_true(fd >= 0);
    free_now = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return free_now;
}

static void
test_release_keeps_the_lock_for_orphans(void **state)
{
    struct lun *l = fixture_lun_on(device(false));
    struct lun_queue *q = lun_queue_create(l);

    (void)state;
    assert_int_equal(lun_register(l, soon()), 0);
    assert_false(lock_is_free());
    tell("hold\n");
    hang_write(q, NULL, 0x99);
    lun_release(l);
    assert_false(lock_is_free());
    tell("go\n");
    eventually(lock_is_free());
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

/* Asking to register anew in between, in vain, changes nothing about that. */
static void
test_failed_register_keeps_no_lock(void **state)
{
    struct lun *l = fixture_lun_on(device(false));
    struct lun_queue *q = lun_queue_create(l);

    (void)state;
    assert_int_equal(lun_register(l, soon()), 0);
    tell("hold\n");
    hang_write(q, NULL, 0x99);
    lun_release(l);
    assert_int_equal(lun_register(l, clock_ms() + 50), -ETIMEDOUT);
    assert_false(lock_is_free());
    tell("go\n");
    eventually(lock_is_free());
    lun_queue_destroy(q);
    lun_destroy(l, soon());
}

static void
say(int fd)
{
    if (write(fd, "x", 1) != 1)
        _exit(1);
}

static void
hear(int fd)
{
    char c;

    if (read(fd, &c, 1) != 1)
        _exit(1);
}

/* A process that registers, and sends a write when it is told to. */
static void
write_and_wait(const char *path, int told, int said)
{
    struct lun_options opt = fixture_options(path);
    struct lun *l = lun_create(&opt);
    struct lun_queue *q;
    struct lun_io *io;

    close(hang.in); /* or hangfs would not see the end of its input */
    while (l && !status_of(l).known)
        usleep(1000);
    if (!l || lun_register(l, soon()) != 0)
        _exit(1);
    say(said);
    hear(told);
    q = lun_queue_create(l);
    io = lun_io_get(q, 4096);
    io->op = LUN_WRITE;
    io->offset = 8192;
    io->count = 4096;
    memset(io->data, 0xAB, 4096);
    lun_submit(q, io);
    say(said);
    for (;;)
        lun_reap(q, &io, 1, clock_ms() + 50);
}

struct writer {
    pid_t pid;
    int to, from;
};

/* Registered, and not yet told to write. */
static struct writer
start_writer(const char *path)
{
    int to[2], from[2];
    struct writer w;

    assert_int_equal(pipe2(to, O_CLOEXEC) | pipe2(from, O_CLOEXEC), 0);
    w = (struct writer){fork(), to[1], from[0]};
    if (w.pid == 0)
        write_and_wait(path, to[0], from[1]);
    close(to[0]);
    close(from[1]);
    hear(w.from);
    return w;
}

/* With a worker in the kernel a process ends only with the write. */
static bool
by_worker(bool loop)
{
    return !loop || no_ring;
}

/* It is killed with its write in the device. */
static void
kill_writer(const struct writer *w, bool loop)
{
    tell("hold\n");
    say(w->to);
    hear(w->from);
    close(w->to);
    close(w->from);
    eventually(tell("held\n") > 0);
    assert_int_equal(kill(w->pid, SIGKILL), 0);
    if (!by_worker(loop))
        assert_int_equal(waitpid(w->pid, NULL, 0), w->pid);
}

/* And what it had under way comes to its end. */
static void
let_writer_go(const struct writer *w, bool loop)
{
    tell("go\n");
    if (by_worker(loop))
        assert_int_equal(waitpid(w->pid, NULL, 0), w->pid);
}

static void
lock_outlives_a_killed_process(bool loop)
{
    struct writer w = start_writer(device(loop));

    assert_false(lock_is_free());
    kill_writer(&w, loop);
    for (int i = 0; i < 30; i++) {
        assert_false(lock_is_free());
        usleep(10000);
    }
    let_writer_go(&w, loop);
    eventually(lock_is_free());
    assert_int_equal(byte_at(8192), 0xAB);
}

static void
test_lock_outlives_a_killed_process_file(void **state)
{
    (void)state;
    lock_outlives_a_killed_process(false);
}

static void
test_lock_outlives_a_killed_process_loop(void **state)
{
    (void)state;
    lock_outlives_a_killed_process(true);
}

/* The successor of a killed process must not write before what that one has
 * in the kernel has landed, whether it may write under the same key or not. */
static void
successor_waits_for_its_predecessor(bool loop)
{
    const char *path = device(loop);
    struct lun_options opt = fixture_options(path);
    struct writer w = start_writer(path);
    struct lun *l = fixture_lun(&opt);
    struct lun_queue *q = lun_queue_create(l);

    assert_int_equal(status_of(l).orphans, 1);
    assert_int_equal(lun_register(l, clock_ms() + 50), -ETIMEDOUT);
    kill_writer(&w, loop);
    assert_int_equal(lun_register(l, clock_ms() + 300), -ETIMEDOUT);
    assert_int_equal(status_of(l).registration, LUN_UNREGISTERED);
    assert_int_equal(status_of(l).orphans, 1);
    let_writer_go(&w, loop);
    eventually(status_of(l).orphans == 0); /* seen without being asked for */
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(carry_out(q, LUN_WRITE, 8192, 4096, 0xCD), 0);
    lun_queue_destroy(q);
    assert_int_equal(lun_destroy(l, soon()), 0);
    assert_int_equal(byte_at(8192), 0xCD);
}

static void
test_successor_waits_for_its_predecessor_file(void **state)
{
    (void)state;
    successor_waits_for_its_predecessor(false);
}

static void
test_successor_waits_for_its_predecessor_loop(void **state)
{
    (void)state;
    successor_waits_for_its_predecessor(true);
}

static int
setup(void **state)
{
    no_ring_setup(state);
    return hang_setup(state);
}

#define test(f) no_ring_tests(f, setup, hang_teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_abandoned_write_keeps_its_data_file),
        test(test_abandoned_write_keeps_its_data_loop),
        test(test_orphan_ends_while_its_owner_sleeps_file),
        test(test_orphan_ends_while_its_owner_sleeps_loop),
        test(test_owner_gets_what_it_did_not_abandon_file),
        test(test_owner_gets_what_it_did_not_abandon_loop),
        test(test_lun_is_destroyed_in_time_file),
        test(test_lun_is_destroyed_in_time_loop),
        test(test_thread_can_exit_file),
        test(test_thread_can_exit_loop),
        test(test_unsent_writes_are_never_sent),
        test(test_zeroes_stop_when_abandoned),
        test(test_zeroes_are_written_where_fallocate_is_refused),
        test(test_extents_are_all_data_where_nobody_knows),
        test(test_registering_waits_for_orphans),
        test(test_conflict_ends_the_registration),
        test(test_release_keeps_the_lock_for_orphans),
        test(test_failed_register_keeps_no_lock),
        test(test_lock_outlives_a_killed_process_file),
        test(test_lock_outlives_a_killed_process_loop),
        test(test_successor_waits_for_its_predecessor_file),
        test(test_successor_waits_for_its_predecessor_loop),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
