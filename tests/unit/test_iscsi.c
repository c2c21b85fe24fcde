/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of the iscsi backend's requests and paths against a real target
 * (tgtd) whose portals are cut, muted, reset and stopped. */
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>

#include "lun/sense.h"
#include "tests/unit/iscsi_host.h"

/* ---- reaching in -------------------------------------------------------- */

struct sense_verdict __real_sense_judge_status(uint8_t status);
struct sense_verdict __wrap_sense_judge_status(uint8_t status);

/* Every fifth good answer is judged so, as long as bad_answers lasts. */
static enum sense_action bad_action;
static atomic_int bad_answers;
static atomic_uint judged;

struct sense_verdict
__wrap_sense_judge_status(uint8_t status)
{
    struct sense_verdict v = __real_sense_judge_status(status);

    if (status != 0 || judged++ % 5 != 0 || bad_answers <= 0)
        return v;
    bad_answers--;
    return (struct sense_verdict){bad_action, -ENOLINK, 0, "as the test says"};
}

int __real_iscsi_scsi_command_async(struct iscsi_context *ctx, int lun,
                                    struct scsi_task *task, iscsi_command_cb cb,
                                    struct iscsi_data *d, void *opaque);
int __wrap_iscsi_scsi_command_async(struct iscsi_context *ctx, int lun,
                                    struct scsi_task *task, iscsi_command_cb cb,
                                    struct iscsi_data *d, void *opaque);

/* To the target these are commands that it has never heard of. */
static atomic_bool no_sync16, no_sync10;
static atomic_uint syncs16, syncs10;

int
__wrap_iscsi_scsi_command_async(struct iscsi_context *ctx, int lun,
                                struct scsi_task *task, iscsi_command_cb cb,
                                struct iscsi_data *d, void *opaque)
{
    bool is16 = task->cdb[0] == SCSI_OPCODE_SYNCHRONIZECACHE16;
    bool is10 = task->cdb[0] == SCSI_OPCODE_SYNCHRONIZECACHE10;

    syncs16 += is16;
    syncs10 += is10;
    if ((is16 && no_sync16) || (is10 && no_sync10))
        task->cdb[0] = 0xff;
    return __real_iscsi_scsi_command_async(ctx, lun, task, cb, d, opaque);
}

/* ---- plain I/O ---------------------------------------------------------- */

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

