/* SPDX-License-Identifier: BSD-3-Clause */
/* Makes the time of programs run slower than it is: LD_PRELOAD this.
 *
 *   SLOW_CLOCK="FACTOR SECONDS" LD_PRELOAD=slowclock.so PROGRAM...
 *
 * Every clock runs at 1/FACTOR of its speed, the wall clock since SECONDS (of
 * the epoch), and what they wait for takes FACTOR times as long.  All programs
 * with the same two numbers agree about the time.  A guest whose QEMU lives so
 * has a processor FACTOR times as fast: with many of them on few cores its own
 * timers, and those of its peers, no longer run out because of that.
 *
 * Not slowed: timerfd, alarm and setitimer, clocks of processor time.
 */
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S INT64_C(1000000000)

static int64_t factor;   /* 0: not read yet */
static int64_t since_ns; /* of CLOCK_REALTIME */

static void
setup(void)
{
    const char *text = getenv("SLOW_CLOCK");
    char *end = NULL;
    int64_t f = text ? strtol(text, &end, 10) : 1;

    since_ns = end ? strtol(end, NULL, 10) * NS_PER_S : 0;
    factor = f > 0 ? f : 1;
}

/* The function of that name in libc; of that version where it has several. */
static void *
libc(const char *name, const char *version)
{
    void *f = version ? dlvsym(RTLD_NEXT, name, version) : NULL;

    if (factor == 0)
        setup();
    return f ? f : dlsym(RTLD_NEXT, name);
}

#define REAL_OF(result, name, version, ...)                                    \
    static result (*real)(__VA_ARGS__);                                        \
    if (!real)                                                                 \
    real = (result(*)(__VA_ARGS__))libc(#name, version)
#define REAL(result, name, ...) REAL_OF(result, name, NULL, __VA_ARGS__)

static int64_t
ns_of(const struct timespec *ts)
{
    return ts->tv_sec * NS_PER_S + ts->tv_nsec;
}

static struct timespec
timespec_of(int64_t ns)
{
    return (struct timespec){.tv_sec = ns / NS_PER_S, .tv_nsec = ns % NS_PER_S};
}

/* An interval, if there is one, as long as it really is. */
static struct timespec *
stretch(const struct timespec *ts, struct timespec *out)
{
    if (!ts)
        return NULL;
    *out = timespec_of(ns_of(ts) * factor);
    return out;
}

static int
stretch_ms(int ms)
{
    int64_t long_ms = ms * factor;

    return ms <= 0 ? ms : long_ms > INT32_MAX ? INT32_MAX : (int)long_ms;
}

/* A moment of ours as the kernel knows it.  The wall clock's are far from those
 * of the clocks that begin with the machine. */
static struct timespec
moment(const struct timespec *ts)
{
    int64_t ns = ns_of(ts);

    if (ts->tv_sec < 1000000000)
        return timespec_of(ns * factor);
    return timespec_of(since_ns + (ns - since_ns) * factor);
}

/* ---- clocks ---- */

int
clock_gettime(clockid_t clock, struct timespec *ts)
{
    REAL(int, clock_gettime, clockid_t, struct timespec *);
    int r = real(clock, ts);

    if (r < 0)
        return r;
    switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_COARSE:
        *ts = timespec_of(since_ns + (ns_of(ts) - since_ns) / factor);
        break;
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
        *ts = timespec_of(ns_of(ts) / factor);
        break;
    default:
        break;
    }
    return 0;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict zone)
{
    struct timespec ts;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &ts);
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

/* ---- waiting for descriptors ---- */

int
poll(struct pollfd *fds, nfds_t n, int ms)
{
    REAL(int, poll, struct pollfd *, nfds_t, int);

    return real(fds, n, stretch_ms(ms));
}

int
ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
      const sigset_t *mask)
{
    REAL(int, ppoll, struct pollfd *, nfds_t, const struct timespec *,
         const sigset_t *);
    struct timespec ts;

    return real(fds, n, stretch(timeout, &ts), mask);
}

