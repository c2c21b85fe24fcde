/* SPDX-License-Identifier: BSD-3-Clause */
/* One owner's requests: its ring, what is done, what was abandoned. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#endif

#include "common/clock.h"
#include "common/log.h"
#include "lun/block.h"

/* The owner fills the ring's submission side without a lock.  Completions
 * are taken out under q->lock, by the owner when it reaps, or by the reaper
 * when something was abandoned and the owner is elsewhere, perhaps for ever.
 * What the reaper finds for the owner goes to the done list, as what workers
 * finish does, and wake_fd tells. */

#define RING_ENTRIES 128
#define SLOT_LOCK    0 /* of the ring's registered files */
#define SLOT_PROCESS 1
#define SLOT_DEVICE  2
#define SLOTS        3
#define DATA_WAKE    0 /* user_data of the poll on wake_fd */

/* ---- life -------------------------------------------------------- */

/* liburing maps and unmaps behind the thread sanitizer's back: to it, a ring
 * that comes to lie where one lay before is the same memory still. */
static void
rings_in_order(void)
{
#ifdef __SANITIZE_THREAD__
    static atomic_uint order;

    order++;
#endif
}

/* The ring's file table keeps the locks' open file descriptions, and so the
 * flocks of a killed process, until the ring's last request has come back:
 * io_ring_ctx_free() in io_uring/io_uring.c.  (A worker stuck in the kernel
 * keeps the process' own descriptors open just as long.) */
static int
make_ring(struct block_queue *q)
{
    /* Not SINGLE_ISSUER, and so not DEFER_TASKRUN: a queue may move between
     * threads, and the reaper takes completions out. */
    unsigned flags = IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL |
                     IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    const int files[SLOTS] = {
        [SLOT_LOCK] = q->b->lock_fd,
        [SLOT_PROCESS] = q->b->process_fd,
        [SLOT_DEVICE] = -1,
    };
    int err;

    rings_in_order();
    err = io_uring_queue_init(RING_ENTRIES, &q->ring, flags);
    if (err == -EINVAL) /* before Linux 5.19 */
        err = io_uring_queue_init(RING_ENTRIES, &q->ring, IORING_SETUP_CLAMP);
    if (err)
        return err;
    if (!(q->ring.features & IORING_FEAT_EXT_ARG) ||
        !(q->ring.features & IORING_FEAT_NODROP))
        err = -ENOSYS; /* before Linux 5.11 */
    else
        err = io_uring_register_files(&q->ring, files, SLOTS);
    if (err)
        io_uring_queue_exit(&q->ring);
    return err;
}

/* Many systems forbid io_uring (kernel.io_uring_disabled, a container's system
 * call filter), or are too old: then the workers do it all, for more CPU time.
 * errors:  -errno: why not even they can */
static int
do_without_ring(struct block_queue *q, int why)
{
    bool first;

    if (why != -EPERM && why != -EACCES && why != -ENOSYS)
        return why;
    pthread_mutex_lock(&q->b->lock);
    first = !q->b->warned_ring;
    q->b->warned_ring = true;
    pthread_mutex_unlock(&q->b->lock);
    if (first)
        log_warning("lun %s: no io_uring here (%s): threads do its work, which "
                    "costs more CPU time: see kernel.io_uring_disabled, or the "
                    "container's system call filter",
                    q->b->name, strerror(-why));
    return 0;
}

static int
make_waiting(struct block_queue *q)
{
    int err;

    q->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (q->wake_fd < 0)
        return -errno;
    err = make_ring(q);
    q->has_ring = err == 0;
    return err ? do_without_ring(q, err) : 0;
}

void *
block_queue_create(void *opaque)
{
    struct block *b = opaque;
    struct block_queue *q = calloc(1, sizeof *q);
    int err;

    if (!q)
        return NULL;
    q->b = b;
    q->refs = 1;
    q->poll_fd = -1;
    q->done_end = &q->done;
    err = make_waiting(q);
    if (err) {
        log_error("lun %s: cannot make an io_uring: %s", b->name,
                  strerror(-err));
        if (q->wake_fd >= 0)
            close(q->wake_fd);
        free(q);
        errno = -err;
        return NULL;
    }
    pthread_mutex_init(&q->lock, NULL);
    block_get(b);
    return q;
}

