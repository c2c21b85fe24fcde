/* SPDX-License-Identifier: BSD-3-Clause */
/* Hosts, requests and a model of the LUN's contents for the tests of the
 * iscsi backend, and the frame they run in. */
#ifndef DETOUR_TESTS_ISCSI_HOST_H
#define DETOUR_TESTS_ISCSI_HOST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <inttypes.h>
#include <libgen.h>
#include <limits.h>

#include "common/log.h"
#include "lun/key.h"
#include "lun/lun.h"
#include "tests/unit/iscsi_san.h"

#define INTERVAL_MS 100
#define TIMEOUT_MS  300
/* What a machine that is busy with other things may add to a bound. */
#define SLACK_MS   1000
#define PATIENT_MS 15000
#define BLOCK      4096u

static char dir[100];       /* of the whole program */
static char tool[PATH_MAX]; /* tests/tools/hangfs */
static struct san san;

/* ---- hosts -------------------------------------------------------------- */

/* One lun with a queue, as a host with its own number has them. */
struct host {
    struct lun *lun;
    struct lun_queue *q;
    char state[150];
};

static inline uint64_t
soon(void)
{
    return clock_ms() + PATIENT_MS;
}

static inline struct lun_options
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

static inline struct lun_status
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

static inline void
host_open(struct host *h, const struct lun_options *opt)
{
    h->lun = lun_create(opt);
    assert_non_null(h->lun);
    h->q = lun_queue_create(h->lun);
    assert_non_null(h->q);
}

/* A host over the portals 127.0.0.FIRST and the next, good and registered. */
static inline void
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

static inline unsigned
host_down(struct host *h)
{
    lun_queue_destroy(h->q);
    return lun_destroy(h->lun, soon());
}

static inline struct lun_io *
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
static inline int
run_io(struct host *h, struct lun_io *io)
{
    int err;

    if (!lun_run(h->q, io, soon()))
        fail_msg("a request did not come back");
    err = io->error;
    lun_io_put(io);
    return err;
}

static inline int
write_byte(struct host *h, uint64_t offset, int byte)
{
    struct lun_io *io = make_io(h, LUN_WRITE, offset, BLOCK);

    memset(io->data, byte, BLOCK);
    return run_io(h, io);
}

/* The byte that fills the block, or -errno. */
static inline int
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

/* ---- keys, as another initiator sees them ------------------------------- */

/* How many of the keys on the LUN behind a portal are this host's. */
static inline int
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

static inline int
keys_of(unsigned number)
{
    return keys_over(4, number);
}

static inline void
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

/* ---- requests against a model ------------------------------------------- */

#define MODEL_SIZE (4u << 20)
#define DEPTH      16

/* One random request against the model; ranges under way never overlap, since
 * each slot has a part of the LUN for itself. */
static inline struct lun_io *
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
static inline void
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

/* ---- requests without an answer ----------------------------------------- */

#define MANY 8u

/* Submits writes whose answers will not come; they return as -ENOLINK. */
static inline void
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

/* ---- the frame ---------------------------------------------------------- */

/* Runs the tests with one target for all of them. */
static inline int
iscsi_tests(const char *name, const char *program,
            const struct CMUnitTest *tests, size_t n)
{
    struct san_options opts = {.first = 2, .identity = "detour1"};
    const char *tmp = getenv("TMPDIR");
    const char *debug = getenv("DEBUG");
    char path[PATH_MAX];
    char sandir[150];
    int failed;

    snprintf(path, sizeof(path), "%s", program);
    snprintf(tool, sizeof(tool), "%.4000s/../tools/hangfs", dirname(path));
    if (getenv("ONLY"))
        cmocka_set_test_filter(getenv("ONLY"));
    log_init(name, debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    snprintf(dir, sizeof(dir), "%.80s/iscsi.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir) || san_namespace() < 0) {
        printf("1..0 # SKIP needs root, ip and nft\n");
        return 0;
    }
    snprintf(sandir, sizeof(sandir), "%s/san", dir);
    if (san_start(&san, sandir, &opts) == 0) {
        failed = _cmocka_run_group_tests(name, tests, n, NULL, NULL);
    } else {
        printf("1..0 # SKIP tgtd does not start\n");
        failed = 0;
    }
    san_stop(&san);
    san_run("rm -rf --one-file-system %s", dir);
    return failed;
}

#endif
