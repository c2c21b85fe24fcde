/* SPDX-License-Identifier: BSD-3-Clause */
/* An nbdkit plugin that lies about its disk: blockcheck must find each lie.
 *
 *   nbdkit -U SOCK liar.so file=PATH size=BYTES lie=NAME every=N
 *
 * One in N requests that the lie fits is lied about (never the first; lie=none
 * is honest).  The file is mapped, so it outlives a killed server.  Requests
 * run in parallel and are whole by sectors only: between two sectors of one
 * request others get their turn, which is the least that a LUN promises.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL
#define SECTOR       512u
#define FAR          65536u
#define HELD         8
#define LATE_NS      UINT64_C(3000000)

enum lie {
    /* honest ones, which must not be taken for lies */
    LIE_NONE,
    LIE_ERROR, /* requests fail, done or not done */
    LIE_TWICE, /* a write is done twice before its answer */
    LIE_DRAIN, /* a failed write is done later, but before any newer one */
    /* lies */
    LIE_LOST,        /* a write is acknowledged and forgotten */
    LIE_PARTIAL,     /* only its first half is written */
    LIE_TORN,        /* one of its sectors is half written */
    LIE_GHOST,       /* it is written again after a newer one was answered */
    LIE_ORPHAN,      /* it fails, and is written after a newer one */
    LIE_ELSEWHERE,   /* it is written to another place */
    LIE_SWAP,        /* two of its sectors change places */
    LIE_CORRUPT,     /* one of its bits is written wrong */
    LIE_STALE,       /* a read finds what was there before the last write */
    LIE_READ_BIT,    /* a read finds a wrong bit */
    LIE_ZERO,        /* a zero does nothing */
    LIE_ZERO_MORE,   /* a zero takes the next sector too */
    LIE_TRIM_MORE,   /* a trim takes the next sector too */
    LIE_TRIM_GARBAGE /* a trim leaves neither the old content nor zeroes */
};

static const char *const lies[] = {
    "none",  "error",    "twice",  "drain",     "lost",      "partial",
    "torn",  "ghost",    "orphan", "elsewhere", "swap",      "corrupt",
    "stale", "read-bit", "zero",   "zero-more", "trim-more", "trim-garbage",
};

/* An old write that is to come back. */
struct held {
    char *data; /* NULL: free */
    uint64_t offset;
    uint32_t count;
    uint64_t answered; /* tick of its answer; 0: not yet */
    uint64_t due_ns;   /* when it comes back; 0: no newer write yet */
};

static const char *path;
static int64_t size = 16 << 20;
static enum lie lie;
static uint64_t every = 50;

static char *disk, *before; /* before: what each sector held last */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* guarded by lock, as are disk and before */
static uint64_t fitting, tick;
static struct held held[HELD];

static uint64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

/* ---- the disk
 * ---------------------------------------------------------------- */

/* Sector by sector; data NULL: zeroes.  Every few sectors others may run. */
static void
put(const char *data, uint32_t count, uint64_t offset)
{
    for (uint32_t at = 0; at < count; at += SECTOR) {
        char *to = disk + offset + at;

        pthread_mutex_lock(&lock);
        memcpy(before + offset + at, to, SECTOR);
        if (data)
            memcpy(to, data + at, SECTOR);
        else
            memset(to, 0, SECTOR);
        pthread_mutex_unlock(&lock);
        if (at / SECTOR % 8 == 7)
            sched_yield();
    }
}

static void
get(const char *from, char *data, uint32_t count, uint64_t offset)
{
    for (uint32_t at = 0; at < count; at += SECTOR) {
        pthread_mutex_lock(&lock);
        memcpy(data + at, from + offset + at, SECTOR);
        pthread_mutex_unlock(&lock);
        if (at / SECTOR % 8 == 7)
            sched_yield();
    }
}

/* The number of the lie to be told now, from 1; 0: none. */
static uint64_t
lies_now(enum lie which)
{
    uint64_t n;

    if (lie != which)
        return 0;
    pthread_mutex_lock(&lock);
    n = ++fitting;
    pthread_mutex_unlock(&lock);
    return n % every == 0 ? n / every : 0;
}

/* ---- writes that come back
 * ------------------------------------------------------ */

static struct held *
hold(const char *data, uint32_t count, uint64_t offset)
{
    struct held *h = NULL;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < HELD && !h; i++)
        if (!held[i].data)
            h = &held[i];
    if (h) {
        *h = (struct held){.offset = offset, .count = count};
        h->data = malloc(count);
        if (h->data)
            memcpy(h->data, data, count);
        else
            h = NULL;
    }
    pthread_mutex_unlock(&lock);
    return h;
}

static void
hold_answered(struct held *h)
{
    pthread_mutex_lock(&lock);
    h->answered = ++tick;
    pthread_mutex_unlock(&lock);
}

