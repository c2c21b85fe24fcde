/* SPDX-License-Identifier: BSD-3-Clause */
/* Jobs: calls that may hang, and are left behind when they do. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "lun/job.h"

#define SOON (clock_ms() + 10000)

/* A call that waits for a byte, as a hung device would be waited for. */
struct arg {
    int wait_fd; /* -1: do not wait */
    int answer, out;
    atomic_uint *worked, *ended;
};

static int
work(void *opaque)
{
    struct arg *a = opaque;
    char c;

    if (a->wait_fd >= 0)
        assert_int_equal(read(a->wait_fd, &c, 1), 1);
    a->out = 7;
    ++*a->worked;
    return a->answer;
}

static void
end(void *opaque)
{
    ++*((struct arg *)opaque)->ended;
}

static atomic_uint worked, ended;

static int
setup(void **state)
{
    worked = ended = 0;
    *state = job_group_create(2);
    return *state ? 0 : -1;
}

static int
teardown(void **state)
{
    job_group_destroy(*state);
    return 0;
}

static struct arg
make_arg(int wait_fd, int answer)
{
    return (struct arg){wait_fd, answer, 0, &worked, &ended};
}

static void
test_answer_and_argument_come_back(void **state)
{
    struct arg a = make_arg(-1, -ENXIO);
    struct job j = {work, end, &a, sizeof a};

    assert_int_equal(job_run(*state, &j, SOON), -ENXIO);
    assert_int_equal(a.out, 7);
    assert_int_equal(worked, 1);
    assert_int_equal(ended, 1);
    assert_int_equal(job_group_stuck(*state), 0);
}

static void
test_hung_job_is_left_behind(void **state)
{
    int p[2];
    struct arg a;
    struct job j = {work, end, &a, sizeof a};

    assert_int_equal(pipe(p), 0);
    a = make_arg(p[0], 0);
    assert_int_equal(job_run(*state, &j, clock_ms() + 20), -ETIMEDOUT);
    assert_int_equal(a.out, 0);
    assert_int_equal(ended, 0);
    assert_int_equal(job_group_stuck(*state), 1);
    assert_false(job_group_wait(*state, clock_ms() + 20));
    assert_int_equal(write(p[1], "x", 1), 1);
    assert_true(job_group_wait(*state, SOON));
    assert_int_equal(ended, 1);
    assert_int_equal(a.out, 0); /* never touched after the return */
    close(p[0]);
    close(p[1]);
}

static void
test_too_many_stuck_jobs_are_refused(void **state)
{
    int p[2];
    struct arg a;
    struct job j = {work, end, &a, sizeof a};

    assert_int_equal(pipe(p), 0);
    a = make_arg(p[0], 0);
    assert_int_equal(job_run(*state, &j, clock_ms()), -ETIMEDOUT);
    assert_int_equal(job_run(*state, &j, clock_ms()), -ETIMEDOUT);
    assert_int_equal(job_run(*state, &j, SOON), -EAGAIN);
    assert_int_equal(ended, 1); /* the refused one's */
    assert_int_equal(write(p[1], "xx", 2), 2);
    assert_true(job_group_wait(*state, SOON));
    assert_int_equal(worked, 2);
    assert_int_equal(ended, 3);
    close(p[0]);
    close(p[1]);
}

static void
test_group_may_end_before_its_jobs(void **state)
{
    struct job_group *g = job_group_create(1);
    int p[2];
    struct arg a;
    struct job j = {work, end, &a, sizeof a};

    (void)state;
    assert_int_equal(pipe(p), 0);
    a = make_arg(p[0], 0);
    assert_int_equal(job_run(g, &j, clock_ms()), -ETIMEDOUT);
    job_group_destroy(g);
    assert_int_equal(write(p[1], "x", 1), 1);
    for (uint64_t until = SOON; ended < 1 && clock_ms() < until;)
        usleep(1000);
    assert_int_equal(ended, 1);
    close(p[0]);
    close(p[1]);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        test(test_answer_and_argument_come_back),
        test(test_hung_job_is_left_behind),
        test(test_too_many_stuck_jobs_are_refused),
        test(test_group_may_end_before_its_jobs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
