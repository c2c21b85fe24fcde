/* SPDX-License-Identifier: BSD-3-Clause */
/* A verifying NBD client that knows what every block must hold, and measures
 * how long nothing was answered.
 *
 * It keeps reads and writes of 4 to 64 KiB under way that never overlap, so
 * that each read has exactly one right answer: the sequence number of the last
 * acknowledged write of each block.  Anything else, an older write that shows
 * up late included, is a mismatch.  One thread does all of it; a second one
 * only measures how late the machine itself runs (a test that sees a latency
 * bound must not blame the program for the machine).
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libnbd.h>

#include "common/clock.h"

#define BLOCK       4096u
#define MAX_BLOCKS  16u /* of one request */
#define MAX_CONNS   16
#define MAX_DEPTH   256
#define BUCKETS     256 /* of latency: 8 for each power of two of us */
#define DRAIN_US    (60 * UINT64_C(1000000))
#define LATE_MIN_US 10000 /* less than this is no stall of the machine */

/* What a block must hold.  maybe is the number of a write that was never
 * answered, so that both are right until a read has shown which. */
struct block {
    uint64_t seq;
    uint64_t maybe;  /* 0: none */
    uint8_t known;   /* seq is valid; 0: nothing is known, all is right */
    uint8_t readers; /* requests under way */
    uint8_t writer;
    uint8_t spare[5];
};

struct op {
    bool busy, done, writing, flushing;
    int error;
    uint64_t start_us;
    uint64_t first; /* block of the region */
    uint32_t count; /* blocks */
    uint64_t seq;
    char *data;
};

/* One stretch of time, judged by itself: a tick, an event, the whole. */
struct window {
    char name[64];
    uint64_t start_us;
    uint64_t ops, errors, mismatches;
    uint64_t stall_us;   /* longest time without an answer */
    uint64_t machine_us; /* the machine's own share of it */
    uint64_t resumed_us; /* when it ended, after start_us */
    uint64_t slowest_us; /* longest request */
    uint32_t latency[BUCKETS];
};

static struct {
    /* fixed after the options were read */
    uint64_t offset, size, nblocks, seed;
    unsigned depth, rate, nconns, writes_percent, interval_ms;
    const char *state_file, *uri;
    bool check, keep_on_loss;

    struct nbd_handle *conns[MAX_CONNS];
    bool can_flush, can_fua, read_only;
    struct block *blocks;
    struct op ops[MAX_DEPTH];
    unsigned inflight;
    uint64_t seq, random;
    uint64_t progress_us;      /* last answer, or first request after idling */
    uint64_t progress_late_us; /* late_us at that moment */
    struct window tick, event, total;
    bool lost; /* a connection is gone */
} w;

static atomic_uint_fast64_t late_us; /* sum of the machine's own stalls */
static volatile sig_atomic_t stopping;

