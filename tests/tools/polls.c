/* SPDX-License-Identifier: BSD-3-Clause */
/* Asks several HTTP servers for something, so many times each second.
 *
 *   polls RATE SECONDS TARGET...
 *
 * A TARGET is unix:SOCKET:/PATH or IPV4:PORT:/PATH.  Each is asked by a thread
 * of its own, on a connection for each request, one at a time: a server that
 * does not keep up is asked less often, which is told.  Says of each, when all
 * is over,
 *
 *   TARGET asked N failed N median_us N p99_us N max_us N
 *
 * A request has failed when it was not answered with 200 within 5 s. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

struct target {
    const char *name;
    struct sockaddr_storage addr;
    socklen_t addr_len;
    char request[512];
    pthread_t thread;
    uint32_t *us; /* of each request */
    size_t asked, failed;
};

static unsigned rate, seconds;

/* ---- the targets --------------------------------------------------------- */

static void
parse_target(struct target *t, const char *text)
{
    struct sockaddr_un *un = (void *)&t->addr;
    struct sockaddr_in *in = (void *)&t->addr;
    char *copy = strdup(text), *path = strstr(copy, ":/"), *port;

    t->name = text;
    if (strncmp(text, "unix:", 5) == 0)
        path = strstr(copy + 6, ":/");
    if (!path)
        errx(2, "%s: no path", text);
    *path++ = '\0';
    snprintf(t->request, sizeof t->request,
             "GET %s HTTP/1.1\r\nHost: polls\r\nConnection: close\r\n\r\n",
             path);
    if (strncmp(text, "unix:", 5) == 0) {
        un->sun_family = AF_UNIX;
        snprintf(un->sun_path, sizeof un->sun_path, "%s", copy + 5);
        t->addr_len = sizeof *un;
    } else {
        port = strrchr(copy, ':');
        if (!port)
            errx(2, "%s: no port", text);
        *port++ = '\0';
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)atoi(port));
        if (inet_pton(AF_INET, copy, &in->sin_addr) != 1)
            errx(2, "%s: no address", text);
        t->addr_len = sizeof *in;
    }
    free(copy);
}

/* ---- asking -------------------------------------------------------------- */

/* Reads to the end; was it answered well? */
static bool
read_answer(int fd)
{
    static const char good[] = "HTTP/1.1 200 ";
    char buf[65536], head[sizeof good] = "";
    size_t got = 0;
    ssize_t n;

    while ((n = read(fd, buf, sizeof buf)) > 0) {
        for (ssize_t i = 0; i < n && got < sizeof good - 1; i++)
            head[got++] = buf[i];
    }
    return n == 0 && strcmp(head, good) == 0;
}

static bool
ask(const struct target *t)
{
    const struct timeval limit = {.tv_sec = 5};
    int fd = socket(t->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    size_t len = strlen(t->request);
    bool good;

    if (fd < 0)
        err(1, "socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    good = connect(fd, (const struct sockaddr *)&t->addr, t->addr_len) == 0 &&
           send(fd, t->request, len, MSG_NOSIGNAL) == (ssize_t)len &&
           read_answer(fd);
    close(fd);
    return good;
}

static void
sleep_until(uint64_t then_us)
{
    const struct timespec ts = {.tv_sec = (time_t)(then_us / 1000000),
                                .tv_nsec = (long)(then_us % 1000000) * 1000};

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL) == EINTR)
        ;
}

/* From its turn on: a request that comes late has waited, too. */
static void *
poll_target(void *arg)
{
    struct target *t = arg;
    uint64_t begin = clock_us(), end = begin + seconds * UINT64_C(1000000);
    uint64_t turn = begin, step = 1000000 / rate;

    while (turn < end) {
        uint64_t asked = clock_us();

        if (asked < turn) {
            sleep_until(turn);
            asked = clock_us();
        }
        t->failed += !ask(t);
        t->us[t->asked++] = (uint32_t)(clock_us() - asked);
        turn += step;
        if (turn < asked) /* it does not keep up */
            turn += (asked - turn) / step * step;
    }
    return NULL;
}

/* ---- telling ------------------------------------------------------------- */

static int
compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x < y ? -1 : x > y;
}

static void
tell(struct target *t)
{
    qsort(t->us, t->asked, sizeof *t->us, compare);
    printf("%s asked %zu failed %zu median_us %u p99_us %u max_us %u\n",
           t->name, t->asked, t->failed, t->us[t->asked / 2],
           t->us[t->asked * 99 / 100], t->us[t->asked - 1]);
}

int
main(int argc, char **argv)
{
    size_t n = argc > 3 ? (size_t)argc - 3 : 0;
    struct target *targets = calloc(n + 1, sizeof *targets);

    if (n == 0 || !targets)
        errx(2, "usage: polls RATE SECONDS TARGET...");
    rate = (unsigned)atoi(argv[1]);
    seconds = (unsigned)atoi(argv[2]);
    if (rate < 1 || rate > 10000 || seconds < 1)
        errx(2, "RATE is 1 to 10000 each second, SECONDS at least 1");
    for (size_t i = 0; i < n; i++) {
        parse_target(&targets[i], argv[3 + i]);
        targets[i].us = calloc((size_t)rate * seconds + 2, sizeof(uint32_t));
        if (!targets[i].us)
            err(1, "memory");
    }
    for (size_t i = 0; i < n; i++) {
        errno =
            pthread_create(&targets[i].thread, NULL, poll_target, &targets[i]);
        if (errno)
            err(1, "thread");
    }
    for (size_t i = 0; i < n; i++) {
        pthread_join(targets[i].thread, NULL);
        tell(&targets[i]);
        free(targets[i].us);
    }
    free(targets);
    return 0;
}
