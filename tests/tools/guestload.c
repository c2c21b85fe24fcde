/* SPDX-License-Identifier: BSD-3-Clause */
/* What a guest does with its disk: writes and verifies without a pause, and
 * tells the longest time that it waited.
 *
 *   guestload FOLDER
 *
 * Threads, in files of their own below FOLDER, each with one request at a time:
 * three write 4 to 64 KiB at random places, past the page cache, and read
 * others back; one makes files, syncs, renames and rereads them, which is work
 * for the file system's journal.  A fifth sleeps for 5 ms again and again and
 * notes how late it wakes: so long the machine itself stood still.
 *
 * Orders, on standard input, a line each:
 *
 *   mark NAME    the window until now is closed, the next one is called NAME
 *   end          all is read once more, and that was it
 *
 * Answers, on standard output; a stall is the longest that a request waited
 * inside of the window, answered or not:
 *
 *   ready
 *   tick MS ops N
 *   window NAME ms N ops N stall_ms N machine_ms N errors N mismatches N
 *   total - ms N ops N stall_ms N machine_ms N errors N mismatches N
 *
 * Exit status 0: no error and no mismatch.  The first ones are told on standard
 * error.  Times are the guest's, whose clock rests while it is stopped.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK       4096U
#define WORDS       (BLOCK / sizeof(uint64_t))
#define FILE_BLOCKS 2048U /* 8 MiB */
#define MOST_BLOCKS 16U
#define WRITERS     3
#define NAMES       32U /* of the fourth thread's files */
#define TICK_MS     500
#define PULSE_MS    5
#define TOLD        20U /* errors and mismatches, then only counted */
#define NS_PER_MS   1000000ULL

struct window {
    uint64_t begin_ns, ops, stall_ns, machine_ns, errors, mismatches;
};

struct worker {
    pthread_t thread;
    unsigned number;
    uint64_t chance;
    uint64_t busy_since_ns; /* guarded by lock; 0: no request under way */
    uint64_t *buffer;       /* MOST_BLOCKS, aligned */
    int fd;
    /* what each block, or file, holds; 0: nothing yet */
    uint32_t version[FILE_BLOCKS];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* guarded by lock */
static struct window window, total;
static char window_name[64] = "start";
static unsigned told;
static bool ending;
/* fixed before the threads start, but for what struct worker says */
static struct worker workers[WRITERS + 1];
static const char *folder;

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000U + (uint64_t)t.tv_nsec;
}

static void
raise_to(uint64_t *most, uint64_t value)
{
    if (value > *most)
        *most = value;
}

/* ---- one request ------------------------------------------------------- */

static void
begin(struct worker *w)
{
    pthread_mutex_lock(&lock);
    w->busy_since_ns = now_ns();
    pthread_mutex_unlock(&lock);
}

/* Of a request's time, what lies in this window. */
static void
count_wait_locked(const struct worker *w, uint64_t now)
{
    uint64_t from = w->busy_since_ns;

    if (from == 0)
        return;
    raise_to(&total.stall_ns, now - from);
    raise_to(&window.stall_ns,
             now - (from > window.begin_ns ? from : window.begin_ns));
}

static void
tell_locked(const struct worker *w, const char *what, uint64_t at,
            const char *why)
{
    if (told++ < TOLD)
        fprintf(stderr, "guestload: %u: %s at %llu: %s\n", w->number, what,
                (unsigned long long)at, why);
}

