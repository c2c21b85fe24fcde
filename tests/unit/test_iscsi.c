/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of the iscsi backend against a real target (tgtd) whose portals are
 * cut, muted, reset and stopped. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>

#include "common/log.h"
#include "lun/epoch.h"
#include "lun/key.h"
#include "lun/lun.h"
#include "tests/unit/iscsi_san.h"

#define INTERVAL_MS 100
#define TIMEOUT_MS  300
/* What a machine that is busy with other things may add to a bound. */
#define SLACK_MS   1000
#define PATIENT_MS 15000
#define BLOCK      4096u

static char dir[100]; /* of the whole program */
static struct san san;

/* ---- hosts
 * ------------------------------------------------------------------- */

/* One lun with a queue, as a host with its own number has them. */
struct host {
    struct lun *lun;
    struct lun_queue *q;
    char state[150];
};

static uint64_t
soon(void)
{
    return clock_ms() + PATIENT_MS;
}

static struct lun_options
host_options(struct host *h, unsigned number, const char *device)
{
    snprintf(h->state, sizeof(h->state), "%s/host%u", dir, number);
    mkdir(h->state, 0700);
    return (struct lun_options){
        .name = "t",
        .device = device,
        .process = "test",
        .rundir = h->state,
        .statedir = h->state,
        .cluster_number = 7,
        .host_number = number,
        .initiator = "iqn.2024-01.org.detour.test:host",
        .probe_interval_ms = INTERVAL_MS,
        .probe_timeout_ms = TIMEOUT_MS,
    };
}

static struct lun_status
status_of(const struct host *h)
{
    struct lun_status st;

    lun_get_status(h->lun, &st);
    return st;
}

/* Waits until the expression over st holds. */
#define await(h, what)                                                         \
    do {                                                                       \
        uint64_t until_ms_ = soon();                                           \
        for (;;) {                                                             \
            struct lun_status st = status_of(h);                               \
            if (what)                                                          \
                break;                                                         \
            if (clock_ms() > until_ms_)                                        \
                fail_msg("never: %s (good %u, registration %d, orphans %u)",   \
                         #what, st.paths_good, (int)st.registration,           \
                         st.orphans);                                          \
            usleep(1000);                                                      \
        }                                                                      \
    } while (0)

static void
host_open(struct host *h, const struct lun_options *opt)
{
    h->lun = lun_create(opt);
    assert_non_null(h->lun);
    h->q = lun_queue_create(h->lun);
    assert_non_null(h->q);
}

/* A host over the portals 127.0.0.FIRST and the next, good and registered. */
static void
host_up(struct host *h, unsigned number, int first)
{
    char device[200];
    struct lun_options opt;

    snprintf(device, sizeof(device),
             "iscsi://127.0.0.%d,127.0.0.%d/" SAN_IQN "/1", first, first + 1);
    opt = host_options(h, number, device);
    host_open(h, &opt);
    await(h, st.paths_good == 2);
    assert_int_equal(lun_register(h->lun, soon()), 0);
}

static unsigned
host_down(struct host *h)
{
    lun_queue_destroy(h->q);
    return lun_destroy(h->lun, soon());
}

static struct lun_io *
make_io(struct host *h, enum lun_op op, uint64_t offset, uint64_t count)
{
    bool payload = op == LUN_READ || op == LUN_WRITE;
    struct lun_io *io = lun_io_get(h->q, payload ? count : 0);

    assert_non_null(io);
    io->op = op;
    io->flags = 0;
    io->offset = offset;
    io->count = count;
    io->tally = NULL;
    io->registration_no = status_of(h).registration_no;
    return io;
}

/* Runs io to its end; its error. */
static int
run_io(struct host *h, struct lun_io *io)
{
    int err;

    if (!lun_run(h->q, io, soon()))
        fail_msg("a request did not come back");
    err = io->error;
    lun_io_put(io);
    return err;
}

static int
write_byte(struct host *h, uint64_t offset, int byte)
{
    struct lun_io *io = make_io(h, LUN_WRITE, offset, BLOCK);

    memset(io->data, byte, BLOCK);
    return run_io(h, io);
}

/* The byte that fills the block, or -errno. */
static int
read_byte(struct host *h, uint64_t offset)
{
    struct lun_io *io = make_io(h, LUN_READ, offset, BLOCK);
    int r;

    if (!lun_run(h->q, io, soon()))
        fail_msg("a read did not come back");
    r = io->error ? io->error : (unsigned char)io->data[0];
    for (size_t i = 1; r >= 0 && i < BLOCK; i++)
        if ((unsigned char)io->data[i] != r)
            fail_msg("a torn block at %" PRIu64, offset);
    lun_io_put(io);
    return r;
}

/* ---- plain I/O
 * ----------------------------------------------------------------- */

#define MODEL_SIZE (4u << 20)
#define DEPTH      16

static void
test_status_tells_what_the_target_says(void **state)
{
    struct host h;
    struct lun_status st;
    struct lun_path paths[4];

    (void)state;
    host_up(&h, 1, 2);
    st = status_of(&h);
    assert_true(st.known);
    assert_int_equal(st.size, SAN_SIZE);
    assert_int_equal(st.block_size, 512);
    assert_true(st.max_io >= 65536);
    assert_int_equal(strncmp(st.id, "naa.", 4) * strncmp(st.id, "t10.", 4), 0);
    assert_false(st.readonly);
    assert_int_equal(st.registration, LUN_REGISTERED);
    assert_int_equal(st.registration_no, 1);
    assert_int_not_equal(st.key, 0);
    assert_int_equal(lun_get_paths(h.lun, paths, 4), 2);
    assert_string_equal(paths[1].name, "127.0.0.3:3260");
    assert_int_equal(paths[1].state, LUN_PATH_GOOD);
    assert_int_equal(host_down(&h), 0);
}

