/* SPDX-License-Identifier: BSD-3-Clause */
/* The right to write on a kernel device: registering, sharing it among a
 * host's processes, losing it, fencing others. */
#include "tests/unit/lun_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/file.h>

#include "lun/epoch.h"
#include "lun/key.h"
#include "tests/unit/fake_pr.h"

#include "lun/pr_block.h"

#define MIB (1u << 20)

static atomic_uint notified;

static void
notify(void *opaque)
{
    (void)opaque;
    notified++;
}

/* How many REGISTERs left; one of them may still be held. */
static unsigned
registers_sent(void)
{
    unsigned n;

    pthread_mutex_lock(&fake.lock);
    n = fake.registers;
    pthread_mutex_unlock(&fake.lock);
    return n;
}

static int
setup(void **state)
{
    fake_reset();
    return fixture_setup(state);
}

/* A process of a host; hosts have a state folder and a lock of their own. */
static struct lun *
process(unsigned host)
{
    static unsigned number;
    char folder[192], disk[16], name[16];
    struct lun_options opt;

    snprintf(disk, sizeof disk, "disk%u", host);
    snprintf(folder, sizeof folder, "%s/host%u", fixture_dir, host);
    mkdir(folder, 0700);
    opt = fixture_options(fixture_file(disk, MIB));
    opt.rundir = opt.statedir = folder;
    snprintf(name, sizeof name, "process%u", number++);
    opt.process = name;
    opt.host_number = host;
    opt.fence = LUN_FENCE_PR;
    opt.notify = notify;
    return fixture_lun(&opt);
}

static struct lun *
registered(unsigned host)
{
    struct lun *l = process(host);

    assert_int_equal(lun_register(l, soon()), 0);
    return l;
}

static uint32_t
epoch_of(struct lun *l)
{
    struct key k;

    assert_true(key_unpack(status_of(l).key, &k));
    return k.epoch;
}

static int
write_under(struct lun *l, uint64_t registration_no)
{
    struct lun_queue *q = lun_queue_create(l);
    struct lun_io *io = request(q, LUN_WRITE, 0, 4096, 1);
    int err;

    io->registration_no = registration_no;
    assert_true(lun_run(q, io, soon()));
    err = io->error;
    lun_io_put(io);
    lun_queue_destroy(q);
    return err;
}

/* ---- registering ------------------------------------------------- */

static void
registering_makes_key_and_reservation(bool passes_read)
{
    struct lun *l;
    struct key k;

    fake.passes_read = passes_read;
    l = process(1);
    assert_int_equal(write_under(l, 0), -EBADE);
    assert_int_equal(write_under(l, 1), -EBADE);
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(status_of(l).registration, LUN_REGISTERED);
    assert_int_equal(status_of(l).registration_no, 1);
    assert_true(key_unpack(fake.keys[1], &k));
    assert_int_equal(k.cluster, 7);
    assert_int_equal(k.host, 1);
    assert_int_equal(fake.keys[1], status_of(l).key);
    assert_int_equal(fake.holder, fake.keys[1]);
    assert_int_equal(fake.type, PR_WRITE_EXCLUSIVE_REG_ONLY);
    assert_int_equal(write_under(l, 1), 0);
    assert_int_equal(write_under(l, 2), -EBADE);
    assert_int_equal(lun_check_registration(l, soon()), 0);
    lun_destroy(l, soon());
}

static void
test_registering_makes_key_and_reservation(void **state)
{
    (void)state;
    registering_makes_key_and_reservation(false);
}

static void
test_registering_through_the_kernels_ioctls(void **state)
{
    (void)state;
    registering_makes_key_and_reservation(true);
}

static void
test_standing_registration_is_kept(void **state)
{
    struct lun *l = registered(1);

    (void)state;
    assert_int_equal(lun_register(l, soon()), 0);
    lun_release(l);
    assert_int_equal(write_under(l, 1), -EBADE);
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(status_of(l).registration_no, 1);
    assert_int_equal(write_under(l, 1), 0);
    assert_int_equal(registers_sent(), 1);
    lun_destroy(l, soon());
}