static uint64_t
mix(uint64_t x)
{
    /* splitmix64, Steele et al. 2014 */
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static uint64_t
random_below(uint64_t n)
{
    w.random = mix(w.random);
    return w.random % n;
}

/* ---- contents ---------------------------------------------------------- */

/* The first three words say what a block is, so that a wrong one can be told;
 * the rest is noise made from them. */
static void
fill(char *data, uint64_t block, uint64_t seq)
{
    uint64_t word[BLOCK / 8];
    uint64_t noise = mix(w.seed ^ mix(block ^ mix(seq)));

    word[0] = w.seed;
    word[1] = block;
    word[2] = seq;
    for (size_t i = 3; i < BLOCK / 8; i++)
        word[i] = noise += UINT64_C(0x9E3779B97F4A7C15) ^ (noise >> 29);
    memcpy(data, word, BLOCK);
}

static bool
holds(const char *data, uint64_t block, uint64_t seq)
{
    char want[BLOCK];

    fill(want, block, seq);
    return memcmp(data, want, BLOCK) == 0;
}

static void
tell_mismatch(const char *data, uint64_t block, const struct block *b)
{
    uint64_t word[3];

    memcpy(word, data, sizeof word);
    fprintf(stderr,
            "mismatch at %" PRIu64 ": want block %" PRIu64 " write %" PRIu64
            " (or %" PRIu64 "), ",
            w.offset + block * BLOCK, block, b->seq, b->maybe);
    if (word[0] == w.seed && holds(data, word[1], word[2]))
        fprintf(stderr, "got block %" PRIu64 " write %" PRIu64 "%s\n", word[1],
                word[2],
                word[1] == block && word[2] < b->seq ? ": an older write" : "");
    else
        fprintf(stderr,
                "got other data: %016" PRIx64 " %016" PRIx64 " %016" PRIx64
                "\n",
                word[0], word[1], word[2]);
}

static void
count_mismatch(void)
{
    w.tick.mismatches++;
    w.event.mismatches++;
    w.total.mismatches++;
}

/* A read settles what was open: from now on only what it saw is right. */
static void
check_block(const char *data, uint64_t block)
{
    struct block *b = &w.blocks[block];

    if (!b->known)
        return;
    if (holds(data, block, b->seq)) {
        b->maybe = 0;
    } else if (b->maybe != 0 && holds(data, block, b->maybe)) {
        b->seq = b->maybe;
        b->maybe = 0;
    } else {
        tell_mismatch(data, block, b);
        count_mismatch();
        b->known = 0; /* say it once */
    }
}

/* ---- windows ----------------------------------------------------------- */

static unsigned
bucket_of(uint64_t us)
{
    unsigned top;

    if (us < 8)
        return (unsigned)us;
    top = 63 - (unsigned)__builtin_clzll(us);
    top = (top - 2) * 8 + (unsigned)((us >> (top - 3)) & 7);
    return top < BUCKETS ? top : BUCKETS - 1;
}

static uint64_t
bucket_end(unsigned bucket)
{
    unsigned top = bucket / 8 + 2;

    if (bucket < 8)
        return bucket;
    return (UINT64_C(8) + bucket % 8 + 1) << (top - 3);
}

static uint64_t
percentile_us(const struct window *v, unsigned percent)
{
    uint64_t sum = 0, want = 0;

    for (unsigned i = 0; i < BUCKETS; i++)
        want += v->latency[i];
    want = (want * percent + 99) / 100;
    for (unsigned i = 0; i < BUCKETS; i++) {
        sum += v->latency[i];
        if (sum >= want && sum > 0)
            return bucket_end(i);
    }
    return 0;
}

static void
window_begin(struct window *v, const char *name, uint64_t now_us)
{
    memset(v, 0, sizeof *v);
    snprintf(v->name, sizeof v->name, "%.63s", name);
    v->start_us = now_us;
}

static void
window_gap(struct window *v, uint64_t gap_us, uint64_t machine, uint64_t now_us)
{
    if (gap_us <= v->stall_us)
        return;
    v->stall_us = gap_us;
    v->machine_us = machine;
    v->resumed_us = now_us - v->start_us;
}

static void
window_print(const char *kind, const struct window *v, uint64_t now_us)
{
    printf(
        "%s %s ms %" PRIu64 " ops %" PRIu64 " p99_us %" PRIu64
        " stall_ms %" PRIu64 " machine_ms %" PRIu64 " resumed_ms %" PRIu64
        " slowest_ms %" PRIu64 " errors %" PRIu64 " mismatches %" PRIu64 "\n",
        kind, v->name, (now_us - v->start_us) / 1000, v->ops,
        percentile_us(v, 99), v->stall_us / 1000, v->machine_us / 1000,
        v->resumed_us / 1000, v->slowest_us / 1000, v->errors, v->mismatches);
}

/* Something was answered, or a window ends while nothing is: note the gap. */
static void
note_gap(uint64_t now_us)
{
    uint64_t gap, machine;

    if (w.inflight == 0)
        return;
    gap = now_us - w.progress_us;
    machine = atomic_load(&late_us) - w.progress_late_us;
    window_gap(&w.tick, gap, machine, now_us);
    window_gap(&w.event, gap, machine, now_us);
    window_gap(&w.total, gap, machine, now_us);
}

static void
note_progress(uint64_t now_us)
{
    w.progress_us = now_us;
    w.progress_late_us = atomic_load(&late_us);
}

static void
note_slowest(uint64_t us)
{
    struct window *const all[] = {&w.tick, &w.event, &w.total};

    for (size_t i = 0; i < 3; i++)
        if (us > all[i]->slowest_us)
            all[i]->slowest_us = us;
}

static void
note_open_requests(uint64_t now_us)
{
    note_gap(now_us);
    for (unsigned i = 0; i < w.depth; i++)
        if (w.ops[i].busy)
            note_slowest(now_us - w.ops[i].start_us);
}

static void
note_answer(const struct op *op, uint64_t now_us)
{
    struct window *const all[] = {&w.tick, &w.event, &w.total};
    uint64_t us = now_us - op->start_us;

    note_gap(now_us);
    note_progress(now_us);
    note_slowest(us);
    for (size_t i = 0; i < 3; i++) {
        all[i]->ops++;
        all[i]->latency[bucket_of(us)]++;
        all[i]->errors += op->error != 0;
    }
}

/* ---- requests ---------------------------------------------------------- */

static bool
range_free(uint64_t first, uint32_t count, bool writing)
{
    for (uint64_t i = first; i < first + count; i++)
        if (w.blocks[i].writer || (writing && w.blocks[i].readers))
            return false;
    return true;
}

static void
range_mark(const struct op *op, int step)
{
    for (uint64_t i = op->first; i < op->first + op->count; i++) {
        uint8_t *n = op->writing ? &w.blocks[i].writer : &w.blocks[i].readers;

        *n = (uint8_t)(*n + step);
    }
}

/* libnbd calls this while it holds the connection's lock: only note it. */
static int
completed(void *opaque, int *error)
{
    struct op *op = opaque;

    op->error = *error;
    op->done = true;
    return 1;
}

static void
write_ended(const struct op *op)
{
    for (uint64_t i = op->first; i < op->first + op->count; i++) {
        struct block *b = &w.blocks[i];

        if (op->error == 0) {
            b->seq = op->seq;
            b->maybe = 0;
            b->known = 1;
        } else if (b->maybe != 0) {
            b->known = 0; /* three candidates are too many to follow */
            b->maybe = 0;
        } else {
            b->maybe = op->seq;
        }
    }
}

static void
finish(struct op *op, uint64_t now_us)
{
    bool forgiven = op->error != 0 && w.lost && w.keep_on_loss;

    if (!op->flushing)
        range_mark(op, -1);
    if (op->error != 0 && !forgiven)
        fprintf(stderr,
                "error: %s at %" PRIu64 " count %u after %" PRIu64 " ms: %s\n",
                op->flushing  ? "flush"
                : op->writing ? "write"
                              : "read",
                w.offset + op->first * BLOCK, op->count * BLOCK,
                (now_us - op->start_us) / 1000, strerror(op->error));
    if (op->writing)
        write_ended(op);
    else if (op->error == 0 && !op->flushing)
        for (uint32_t i = 0; i < op->count; i++)
            check_block(op->data + i * BLOCK, op->first + i);
    if (forgiven)
        op->error = 0;
    note_answer(op, now_us);
    op->busy = false;
    w.inflight--;
}

static int
send_op(struct op *op, struct nbd_handle *nbd)
{
    nbd_completion_callback cb = {.callback = completed, .user_data = op};
    uint64_t at = w.offset + op->first * BLOCK;
    size_t len = (size_t)op->count * BLOCK;
    int64_t cookie;

    if (op->flushing)
        cookie = nbd_aio_flush(nbd, cb, 0);
    else if (op->writing)
        cookie = nbd_aio_pwrite(
            nbd, op->data, len, at, cb,
            w.can_fua && op->seq % 16 == 0 ? LIBNBD_CMD_FLAG_FUA : 0);
    else
        cookie = nbd_aio_pread(nbd, op->data, len, at, cb, 0);
    return cookie == -1 ? -nbd_get_errno() : 0;
}

static void
start_op(struct op *op, uint64_t now_us)
{
    struct nbd_handle *nbd = w.conns[random_below(w.nconns)];
    int r;

    op->busy = true;
    op->done = false;
    op->error = 0;
    op->start_us = now_us;
    if (w.inflight++ == 0)
        note_progress(now_us);
    if (!op->flushing)
        range_mark(op, 1);
    r = send_op(op, nbd);
    if (r != 0 && !op->done) {
        op->error = -r;
        op->done = true;
    }
}

/* Chooses what to do next; false: everything tried overlaps what is under
 * way. */
static bool
choose(struct op *op)
{
    op->flushing = w.can_flush && !w.read_only && random_below(200) == 0;
    op->writing =
        !op->flushing && !w.read_only && random_below(100) < w.writes_percent;
    op->count = op->flushing ? 0 : 1 + (uint32_t)random_below(MAX_BLOCKS);
    op->first = 0;
    for (int tries = 0; !op->flushing && tries < 8; tries++) {
        op->first = random_below(w.nblocks - op->count + 1);
        if (range_free(op->first, op->count, op->writing))
            break;
        if (tries == 7)
            return false;
    }
    if (op->writing) {
        op->seq = ++w.seq;
        for (uint32_t i = 0; i < op->count; i++)
            fill(op->data + i * BLOCK, op->first + i, op->seq);
    }
    return true;
}

static void
start_some(uint64_t now_us)
{
    static uint64_t credit_us;
    uint64_t cost_us = w.rate ? 1000000 / w.rate : 0;

    if (credit_us + 50000 < now_us) /* never catch up more than this */
        credit_us = now_us - 50000;
    for (unsigned i = 0; i < w.depth; i++) {
        if (w.ops[i].busy)
            continue;
        if (w.rate && credit_us + cost_us > now_us)
            return;
        if (!choose(&w.ops[i]))
            return;
        credit_us += cost_us;
        start_op(&w.ops[i], now_us);
    }
}

static void
reap(uint64_t now_us)
{
    for (unsigned i = 0; i < w.depth; i++)
        if (w.ops[i].busy && w.ops[i].done)
            finish(&w.ops[i], now_us);
}

/* ---- the loop ---------------------------------------------------------- */

static void
look_at_connections(void)
{
    for (unsigned i = 0; i < w.nconns; i++)
        if (nbd_aio_is_dead(w.conns[i]) || nbd_aio_is_closed(w.conns[i]))
            w.lost = true;
}

/* Waits for at most timeout_ms and lets libnbd do its work. */
static void
turn(int timeout_ms, bool with_stdin)
{
    struct pollfd fds[MAX_CONNS + 1];
    unsigned n = w.nconns;

    for (unsigned i = 0; i < n; i++) {
        unsigned dir = nbd_aio_get_direction(w.conns[i]);

        fds[i].fd = nbd_aio_get_fd(w.conns[i]);
        fds[i].events =
            (short)((dir & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
                    (dir & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0));
        fds[i].revents = 0;
    }
    fds[n].fd = with_stdin ? STDIN_FILENO : -1;
    fds[n].events = POLLIN;
    fds[n].revents = 0;
    if (poll(fds, n + 1, timeout_ms) < 0)
        return;
    for (unsigned i = 0; i < n; i++) {
        unsigned dir = nbd_aio_get_direction(w.conns[i]);

        if ((fds[i].revents & (POLLIN | POLLHUP | POLLERR)) &&
            (dir & LIBNBD_AIO_DIRECTION_READ))
            nbd_aio_notify_read(w.conns[i]);
        else if ((fds[i].revents & POLLOUT) &&
                 (dir & LIBNBD_AIO_DIRECTION_WRITE))
            nbd_aio_notify_write(w.conns[i]);
    }
    look_at_connections();
}

/* "mark NAME" on stdin ends one event window and begins the next; the end of
 * stdin ends the run. */
static void
command(char *line, uint64_t now_us)
{
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "mark ", 5) != 0) {
        stopping = 1;
        return;
    }
    note_open_requests(now_us);
    window_print("window", &w.event, now_us);
    window_begin(&w.event, line + 5, now_us);
}