/* One random request against the model; ranges under way never overlap, since
 * each slot has a part of the LUN for itself. */
static struct lun_io *
random_io(struct host *h, unsigned slot, char *model, unsigned *seed)
{
    uint32_t part = MODEL_SIZE / DEPTH;
    uint64_t offset = slot * part + 512 * ((uint64_t)rand_r(seed) % 256);
    uint64_t count = 512 * (1 + (uint64_t)rand_r(seed) % 256);
    enum lun_op op = (enum lun_op)(rand_r(seed) % 5);
    struct lun_io *io;

    if (op == LUN_TRIM)
        op = LUN_WRITE;
    if (op == LUN_FLUSH)
        offset = count = 0;
    io = make_io(h, op, offset, count);
    io->opaque = (void *)(uintptr_t)slot;
    io->flags = op != LUN_READ && rand_r(seed) % 4 == 0 ? LUN_FUA : 0;
    if (op == LUN_WRITE) {
        for (uint64_t i = 0; i < count; i++)
            io->data[i] = (char)rand_r(seed);
        memcpy(model + offset, io->data, count);
    } else if (op == LUN_ZERO) {
        memset(model + offset, 0, count);
    }
    return io;
}

/* Keeps DEPTH requests under way until total have come back; calls midway
 * halfway through. */
static void
run_model(struct host *h, unsigned total, unsigned seed,
          void (*midway)(unsigned done))
{
    char *model = calloc(1, MODEL_SIZE);
    unsigned started = 0;
    unsigned done = 0;

    assert_int_equal(run_io(h, make_io(h, LUN_ZERO, 0, MODEL_SIZE)), 0);
    while (started < DEPTH)
        lun_submit(h->q, random_io(h, started++, model, &seed));
    while (done < total) {
        struct lun_io *ios[DEPTH];
        size_t n = lun_reap(h->q, ios, DEPTH, soon());

        assert_true(n > 0);
        for (size_t i = 0; i < n; i++) {
            unsigned slot = (unsigned)(uintptr_t)ios[i]->opaque;

            if (ios[i]->error)
                fail_msg("op %d at %" PRIu64 ": %s", (int)ios[i]->op,
                         ios[i]->offset, strerror(-ios[i]->error));
            if (ios[i]->op == LUN_READ)
                assert_memory_equal(ios[i]->data, model + ios[i]->offset,
                                    ios[i]->count);
            lun_io_put(ios[i]);
            if (midway)
                midway(done);
            done++;
            if (started < total) {
                lun_submit(h->q, random_io(h, slot, model, &seed));
                started++;
            }
        }
    }
    for (uint64_t at = 0; at < MODEL_SIZE; at += 65536) {
        struct lun_io *io = make_io(h, LUN_READ, at, 65536);

        assert_true(lun_run(h->q, io, soon()));
        assert_int_equal(io->error, 0);
        assert_memory_equal(io->data, model + at, 65536);
        lun_io_put(io);
    }
    free(model);
}

static void
test_io_matches_a_model(void **state)
{
    struct host h;

    (void)state;
    host_up(&h, 1, 2);
    run_model(&h, 3000, 1, NULL);
    assert_int_equal(status_of(&h).inflight, 0);
    assert_int_equal(host_down(&h), 0);
}

/* How many of the keys on the LUN behind a portal are this host's. */
static int
keys_over(int portal, unsigned number)
{
    uint64_t keys[64];
    int n = san_keys(portal, keys, 64);
    int mine = 0;

    assert_true(n >= 0);
    for (int i = 0; i < n; i++) {
        struct key k;

        mine += key_unpack(keys[i], &k) && k.host == number;
    }
    return mine;
}

static int
keys_of(unsigned number)
{
    return keys_over(4, number);
}

static void
await_keys(unsigned number, int count)
{
    uint64_t until_ms = soon();

    while (keys_of(number) != count) {
        if (clock_ms() > until_ms)
            fail_msg("host %u has %d keys, not %d", number, keys_of(number),
                     count);
        usleep(5000);
    }
}

static void
test_long_zero_and_unaligned_requests(void **state)
{
    struct host h;
    struct lun_io *io;

    (void)state;
    host_up(&h, 1, 2);
    assert_int_equal(write_byte(&h, 3u << 20, 0x55), 0);
    io = make_io(&h, LUN_ZERO, 0, 8u << 20); /* more than one WRITE's worth */
    io->flags = LUN_FUA | LUN_NO_HOLE;
    assert_int_equal(run_io(&h, io), 0);
    assert_int_equal(read_byte(&h, 3u << 20), 0);
    assert_int_equal(run_io(&h, make_io(&h, LUN_READ, 100, 512)), -EINVAL);
    assert_int_equal(run_io(&h, make_io(&h, LUN_WRITE, SAN_SIZE, 512)),
                     -ENOSPC);
    assert_int_equal(host_down(&h), 0);
}

/* ---- paths
 * ------------------------------------------------------------------------ */