static void
test_processes_share_a_key(void **state)
{
    struct lun *a = process(1), *b = process(1);

    (void)state;
    assert_int_equal(lun_register(a, soon()), 0);
    assert_int_equal(lun_register(b, soon()), 0);
    assert_int_equal(status_of(a).key, status_of(b).key);
    assert_int_equal(registers_sent(), 1);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

static void
test_hosts_share_a_reservation(void **state)
{
    struct lun *a = registered(1), *b = registered(2);

    (void)state;
    assert_int_equal(fake.holder, status_of(a).key);
    assert_int_equal(lun_check_registration(a, soon()), 0);
    assert_int_equal(lun_check_registration(b, soon()), 0);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

static void
test_foreign_reservation_is_busy(void **state)
{
    struct lun *l = process(1);

    (void)state;
    fake.keys[4] = fake.holder = 0x1234;
    fake.type = PR_EXCLUSIVE_ACCESS;
    assert_int_equal(lun_register(l, soon()), -EBUSY);
    assert_int_equal(registers_sent(), 0);
    assert_int_equal(status_of(l).registration, LUN_UNREGISTERED);
    lun_destroy(l, soon());
}

static void
test_target_without_reservations(void **state)
{
    struct lun *l = process(1);

    (void)state;
    fake.none = true;
    assert_int_equal(lun_register(l, soon()), -EOPNOTSUPP);
    lun_destroy(l, soon());
}

static void
test_unit_attentions_are_passed_over(void **state)
{
    struct lun *l = process(1);

    (void)state;
    fake.attentions = 3;
    assert_int_equal(lun_register(l, soon()), 0);
    fake.attentions = 3;
    assert_int_equal(lun_check_registration(l, soon()), 0);
    lun_destroy(l, soon());
}

static void
test_lost_reservation_is_made_again(void **state)
{
    struct lun *l = registered(1);

    (void)state;
    fake.type = 0;
    fake.holder = 0;
    assert_int_equal(lun_check_registration(l, soon()), 0);
    assert_int_equal(fake.type, PR_WRITE_EXCLUSIVE_REG_ONLY);
    assert_int_equal(fake.holder, status_of(l).key);
    lun_destroy(l, soon());
}

/* Before 5.14 sense data left a mark in the driver byte: sd_pr_command(). */
static void
test_unit_attentions_of_old_kernels_are_passed_over(void **state)
{
    struct lun *l = process(1);

    (void)state;
    fake.attention = 0x08000002;
    fake.attentions = 3;
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(registers_sent(), 1);
    lun_destroy(l, soon());
}

/* ---- a REGISTER that hangs --------------------------------------- */

static void
hold_registers(bool hold)
{
    pthread_mutex_lock(&fake.lock);
    fake.hold_registers = hold;
    pthread_cond_broadcast(&fake.moved);
    pthread_mutex_unlock(&fake.lock);
}

static bool
lock_is_free(unsigned host)
{
    char name[32];
    bool free_now;
    int fd;

    snprintf(name, sizeof name, "host%u/vm1.lock", host);
    fd = open(fixture_path(name), O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    free_now = flock(fd, LOCK_EX | LOCK_NB) == 0;
    close(fd);
    return free_now;
}

static void
test_register_given_up_is_an_orphan(void **state)
{
    struct lun *l = process(1);

    (void)state;
    hold_registers(true);
    assert_int_equal(lun_register(l, clock_ms() + 100), -ETIMEDOUT);
    assert_int_equal(status_of(l).orphans, 1);
    /* no second one overtakes it, from here or from another process */
    assert_int_equal(lun_register(l, clock_ms() + 50), -ETIMEDOUT);
    assert_int_equal(registers_sent(), 1);
    assert_false(lock_is_free(1));
    lun_release(l);
    assert_false(lock_is_free(1));
    hold_registers(false);
    eventually(status_of(l).orphans == 0);
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(status_of(l).key, fake.keys[1]);
    lun_destroy(l, soon());
}

static void
test_lock_is_dropped_when_a_register_comes_back(void **state)
{
    struct lun *l = process(1);

    (void)state;
    hold_registers(true);
    assert_int_equal(lun_register(l, clock_ms() + 100), -ETIMEDOUT);
    assert_false(lock_is_free(1));
    hold_registers(false);
    eventually(lock_is_free(1));
    lun_destroy(l, soon());
}

/* ---- being fenced ------------------------------------------------ */

static void
test_fenced_host_notices_and_registers_anew(void **state)
{
    struct lun *a = registered(1), *b = registered(2);
    uint32_t epoch;
    unsigned before;

    (void)state;
    epoch = epoch_of(a);
    assert_int_equal(lun_fence(b, 1, soon()), 0);
    assert_int_equal(fake.keys[1], 0);
    assert_int_equal(fake.aborts, 1);
    assert_int_equal(fake.holder, status_of(b).key);
    before = notified;
    assert_int_equal(lun_check_registration(a, soon()), -EBADE);
    assert_int_equal(status_of(a).registration, LUN_FENCED);
    assert_true(notified > before);
    assert_int_equal(write_under(a, 1), -EBADE);
    assert_int_equal(lun_fence(a, 2, soon()), -EBADE);
    assert_int_equal(lun_register(a, soon()), 0);
    assert_int_equal(status_of(a).registration_no, 2);
    assert_true(epoch_of(a) != epoch);
    assert_int_equal(write_under(a, 1), -EBADE);
    assert_int_equal(write_under(a, 2), 0);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

static void
test_registering_anew_waits_for_all_processes(void **state)
{
    struct lun *a = process(1), *b = process(1);

    (void)state;
    assert_int_equal(lun_register(a, soon()), 0);
    assert_int_equal(lun_register(b, soon()), 0);
    fake.keys[1] = 0; /* fenced */
    assert_int_equal(lun_check_registration(a, soon()), -EBADE);
    assert_int_equal(lun_register(a, clock_ms() + 100), -ETIMEDOUT);
    assert_int_equal(registers_sent(), 1);
    assert_int_equal(status_of(a).registration, LUN_FENCED);
    assert_int_equal(lun_check_registration(b, soon()), -EBADE);
    lun_release(b);
    assert_int_equal(lun_register(a, soon()), 0);
    assert_int_equal(registers_sent(), 2);
    assert_int_equal(lun_register(b, soon()), 0);
    assert_int_equal(registers_sent(), 2);
    assert_int_equal(status_of(b).key, status_of(a).key);
    assert_int_equal(status_of(b).registration_no, 2);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

/* One process calls the key off, since a path came back unregistered. */
static void
test_key_that_is_called_off_is_given_up(void **state)
{
    struct lun *l = registered(1);
    uint64_t key;

    (void)state;
    key = status_of(l).key;
    assert_true(epoch_next(fixture_path("host1"), "vm1") != 0);
    assert_int_equal(lun_check_registration(l, soon()), -EBADE);
    assert_int_equal(lun_register(l, soon()), 0);
    assert_true(status_of(l).key != key);
    assert_int_equal(status_of(l).registration_no, 2);
    lun_destroy(l, soon());
}

/* ---- fencing ----------------------------------------------------- */

static void
test_fencing_spares_everybody_else(void **state)
{
    struct lun *a = registered(1), *b = registered(2), *c = registered(3);

    (void)state;
    fake.keys[4] = key_pack((struct key){8, 3, 1}); /* another cluster's */
    fake.keys[0] = key_pack((struct key){7, 3, 1}); /* an older epoch's */
    assert_int_equal(lun_fence(a, 3, soon()), 0);
    assert_int_equal(fake.keys[3], 0);
    assert_int_equal(fake.keys[0], 0);
    assert_int_equal(fake.aborts, 2);
    assert_int_equal(fake.keys[1], status_of(a).key);
    assert_int_equal(fake.keys[2], status_of(b).key);
    assert_true(fake.keys[4] != 0);
    assert_int_equal(lun_fence(a, 3, soon()), 0);
    assert_int_equal(fake.aborts, 2);
    assert_int_equal(fake.resets, 0);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
    lun_destroy(c, soon());
}

static void
test_fencing_needs_a_registration(void **state)
{
    struct lun *l = process(1);

    (void)state;
    assert_int_equal(lun_fence(l, 2, soon()), -EBADE);
    assert_int_equal(lun_register(l, soon()), 0);
    assert_int_equal(lun_fence(l, 1, soon()), -EINVAL);
    assert_int_equal(lun_fence(l, 0, soon()), -EINVAL);
    assert_int_equal(lun_fence(l, 5000, soon()), -EINVAL);
    fake.keys[1] = 0;
    assert_int_equal(lun_fence(l, 2, soon()), -EBADE);
    assert_int_equal(status_of(l).registration, LUN_FENCED);
    lun_destroy(l, soon());
}

static void
test_refused_abort_becomes_a_reset(void **state)
{
    struct lun *a = registered(1), *b = registered(2);

    (void)state;
    fake.refuses_abort = true;
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    assert_int_equal(fake.keys[2], 0);
    assert_int_equal(fake.preempts, 1);
    assert_int_equal(fake.resets, 1);
    /* nobody registered since: that one still holds */
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    assert_int_equal(fake.resets, 1);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

/* Linux's target ends commands of the reservation's holder only. */
static void
test_partial_abort_is_not_relied_on(void **state)
{
    struct lun *a = process(1), *b = process(2);

    (void)state;
    fake.lio = true;
    assert_int_equal(lun_register(a, soon()), 0);
    assert_int_equal(lun_register(b, soon()), 0);
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    assert_int_equal(fake.keys[2], 0);
    assert_int_equal(fake.aborts, 0);
    assert_int_equal(fake.preempts, 1);
    assert_int_equal(fake.resets, 1);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

/* A process dies between PREEMPT and LUN RESET, and its successor, or another
 * host, finds no key. */
static void
test_reset_that_a_dead_process_owed_is_made_up_for(void **state)
{
    struct lun *a = registered(1), *b = registered(2), *c = registered(3);

    (void)state;
    fake.refuses_abort = true;
    fake.reset_error = EIO;
    assert_int_equal(lun_fence(a, 3, soon()), -EIO);
    assert_int_equal(fake.preempts, 1);
    lun_destroy(a, soon());
    a = process(1);
    assert_int_equal(lun_register(a, soon()), 0);
    assert_int_equal(fake.keys[3], 0);
    assert_int_equal(lun_fence(a, 3, soon()), -EIO);
    assert_int_equal(lun_fence(b, 3, soon()), -EIO);
    fake.reset_error = 0;
    assert_int_equal(lun_fence(b, 3, soon()), 0);
    assert_int_equal(fake.resets, 1);
    assert_int_equal(lun_fence(a, 3, soon()), 0);
    assert_int_equal(fake.resets, 2);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
    lun_destroy(c, soon());
}

/* What we know of a host ends when it may have been back. */
static void
test_fence_is_forgotten_when_anybody_registers(void **state)
{
    struct lun *a = registered(1), *b = registered(2);

    (void)state;
    fake.refuses_abort = true;
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    assert_int_equal(fake.resets, 1);
    assert_int_equal(lun_check_registration(b, soon()), -EBADE);
    assert_int_equal(lun_register(b, soon()), 0);
    fake.keys[2] = 0; /* and was preempted again by somebody */
    fake.generation++;
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    assert_int_equal(fake.resets, 2);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

/* Whose abort it was, if any, and whether it has ended, nobody can tell. */
static void
test_missing_key_proves_nothing(void **state)
{
    struct lun *a = registered(1);

    (void)state;
    fake.reset_error = EIO;
    assert_int_equal(lun_fence(a, 2, soon()), -EIO);
    fake.reset_error = 0;
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    assert_int_equal(fake.resets, 1);
    lun_destroy(a, soon());
}

/* Where there is no LUN RESET (NVMe), a host of ours takes a key with the
 * abort or not at all. */
static void
test_missing_key_without_a_reset_to_have(void **state)
{
    struct lun *a = registered(1);

    (void)state;
    fake.refuses_reset = true;
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    assert_int_equal(fake.aborts, 0);
    fake.refuses_abort = true;
    fake.generation++;
    assert_int_equal(lun_fence(a, 2, soon()), -EOPNOTSUPP);
    lun_destroy(a, soon());
}

/* Without a reservation a host without a key may write. */
static void
test_fencing_makes_a_lost_reservation_again(void **state)
{
    struct lun *a = registered(1), *b = registered(2);

    (void)state;
    fake.type = 0;
    fake.holder = 0;
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    assert_int_equal(fake.keys[2], 0);
    assert_int_equal(fake.type, PR_WRITE_EXCLUSIVE_REG_ONLY);
    assert_int_equal(fake.holder, status_of(a).key);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

static void
fencing_across_a_conflict(unsigned answer)
{
    struct lun *a = process(1);

    fake_reset();
    assert_int_equal(lun_register(a, soon()), 0);
    fake.conflict = answer;
    fake.refuses_reset = true; /* so that it asks with a key of nobody's */
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    lun_destroy(a, soon());
}

/* Before 6.3 NVMe's own status came through, with or without "do not retry":
 * nvme_pr_command(). */
static void
test_conflict_as_nvme_tells_it(void **state)
{
    (void)state;
    fencing_across_a_conflict(0x83);
    fencing_across_a_conflict(0x4083);
}

static void
test_no_fence_is_claimed_without_abort_and_reset(void **state)
{
    struct lun *a = registered(1), *b = registered(2);

    (void)state;
    fake.refuses_abort = fake.refuses_reset = true;
    assert_int_equal(lun_fence(a, 2, soon()), -EOPNOTSUPP);
    assert_int_equal(fake.preempts, 0);
    assert_true(fake.keys[2] != 0);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

static void
test_reset_that_failed_is_still_owed(void **state)
{
    struct lun *a = registered(1), *b = registered(2);

    (void)state;
    fake.refuses_abort = true;
    fake.reset_error = EIO;
    assert_int_equal(lun_fence(a, 2, soon()), -EIO);
    assert_int_equal(fake.keys[2], 0); /* looks fenced, and is not */
    assert_int_equal(lun_fence(a, 2, soon()), -EIO);
    fake.reset_error = 0;
    assert_int_equal(lun_fence(a, 2, soon()), 0);
    assert_int_equal(fake.resets, 1);
    lun_destroy(a, soon());
    lun_destroy(b, soon());
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, fixture_teardown)

/* ---- many keys --------------------------------------------------- */

/* Read by SG_IO or by the kernel, from a target of today or an old one. */
static void
for_each_reader(void (*run)(void))
{
    for (unsigned i = 0; i < 4; i++) {
        fake_reset();
        fake.passes_read = (i & 1) != 0;
        fake.cuts_length = (i & 2) != 0;
        run();
    }
}

static void
others_have_many_keys(void)
{
    /* around what is asked for at first, and 32 hosts on 32 paths each */
    const unsigned crowds[] = {254, 255, 256, 257, PR_BLOCK_KEYS_MAX - 2};

    for (size_t i = 0; i < sizeof crowds / sizeof crowds[0]; i++) {
        struct lun *a, *b;

        fake.crowd = crowds[i];
        a = registered(1);
        b = registered(2);
        assert_int_equal(lun_check_registration(a, soon()), 0);
        assert_int_equal(lun_fence(a, 2, soon()), 0);
        assert_int_equal(fake.keys[2], 0);
        assert_int_equal(fake.aborts, i + 1);
        assert_int_equal(lun_check_registration(b, soon()), -EBADE);
        lun_destroy(b, soon());
        lun_destroy(a, soon());
    }
}

static void
test_every_key_of_many_is_seen(void **state)
{
    (void)state;
    for_each_reader(others_have_many_keys);
}

/* What cannot be seen must not be taken for absent. */
static void
others_have_too_many_keys(void)
{
    struct lun *l = registered(1);

    fake.crowd = PR_BLOCK_KEYS_MAX;
    assert_int_equal(lun_check_registration(l, soon()), -E2BIG);
    assert_int_equal(lun_fence(l, 2, soon()), -E2BIG);
    assert_int_equal(fake.resets + fake.aborts, 0);
    fake.crowd = PR_BLOCK_KEYS_MAX - 1;
    assert_int_equal(lun_check_registration(l, soon()), 0);
    lun_destroy(l, soon());
}

static void
test_too_many_keys_are_no_answer(void **state)
{
    (void)state;
    for_each_reader(others_have_too_many_keys);
}

static void
test_few_keys_need_no_large_transfer(void **state)
{
    struct lun *l;

    (void)state;
    fake.passes_read = true;
    fake.largest = 256;
    l = registered(1);
    assert_int_equal(fake.reserve_ins, 0);
    lun_destroy(l, soon());
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_registering_makes_key_and_reservation),
        test(test_registering_through_the_kernels_ioctls),
        test(test_standing_registration_is_kept),
        test(test_processes_share_a_key),
        test(test_hosts_share_a_reservation),
        test(test_foreign_reservation_is_busy),
        test(test_target_without_reservations),
        test(test_unit_attentions_are_passed_over),
        test(test_lost_reservation_is_made_again),
        test(test_unit_attentions_of_old_kernels_are_passed_over),
        test(test_register_given_up_is_an_orphan),
        test(test_lock_is_dropped_when_a_register_comes_back),
        test(test_fenced_host_notices_and_registers_anew),
        test(test_registering_anew_waits_for_all_processes),
        test(test_key_that_is_called_off_is_given_up),
        test(test_fencing_spares_everybody_else),
        test(test_fencing_needs_a_registration),
        test(test_refused_abort_becomes_a_reset),
        test(test_partial_abort_is_not_relied_on),
        test(test_reset_that_a_dead_process_owed_is_made_up_for),
        test(test_fence_is_forgotten_when_anybody_registers),
        test(test_missing_key_proves_nothing),
        test(test_missing_key_without_a_reset_to_have),
        test(test_fencing_makes_a_lost_reservation_again),
        test(test_conflict_as_nvme_tells_it),
        test(test_no_fence_is_claimed_without_abort_and_reset),
        test(test_reset_that_failed_is_still_owed),
        test(test_every_key_of_many_is_seen),
        test(test_too_many_keys_are_no_answer),
        test(test_few_keys_need_no_large_transfer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