/* The last one: nothing is under way, nobody watches. */
void
block_queue_put(struct block_queue *q)
{
    if (--q->refs > 0)
        return;
    if (q->has_ring)
        io_uring_queue_exit(&q->ring);
    rings_in_order();
    close(q->wake_fd);
    device_put(q->device);
    pthread_mutex_destroy(&q->lock);
    block_put(q->b);
    free(q);
}

static void
free_request(struct block_request *r)
{
    free(r->io.data);
    free(r);
}

/* A request that came back and was not reaped, or was never sent. */
static void
free_list(struct lun_io *io)
{
    while (io) {
        struct lun_io *next = io->next;

        free_request(block_request(io));
        io = next;
    }
}

/* ---- telling the owner ------------------------------------------- */

void
block_queue_wake_locked(struct block_queue *q)
{
    uint64_t one = 1;

    if (q->woken)
        return;
    q->woken = true;
    (void)!write(q->wake_fd, &one, sizeof one); /* cannot be full */
}

static void
unwake_locked(struct block_queue *q)
{
    uint64_t n;

    if (!q->woken)
        return;
    q->woken = false;
    (void)!read(q->wake_fd, &n, sizeof n);
}

void
block_queue_interrupt(void *opaque)
{
    struct block_queue *q = opaque;

    pthread_mutex_lock(&q->lock);
    q->interrupted = true;
    block_queue_wake_locked(q);
    pthread_mutex_unlock(&q->lock);
}

