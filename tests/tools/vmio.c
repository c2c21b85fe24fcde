/* SPDX-License-Identifier: BSD-3-Clause */
/* A VM by hand: requests one by one, from standard input, without waiting.
 *
 *   vmio URI
 *
 * Orders, a line each; TAG is a word that comes back with the answer:
 *
 *   write TAG OFFSET CHAR   4 KiB full of that character
 *   zero TAG OFFSET         4 KiB
 *   trim TAG OFFSET         4 KiB
 *   read TAG OFFSET         4 KiB
 *   end
 *
 * Answers, on standard output, in the order in which they come:
 *
 *   ready
 *   TAG ok                  TAG ok CHAR   what the block is full of: "." for
 *                           zero bytes, "?" when it is not all the same
 *   TAG errno NUMBER
 *   lost                    the connection is gone; what is open stays open
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#define BLOCK 4096
#define TAG   64

struct order {
    char tag[TAG];
    bool read;
    char data[BLOCK];
};

static char
content(const struct order *o)
{
    for (size_t i = 1; i < BLOCK; i++)
        if (o->data[i] != o->data[0])
            return '?';
    return o->data[0] == '\0' ? '.' : o->data[0];
}

static int
answered(void *opaque, int *error)
{
    struct order *o = opaque;

    if (*error == ENOTCONN || *error == ESHUTDOWN)
        return 1; /* never answered */
    if (*error)
        printf("%s errno %d\n", o->tag, *error);
    else if (o->read)
        printf("%s ok %c\n", o->tag, content(o));
    else
        printf("%s ok\n", o->tag);
    return 1;
}

static void
fail(const char *what)
{
    fprintf(stderr, "vmio: %s: %s\n", what, nbd_get_error());
    exit(1);
}

/* 0, or -1 as libnbd says it. */
static int64_t
start(struct nbd_handle *nbd, const char *verb, struct order *o,
      uint64_t offset)
{
    nbd_completion_callback done = {
        .callback = answered, .user_data = o, .free = free};

    o->read = strcmp(verb, "read") == 0;
    if (o->read)
        return nbd_aio_pread(nbd, o->data, BLOCK, offset, done, 0);
    if (strcmp(verb, "write") == 0)
        return nbd_aio_pwrite(nbd, o->data, BLOCK, offset, done, 0);
    if (strcmp(verb, "zero") == 0)
        return nbd_aio_zero(nbd, BLOCK, offset, done, 0);
    if (strcmp(verb, "trim") == 0)
        return nbd_aio_trim(nbd, BLOCK, offset, done, 0);
    fprintf(stderr, "vmio: unknown order: %s\n", verb);
    exit(2);
}

static void
obey(struct nbd_handle *nbd, const char *line)
{
    struct order *o = calloc(1, sizeof *o);
    unsigned long long offset;
    char verb[TAG];
    char fill = '\0';

    if (strncmp(line, "end", 3) == 0)
        exit(0);
    if (!o ||
        sscanf(line, "%63s %63s %llu %c", verb, o->tag, &offset, &fill) < 3) {
        fprintf(stderr, "vmio: not understood: %s", line);
        exit(2);
    }
    memset(o->data, fill, BLOCK);
    if (start(nbd, verb, o, offset) == -1 && nbd_get_errno() != ENOTCONN)
        fail(line);
}

/* What has come in on standard input, line by line. */
static void
take_orders(struct nbd_handle *nbd)
{
    static char buffer[4096];
    static size_t have;
    ssize_t n = read(STDIN_FILENO, buffer + have, sizeof buffer - 1 - have);
    char *end;

    if (n <= 0)
        exit(0);
    have += (size_t)n;
    buffer[have] = '\0';
    while ((end = strchr(buffer, '\n'))) {
        *end++ = '\0';
        obey(nbd, buffer);
        have -= (size_t)(end - buffer);
        memmove(buffer, end, have + 1);
    }
}

static short
wanted(struct nbd_handle *nbd)
{
    unsigned direction = nbd_aio_get_direction(nbd);

    return (short)((direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                   (direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
}

static bool
alive(struct nbd_handle *nbd)
{
    return nbd_aio_is_dead(nbd) == 0 && nbd_aio_is_closed(nbd) == 0;
}

int
main(int argc, char **argv)
{
    struct nbd_handle *nbd = nbd_create();
    bool connected = true;

    if (argc != 2) {
        fprintf(stderr, "usage: vmio URI\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!nbd || nbd_connect_uri(nbd, argv[1]) == -1)
        fail(argv[1]);
    puts("ready");
    for (;;) {
        struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                                {.fd = -1}};

        if (connected && !alive(nbd)) {
            puts("lost");
            connected = false;
        }
        if (connected) {
            fds[1].fd = nbd_aio_get_fd(nbd);
            fds[1].events = wanted(nbd);
        }
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (fds[0].revents)
            take_orders(nbd);
        if (fds[1].revents & POLLOUT)
            nbd_aio_notify_write(nbd);
        else if (fds[1].revents)
            nbd_aio_notify_read(nbd);
    }
}