static void
read_commands(uint64_t now_us)
{
    static char buf[256];
    static size_t have;
    ssize_t n = read(STDIN_FILENO, buf + have, sizeof buf - 1 - have);
    char *end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        stopping = 1;
        return;
    }
    have += (size_t)n;
    buf[have] = '\0';
    while ((end = memchr(buf, '\n', have)) != NULL) {
        *end = '\0';
        command(buf, now_us);
        have -= (size_t)(end + 1 - buf);
        memmove(buf, end + 1, have + 1);
    }
    if (have == sizeof buf - 1)
        stopping = 1;
}

static void
tick(uint64_t now_us)
{
    char name[32];

    if (now_us - w.tick.start_us < w.interval_ms * UINT64_C(1000))
        return;
    note_open_requests(now_us);
    window_print("tick", &w.tick, now_us);
    snprintf(name, sizeof name, "%" PRIu64, (now_us - w.total.start_us) / 1000);
    window_begin(&w.tick, name, now_us);
}

static void
run(void)
{
    uint64_t now_us = clock_us(), drain_us = 0;

    window_begin(&w.tick, "0", now_us);
    window_begin(&w.event, "start", now_us);
    window_begin(&w.total, "all", now_us);
    while (true) {
        now_us = clock_us();
        reap(now_us);
        tick(now_us);
        if (w.lost)
            stopping = 1;
        if (!stopping)
            start_some(now_us);
        else if (drain_us == 0)
            drain_us = now_us + DRAIN_US;
        if (stopping && (w.inflight == 0 || now_us > drain_us))
            break;
        turn(w.inflight < w.depth && !stopping ? 2 : 100, !stopping);
        if (!stopping)
            read_commands(clock_us());
    }
    note_open_requests(now_us);
    if (w.inflight > 0)
        fprintf(stderr, "error: %u requests were never answered\n", w.inflight);
    w.total.errors += w.inflight;
    w.event.errors += w.inflight;
    window_print("window", &w.event, now_us);
    window_print("total", &w.total, now_us);
}