static bool
overlaps(const struct held *h, uint32_t count, uint64_t offset)
{
    return h->offset < offset + count && offset < h->offset + h->count;
}

/* A write that began at tick began has been done and is about to be answered:
 * older ones that it overlaps come back a moment later. */
static void
newer_written(uint32_t count, uint64_t offset, uint64_t began)
{
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < HELD; i++) {
        struct held *h = &held[i];

        if (h->data && h->answered && h->answered < began && !h->due_ns &&
            overlaps(h, count, offset))
            h->due_ns = now_ns() + LATE_NS;
    }
    pthread_mutex_unlock(&lock);
}

/* Takes what is due; what begins first does what is late. */
static bool
take_due(struct held *taken, bool all, uint32_t count, uint64_t offset)
{
    bool found = false;

    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < HELD && !found; i++) {
        struct held *h = &held[i];

        if (!h->data)
            continue;
        if (all ? h->answered && overlaps(h, count, offset)
                : h->due_ns && h->due_ns < now_ns()) {
            *taken = *h;
            h->data = NULL;
            found = true;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static void
come_back(void)
{
    struct held h;

    while (take_due(&h, false, 0, 0)) {
        put(h.data, h.count, h.offset);
        free(h.data);
    }
}

/* The honest server lets a failed write finish before a newer one begins.  One
 * mutex for all of that: it is done before anything newer overlaps. */
static void
drain(uint32_t count, uint64_t offset)
{
    static pthread_mutex_t draining = PTHREAD_MUTEX_INITIALIZER;
    struct held h;

    pthread_mutex_lock(&draining);
    while (take_due(&h, true, count, offset)) {
        put(h.data, h.count, h.offset);
        free(h.data);
    }
    pthread_mutex_unlock(&draining);
}

/* ---- lies about writes
 * ----------------------------------------------------------- */

static int
fails(void)
{
    nbdkit_set_error(EIO);
    return -1;
}

static int
write_later(const char *data, uint32_t count, uint64_t offset)
{
    struct held *h = hold(data, count, offset);

    if (!h) {
        put(data, count, offset);
        return 0;
    }
    hold_answered(h);
    return fails();
}

static void
put_changed(const char *data, uint32_t count, uint64_t offset)
{
    char *copy = malloc(count);

    if (!copy)
        return;
    memcpy(copy, data, count);
    if (lie == LIE_CORRUPT) {
        copy[count / 2] ^= 4;
    } else { /* LIE_SWAP */
        memcpy(copy, data + count - SECTOR, SECTOR);
        memcpy(copy + count - SECTOR, data, SECTOR);
    }
    put(copy, count, offset);
    free(copy);
}

/* The first half of the first sector, and all of the others. */
static void
put_torn(const char *data, uint32_t count, uint64_t offset)
{
    pthread_mutex_lock(&lock);
    memcpy(disk + offset, data, SECTOR / 2);
    pthread_mutex_unlock(&lock);
    put(data + SECTOR, count - SECTOR, offset + SECTOR);
}

static void
put_ghost(const char *data, uint32_t count, uint64_t offset)
{
    struct held *h = hold(data, count, offset);

    put(data, count, offset);
    if (h)
        hold_answered(h);
}

/* true: a lie was told in place of the write; *r is the answer. */
static bool
lied_write(const char *data, uint32_t count, uint64_t offset, int *r)
{
    bool fits = lie >= LIE_ERROR && lie <= LIE_CORRUPT; /* about writes */
    uint64_t n = fits ? lies_now(lie) : 0;

    *r = 0;
    if (n == 0)
        return false;
    switch (lie) {
    case LIE_ERROR:
        if (n % 2)
            put(data, count, offset);
        *r = fails();
        return true;
    case LIE_TWICE:
        put(data, count, offset);
        sched_yield();
        return false;
    case LIE_DRAIN:
    case LIE_ORPHAN:
        *r = write_later(data, count, offset);
        return true;
    case LIE_LOST:
        return true;
    case LIE_PARTIAL:
        put(data, count / 2 / SECTOR * SECTOR, offset);
        return true;
    case LIE_TORN:
        put_torn(data, count, offset);
        return true;
    case LIE_GHOST:
        put_ghost(data, count, offset);
        return true;
    case LIE_ELSEWHERE:
        put(data, count, (offset + FAR) % ((uint64_t)size - FAR));
        return true;
    case LIE_SWAP:
        if (count == SECTOR)
            return false;
        put_changed(data, count, offset);
        return true;
    case LIE_CORRUPT:
        put_changed(data, count, offset);
        return true;
    default:
        return false;
    }
}

/* ---- nbdkit
 * ------------------------------------------------------------------------ */

static uint64_t
begin(uint32_t count, uint64_t offset)
{
    uint64_t now;

    come_back();
    if (lie == LIE_DRAIN)
        drain(count, offset);
    pthread_mutex_lock(&lock);
    now = ++tick;
    pthread_mutex_unlock(&lock);
    return now;
}

static int
liar_pwrite(void *handle, const void *data, uint32_t count, uint64_t offset,
            uint32_t flags)
{
    uint64_t began = begin(count, offset);
    int r;

    (void)handle;
    (void)flags;
    if (lied_write(data, count, offset, &r))
        return r;
    put(data, count, offset);
    newer_written(count, offset, began);
    return 0;
}

static int
liar_pread(void *handle, void *data, uint32_t count, uint64_t offset,
           uint32_t flags)
{
    (void)handle;
    (void)flags;
    come_back();
    if (lies_now(LIE_STALE)) {
        get(before, data, count, offset);
        return 0;
    }
    get(disk, data, count, offset);
    if (lies_now(LIE_READ_BIT))
        ((char *)data)[count - 1] ^= 1;
    return 0;
}

static uint32_t
one_more(uint32_t count, uint64_t offset)
{
    return offset + count + SECTOR <= (uint64_t)size ? count + SECTOR : count;
}

static int
liar_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    uint64_t began = begin(count, offset);

    (void)handle;
    (void)flags;
    if (lies_now(LIE_ZERO))
        return 0;
    put(NULL, lies_now(LIE_ZERO_MORE) ? one_more(count, offset) : count,
        offset);
    newer_written(count, offset, began);
    return 0;
}

/* Like a thin LUN: some of it reads as zeroes afterwards, some as before. */
static int
liar_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    (void)handle;
    (void)flags;
    begin(count, offset);
    if (lies_now(LIE_TRIM_MORE)) {
        put(NULL, one_more(count, offset), offset);
        return 0;
    }
    if (lies_now(LIE_TRIM_GARBAGE)) {
        pthread_mutex_lock(&lock);
        memset(disk + offset, 0xe5, SECTOR);
        pthread_mutex_unlock(&lock);
        return 0;
    }
    for (uint32_t at = 0; at < count; at += 4 * SECTOR)
        put(NULL, SECTOR, offset + at);
    return 0;
}