static int
add_to_epoll(int epoll_fd, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

int
block_queue_fd(void *opaque)
{
    struct block_queue *q = opaque;
    int fd;

    if (q->poll_fd >= 0)
        return q->poll_fd;
    fd = epoll_create1(EPOLL_CLOEXEC);
    if (fd >= 0 && ((q->has_ring && add_to_epoll(fd, q->ring.ring_fd) < 0) ||
                    add_to_epoll(fd, q->wake_fd) < 0)) {
        close(fd);
        fd = -1;
    }
    q->poll_fd = fd;
    return fd;
}

/* ---- completion -------------------------------------------------- */

static void
count_locked(struct block_queue *q, const struct lun_io *io, bool up)
{
    unsigned *n = lun_op_writes(io->op) ? &q->writes : &q->others;

    *n = up ? *n + 1 : *n - 1;
}

/* It has come back to an owner who wants it. */
static uint64_t
done_locked(struct block_request *r, int error)
{
    struct block_queue *q = r->q;
    bool fenced = error == -EBADE && lun_op_writes(r->io.op);

    r->io.error = error;
    r->io.next = NULL;
    r->where = BLOCK_DONE;
    *q->done_end = &r->io;
    q->done_end = &r->io.next;
    count_locked(q, &r->io, false);
    q->b->inflight--;
    lun_tally_end(&r->io);
    return fenced ? r->io.registration_no : 0;
}

static int
give_to_worker_locked(struct block_request *r)
{
    struct block_queue *q = r->q;
    int err;

    if (!q->device)
        return -ENOLINK;
    r->device = device_get(q->device);
    r->where = BLOCK_WORKER;
    q->refs++;
    err = block_worker_give(q->b, r);
    if (err) {
        q->refs--; /* not the last: the owner has one */
        device_put(r->device);
        r->device = NULL;
    }
    return err;
}

/* The kernel's answer to a read or write that is wanted.
 * returns: the registration that met a conflict, or 0 */
static uint64_t
answer_locked(struct block_request *r, int res)
{
    struct block_queue *q = r->q;
    bool again = false;
    int err = res;

    if (res == -EAGAIN || res == -EINTR || res == -ECANCELED) {
        again = true;
    } else if (res == -EOPNOTSUPP) {
        again = true;
        if (q->device)
            q->device->no_nowait = true;
    } else if (res > 0) {
        r->done += (uint64_t)res;
        again = r->done < r->io.count;
        err = 0;
    } else if (res == 0) { /* a file that shrank, a full one */
        err = r->io.op == LUN_READ ? -EIO : -ENOSPC;
    }
    if (again) {
        err = give_to_worker_locked(r);
        if (!err)
            return 0;
    }
    return done_locked(r, err);
}

uint64_t
block_queue_drain_locked(struct block_queue *q, struct lun_io **orphans)
{
    struct io_uring_cqe *cqe;
    uint64_t conflict = 0, c;

    while (q->has_ring && io_uring_peek_cqe(&q->ring, &cqe) == 0) {
        struct block_request *r = io_uring_cqe_get_data(cqe);
        int res = cqe->res;

        io_uring_cqe_seen(&q->ring, cqe);
        if (!r) { /* DATA_WAKE */
            q->poll_armed = false;
            continue;
        }
        q->in_ring--;
        if (r->abandoned || q->dead) {
            if (r->abandoned)
                q->given_up--;
            c = res == -EBADE && lun_op_writes(r->io.op) ? r->io.registration_no
                                                         : 0;
            r->io.next = *orphans;
            *orphans = &r->io;
        } else {
            c = answer_locked(r, res);
        }
        if (c)
            conflict = c;
    }
    return conflict;
}

void
block_queue_settle(struct block *b, struct lun_io *orphans, uint64_t conflict)
{
    while (orphans) {
        struct lun_io *next = orphans->next;

        block_orphan_end(b, block_request(orphans));
        orphans = next;
    }
    if (conflict)
        block_fenced(b, conflict);
}

void
block_queue_returned(struct block_request *r, int error)
{
    struct block_queue *q = r->q;
    uint64_t conflict = 0;
    bool orphan;

    pthread_mutex_lock(&q->lock);
    orphan = r->abandoned || q->dead;
    if (!orphan) { /* the owner's from here on */
        conflict = done_locked(r, error);
        block_queue_wake_locked(q);
    } else {
        r->io.next = NULL;
        if (error == -EBADE && lun_op_writes(r->io.op))
            conflict = r->io.registration_no;
    }
    pthread_mutex_unlock(&q->lock);
    block_queue_settle(q->b, orphan ? &r->io : NULL, conflict);
    block_queue_put(q);
}

/* ---- submitting -------------------------------------------------- */

struct lun_io *
block_io_get(void *opaque, size_t room)
{
    struct block_queue *q = opaque;
    struct block_request *r = calloc(1, sizeof *r);

    if (r && room > 0)
        r->io.data = buffers_get(&q->buffers, room);
    if (!r || (room > 0 && !r->io.data)) {
        free(r);
        errno = ENOMEM;
        return NULL;
    }
    r->q = q;
    r->room = room;
    return &r->io;
}

void
block_io_put(void *opaque, struct lun_io *io)
{
    struct block_queue *q = opaque;
    struct block_request *r = block_request(io);

    buffers_put(&q->buffers, io->data, r->room);
    free(r);
}

/* What cannot be sent now (out of memory in the kernel) is tried again each
 * time the owner comes by. */
static void
send_unsent(struct block_queue *q)
{
    if (q->unsent > 0 && io_uring_submit(&q->ring) >= 0)
        q->unsent = 0;
}

static struct io_uring_sqe *
get_sqe(struct block_queue *q)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&q->ring);

    if (sqe)
        return sqe;
    send_unsent(q);
    return io_uring_get_sqe(&q->ring);
}

/* Make the ring's device the present one; errors: -ENOLINK. */
static int
follow_device_locked(struct block_queue *q)
{
    unsigned generation = q->b->generation;
    struct device *d;
    int fd;

    if (q->device && q->generation == generation)
        return 0;
    /* what was meant for the old one must not reach the slot's new one
     * before it is known to be the same LUN */
    send_unsent(q);
    d = block_device(q->b);
    fd = d ? d->fd : -1;
    if (q->has_ring &&
        io_uring_register_files_update(&q->ring, SLOT_DEVICE, &fd, 1) < 0) {
        device_put(d);
        return -ENOLINK;
    }
    device_put(q->device);
    q->device = d;
    q->generation = generation;
    return d ? 0 : -ENOLINK;
}