static void
test_stopped_target_fails_all_paths_in_time(void **state)
{
    struct host h;
    struct lun_status before;
    struct lun_io *io;
    uint64_t begin_ms;

    (void)state;
    host_up(&h, 1, 2);
    before = status_of(&h);
    io = make_io(&h, LUN_READ, 0, BLOCK);
    kill(san.pid, SIGSTOP);
    begin_ms = clock_ms();
    lun_submit(h.q, io);
    await(&h, st.paths_good == 0);
    assert_in_range(clock_ms() - begin_ms, TIMEOUT_MS - INTERVAL_MS,
                    TIMEOUT_MS + INTERVAL_MS + SLACK_MS);
    assert_int_equal(lun_reap(h.q, &io, 1, clock_ms() + SLACK_MS), 1);
    assert_int_equal(io->error, -ENOLINK);
    lun_io_put(io);
    assert_int_equal(run_io(&h, make_io(&h, LUN_READ, 0, BLOCK)), -ENOLINK);
    kill(san.pid, SIGCONT);
    await(&h, st.paths_good == 2);
    assert_int_equal(write_byte(&h, 0, 1), 0);
    assert_int_equal(status_of(&h).registration_no, before.registration_no);
    assert_int_not_equal(status_of(&h).key, before.key);
    await_keys(1, 2);
    assert_int_equal(host_down(&h), 0);
}

static void
test_slow_target_is_not_a_dead_one(void **state)
{
    char device[] = "iscsi://127.0.0.2/" SAN_IQN "/1";
    struct host h;
    struct lun_path path;
    struct lun_options opt = host_options(&h, 1, device);
    uint64_t since_ms;

    (void)state;
    opt.probe_timeout_ms = 1500;
    host_open(&h, &opt);
    await(&h, st.paths_good == 1);
    lun_get_paths(h.lun, &path, 1);
    since_ms = path.since_ms;
    for (int i = 0; i < 4; i++) {
        kill(san.pid, SIGSTOP);
        usleep(400000);
        kill(san.pid, SIGCONT);
        assert_int_equal(run_io(&h, make_io(&h, LUN_READ, 0, BLOCK)), 0);
    }
    lun_get_paths(h.lun, &path, 1);
    assert_int_equal(path.since_ms, since_ms);
    assert_int_equal(host_down(&h), 0);
}

static void
test_heal_is_noticed_in_time(void **state)
{
    struct host h;
    uint64_t begin_ms;

    (void)state;
    host_up(&h, 1, 2);
    san_cut(2);
    san_cut(3);
    await(&h, st.paths_good == 0);
    usleep(5000000); /* the pauses between attempts have grown to the full */
    san_heal();
    begin_ms = clock_ms();
    await(&h, st.paths_good > 0);
    assert_in_range(clock_ms() - begin_ms, 0, 2500 + SLACK_MS);
    assert_int_equal(status_of(&h).registration_no, 1);
    assert_int_equal(host_down(&h), 0);
}

/* Answers of one path vanish while writes are under way on it, so that they
 * reach the target and are not answered; later the path heals. */
static void
mute_then_heal(unsigned done)
{
    if (done == 800)
        san_mute(2);
    if (done == 2200)
        san_heal();
}

static void
test_writes_survive_the_loss_of_a_path(void **state)
{
    struct host h;
    struct lun_status before;

    (void)state;
    host_up(&h, 1, 2);
    await_keys(1, 2);
    before = status_of(&h);
    run_model(&h, 3000, 2, mute_then_heal);
    await(&h, st.paths_good == 2 && st.key != before.key);
    assert_int_equal(status_of(&h).registration_no, before.registration_no);
    await_keys(1, 2); /* the dead session's is gone, the new one has one */
    assert_int_equal(status_of(&h).orphans, 0);
    assert_int_equal(host_down(&h), 0);
}

static void
reset_often(unsigned done)
{
    if (done % 500 == 100)
        san_reset(2);
    if (done % 500 == 300)
        san_heal();
}

static void
test_writes_survive_a_flapping_path(void **state)
{
    struct host h;

    (void)state;
    host_up(&h, 1, 2);
    run_model(&h, 4000, 3, reset_often);
    san_heal();
    await(&h, st.paths_good == 2);
    assert_int_equal(status_of(&h).registration_no, 1);
    assert_int_equal(host_down(&h), 0);
}

#define MANY 8u

/* Submits writes whose answers will not come; they return as -ENOLINK. */
static void
lose_writes(struct host *h, struct lun_tally *t, int byte)
{
    uint64_t begin_ms = clock_ms();
    unsigned back = 0;

    for (unsigned i = 0; i < MANY; i++) {
        struct lun_io *io = make_io(h, LUN_WRITE, i * BLOCK, BLOCK);

        memset(io->data, byte, BLOCK);
        io->tally = t;
        lun_submit(h->q, io);
    }
    while (back < MANY) {
        struct lun_io *io;

        assert_int_equal(lun_reap(h->q, &io, 1, soon()), 1);
        assert_int_equal(io->error, -ENOLINK);
        lun_io_put(io);
        back++;
    }
    assert_in_range(clock_ms() - begin_ms, 0,
                    TIMEOUT_MS + INTERVAL_MS + SLACK_MS);
}

static void
test_all_paths_lost_and_found(void **state)
{
    struct host h;
    struct lun_tally *t = lun_tally_create();

    (void)state;
    host_up(&h, 1, 2);
    san_mute(2);
    san_mute(3);
    lose_writes(&h, t, 0xAA);
    assert_int_equal(status_of(&h).paths_good, 0);
    assert_in_range(status_of(&h).orphans, MANY, MANY + 2);
    assert_int_equal(lun_tally_count(t), MANY);
    assert_int_equal(status_of(&h).inflight, 0);
    san_heal();
    await(&h, st.paths_good == 2 && st.orphans == 0);
    assert_true(lun_tally_wait(t, soon()));
    assert_int_equal(status_of(&h).registration, LUN_REGISTERED);
    assert_int_equal(status_of(&h).registration_no, 1);
    assert_int_equal(write_byte(&h, 0, 0xBB), 0);
    assert_int_equal(read_byte(&h, 0), 0xBB);
    lun_tally_put(t);
    await_keys(1, 2);
    assert_int_equal(host_down(&h), 0);
}

