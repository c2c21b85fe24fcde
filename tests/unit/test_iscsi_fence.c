/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of the right to write over iscsi, against a real target (tgtd):
 * registering, fencing and being fenced, and writes that hang meanwhile. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>

#include "lun/epoch.h"
#include "lun/iscsi_impl.h"
#include "lun/sense.h"
#include "tests/unit/iscsi_host.h"

/* ---- reaching in -------------------------------------------------------- */

int __real_iscsi_reserve_register(const struct iscsi_via *via, uint64_t key);
int __wrap_iscsi_reserve_register(const struct iscsi_via *via, uint64_t key);

/* Runs once, before a REGISTER of host 1 leaves. */
static void (*_Atomic before_register)(void);

int
__wrap_iscsi_reserve_register(const struct iscsi_via *via, uint64_t key)
{
    struct key k = {0};
    void (*hook)(void) = before_register;

    if (hook && key_unpack(key, &k) && k.host == 1) {
        before_register = NULL;
        hook();
    }
    return __real_iscsi_reserve_register(via, key);
}

struct sense_verdict __real_sense_judge_status(uint8_t status);
struct sense_verdict __wrap_sense_judge_status(uint8_t status);

/* Every answer tells of a reset. */
static atomic_bool always_reset;

struct sense_verdict
__wrap_sense_judge_status(uint8_t status)
{
    struct sense_verdict v = __real_sense_judge_status(status);

    if (always_reset)
        v.news |= SENSE_RESET;
    return v;
}

void __real_iscsi_control_start(struct iscsi_path *p, struct iscsi_control *c);
void __wrap_iscsi_control_start(struct iscsi_path *p, struct iscsi_control *c);

/* This portal swallows our commands, and answers probes. */
static const char *_Atomic deaf;

/* LUN RESETs, and requests that their senders had in the target then. */
static atomic_uint resets, sent_at_resets;
/* The target refuses LUN RESETs; so many until now. */
static atomic_bool refuses_reset;
static atomic_uint refusals;

static void
refuse(struct iscsi_path *p, struct iscsi_control *c)
{
    refusals++;
    pthread_mutex_lock(&p->lun->lock);
    c->error = -EOPNOTSUPP;
    c->done = true;
    pthread_cond_broadcast(&p->lun->changed);
    pthread_mutex_unlock(&p->lun->lock);
    iscsi_control_put(p->lun, c);
}

void
__wrap_iscsi_control_start(struct iscsi_path *p, struct iscsi_control *c)
{
    const char *portal = deaf;

    if (c->lun_reset) {
        pthread_mutex_lock(&p->lun->lock);
        atomic_fetch_add(&sent_at_resets, p->nsent);
        pthread_mutex_unlock(&p->lun->lock);
        atomic_fetch_add(&resets, 1);
    }
    if (c->lun_reset && refuses_reset) {
        refuse(p, c);
    } else if (portal && strncmp(p->portal, portal, strlen(portal)) == 0) {
        c->path = p;
        STAILQ_INSERT_TAIL(&p->issued, c, link);
    } else {
        __real_iscsi_control_start(p, c);
    }
}

/* ---- the right to write ------------------------------------------------- */

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

/* The first path's portal answers probes and no command; the other one does
 * what is asked, and is asked first from then on. */
static void
test_check_goes_on_to_another_path(void **state)
{
    struct host a;
    uint64_t begin_ms;

    (void)state;
    host_up(&a, 1, 2);
    await_keys(1, 2);
    deaf = "127.0.0.2";
    assert_int_equal(lun_check_registration(a.lun, clock_ms() + 3000), 0);
    begin_ms = clock_ms();
    assert_int_equal(lun_check_registration(a.lun, begin_ms + 10000), 0);
    assert_in_range(clock_ms() - begin_ms, 0, 4000);
    deaf = NULL;
    assert_int_equal(host_down(&a), 0);
}