static bool
put_in_ring_locked(struct block_queue *q, struct block_request *r)
{
    struct io_uring_sqe *sqe = get_sqe(q);
    struct lun_io *io = &r->io;

    if (!sqe)
        return false;
    if (io->op == LUN_READ)
        io_uring_prep_read(sqe, SLOT_DEVICE, io->data, (unsigned)io->count,
                           io->offset);
    else
        io_uring_prep_write(sqe, SLOT_DEVICE, io->data, (unsigned)io->count,
                            io->offset);
    sqe->flags |= IOSQE_FIXED_FILE;
    sqe->rw_flags = RWF_NOWAIT;
    if (io->op == LUN_WRITE && (io->flags & LUN_FUA))
        sqe->rw_flags |= RWF_DSYNC;
    io_uring_sqe_set_data(sqe, r);
    r->where = BLOCK_RING;
    q->in_ring++;
    q->unsent++;
    return true;
}

static int
start_locked(struct block_queue *q, struct block_request *r)
{
    bool moves = r->io.op == LUN_READ || r->io.op == LUN_WRITE;
    int err = follow_device_locked(q);

    if (err)
        return err;
    if (moves && r->io.count > r->room)
        return -EINVAL;
    if (moves && q->has_ring && !q->device->no_nowait &&
        put_in_ring_locked(q, r))
        return 0;
    return give_to_worker_locked(r);
}

void
block_submit(void *opaque, struct lun_io *io)
{
    struct block_queue *q = opaque;
    struct block_request *r = block_request(io);
    int err;

    r->done = 0;
    lun_tally_begin(io);
    q->b->inflight++;
    pthread_mutex_lock(&q->lock);
    count_locked(q, io, true);
    err = start_locked(q, r);
    if (err) {
        done_locked(r, err);
        block_queue_wake_locked(q);
    }
    pthread_mutex_unlock(&q->lock);
    /* An owner that does not poll comes to block_reap next, which sends and
     * waits in one system call. */
    if (q->poll_fd >= 0)
        send_unsent(q);
}

/* ---- reaping ----------------------------------------------------- */

static size_t
pop_done_locked(struct block_queue *q, struct lun_io **ios, size_t max)
{
    size_t n = 0;

    while (n < max && q->done) {
        struct lun_io *io = q->done;

        q->done = io->next;
        if (!q->done)
            q->done_end = &q->done;
        io->next = NULL;
        block_request(io)->where = BLOCK_OWNER;
        ios[n++] = io;
    }
    return n;
}

/* returns: false when there is no room for it; then the owner must not wait
 * for long */
static bool
arm_wake_locked(struct block_queue *q)
{
    struct io_uring_sqe *sqe;

    if (q->poll_armed || !q->has_ring)
        return true;
    sqe = get_sqe(q);
    if (!sqe)
        return false;
    io_uring_prep_poll_add(sqe, q->wake_fd, POLLIN);
    io_uring_sqe_set_data64(sqe, DATA_WAKE);
    q->poll_armed = true;
    q->unsent++;
    return true;
}

/* Sends what is unsent, and sleeps until something comes. */
static void
wait_in_kernel(struct block_queue *q, int left_ms)
{
    struct __kernel_timespec ts = {.tv_sec = left_ms / 1000,
                                   .tv_nsec = left_ms % 1000 * 1000000LL};
    struct io_uring_cqe *cqe;

    /* valgrind 3.19 lets no other thread run during io_uring_enter */
    if (!q->has_ring || RUNNING_ON_VALGRIND) {
        struct pollfd fd = {
            .fd = q->has_ring ? q->ring.ring_fd : q->wake_fd,
            .events = POLLIN,
        };

        send_unsent(q);
        poll(&fd, 1, left_ms);
        return;
    }
    if (io_uring_submit_and_wait_timeout(&q->ring, &cqe, 1,
                                         left_ms < 0 ? NULL : &ts, NULL) >= 0 ||
        io_uring_sq_ready(&q->ring) == 0)
        q->unsent = 0;
}