/* A stopped target finds the old writes in its sockets when it goes on. */
static void
test_no_ghost_of_a_stopped_target(void **state)
{
    struct host h;

    (void)state;
    host_up(&h, 1, 2);
    for (int round = 0; round < 5; round++) {
        kill(san.pid, SIGSTOP);
        lose_writes(&h, NULL, 0xAA);
        kill(san.pid, SIGCONT);
        await(&h, st.paths_good > 0);
        for (unsigned i = 0; i < MANY; i++)
            assert_int_equal(write_byte(&h, i * BLOCK, 0xB0 + round), 0);
        for (unsigned i = 0; i < 20 * MANY; i++)
            assert_int_equal(read_byte(&h, i % MANY * BLOCK), 0xB0 + round);
    }
    assert_int_equal(status_of(&h).registration_no, 1);
    assert_int_equal(host_down(&h), 0);
}

static void
test_abandoned_requests_count_until_answered(void **state)
{
    char device[] = "iscsi://127.0.0.2/" SAN_IQN "/1";
    struct host h;
    struct lun_options opt = host_options(&h, 1, device);
    struct lun_tally *t = lun_tally_create();
    struct lun_io *write;
    struct lun_io *read;

    (void)state;
    opt.probe_timeout_ms = 10000;
    host_open(&h, &opt);
    await(&h, st.paths_good == 1);
    assert_int_equal(lun_register(h.lun, soon()), 0);
    write = make_io(&h, LUN_WRITE, 0, BLOCK);
    read = make_io(&h, LUN_READ, 0, BLOCK);
    memset(write->data, 1, BLOCK);
    write->tally = t;
    kill(san.pid, SIGSTOP);
    lun_submit(h.q, write);
    assert_false(lun_run(h.q, read, clock_ms() + 100));
    lun_abandon(write);
    assert_int_equal(status_of(&h).orphans, 1);
    assert_int_equal(status_of(&h).orphan_reads, 1);
    assert_int_equal(status_of(&h).inflight, 2);
    assert_false(lun_tally_wait(t, clock_ms() + 50));
    kill(san.pid, SIGCONT);
    assert_true(lun_tally_wait(t, soon()));
    await(&h, st.orphans == 0 && st.orphan_reads == 0 && st.inflight == 0);
    lun_tally_put(t);
    assert_int_equal(host_down(&h), 0);
}

static void
test_destroy_is_bounded_and_counts(void **state)
{
    struct host h;
    uint64_t begin_ms;

    (void)state;
    host_up(&h, 1, 2);
    kill(san.pid, SIGSTOP);
    lose_writes(&h, NULL, 0xAA);
    lun_queue_destroy(h.q);
    begin_ms = clock_ms();
    assert_in_range(lun_destroy(h.lun, begin_ms + 300), MANY, MANY + 2);
    assert_in_range(clock_ms() - begin_ms, 300, 300 + SLACK_MS);
    kill(san.pid, SIGCONT);
}

static void
test_queue_destroy_abandons_everything(void **state)
{
    struct host h;
    struct lun_queue *other;

    (void)state;
    host_up(&h, 1, 2);
    other = h.q;
    for (unsigned i = 0; i < 100; i++) {
        struct lun_io *io = make_io(&h, i % 2 ? LUN_WRITE : LUN_READ,
                                    (uint64_t)i * BLOCK, BLOCK);

        if (i % 2)
            memset(io->data, 2, BLOCK);
        lun_submit(other, io);
    }
    lun_queue_destroy(other);
    await(&h, st.inflight == 0 && st.orphans == 0 && st.orphan_reads == 0);
    assert_int_equal(lun_destroy(h.lun, soon()), 0);
}

static void
test_nothing_there(void **state)
{
    char device[] = "iscsi://127.0.0.77/" SAN_IQN "/1";
    struct host h;
    struct lun_options opt = host_options(&h, 1, device);
    struct lun_path path;
    uint64_t begin_ms;

    (void)state;
    host_open(&h, &opt);
    begin_ms = clock_ms();
    assert_int_equal(lun_register(h.lun, begin_ms + 300), -ENOLINK);
    assert_in_range(clock_ms() - begin_ms, 300, 300 + SLACK_MS);
    lun_get_paths(h.lun, &path, 1);
    assert_int_equal(path.state, LUN_PATH_FAILED);
    assert_int_not_equal(path.error[0], '\0');
    assert_int_equal(run_io(&h, make_io(&h, LUN_READ, 0, BLOCK)), -EAGAIN);
    assert_int_equal(host_down(&h), 0);
}

/* ---- which LUN it is
 * ----------------------------------------------------------------- */