/* Reads the region from end to end and compares. */
static void
check_all(void)
{
    char *data = w.ops[0].data;

    window_begin(&w.total, "check", clock_us());
    for (uint64_t at = 0; at < w.nblocks; at += MAX_BLOCKS) {
        uint64_t n = w.nblocks - at < MAX_BLOCKS ? w.nblocks - at : MAX_BLOCKS;

        w.total.ops++;
        if (nbd_pread(w.conns[0], data, n * BLOCK, w.offset + at * BLOCK, 0) ==
            -1) {
            fprintf(stderr, "error: %s\n", nbd_get_error());
            w.total.errors++;
            break;
        }
        for (uint64_t i = 0; i < n; i++)
            check_block(data + i * BLOCK, at + i);
    }
    window_print("total", &w.total, clock_us());
}

/* ---- the rest ---------------------------------------------------------- */

static void *
measure_machine(void *arg)
{
    const struct timespec nap = {.tv_nsec = 1000000};

    (void)arg;
    while (true) {
        uint64_t before = clock_us(), took;

        nanosleep(&nap, NULL);
        took = clock_us() - before;
        if (took > 1000 + LATE_MIN_US)
            atomic_fetch_add(&late_us, took - 1000);
    }
    return NULL;
}

static void
die(const char *what)
{
    fprintf(stderr, "witness: %s\n", what);
    exit(2);
}