static size_t
collect(struct block_queue *q, struct lun_io **ios, size_t max, bool may_wait)
{
    struct lun_io *orphans = NULL;
    uint64_t conflict;
    size_t n;

    pthread_mutex_lock(&q->lock);
    unwake_locked(q);
    q->owner_waits = false;
    conflict = block_queue_drain_locked(q, &orphans);
    n = pop_done_locked(q, ios, max);
    if (q->done)
        block_queue_wake_locked(q); /* more than max: stays readable */
    if (n == 0) {
        q->owner_waits = may_wait && !q->interrupted && arm_wake_locked(q);
        q->interrupted = false;
    }
    pthread_mutex_unlock(&q->lock);
    block_queue_settle(q->b, orphans, conflict);
    return n;
}

size_t
block_reap(void *opaque, struct lun_io **ios, size_t max, uint64_t deadline_ms)
{
    struct block_queue *q = opaque;
    size_t n;

    if (deadline_ms == 0)
        send_unsent(q);
    for (;;) {
        uint64_t now_ms = clock_ms();

        n = collect(q, ios, max, max > 0 && now_ms < deadline_ms);
        if (!q->owner_waits)
            break;
        wait_in_kernel(q, clock_left_ms(deadline_ms, now_ms));
    }
    send_unsent(q);
    return n;
}

/* ---- abandoning -------------------------------------------------- */

static void
forget_done_locked(struct block_queue *q, const struct lun_io *io)
{
    struct lun_io **p = &q->done;

    while (*p != io)
        p = &(*p)->next;
    *p = io->next;
    if (!*p)
        q->done_end = p;
}

/* Never sent: as if it had come back. */
static void
unsent_locked(struct block_queue *q, struct lun_io *list)
{
    for (struct lun_io *io = list; io; io = io->next) {
        struct block_request *r = block_request(io);

        count_locked(q, io, false);
        q->b->inflight--;
        lun_tally_end(io);
        device_put(r->device);
        r->device = NULL;
        q->refs--; /* not the last: the owner has one */
    }
}

void
block_abandon(void *opaque, struct lun_io *io)
{
    struct block_queue *q = opaque;
    struct block_request *r = block_request(io);
    struct lun_io *mine = NULL;

    send_unsent(q);
    pthread_mutex_lock(&q->lock);
    if (r->where == BLOCK_DONE) {
        forget_done_locked(q, io);
        io->next = NULL;
        mine = io;
    } else if (r->where == BLOCK_WORKER) {
        mine = block_worker_take_back(q->b, q, r);
        unsent_locked(q, mine);
    }
    if (!mine) {
        r->abandoned = true;
        count_locked(q, io, false);
        block_orphans_begin(q->b, lun_op_writes(io->op),
                            !lun_op_writes(io->op));
        if (r->where == BLOCK_RING) {
            q->given_up++;
            block_reaper_watch_locked(q);
        }
    }
    pthread_mutex_unlock(&q->lock);
    free_list(mine);
}

void
block_queue_destroy(void *opaque)
{
    struct block_queue *q = opaque;
    struct lun_io *unsent, *done;
    bool reaper;

    send_unsent(q);
    pthread_mutex_lock(&q->lock);
    unsent = block_worker_take_back(q->b, q, NULL);
    unsent_locked(q, unsent);
    done = q->done;
    q->done = NULL;
    q->dead = true;
    block_orphans_begin(q->b, q->writes, q->others);
    reaper = q->watched || q->in_ring > 0;
    pthread_mutex_unlock(&q->lock);
    free_list(unsent);
    free_list(done);
    buffers_fini(&q->buffers);
    if (q->poll_fd >= 0)
        close(q->poll_fd);
    if (reaper)
        block_reaper_take(q); /* and the owner's reference */
    else
        block_queue_put(q);
}