static void
test_portal_of_another_lun_is_refused(void **state)
{
    char device[] = "iscsi://127.0.0.2,127.0.0.10/" SAN_IQN "/1";
    struct san_options opts = {.first = 10, .identity = "detour2"};
    struct san other;
    struct host h;
    struct lun_options opt = host_options(&h, 1, device);
    struct lun_path paths[2];
    char otherdir[150];

    (void)state;
    snprintf(otherdir, sizeof(otherdir), "%s/other", dir);
    assert_int_equal(san_start(&other, otherdir, &opts), 0);
    host_open(&h, &opt);
    await(&h, st.paths_good == 1);
    for (uint64_t until_ms = soon();;) {
        lun_get_paths(h.lun, paths, 2);
        if (strstr(paths[0].error, "refused") ||
            strstr(paths[1].error, "refused"))
            break;
        assert_true(clock_ms() < until_ms);
        usleep(1000);
    }
    assert_int_equal(status_of(&h).paths_good, 1);
    assert_int_equal(host_down(&h), 0);
    san_stop(&other);
}

static void
test_unexpected_identity_is_not_served(void **state)
{
    char device[] = "iscsi://127.0.0.2/" SAN_IQN "/1";
    struct host h;
    struct lun_options opt = host_options(&h, 1, device);

    (void)state;
    opt.expected_id = "naa.60000000000000000000000000000000";
    host_open(&h, &opt);
    await(&h, st.wrong_id);
    assert_int_equal(status_of(&h).paths_good, 0);
    assert_int_equal(lun_register(h.lun, soon()), -ESTALE);
    assert_int_equal(run_io(&h, make_io(&h, LUN_READ, 0, BLOCK)), -ESTALE);
    assert_int_equal(host_down(&h), 0);
}

static void
test_bad_device_is_einval(void **state)
{
    struct host h;
    struct lun_options opt = host_options(&h, 1, "iscsi://nowhere/x/1");

    (void)state;
    errno = 0;
    assert_null(lun_create(&opt));
    assert_int_equal(errno, EINVAL);
}

/* ---- the right to write
 * ------------------------------------------------------------------ */

static void
test_write_needs_the_present_registration(void **state)
{
    struct host h;
    struct lun_io *io;

    (void)state;
    host_up(&h, 1, 2);
    assert_int_equal(lun_register(h.lun, soon()), 0); /* kept as it is */
    assert_int_equal(status_of(&h).registration_no, 1);
    io = make_io(&h, LUN_WRITE, 0, BLOCK);
    memset(io->data, 0, BLOCK);
    io->registration_no = 2;
    assert_int_equal(run_io(&h, io), -EBADE);
    assert_int_equal(lun_fence(h.lun, 1, soon()), -EINVAL);
    assert_int_equal(host_down(&h), 0);
}