/* With _FORTIFY_SOURCE these are called in their place. */
int __poll_chk(struct pollfd *fds, nfds_t n, int ms, size_t size);
int
__poll_chk(struct pollfd *fds, nfds_t n, int ms, size_t size)
{
    (void)size;
    return poll(fds, n, ms);
}

int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                const sigset_t *mask, size_t size);
int
__ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
            const sigset_t *mask, size_t size)
{
    (void)size;
    return ppoll(fds, n, timeout, mask);
}

int
epoll_wait(int fd, struct epoll_event *events, int n, int ms)
{
    REAL(int, epoll_wait, int, struct epoll_event *, int, int);

    return real(fd, events, n, stretch_ms(ms));
}

int
select(int n, fd_set *restrict r, fd_set *restrict w, fd_set *restrict x,
       struct timeval *restrict timeout)
{
    REAL(int, select, int, fd_set *, fd_set *, fd_set *, struct timeval *);
    struct timeval tv;
    int64_t us;

    if (!timeout)
        return real(n, r, w, x, NULL);
    us = (timeout->tv_sec * INT64_C(1000000) + timeout->tv_usec) * factor;
    tv = (struct timeval){.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    return real(n, r, w, x, &tv);
}

int
pselect(int n, fd_set *restrict r, fd_set *restrict w, fd_set *restrict x,
        const struct timespec *restrict timeout, const sigset_t *restrict mask)
{
    REAL(int, pselect, int, fd_set *, fd_set *, fd_set *,
         const struct timespec *, const sigset_t *);
    struct timespec ts;

    return real(n, r, w, x, stretch(timeout, &ts), mask);
}

/* ---- waiting for time, or for another thread ---- */

int
clock_nanosleep(clockid_t clock, int flags, const struct timespec *ts,
                struct timespec *left)
{
    REAL(int, clock_nanosleep, clockid_t, int, const struct timespec *,
         struct timespec *);
    struct timespec until;

    if (flags & TIMER_ABSTIME)
        until = moment(ts);
    else
        stretch(ts, &until);
    return real(clock, flags, &until, left);
}

int
nanosleep(const struct timespec *ts, struct timespec *left)
{
    int error = clock_nanosleep(CLOCK_MONOTONIC, 0, ts, left);

    errno = error ? error : errno;
    return error ? -1 : 0;
}

int
usleep(useconds_t us)
{
    struct timespec ts = timespec_of((int64_t)us * 1000);

    return nanosleep(&ts, NULL);
}

int
pthread_cond_timedwait(pthread_cond_t *restrict cond,
                       pthread_mutex_t *restrict mutex,
                       const struct timespec *restrict ts)
{
    REAL_OF(int, pthread_cond_timedwait, "GLIBC_2.3.2", pthread_cond_t *,
            pthread_mutex_t *, const struct timespec *);
    struct timespec until = moment(ts);

    return real(cond, mutex, &until);
}

int
sem_timedwait(sem_t *restrict sem, const struct timespec *restrict ts)
{
    REAL(int, sem_timedwait, sem_t *, const struct timespec *);
    struct timespec until = moment(ts);

    return real(sem, &until);
}

/* The clock is told apart by the moment itself: moment(). */
int
pthread_cond_clockwait(pthread_cond_t *restrict cond,
                       pthread_mutex_t *restrict mutex, clockid_t clock,
                       const struct timespec *restrict ts)
{
    REAL(int, pthread_cond_clockwait, pthread_cond_t *, pthread_mutex_t *,
         clockid_t, const struct timespec *);
    struct timespec until = moment(ts);

    return real(cond, mutex, clock, &until);
}

int
sem_clockwait(sem_t *restrict sem, clockid_t clock,
              const struct timespec *restrict ts)
{
    REAL(int, sem_clockwait, sem_t *, clockid_t, const struct timespec *);
    struct timespec until = moment(ts);

    return real(sem, clock, &until);
}