/* done tells whether the request did what it should; errno says why not. */
static bool
end(struct worker *w, bool done, const char *what, uint64_t at)
{
    int e = errno;

    pthread_mutex_lock(&lock);
    count_wait_locked(w, now_ns());
    w->busy_since_ns = 0;
    if (done) {
        window.ops++;
    } else {
        window.errors++;
        tell_locked(w, what, at, strerror(e));
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static bool
is_ending(void)
{
    bool r;

    pthread_mutex_lock(&lock);
    r = ending;
    pthread_mutex_unlock(&lock);
    return r;
}

/* SplitMix64 */
static uint64_t
choose(struct worker *w, uint64_t n)
{
    uint64_t z = w->chance += 0x9e3779b97f4a7c15U;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebU;
    return (z ^ (z >> 31)) % n;
}

/* ---- what a block holds ------------------------------------------------ */

static uint64_t
word(const struct worker *w, uint64_t block, uint32_t version, uint64_t i)
{
    return ((uint64_t)(w->number + 1) << 56) + (block << 40) +
           ((uint64_t)version << 10) + i;
}

static void
fill(const struct worker *w, uint64_t *to, uint64_t block, uint32_t version)
{
    for (uint64_t i = 0; i < WORDS; i++)
        to[i] = word(w, block, version, i);
}

static void
compare(const struct worker *w, const uint64_t *got, uint64_t block)
{
    uint32_t version = w->version[block];
    char why[80];

    for (uint64_t i = 0; i < WORDS; i++) {
        if (got[i] == (version ? word(w, block, version, i) : 0))
            continue;
        snprintf(why, sizeof why, "word %llu is %016llx, not version %u",
                 (unsigned long long)i, (unsigned long long)got[i],
                 (unsigned)version);
        pthread_mutex_lock(&lock);
        window.mismatches++;
        tell_locked(w, "mismatch", block, why);
        pthread_mutex_unlock(&lock);
        return;
    }
}

/* ---- the three that write at random places ----------------------------- */

static void
write_blocks(struct worker *w, uint64_t block, uint64_t count)
{
    ssize_t n;

    for (uint64_t i = 0; i < count; i++)
        fill(w, w->buffer + i * WORDS, block + i, w->version[block + i] + 1);
    begin(w);
    n = pwrite(w->fd, w->buffer, count * BLOCK, (off_t)(block * BLOCK));
    if (end(w, n == (ssize_t)(count * BLOCK), "write", block))
        for (uint64_t i = 0; i < count; i++)
            w->version[block + i]++;
}

static void
read_blocks(struct worker *w, uint64_t block, uint64_t count)
{
    ssize_t n;

    begin(w);
    n = pread(w->fd, w->buffer, count * BLOCK, (off_t)(block * BLOCK));
    if (!end(w, n == (ssize_t)(count * BLOCK), "read", block))
        return;
    for (uint64_t i = 0; i < count; i++)
        compare(w, w->buffer + i * WORDS, block + i);
}

static void
sync_file(struct worker *w, int fd)
{
    begin(w);
    end(w, fdatasync(fd) == 0, "sync", 0);
}

static void *
write_at_random(void *opaque)
{
    struct worker *w = opaque;

    while (!is_ending()) {
        uint64_t count = choose(w, 4) ? 1 + choose(w, 4) : MOST_BLOCKS;
        uint64_t block = choose(w, FILE_BLOCKS - count + 1);
        uint64_t what = choose(w, 20);

        if (what < 10)
            write_blocks(w, block, count);
        else if (what < 19)
            read_blocks(w, block, count);
        else
            sync_file(w, w->fd);
    }
    return NULL;
}

static int
open_in_folder(const char *format, unsigned n, int flags)
{
    char path[256];

    snprintf(path, sizeof path, format, folder, n);
    return open(path, flags | O_CLOEXEC, 0600);
}

/* The whole file exists and holds zeroes. */
static int
prepare_writer(struct worker *w)
{
    w->fd = open_in_folder("%s/random.%u", w->number,
                           O_RDWR | O_CREAT | O_TRUNC | O_DIRECT);
    if (w->fd < 0)
        return -errno;
    memset(w->buffer, 0, (size_t)MOST_BLOCKS * BLOCK);
    for (uint64_t b = 0; b < FILE_BLOCKS; b += MOST_BLOCKS)
        if (pwrite(w->fd, w->buffer, (size_t)MOST_BLOCKS * BLOCK,
                   (off_t)(b * BLOCK)) != (ssize_t)(MOST_BLOCKS * BLOCK))
            return errno ? -errno : -EIO;
    return fsync(w->fd) < 0 ? -errno : 0;
}

/* ---- the one that makes and renames files ------------------------------ */

static bool
store(struct worker *w, uint64_t name, uint32_t version)
{
    int fd;
    bool done;

    begin(w);
    fd = open_in_folder("%s/new", 0, O_WRONLY | O_CREAT | O_TRUNC);
    if (!end(w, fd >= 0, "create", name))
        return false;
    fill(w, w->buffer, name, version);
    begin(w);
    done = end(w, write(fd, w->buffer, BLOCK) == BLOCK, "append", name);
    begin(w);
    done = end(w, fsync(fd) == 0, "fsync", name) && done;
    close(fd);
    return done;
}

static void
replace_file(struct worker *w, uint64_t name)
{
    uint32_t version = w->version[name] + 1;
    char from[256], to[256];

    if (!store(w, name, version))
        return;
    snprintf(from, sizeof from, "%s/new", folder);
    snprintf(to, sizeof to, "%s/file.%u", folder, (unsigned)name);
    begin(w);
    if (end(w, rename(from, to) == 0, "rename", name))
        w->version[name] = version;
    sync_file(w, w->fd);
}

static void
reread_file(struct worker *w, uint64_t name)
{
    ssize_t n;
    int fd;

    if (w->version[name] == 0)
        return;
    fd = open_in_folder("%s/file.%u", (unsigned)name, O_RDONLY | O_DIRECT);
    begin(w);
    n = fd < 0 ? -1 : pread(fd, w->buffer, BLOCK, 0);
    if (end(w, n == BLOCK, "reread", name))
        compare(w, w->buffer, name);
    if (fd >= 0)
        close(fd);
}

static void *
make_files(void *opaque)
{
    struct worker *w = opaque;

    while (!is_ending()) {
        replace_file(w, choose(w, NAMES));
        reread_file(w, choose(w, NAMES));
    }
    return NULL;
}

/* ---- times ------------------------------------------------------------- */

static void *
feel_pulse(void *opaque)
{
    const struct timespec pause = {.tv_nsec = PULSE_MS * (long)NS_PER_MS};

    (void)opaque;
    while (!is_ending()) {
        uint64_t before = now_ns(), took;

        nanosleep(&pause, NULL);
        took = now_ns() - before;
        if (took <= PULSE_MS * NS_PER_MS)
            continue;
        pthread_mutex_lock(&lock);
        raise_to(&window.machine_ns, took - PULSE_MS * NS_PER_MS);
        pthread_mutex_unlock(&lock);
    }
    return NULL;
}

static void
print_window(const char *kind, const char *name, const struct window *v,
             uint64_t now)
{
    printf("%s %s ms %llu ops %llu stall_ms %llu machine_ms %llu errors %llu "
           "mismatches %llu\n",
           kind, name, (unsigned long long)((now - v->begin_ns) / NS_PER_MS),
           (unsigned long long)v->ops,
           (unsigned long long)(v->stall_ns / NS_PER_MS),
           (unsigned long long)(v->machine_ns / NS_PER_MS),
           (unsigned long long)v->errors, (unsigned long long)v->mismatches);
}

static void
close_window(const char *next)
{
    uint64_t now;

    pthread_mutex_lock(&lock);
    now = now_ns();
    for (size_t i = 0; i <= WRITERS; i++)
        count_wait_locked(&workers[i], now);
    print_window("window", window_name, &window, now);
    total.ops += window.ops;
    total.errors += window.errors;
    total.mismatches += window.mismatches;
    raise_to(&total.machine_ns, window.machine_ns);
    memset(&window, 0, sizeof window);
    window.begin_ns = now;
    snprintf(window_name, sizeof window_name, "%s", next);
    pthread_mutex_unlock(&lock);
}

static void
tick(void)
{
    pthread_mutex_lock(&lock);
    printf("tick %llu ops %llu\n",
           (unsigned long long)((now_ns() - total.begin_ns) / NS_PER_MS),
           (unsigned long long)(total.ops + window.ops));
    pthread_mutex_unlock(&lock);
}

/* ---- orders ------------------------------------------------------------ */

/* False at the end. */
static bool
obey(char *line)
{
    line[strcspn(line, "\r\n")] = '\0';
    if (strncmp(line, "mark ", 5) == 0)
        close_window(line + 5);
    return strcmp(line, "end") != 0;
}

/* A line that comes in pieces is waited for: the host writes it at once. */
static void
take_orders(void)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    char line[128];

    for (;;) {
        int r = poll(&p, 1, TICK_MS);

        if (r == 0)
            tick();
        else if (r > 0 && (!fgets(line, sizeof line, stdin) || !obey(line)))
            return;
    }
}

static int
start(void)
{
    for (unsigned i = 0; i <= WRITERS; i++) {
        struct worker *w = &workers[i];
        int e;

        w->number = i;
        w->chance = i;
        w->buffer = aligned_alloc(BLOCK, (size_t)MOST_BLOCKS * BLOCK);
        if (!w->buffer)
            return -ENOMEM;
        if (i < WRITERS) {
            e = prepare_writer(w);
            if (e < 0)
                return e;
        } else {
            w->fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (w->fd < 0)
                return -errno;
        }
    }
    return 0;
}

static int
start_threads(pthread_t *pulse)
{
    int e = pthread_create(pulse, NULL, feel_pulse, NULL);

    window.begin_ns = total.begin_ns = now_ns();
    for (size_t i = 0; i <= WRITERS && e == 0; i++)
        e = pthread_create(&workers[i].thread, NULL,
                           i < WRITERS ? write_at_random : make_files,
                           &workers[i]);
    return -e;
}

static void
read_all(void)
{
    for (unsigned i = 0; i < WRITERS; i++)
        for (uint64_t b = 0; b < FILE_BLOCKS; b += MOST_BLOCKS)
            read_blocks(&workers[i], b, MOST_BLOCKS);
    for (uint64_t name = 0; name < NAMES; name++)
        reread_file(&workers[WRITERS], name);
}

int
main(int argc, char **argv)
{
    pthread_t pulse;
    int e;

    if (argc != 2) {
        fprintf(stderr, "usage: guestload FOLDER\n");
        return 2;
    }
    folder = argv[1];
    setvbuf(stdout, NULL, _IOLBF, 0);
    setvbuf(stdin, NULL, _IONBF, 0); /* poll must see what is left */
    e = start();
    if (e == 0)
        e = start_threads(&pulse);
    if (e < 0) {
        fprintf(stderr, "guestload: cannot start: %s\n", strerror(-e));
        return 1;
    }
    puts("ready");
    take_orders();
    pthread_mutex_lock(&lock);
    ending = true;
    pthread_mutex_unlock(&lock);
    for (size_t i = 0; i <= WRITERS; i++)
        pthread_join(workers[i].thread, NULL);
    pthread_join(pulse, NULL);
    read_all();
    close_window("-");
    print_window("total", "-", &total, now_ns());
    return total.errors || total.mismatches ? 1 : 0;
}