/* tgtd answers MODE SENSE with a conflict until the nexus has registered. */
static void
test_write_protection_is_known_once_registered(void **state)
{
    struct host first;
    struct host second;
    struct lun_io *io;

    (void)state;
    host_up(&first, 1, 2);
    san_adm(&san, "--op update --mode logicalunit --tid 1 --lun 1 "
                  "--params readonly=1");
    host_up(&second, 2, 2);
    san_adm(&san, "--op update --mode logicalunit --tid 1 --lun 1 "
                  "--params readonly=0");
    assert_true(status_of(&second).readonly);
    io = make_io(&second, LUN_WRITE, 0, BLOCK);
    memset(io->data, 1, BLOCK);
    assert_int_equal(run_io(&second, io), -EROFS);
    assert_int_equal(read_byte(&second, 0), 0);
    assert_int_equal(host_down(&second), 0);
    assert_int_equal(host_down(&first), 0);
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

/* Where the long SYNCHRONIZE CACHE is unknown the short one may not be: it is
 * sent, and from then on at once; without both there is no cache. */
static void
test_flush_takes_the_command_that_the_target_knows(void **state)
{
    struct host h;

    (void)state;
    host_up(&h, 1, 2);
    syncs16 = syncs10 = 0;
    assert_int_equal(run_io(&h, make_io(&h, LUN_FLUSH, 0, 0)), 0);
    assert_true(syncs16 == 1 && syncs10 == 0);
    no_sync16 = true;
    assert_int_equal(run_io(&h, make_io(&h, LUN_FLUSH, 0, 0)), 0);
    assert_true(syncs16 == 2 && syncs10 == 1);
    assert_int_equal(run_io(&h, make_io(&h, LUN_FLUSH, 0, 0)), 0);
    assert_true(syncs16 == 2 && syncs10 == 2);
    no_sync10 = true;
    assert_int_equal(run_io(&h, make_io(&h, LUN_FLUSH, 0, 0)), 0);
    assert_true(syncs16 == 2 && syncs10 == 3);
    no_sync16 = no_sync10 = false;
    assert_int_equal(host_down(&h), 0);
}

/* ---- paths -------------------------------------------------------------- */

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

static void
many_bad_answers(unsigned done)
{
    if (done == 100)
        bad_answers = 300;
}

static void
test_busy_target_is_asked_again(void **state)
{
    struct host h;

    (void)state;
    host_up(&h, 1, 2);
    await_keys(1, 2);
    bad_action = SENSE_LATER; /* busy, task set full, task aborted */
    run_model(&h, 2000, 6, many_bad_answers);
    bad_answers = 0;
    bad_action = SENSE_AGAIN; /* unit attention */
    run_model(&h, 2000, 7, many_bad_answers);
    assert_true(bad_answers <= 0);
    assert_int_equal(status_of(&h).paths_good, 2);
    assert_int_equal(host_down(&h), 0);
}

static void
one_bad_answer(unsigned done)
{
    if (done == 500)
        bad_answers = 1;
}

static void
test_path_that_refuses_loses_its_requests_to_another(void **state)
{
    struct host h;
    struct lun_status before;

    (void)state;
    host_up(&h, 1, 2);
    await_keys(1, 2);
    before = status_of(&h);
    bad_action = SENSE_PATH; /* a standby port, an unmapped LUN */
    run_model(&h, 2000, 8, one_bad_answer);
    assert_true(bad_answers <= 0);
    await(&h, st.paths_good == 2 && st.key != before.key);
    assert_int_equal(host_down(&h), 0);
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

/* What counts on for the lost write does not hinder the request itself. */
static void
test_request_is_used_again_after_its_write_was_lost(void **state)
{
    struct host h;
    struct lun_io *io;

    (void)state;
    host_up(&h, 1, 2);
    assert_int_equal(write_byte(&h, 0, 0x11), 0);
    io = make_io(&h, LUN_WRITE, BLOCK, BLOCK);
    memset(io->data, 0xAA, BLOCK);
    san_mute(2);
    san_mute(3);
    assert_true(lun_run(h.q, io, soon()));
    assert_int_equal(io->error, -ENOLINK);
    san_heal();
    await(&h, st.paths_good == 2);
    io->op = LUN_READ;
    io->offset = 0;
    assert_true(lun_run(h.q, io, soon()));
    assert_int_equal(io->error, 0);
    assert_int_equal(io->data[0], 0x11);
    io->op = LUN_WRITE;
    assert_true(lun_run(h.q, io, soon()));
    assert_int_equal(io->error, 0);
    lun_io_put(io);
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

/* A queue keeps memory for its next requests, but not of any size. */
static void
test_idle_queue_keeps_little_memory(void **state)
{
    char device[] = "iscsi://127.0.0.77/" SAN_IQN "/1";
    struct host h;
    struct lun_options opt = host_options(&h, 1, device);
    struct lun_io *ios[64];
    struct mallinfo2 before;
    struct mallinfo2 after;

    (void)state;
    host_open(&h, &opt);
    before = mallinfo2();
    for (unsigned i = 0; i < 64; i++)
        ios[i] = make_io(&h, LUN_WRITE, 0, 1u << 20);
    for (unsigned i = 0; i < 64; i++)
        lun_io_put(ios[i]);
    after = mallinfo2();
    assert_in_range(after.uordblks + after.hblkhd, 0,
                    before.uordblks + before.hblkhd + (8u << 20));
    assert_int_equal(host_down(&h), 0);
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

/* ---- which LUN it is ---------------------------------------------------- */

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

/* Beyond 255 the number is written in another way (SAM-5 4.7.7). */
static void
test_lun_number_above_255(void **state)
{
    char device[] = "iscsi://127.0.0.2/" SAN_IQN "/300";
    struct host h;
    struct lun_options opt = host_options(&h, 1, device);

    (void)state;
    assert_int_equal(san_run("truncate -s 1M %s/second", dir), 0);
    san_adm(&san, "--op new --mode logicalunit --tid 1 --lun 300 -b %s/second",
            dir);
    host_open(&h, &opt);
    await(&h, st.paths_good == 1);
    assert_int_equal(status_of(&h).size, 1u << 20);
    assert_int_equal(read_byte(&h, 0), 0);
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

static void
assert_secret(const char *text, bool good)
{
    char path[PATH_MAX];
    struct host h;
    struct lun_options opt =
        host_options(&h, 1, "iscsi://127.0.0.77/" SAN_IQN "/1");
    struct lun *l;
    FILE *f;

    snprintf(path, sizeof(path), "%s/secret", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    opt.chap_user = "detour";
    opt.chap_secret_file = path;
    errno = 0;
    l = lun_create(&opt);
    if (good)
        assert_non_null(l);
    else
        assert_int_equal(errno, EINVAL);
    assert_true(good || !l);
    lun_destroy(l, soon());
    unlink(path);
}

/* libiscsi would log in with an empty one, and without the end of a long one.
 */
static void
test_unusable_secret_is_einval(void **state)
{
    char text[300];

    (void)state;
    memset(text, 'x', sizeof(text));
    text[255] = '\0';
    assert_secret(text, true);
    assert_secret("twelve chars\nand more\n", true);
    assert_secret("", false);
    assert_secret("\ntwelve chars\n", false);
    text[255] = 'x';
    text[256] = '\0';
    assert_secret(text, false);
}

/* ---- without reservations ----------------------------------------------- */

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

/* A test that failed in the middle must not take the next one with it. */
static int
each_teardown(void **state)
{
    (void)state;
    kill(san.pid, SIGCONT);
    san_heal();
    bad_answers = 0;
    return 0;
}

#define iscsi_test(f) cmocka_unit_test_teardown(f, each_teardown)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        iscsi_test(test_bad_device_is_einval),
        iscsi_test(test_unusable_secret_is_einval),
        iscsi_test(test_lun_number_above_255),
        iscsi_test(test_status_tells_what_the_target_says),
        iscsi_test(test_write_protection_is_known_once_registered),
        iscsi_test(test_io_matches_a_model),
        iscsi_test(test_long_zero_and_unaligned_requests),
        iscsi_test(test_flush_takes_the_command_that_the_target_knows),
        iscsi_test(test_stopped_target_fails_all_paths_in_time),
        iscsi_test(test_slow_target_is_not_a_dead_one),
        iscsi_test(test_heal_is_noticed_in_time),
        iscsi_test(test_writes_survive_the_loss_of_a_path),
        iscsi_test(test_writes_survive_a_flapping_path),
        iscsi_test(test_busy_target_is_asked_again),
        iscsi_test(test_path_that_refuses_loses_its_requests_to_another),
        iscsi_test(test_all_paths_lost_and_found),
        iscsi_test(test_request_is_used_again_after_its_write_was_lost),
        iscsi_test(test_no_ghost_of_a_stopped_target),
        iscsi_test(test_abandoned_requests_count_until_answered),
        iscsi_test(test_destroy_is_bounded_and_counts),
        iscsi_test(test_queue_destroy_abandons_everything),
        iscsi_test(test_idle_queue_keeps_little_memory),
        iscsi_test(test_nothing_there),
        iscsi_test(test_portal_of_another_lun_is_refused),
        iscsi_test(test_unexpected_identity_is_not_served),
        iscsi_test(test_drain_proves_orphans_dead_with_a_reset),
        iscsi_test(test_thin_lun_trims_and_zeroes),
    };

    (void)argc;
    return iscsi_tests("iscsi", argv[0], tests,
                       sizeof(tests) / sizeof(tests[0]));
}
