/* SPDX-License-Identifier: BSD-3-Clause */
/* Steps the wall clock of one program, and of no other: LD_PRELOAD this.
 *
 *   STEPPED_CLOCK=FILE LD_PRELOAD=steppedclock.so PROGRAM...
 *
 * FILE holds a number of seconds, which is added to CLOCK_REALTIME whenever
 * it is asked; rewrite it, and the clock steps.  Time namespaces know only the
 * other clocks.  What the kernel itself compares with its own wall clock (an
 * absolute timeout on CLOCK_REALTIME) is off by the step: a program that waits
 * so would wait for that long, which is what a test looks for.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t
step_s(void)
{
    const char *name = getenv("STEPPED_CLOCK");
    char text[32] = {0};
    int fd = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;

    if (fd < 0)
        return 0;
    if (read(fd, text, sizeof text - 1) < 0)
        text[0] = '\0';
    close(fd);
    return (time_t)strtol(text, NULL, 10);
}

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
    static int (*real)(clockid_t, struct timespec *);
    int r;

    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT,
                                                            "clock_gettime");
    r = real(clock, ts);
    if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        ts->tv_sec += step_s();
    return r;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &ts) < 0)
        return -1;
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t
time(time_t *t)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    if (t)
        *t = ts.tv_sec;
    return ts.tv_sec;
}