static int
liar_flush(void *handle, uint32_t flags)
{
    (void)handle;
    (void)flags;
    return 0;
}

static void *
liar_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static int64_t
liar_get_size(void *handle)
{
    (void)handle;
    return size;
}

static int
liar_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
                uint32_t *maximum)
{
    (void)handle;
    *minimum = SECTOR;
    *preferred = 4096;
    *maximum = UINT32_MAX;
    return 0;
}

static int
yes(void *handle)
{
    (void)handle;
    return 1;
}

static int
can_fua(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static int
liar_config(const char *key, const char *value)
{
    if (strcmp(key, "file") == 0) {
        path = value;
        return 0;
    }
    if (strcmp(key, "size") == 0) {
        size = nbdkit_parse_size(value);
        return size < 4 * (int64_t)FAR ? -1 : 0;
    }
    if (strcmp(key, "every") == 0)
        return nbdkit_parse_uint64_t(key, value, &every);
    if (strcmp(key, "lie") == 0)
        for (size_t i = 0; i < sizeof lies / sizeof *lies; i++)
            if (strcmp(value, lies[i]) == 0) {
                lie = (enum lie)i;
                return 0;
            }
    nbdkit_error("no such setting: %s=%s", key, value);
    return -1;
}

static int
liar_get_ready(void)
{
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;

    if (fd == -1 || every == 0 || ftruncate(fd, size) == -1) {
        nbdkit_error("file=%s cannot be used", path ? path : "");
        return -1;
    }
    disk = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    before = malloc((size_t)size);
    close(fd);
    if (disk == MAP_FAILED || !before) {
        nbdkit_error("no memory");
        return -1;
    }
    memcpy(before, disk, (size_t)size);
    return 0;
}

static void
liar_unload(void)
{
    for (size_t i = 0; i < HELD; i++)
        free(held[i].data);
    free(before);
}

static struct nbdkit_plugin plugin = {
    .name = "liar",
    .version = DETOUR_VERSION,
    .longname = "a disk that lies",
    .unload = liar_unload,
    .config = liar_config,
    .get_ready = liar_get_ready,
    .open = liar_open,
    .get_size = liar_get_size,
    .block_size = liar_block_size,
    .can_multi_conn = yes,
    .can_flush = yes,
    .can_trim = yes,
    .can_zero = yes,
    .can_fua = can_fua,
    .pread = liar_pread,
    .pwrite = liar_pwrite,
    .zero = liar_zero,
    .trim = liar_trim,
    .flush = liar_flush,
    .errno_is_preserved = 1,
};

struct nbdkit_plugin *plugin_init(void); /* nbdkit names it, not its header */

NBDKIT_REGISTER_PLUGIN(plugin)