static void
load_state(void)
{
    int fd = w.state_file ? open(w.state_file, O_RDONLY | O_CLOEXEC) : -1;
    uint64_t head[2];
    size_t len = (size_t)w.nblocks * sizeof *w.blocks;

    if (fd == -1)
        return;
    if (read(fd, head, sizeof head) != (ssize_t)sizeof head ||
        head[0] != w.nblocks || read(fd, w.blocks, len) != (ssize_t)len)
        die("the state file is of another region");
    w.seq = head[1];
    close(fd);
    for (uint64_t i = 0; i < w.nblocks; i++)
        w.blocks[i].readers = w.blocks[i].writer = 0;
}

static void
save_state(void)
{
    int fd = w.state_file ? open(w.state_file,
                                 O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)
                          : -1;
    uint64_t head[2] = {w.nblocks, w.seq};
    size_t len = (size_t)w.nblocks * sizeof *w.blocks;

    if (!w.state_file)
        return;
    for (unsigned i = 0; i < w.depth; i++) /* never answered: either may be */
        if (w.ops[i].busy && w.ops[i].writing) {
            w.ops[i].error = ETIMEDOUT;
            write_ended(&w.ops[i]);
        }
    if (fd == -1 || write(fd, head, sizeof head) != (ssize_t)sizeof head ||
        write(fd, w.blocks, len) != (ssize_t)len || close(fd) == -1)
        die("cannot write the state file");
}

static void
connect_all(void)
{
    for (unsigned i = 0; i < w.nconns; i++) {
        w.conns[i] = nbd_create();
        if (!w.conns[i] || nbd_connect_uri(w.conns[i], w.uri) == -1)
            die(nbd_get_error());
        if (i == 0 && nbd_can_multi_conn(w.conns[0]) != 1)
            w.nconns = 1;
    }
    w.can_flush = nbd_can_flush(w.conns[0]) == 1;
    w.can_fua = nbd_can_fua(w.conns[0]) == 1;
    w.read_only = nbd_is_read_only(w.conns[0]) == 1;
}