static void
test_fence_goes_on_to_another_path(void **state)
{
    struct host a;
    struct host b;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    await_keys(1, 2);
    await_keys(2, 2);
    deaf = "127.0.0.2";
    assert_int_equal(lun_fence(a.lun, 2, clock_ms() + 4000), 0);
    deaf = NULL;
    assert_int_equal(keys_of(2), 0);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

/* Who asked us to fence has other peers to ask. */
static void
test_fence_is_given_up_when_no_path_is_left(void **state)
{
    uint64_t begun_ms;
    struct host a;

    (void)state;
    host_up(&a, 1, 2);
    await_keys(1, 2);
    san_cut(2);
    san_cut(3);
    begun_ms = clock_ms();
    assert_int_equal(lun_fence(a.lun, 2, clock_ms() + PATIENT_MS), -ENOLINK);
    assert_int_equal(status_of(&a).paths_good, 0);
    assert_true(clock_ms() - begun_ms < PATIENT_MS / 2);
    san_heal();
    await(&a, st.paths_good == 2);
    assert_int_equal(host_down(&a), 0);
}

/* tgtd refuses PREEMPT AND ABORT, and here LUN RESET as well: nothing can
 * end what a lost session has sent.  It is not asked for all the time. */
static void
test_refused_resets_are_not_asked_for_all_the_time(void **state)
{
    struct host a;
    struct lun_tally *t = lun_tally_create();
    unsigned n;

    (void)state;
    host_up(&a, 1, 2);
    await_keys(1, 2);
    refuses_reset = true;
    refusals = 0;
    san_mute(2);
    san_mute(3);
    lose_writes(&a, t, 0xAA);
    san_heal();
    for (uint64_t until_ms = soon(); refusals == 0; usleep(1000))
        assert_true(clock_ms() < until_ms);
    usleep(1200000);
    n = refusals;
    assert_in_range(n, 1, 4);
    assert_true(status_of(&a).orphans > 0);
    refuses_reset = false;
    await(&a, st.orphans == 0);
    assert_int_equal(lun_tally_count(t), 0);
    lun_tally_put(t);
    assert_int_equal(host_down(&a), 0);
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

/* One path has lost a write and the other is idle: what looks after the dead
 * session's key learns that there is none of ours any more. */
static void
test_fenced_with_a_dead_path_and_an_idle_one(void **state)
{
    struct host a;
    struct host b;
    struct lun_io *io = NULL;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&b, 2, 4);
    await_keys(1, 2);
    san_mute(2);
    for (int i = 0; i < 2 && !io; i++) { /* they take turns */
        struct lun_io *done;

        io = make_io(&a, LUN_WRITE, 0, BLOCK);
        memset(io->data, 0xAA, BLOCK);
        lun_submit(a.q, io);
        if (lun_reap(a.q, &done, 1, clock_ms() + 50) == 1) {
            lun_io_put(done);
            io = NULL;
        }
    }
    assert_non_null(io);
    assert_int_equal(lun_fence(b.lun, 1, soon()), 0);
    assert_int_equal(lun_reap(a.q, &io, 1, soon()), 1);
    assert_int_equal(io->error, -EBADE);
    lun_io_put(io);
    assert_int_equal(status_of(&a).registration, LUN_FENCED);
    san_heal();
    assert_int_equal(lun_register(a.lun, soon()), 0);
    assert_int_equal(status_of(&a).orphans, 0);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

static struct host fencer;

static void
fence_from_aside(void)
{
    if (lun_fence(fencer.lun, 1, soon()) != 0 ||
        write_byte(&fencer, 0, 0xBB) != 0)
        abort();
}

/* The whole fence fits between a look at the keys and the REGISTER that
 * follows: the new key is there afterwards, but proves nothing. */
static void
test_register_behind_a_fence_does_not_join(void **state)
{
    struct host a;

    (void)state;
    host_up(&a, 1, 2);
    host_up(&fencer, 2, 4);
    await_keys(1, 2);
    before_register = fence_from_aside;
    san_reset(2);
    await(&a, st.paths_good == 1);
    san_heal();
    await(&a, st.registration == LUN_FENCED);
    assert_null(before_register);
    assert_int_equal(write_byte(&a, 0, 0xAA), -EBADE);
    assert_int_equal(read_byte(&fencer, 0), 0xBB);
    assert_int_equal(lun_register(a.lun, soon()), 0);
    await_keys(1, 2);
    assert_int_equal(status_of(&a).registration_no, 2);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&fencer), 0);
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

/* Its kernel must not go on sending for a killed process. */
static void
test_killed_process_leaves_no_socket(void **state)
{
    struct host h;
    int status;
    pid_t child = fork();

    (void)state;
    if (child == 0) {
        host_up(&h, 1, 2);
        san_cut(2);
        san_cut(3);
        for (unsigned i = 0; i < MANY; i++)
            lun_submit(h.q, make_io(&h, LUN_WRITE, i * BLOCK, BLOCK));
        usleep(50000);
        raise(SIGKILL);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    /* what lingers would be in FIN-WAIT-1, sending again and again */
    assert_int_equal(san_run("ss -Htn state fin-wait-1 state last-ack "
                             "state closing 'dport = 3260' | grep -q ."),
                     1);
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

/* A process that never reached the target does not know better than the one
 * before it, which was killed. */
static void
test_unclean_end_is_passed_on(void **state)
{
    char device[] = "iscsi://127.0.0.77/" SAN_IQN "/1";
    struct host h;
    struct lun_options opt = host_options(&h, 9, device);
    uint64_t key = key_pack((struct key){7, 9, 1});
    uint64_t keys[8];

    (void)state;
    assert_int_equal(epoch_save_keys(h.state, "t", "test", &key, 1), 0);
    host_open(&h, &opt);
    assert_int_equal(status_of(&h).orphans, 1);
    assert_int_equal(host_down(&h), 0);
    assert_int_equal(epoch_load_keys(h.state, "t", "test", keys, 8), 1);
    assert_int_equal(keys[0], key);
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

/* ---- fence against reconnect -------------------------------------------- */

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

/* ---- writes held inside the target -------------------------------------- */

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
    assert_in_range(status_of(&a).orphans, 1, 2); /* perhaps a REGISTER */
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

/* A write that was given up is in the target, and its path is fine: whoever
 * registers may write again only when it has ended. */
static void
test_registering_waits_for_what_was_abandoned(void **state)
{
    struct hang g;
    struct host h;
    struct lun_io *io;

    (void)state;
    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    host_up(&h, 1, 30);
    hang_say(&g, "hold");
    io = make_io(&h, LUN_WRITE, 0, BLOCK);
    memset(io->data, 0xAA, BLOCK);
    assert_false(lun_run(h.q, io, clock_ms() + 200));
    assert_int_equal(lun_register(h.lun, clock_ms() + 1000), -ETIMEDOUT);
    assert_int_equal(hang_say(&g, "held"), 1);
    hang_say(&g, "go");
    assert_int_equal(lun_register(h.lun, soon()), 0);
    assert_int_equal(status_of(&h).registration_no, 1);
    assert_int_equal(status_of(&h).orphans, 0);
    assert_int_equal(write_byte(&h, 0, 0xBB), 0);
    assert_int_equal(read_byte(&h, 0), 0xBB);
    assert_int_equal(host_down(&h), 0);
    hang_down(&g);
}

/* What a reset has dropped without an answer is found missing, also when more
 * resets follow without a pause. */
static void
test_command_lost_in_one_of_many_resets(void **state)
{
    char device[] = "iscsi://127.0.0.30/" SAN_IQN "/1";
    struct hang g;
    struct host h;
    struct lun_options opt = host_options(&h, 6, device);
    struct lun_path path = {.since_ms = 0};
    uint64_t begin_ms;
    struct lun_io *io;

    (void)state;
    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    host_open(&h, &opt);
    await(&h, st.paths_good == 1);
    assert_int_equal(lun_register(h.lun, soon()), 0);
    hang_say(&g, "hold");
    io = make_io(&h, LUN_WRITE, 0, BLOCK);
    memset(io->data, 0xAA, BLOCK);
    lun_submit(h.q, io);
    for (uint64_t until_ms = soon(); hang_say(&g, "held") == 0;)
        assert_true(clock_ms() < until_ms);
    begin_ms = clock_ms();
    always_reset = true;
    while (path.since_ms < begin_ms) {
        assert_true(clock_ms() < begin_ms + PATIENT_MS);
        lun_check_registration(h.lun, soon());
        usleep(100000);
        lun_get_paths(h.lun, &path, 1);
    }
    always_reset = false;
    hang_say(&g, "go");
    assert_int_equal(host_down(&h), 0);
    hang_down(&g);
}

/* Nor are our own commands waited for longer than a VM's. */
static void
test_own_command_lost_in_a_reset(void **state)
{
    struct host h;
    struct lun_path path = {.since_ms = 0};
    uint64_t begin_ms;

    (void)state;
    host_up(&h, 9, 2);
    await_keys(9, 2);
    deaf = "127.0.0.2";
    assert_int_equal(lun_check_registration(h.lun, clock_ms() + 3000), 0);
    begin_ms = clock_ms();
    always_reset = true;
    for (int i = 0; i < 2; i++) /* one on each path */
        (void)read_byte(&h, 0);
    always_reset = false;
    while (path.since_ms < begin_ms) {
        assert_true(clock_ms() < begin_ms + ISCSI_KEEPER_MS - 1000);
        usleep(10000);
        lun_get_paths(h.lun, &path, 1);
    }
    assert_string_equal(path.error, "a command was lost in a reset");
    deaf = NULL;
    assert_int_equal(host_down(&h), 0);
}

static atomic_bool reading;

static void *
read_on(void *opaque)
{
    struct host *h = opaque;

    while (reading) {
        struct lun_io *io[16], *got;

        for (size_t i = 0; i < 16; i++) {
            io[i] = make_io(h, LUN_READ, i * BLOCK, BLOCK);
            lun_submit(h->q, io[i]);
        }
        for (size_t n = 0; n < 16; n++) {
            assert_int_equal(lun_reap(h->q, &got, 1, soon()), 1);
            assert_int_equal(got->error, 0);
            lun_io_put(got);
        }
    }
    return NULL;
}

/* A reset drops the commands of the nexus that sends it, on some targets
 * without an answer: it has none then. */
static void
test_a_nexus_rests_before_it_resets(void **state)
{
    struct host a;
    struct host b;
    pthread_t thread;

    (void)state;
    host_up(&a, 10, 2);
    host_up(&b, 11, 4);
    resets = sent_at_resets = 0;
    reading = true;
    assert_int_equal(pthread_create(&thread, NULL, read_on, &a), 0);
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(lun_fence(a.lun, 11, soon()), 0);
        assert_true(resets >= i);
        assert_int_equal(lun_check_registration(b.lun, soon()), -EBADE);
        assert_int_equal(lun_register(b.lun, soon()), 0);
    }
    reading = false;
    pthread_join(thread, NULL);
    assert_int_equal(sent_at_resets, 0);
    assert_int_equal(host_down(&a), 0);
    assert_int_equal(host_down(&b), 0);
}

static void
open_drain(struct host *h, const char *device)
{
    struct lun_options opt = host_options(h, 5, device);

    opt.fence = LUN_FENCE_DRAIN;
    host_open(h, &opt);
    await(h, st.paths_good == 1);
}

/* Without reservations a killed process' writes are waited for as well. */
static void
test_successor_without_reservations_waits(void **state)
{
    char device[] = "iscsi://127.0.0.30/" SAN_IQN "/1";
    struct hang g;
    struct host h;
    struct lun_io *io;
    pid_t child;

    (void)state;
    if (access(tool, X_OK) != 0)
        skip();
    hang_up(&g);
    hang_say(&g, "hold");
    child = fork();
    if (child == 0) {
        open_drain(&h, device);
        assert_int_equal(lun_register(h.lun, soon()), 0);
        io = make_io(&h, LUN_WRITE, 0, BLOCK);
        memset(io->data, 0xAA, BLOCK);
        lun_submit(h.q, io);
        for (;;)
            pause();
    }
    for (uint64_t until_ms = soon(); hang_say(&g, "held") == 0;)
        assert_true(clock_ms() < until_ms);
    kill(child, SIGKILL);
    assert_int_equal(waitpid(child, NULL, 0), child);
    open_drain(&h, device);
    assert_int_equal(status_of(&h).orphans, 1);
    assert_int_equal(lun_register(h.lun, clock_ms() + 500), -ETIMEDOUT);
    assert_int_equal(hang_say(&g, "held"), 1);
    hang_say(&g, "go");
    assert_int_equal(lun_register(h.lun, soon()), 0);
    assert_int_equal(status_of(&h).orphans, 0);
    assert_int_equal(write_byte(&h, 0, 0xBB), 0);
    assert_int_equal(read_byte(&h, 0), 0xBB);
    assert_int_equal(host_down(&h), 0);
    /* and one that ended well leaves nothing to wait for */
    open_drain(&h, device);
    assert_int_equal(status_of(&h).orphans, 0);
    assert_int_equal(host_down(&h), 0);
    hang_down(&g);
}

/* A test that failed in the middle must not take the next one with it. */
static int
each_teardown(void **state)
{
    (void)state;
    kill(san.pid, SIGCONT);
    san_heal();
    before_register = NULL;
    always_reset = false;
    refuses_reset = false;
    deaf = NULL;
    return 0;
}

#define iscsi_test(f) cmocka_unit_test_teardown(f, each_teardown)

int
main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        iscsi_test(test_write_needs_the_present_registration),
        iscsi_test(test_fenced_host_stops_and_registers_anew),
        iscsi_test(test_check_finds_a_fence),
        iscsi_test(test_check_goes_on_to_another_path),
        iscsi_test(test_fence_goes_on_to_another_path),
        iscsi_test(test_fence_is_given_up_when_no_path_is_left),
        iscsi_test(test_refused_resets_are_not_asked_for_all_the_time),
        iscsi_test(test_host_fenced_while_cut_off_finds_out),
        iscsi_test(test_fenced_with_a_dead_path_and_an_idle_one),
        iscsi_test(test_register_behind_a_fence_does_not_join),
        iscsi_test(test_reset_by_another_host_is_not_felt),
        iscsi_test(test_successor_fences_what_was_left),
        iscsi_test(test_killed_process_leaves_no_socket),
        iscsi_test(test_clean_end_is_noted_for_the_successor),
        iscsi_test(test_unclean_end_is_passed_on),
        iscsi_test(test_foreign_reservation_is_not_touched),
        iscsi_test(test_fence_against_reconnect),
        iscsi_test(test_fence_waits_for_writes_in_the_target),
        iscsi_test(test_second_fence_waits_as_the_first_did),
        iscsi_test(test_no_write_passes_one_that_hangs_on_a_dead_path),
        iscsi_test(test_registering_waits_for_what_was_abandoned),
        iscsi_test(test_command_lost_in_one_of_many_resets),
        iscsi_test(test_own_command_lost_in_a_reset),
        iscsi_test(test_a_nexus_rests_before_it_resets),
        iscsi_test(test_successor_without_reservations_waits),
    };

    (void)argc;
    return iscsi_tests("iscsi_fence", argv[0], tests,
                       sizeof(tests) / sizeof(tests[0]));
}