static void
test_fenced_host_stops_and_registers_anew(void **state)
{
    struct host a;
    struct host b;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    assert_int_equal(write_byte(&a, 0, 1), 0);
    assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
    assert_int_equal(keys_of(1), 0);
    assert_int_equal(write_byte(&a, 0, 2), -EBADE);
    await(&a, st.registration == LUN_FENCED);
    assert_int_equal(read_byte(&a, 0), 1);
    assert_int_equal(lun_fence(a.lun, 2, soon()), -EBADE);
    assert_int_equal(lun_register(a.lun, soon()), 0);
    assert_int_equal(status_of(&a).registration_no, 2);
    assert_int_equal(write_byte(&a, 0, 3), 0);
    assert_int_equal(read_byte(&b, 0), 3);
    assert_int_equal(status_of(&b).registration_no, 1);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

static void
test_check_finds_a_fence(void **state)
{
    struct host a;
    struct host b;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    assert_int_equal(lun_check_registration(a.lun, soon()), 0);
    assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
    assert_int_equal(lun_check_registration(a.lun, soon()), -EBADE);
    assert_int_equal(status_of(&a).registration, LUN_FENCED);
    assert_int_equal(lun_check_registration(b.lun, soon()), 0);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

static void
test_host_fenced_while_cut_off_finds_out(void **state)
{
    struct host a;
    struct host b;
    struct lun_tally *t = lun_tally_create();

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    san_mute(2);
    san_mute(3);
    lose_writes(&a, t, 0xAA);
    assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(write_byte(&b, i * BLOCK, 0xBB), 0);
    san_heal();
    await(&a, st.registration == LUN_FENCED && st.paths_good == 2);
    assert_int_equal(write_byte(&a, 0, 0xCC), -EBADE);
    assert_int_equal(lun_register(a.lun, soon()), 0);
    assert_int_equal(status_of(&a).orphans, 0);
    assert_int_equal(lun_tally_count(t), 0);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(read_byte(&a, i * BLOCK), 0xBB);
    lun_tally_put(t);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

static void
reset_lun_by(unsigned done)
{
    static struct host b;

    if (done == 100)
        host_up(&b, 2, 4);
    /* no such host has a key: only a LUN RESET proves that it is cut off */
    if (done % 100 == 50 && done > 100 && done < 1900)
        assert_int_equal(lun_fence(b.lun, 99, soon()), 0);
    if (done == 1950)
        assert_int_equal(host_down(&b), 0);
}

static void
test_reset_by_another_host_is_not_felt(void **state)
{
    struct host a;

    (void)state;
    host_up(&a, 1, 2);
    run_model(&a, 2000, 4, reset_lun_by);
    assert_int_equal(status_of(&a).registration_no, 1);
    assert_int_equal(host_down(&a), 0);
}

/* A process that was killed with writes under way, and its successor. */
static void
test_successor_fences_what_was_left(void **state)
{
    struct host h;
    int status;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        host_up(&h, 1, 2);
        await_keys(1, 2);
        for (unsigned i = 0; i < MANY; i++)
            lun_submit(h.q, make_io(&h, LUN_WRITE, i * BLOCK, BLOCK));
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    await_keys(1, 2);
    host_up(&h, 1, 2);
    await_keys(1, 2);
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(write_byte(&h, i * BLOCK, 0xBB), 0);
    assert_int_equal(host_down(&h), 0);
}

static void
test_clean_end_is_noted_for_the_successor(void **state)
{
    struct host h;
    uint64_t keys[8];

    (void)state;
    host_up(&h, 1, 2);
    assert_int_equal(host_down(&h), 0);
    assert_true(epoch_load_keys(h.state, "t", "test", keys, 8) >= 2);
    assert_int_equal(keys[0], 0);
    assert_int_not_equal(keys[1], 0);
}

static void
test_foreign_reservation_is_not_touched(void **state)
{
    char device[] = "iscsi://127.0.0.2/" SAN_IQN "/1";
    struct host h;
    struct lun_options opt = host_options(&h, 1, device);

    (void)state;
    assert_true(
        san_reserve(4, 0x1234, SCSI_PERSISTENT_RESERVE_TYPE_WRITE_EXCLUSIVE));
    host_open(&h, &opt);
    await(&h, st.paths_known == 1);
    assert_int_equal(lun_register(h.lun, clock_ms() + 3000), -EBUSY);
    assert_int_equal(status_of(&h).registration, LUN_UNREGISTERED);
    assert_true(san_clear(4, 0x4321));
    assert_int_equal(lun_register(h.lun, soon()), 0);
    assert_int_equal(host_down(&h), 0);
}

/* ---- fence against reconnect
 * ----------------------------------------------------------------- */

struct racer {
    struct host h;
    atomic_bool stop;
    atomic_uint written;
    uint64_t number;
};

/* Writes 0xAA under one registration for as long as that is admitted. */
static void *
race_writer(void *opaque)
{
    struct racer *r = opaque;
    struct lun_queue *q = lun_queue_create(r->h.lun);
    int err = 0;

    while (err != -EBADE && !r->stop) {
        struct lun_io *io = lun_io_get(q, BLOCK);

        io->op = LUN_WRITE;
        io->flags = 0;
        io->offset = 0;
        io->count = BLOCK;
        io->tally = NULL;
        io->registration_no = r->number;
        memset(io->data, 0xAA, BLOCK);
        if (!lun_run(q, io, soon()))
            abort();
        err = io->error;
        r->written += err == 0;
        lun_io_put(io);
        if (err == -ENOLINK)
            usleep(500);
    }
    lun_queue_destroy(q);
    return NULL;
}

/* Paths of host A come and go while B fences it and writes.  What A sent
 * before may not show up after what B wrote. */
static void
test_fence_against_reconnect(void **state)
{
    struct racer r = {.written = 0};
    struct host b;
    unsigned seed = 5;

    (void)state;
    host_up(&r.h, 1, 2);
    host_up(&b, 2, 4);
    for (int round = 0; round < 40; round++) {
        pthread_t writer;
        unsigned before = r.written;
        int mark = round % 100;

        r.number = status_of(&r.h).registration_no;
        pthread_create(&writer, NULL, race_writer, &r);
        while (r.written < before + 5)
            usleep(500);
        san_reset(2 + rand_r(&seed) % 2);
        if (round % 3 == 0)
            san_reset(2 + rand_r(&seed) % 2);
        usleep((useconds_t)rand_r(&seed) % 20000);
        if (round % 2)
            san_heal();
        assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
        assert_int_equal(write_byte(&b, 0, mark), 0);
        san_heal();
        for (int i = 0; i < 50; i++) {
            assert_int_equal(read_byte(&b, 0), mark);
            usleep(500);
        }
        await(&r.h, st.registration == LUN_FENCED);
        pthread_join(writer, NULL);
        assert_int_equal(read_byte(&b, 0), mark);
        assert_int_equal(lun_register(r.h.lun, soon()), 0);
        assert_true(status_of(&r.h).registration_no > r.number);
    }
    assert_int_equal(host_down(&r.h), 0);
    assert_int_equal(host_down(&b), 0);
}

/* ---- writes held inside the target
 * ---------------------------------------------------------- */

/* tests/tools/hangfs, which holds writes of the target that sits on it. */
struct hang {
    struct san san;
    char mount[150];
    FILE *to, *from;
    pid_t pid;
};

static char tool[PATH_MAX];

static int
hang_say(struct hang *g, const char *command)
{
    char line[64] = "";

    if (command) {
        fprintf(g->to, "%s\n", command);
        fflush(g->to);
    }
    assert_non_null(fgets(line, sizeof(line), g->from));
    return atoi(line);
}

static void
hang_exec(const struct hang *g, int in, int out)
{
    char size[32];

    snprintf(size, sizeof(size), "%u", SAN_SIZE);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0)
        _exit(1);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execl(tool, "hangfs", g->mount, size, NULL);
    _exit(1);
}

/* A target whose disk hangs on command. */
static void
hang_up(struct hang *g)
{
    char disk[200];
    char sandir[150];
    struct san_options opts = {
        .first = 30, .identity = "detour4", .disk = disk};
    int to[2];
    int from[2];

    snprintf(g->mount, sizeof(g->mount), "%s/hang", dir);
    snprintf(disk, sizeof(disk), "%s/disk", g->mount);
    snprintf(sandir, sizeof(sandir), "%s/hangsan", dir);
    mkdir(g->mount, 0700);
    assert_int_equal(pipe2(to, O_CLOEXEC), 0);
    assert_int_equal(pipe2(from, O_CLOEXEC), 0);
    g->pid = fork();
    if (g->pid == 0)
        hang_exec(g, to[0], from[1]);
    close(to[0]);
    close(from[1]);
    g->to = fdopen(to[1], "w");
    g->from = fdopen(from[0], "r");
    hang_say(g, NULL); /* ready */
    assert_int_equal(san_start(&g->san, sandir, &opts), 0);
}

static void
hang_down(struct hang *g)
{
    san_stop(&g->san);
    fclose(g->to);
    fclose(g->from);
    waitpid(g->pid, NULL, 0);
}

/* A loses its paths with a write that hangs in the target. */
static void
hang_write(struct hang *g, struct host *a)
{
    struct lun_io *io = make_io(a, LUN_WRITE, 0, BLOCK);

    memset(io->data, 0xAA, BLOCK);
    hang_say(g, "hold");
    lun_submit(a->q, io);
    for (uint64_t until_ms = soon(); hang_say(g, "held") == 0;)
        assert_true(clock_ms() < until_ms);
    san_mute(30);
    san_mute(31);
    assert_int_equal(lun_reap(a->q, &io, 1, soon()), 1);
    assert_int_equal(io->error, -ENOLINK);
    lun_io_put(io);
}

struct fencing {
    struct host *by;
    atomic_int result; /* 1: not yet */
};

static void *
fence_host_1(void *opaque)
{
    struct fencing *f = opaque;

    f->result = lun_fence(f->by->lun, 1, soon());
    return NULL;
}

/* A fence may not be over while the write hangs, not even one that finds the
 * key gone because an earlier fence has got half way. */
static void
fence_while_held(int halfway)
{
    struct hang g;
    struct host a;
    struct host b;
    struct fencing f = {.by = &b, .result = 1};
    pthread_t thread;

    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    host_up(&a, 1, 30);
    host_up(&b, 2, 32);
    hang_write(&g, &a);
    if (halfway) {
        assert_int_equal(lun_fence(b.lun, 1, clock_ms() + 500), -ETIMEDOUT);
        assert_int_equal(keys_over(32, 1), 0);
    }
    pthread_create(&thread, NULL, fence_host_1, &f);
    usleep(500000);
    assert_int_equal(f.result, 1);
    assert_int_equal(hang_say(&g, "held"), 1);
    hang_say(&g, "go");
    pthread_join(thread, NULL);
    assert_int_equal(f.result, 0);
    assert_int_equal(write_byte(&b, 0, 0xBB), 0);
    san_heal();
    assert_int_equal(read_byte(&b, 0), 0xBB);
    assert_int_equal(lun_register(a.lun, soon()), 0);
    assert_int_equal(status_of(&a).orphans, 0);
    assert_int_equal(read_byte(&a, 0), 0xBB);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
    hang_down(&g);
}

static void
test_fence_waits_for_writes_in_the_target(void **state)
{
    (void)state;
    fence_while_held(false);
}

static void
test_second_fence_waits_as_the_first_did(void **state)
{
    (void)state;
    fence_while_held(true);
}

/* The same for ourselves: a path dies with a write that hangs in the target.
 * It may not be acknowledged, nor a newer one, before that has ended. */
static void
test_no_write_passes_one_that_hangs_on_a_dead_path(void **state)
{
    struct hang g;
    struct host a;
    struct lun_io *io;
    struct lun_io *ios[4];
    int fd;

    (void)state;
    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    host_up(&a, 1, 30);
    hang_write(&g, &a);
    san_heal();
    await(&a, st.paths_good == 2);
    hang_say(&g, "hold");
    io = make_io(&a, LUN_WRITE, 0, BLOCK);
    memset(io->data, 0xBB, BLOCK);
    lun_submit(a.q, io);
    fd = lun_queue_fd(a.q);
    assert_true(fd >= 0);
    assert_int_equal(lun_reap(a.q, ios, 4, clock_ms() + 500), 0);
    assert_int_equal(status_of(&a).orphans, 1);
    assert_int_equal(hang_say(&g, "held"), 1);
    hang_say(&g, "go");
    assert_int_equal(lun_reap(a.q, ios, 4, soon()), 1);
    assert_int_equal(ios[0]->error, 0);
    lun_io_put(ios[0]);
    assert_int_equal(read_byte(&a, 0), 0xBB);
    assert_int_equal(status_of(&a).registration_no, 1);
    assert_int_equal(host_down(&a), 0);
    hang_down(&g);
}

/* ---- without reservations
 * ---------------------------------------------------------------------- */

static void
drain_up(struct host *h, int first)
{
    char device[200];
    struct lun_options opt;

    snprintf(device, sizeof(device),
             "iscsi://127.0.0.%d,127.0.0.%d/" SAN_IQN "/1", first, first + 1);
    opt = host_options(h, 3, device);
    opt.fence = LUN_FENCE_DRAIN;
    host_open(h, &opt);
    await(h, st.paths_good == 2);
    assert_int_equal(lun_register(h->lun, soon()), 0);
}

static void
test_drain_proves_orphans_dead_with_a_reset(void **state)
{
    struct host h;

    (void)state;
    assert_true(san_clear(4, 0x4321)); /* nobody's reservation is in the way */
    drain_up(&h, 2);
    assert_int_equal(lun_fence(h.lun, 1, soon()), -EOPNOTSUPP);
    kill(san.pid, SIGSTOP);
    lose_writes(&h, NULL, 0xAA);
    assert_in_range(status_of(&h).orphans, MANY, MANY);
    kill(san.pid, SIGCONT);
    assert_int_equal(lun_register(h.lun, soon()), 0);
    assert_int_equal(status_of(&h).orphans, 0);
    assert_int_equal(write_byte(&h, 0, 0xBB), 0);
    assert_int_equal(read_byte(&h, 0), 0xBB);
    assert_int_equal(keys_of(3), 0);
    assert_int_equal(host_down(&h), 0);
}

static void
test_thin_lun_trims_and_zeroes(void **state)
{
    struct san_options opts = {
        .first = 20, .identity = "detour3", .thin = true};
    struct san thin;
    struct host h;
    struct host pr;
    struct lun_extent e[4];
    struct lun_io *io;
    char thindir[150];

    (void)state;
    snprintf(thindir, sizeof(thindir), "%s/thin", dir);
    assert_int_equal(san_start(&thin, thindir, &opts), 0);
    drain_up(&h, 20);
    assert_true(status_of(&h).can_trim);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(write_byte(&h, i * BLOCK, 7), 0);
    assert_int_equal(run_io(&h, make_io(&h, LUN_TRIM, 0, BLOCK)), 0);
    assert_int_equal(run_io(&h, make_io(&h, LUN_ZERO, BLOCK, BLOCK)), 0);
    io = make_io(&h, LUN_ZERO, 2 * BLOCK, BLOCK);
    io->flags = LUN_NO_HOLE | LUN_FUA;
    assert_int_equal(run_io(&h, io), 0);
    assert_int_equal(read_byte(&h, BLOCK), 0);
    assert_int_equal(read_byte(&h, 2 * BLOCK), 0);
    assert_true(lun_extents(h.lun, 0, 64 * BLOCK, e, 4, soon()) >= 1);
    assert_true(e[0].count > 0 && e[0].count <= 64 * BLOCK);
    assert_int_equal(host_down(&h), 0);
    /* tgtd lets a fenced host trim, so with reservations nobody may */
    host_up(&pr, 4, 20);
    assert_false(status_of(&pr).can_trim);
    assert_true(status_of(&pr).can_zero);
    assert_int_equal(host_down(&pr), 0);
    san_stop(&thin);
}

static int
each_setup(void **state)
{
    (void)state;
    return 0;
}

/* A test that failed in the middle must not take the next one with it. */
static int
each_teardown(void **state)
{
    (void)state;
    kill(san.pid, SIGCONT);
    san_heal();
    return 0;
}

#define iscsi_test(f)                                                          \
    cmocka_unit_test_setup_teardown(f, each_setup, each_teardown)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        iscsi_test(test_bad_device_is_einval),
        iscsi_test(test_status_tells_what_the_target_says),
        iscsi_test(test_io_matches_a_model),
        iscsi_test(test_long_zero_and_unaligned_requests),
        iscsi_test(test_stopped_target_fails_all_paths_in_time),
        iscsi_test(test_slow_target_is_not_a_dead_one),
        iscsi_test(test_heal_is_noticed_in_time),
        iscsi_test(test_writes_survive_the_loss_of_a_path),
        iscsi_test(test_writes_survive_a_flapping_path),
        iscsi_test(test_all_paths_lost_and_found),
        iscsi_test(test_no_ghost_of_a_stopped_target),
        iscsi_test(test_abandoned_requests_count_until_answered),
        iscsi_test(test_destroy_is_bounded_and_counts),
        iscsi_test(test_queue_destroy_abandons_everything),
        iscsi_test(test_nothing_there),
        iscsi_test(test_portal_of_another_lun_is_refused),
        iscsi_test(test_unexpected_identity_is_not_served),
        iscsi_test(test_write_needs_the_present_registration),
        iscsi_test(test_fenced_host_stops_and_registers_anew),
        iscsi_test(test_check_finds_a_fence),
        iscsi_test(test_host_fenced_while_cut_off_finds_out),
        iscsi_test(test_reset_by_another_host_is_not_felt),
        iscsi_test(test_successor_fences_what_was_left),
        iscsi_test(test_clean_end_is_noted_for_the_successor),
        iscsi_test(test_foreign_reservation_is_not_touched),
        iscsi_test(test_fence_against_reconnect),
        iscsi_test(test_fence_waits_for_writes_in_the_target),
        iscsi_test(test_second_fence_waits_as_the_first_did),
        iscsi_test(test_no_write_passes_one_that_hangs_on_a_dead_path),
        iscsi_test(test_drain_proves_orphans_dead_with_a_reset),
        iscsi_test(test_thin_lun_trims_and_zeroes),
    };
    const char *tmp = getenv("TMPDIR");
    struct san_options opts = {.first = 2, .identity = "detour1"};
    char sandir[150];
    int failed;

    (void)argc;
    snprintf(tool, sizeof(tool), "%s/../tools/hangfs", dirname(argv[0]));
    log_init("test_iscsi", getenv("DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    if (getenv("ONLY"))
        cmocka_set_test_filter(getenv("ONLY"));
    snprintf(dir, sizeof(dir), "%.80s/iscsi.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir) || san_namespace() < 0) {
        printf("1..0 # SKIP needs root, ip and nft\n");
        return 0;
    }
    snprintf(sandir, sizeof(sandir), "%s/san", dir);
    if (san_start(&san, sandir, &opts) < 0) {
        printf("1..0 # SKIP tgtd does not start\n");
        san_stop(&san);
        return 0;
    }
    failed = cmocka_run_group_tests_name("iscsi", tests, NULL, NULL);
    san_stop(&san);
    san_run("rm -rf %s", dir);
    return failed;
}