static void
prepare_region(void)
{
    int64_t whole = nbd_get_size(w.conns[0]);

    if (whole < 0 || (uint64_t)whole < w.offset + BLOCK)
        die("the region begins behind the end of the export");
    if (w.size == 0 || w.size > (uint64_t)whole - w.offset)
        w.size = (uint64_t)whole - w.offset;
    w.nblocks = w.size / BLOCK;
    if (w.nblocks < 4 * MAX_BLOCKS)
        die("the region is too small");
    w.blocks = calloc(w.nblocks, sizeof *w.blocks);
    for (unsigned i = 0; i < w.depth; i++)
        w.ops[i].data = aligned_alloc(BLOCK, (size_t)MAX_BLOCKS * BLOCK);
    if (!w.blocks || !w.ops[w.depth - 1].data)
        die("no memory");
    load_state();
}

static uint64_t
number(const char *text, uint64_t most)
{
    char *end;
    uint64_t n = strtoull(text, &end, 0);

    if (*end == 'k' || *end == 'K')
        n <<= 10, end++;
    else if (*end == 'm' || *end == 'M')
        n <<= 20, end++;
    if (end == text || *end != '\0' || n > most)
        die("bad number");
    return n;
}

static const char usage[] =
    "usage: witness [OPTION]... URI\n"
    "  --offset BYTES   begin of the region (0); k and m may follow\n"
    "  --size BYTES     its length (to the end of the export)\n"
    "  --depth N        requests under way (16)\n"
    "  --rate N         requests each second at most (0: no limit)\n"
    "  --connections N  if the server allows more than one (1)\n"
    "  --writes PERCENT share of writes (50)\n"
    "  --seed N         of the contents; the region's own (1)\n"
    "  --interval MS    between two lines of output (1000)\n"
    "  --state FILE     what the blocks must hold: read, and written at last\n"
    "  --check          read everything once, compare, and end\n"
    "  --keep-on-loss   a lost connection is no error: what was under way may\n"
    "                   or may not have been done\n"
    "stdin: `mark NAME' begins a new event window; its end ends the run\n";

static void
read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"offset", required_argument, NULL, 'o'},
        {"size", required_argument, NULL, 's'},
        {"depth", required_argument, NULL, 'd'},
        {"rate", required_argument, NULL, 'r'},
        {"connections", required_argument, NULL, 'c'},
        {"writes", required_argument, NULL, 'w'},
        {"seed", required_argument, NULL, 'S'},
        {"interval", required_argument, NULL, 'i'},
        {"state", required_argument, NULL, 'f'},
        {"check", no_argument, NULL, 'C'},
        {"keep-on-loss", no_argument, NULL, 'k'},
        {NULL, 0, NULL, 0},
    };
    int c;

    w.depth = 16, w.nconns = 1, w.writes_percent = 50, w.seed = 1;
    w.interval_ms = 1000;
    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'o':
            w.offset = number(optarg, INT64_MAX);
            break;
        case 's':
            w.size = number(optarg, INT64_MAX);
            break;
        case 'd':
            w.depth = (unsigned)number(optarg, MAX_DEPTH);
            break;
        case 'r':
            w.rate = (unsigned)number(optarg, 1000000);
            break;
        case 'c':
            w.nconns = (unsigned)number(optarg, MAX_CONNS);
            break;
        case 'w':
            w.writes_percent = (unsigned)number(optarg, 100);
            break;
        case 'S':
            w.seed = number(optarg, UINT64_MAX);
            break;
        case 'i':
            w.interval_ms = (unsigned)number(optarg, 3600000);
            break;
        case 'f':
            w.state_file = optarg;
            break;
        case 'C':
            w.check = true;
            break;
        case 'k':
            w.keep_on_loss = true;
            break;
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (optind + 1 != argc || w.depth == 0 || w.nconns == 0)
        die("one URI is needed, and a depth and connections above 0");
    w.uri = argv[optind];
    w.random = w.seed;
}

static void
on_signal(int sig)
{
    (void)sig;
    stopping = 1;
}

int
main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    pthread_t thread;

    read_options(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    connect_all();
    prepare_region();
    if (w.check) {
        check_all();
    } else {
        fcntl(STDIN_FILENO, F_SETFL, O_NONBLOCK);
        if (pthread_create(&thread, NULL, measure_machine, NULL) != 0)
            die("no thread");
        printf("ready size %" PRIu64 " connections %u\n", w.size, w.nconns);
        run();
        save_state();
    }
    for (unsigned i = 0; i < w.nconns; i++)
        if (!w.lost && w.inflight == 0)
            nbd_shutdown(w.conns[i], 0);
    return w.total.errors + w.total.mismatches > 0 ? 1 : 0;
}
