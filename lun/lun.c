/* SPDX-License-Identifier: BSD-3-Clause */
/* The LUN's front: chooses the backend, checks every request before it. */
#include "lun/lun.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/log.h"
#include "common/rules.h"
#include "lun/backend.h"

/* Any thread enters here.  A request is checked against copies of the
 * status, which lun_changed renews and lun_get_status with it, so that
 * submitting takes no lock. */
struct lun {
    /* fixed after lun_create */
    struct lun_options opt;
    const struct lun_backend *backend;

    pthread_mutex_t lock;
    /* guarded by lock: the order in which copies are made */
    void *b;           /* NULL while the backend is being created */
    bool drain_ok;     /* LUN_FENCE_DRAIN: lun_register succeeded */
    uint64_t drain_no; /* and how often that was news */

    /* copies; known is written last and read first */
    atomic_bool known, wrong_id, readonly, can_trim, can_zero;
    _Atomic uint32_t block_size, max_io;
    _Atomic uint64_t size;
    _Atomic uint64_t registration_no; /* 0: not registered now */
};

/* One thread at a time. */
struct lun_queue {
    struct lun *lun;
    void *q;
    struct lun_io *refused, **refused_end;
    int refused_fd; /* eventfd, readable while something is refused; or -1 */
    int epoll_fd;   /* of refused_fd and the backend's; -1: nobody asked */
};

/* ---- opening ----------------------------------------------------- */

#define STRINGS 10

/* Where the strings are that an option struct points at. */
static void
find_strings(struct lun_options *opt, const char **strings[STRINGS])
{
    const char **found[STRINGS] = {
        &opt->name,       &opt->device,    &opt->process,
        &opt->rundir,     &opt->statedir,  &opt->expected_id,
        &opt->initiator,  &opt->chap_user, &opt->chap_secret_file,
        &opt->multipathd,
    };

    memcpy(strings, found, sizeof found);
}

static void
free_options(struct lun_options *opt)
{
    const char **strings[STRINGS];

    find_strings(opt, strings);
    for (size_t i = 0; i < STRINGS; i++)
        free((char *)*strings[i]);
}

/* returns: false without memory; to can be freed then as well */
static bool
copy_options(struct lun_options *to, const struct lun_options *from)
{
    const char **strings[STRINGS];
    bool ok = true;

    *to = *from;
    find_strings(to, strings);
    for (size_t i = 0; i < STRINGS; i++) {
        if (!*strings[i])
            continue;
        *strings[i] = strdup(*strings[i]);
        ok = ok && *strings[i];
    }
    return ok;
}

/* What st says, the request checks have seen. */
static void
look_locked(struct lun *l, struct lun_status *st)
{
    *st = (struct lun_status){0};
    l->backend->get_status(l->b, st);
    st->readonly |= l->opt.readonly;
    if (l->opt.fence == LUN_FENCE_DRAIN) {
        st->registration = l->drain_ok ? LUN_REGISTERED : LUN_UNREGISTERED;
        st->registration_no = l->drain_no;
        st->key = 0;
    }
    l->block_size = st->block_size;
    l->max_io = st->max_io;
    l->size = st->size;
    l->readonly = st->readonly;
    l->can_trim = st->can_trim;
    l->can_zero = st->can_zero;
    l->registration_no =
        st->registration == LUN_REGISTERED ? st->registration_no : 0;
    l->wrong_id = st->wrong_id;
    l->known = st->known && st->block_size > 0;
}

static void
renew_locked(struct lun *l)
{
    struct lun_status st;

    look_locked(l, &st);
}

struct lun *
lun_create(const struct lun_options *opt)
{
    struct lun *l = calloc(1, sizeof *l);
    void *b;

    if (!l)
        return NULL;
    pthread_mutex_init(&l->lock, NULL);
    l->backend = strncmp(opt->device, "iscsi://", 8) == 0 ? &lun_backend_iscsi
                                                          : &lun_backend_block;
    errno = ENOMEM;
    b = copy_options(&l->opt, opt) ? l->backend->create(l, &l->opt) : NULL;
    if (!b) {
        int saved = errno;

        free_options(&l->opt);
        pthread_mutex_destroy(&l->lock);
        free(l);
        errno = saved;
        return NULL;
    }
    pthread_mutex_lock(&l->lock);
    l->b = b;
    renew_locked(l);
    pthread_mutex_unlock(&l->lock);
    return l;
}

unsigned
lun_destroy(struct lun *l, uint64_t deadline_ms)
{
    unsigned lost;

    if (!l)
        return 0;
    lost = l->backend->destroy(l->b, deadline_ms);
    free_options(&l->opt);
    pthread_mutex_destroy(&l->lock);
    free(l);
    return lost;
}

/* ---- status ------------------------------------------------------ */

void
lun_changed(struct lun *l)
{
    bool created;

    pthread_mutex_lock(&l->lock);
    created = l->b;
    if (created)
        renew_locked(l);
    pthread_mutex_unlock(&l->lock);
    if (created && l->opt.notify)
        l->opt.notify(l->opt.opaque);
}

void
lun_get_status(struct lun *l, struct lun_status *st)
{
    pthread_mutex_lock(&l->lock);
    look_locked(l, st);
    pthread_mutex_unlock(&l->lock);
}

uint32_t
lun_max_io(struct lun *l)
{
    return l->known ? l->max_io : 0;
}

size_t
lun_get_paths(struct lun *l, struct lun_path *paths, size_t max)
{
    return l->backend->get_paths(l->b, paths, max);
}

bool
lun_get_map(struct lun *l, struct lun_map *map)
{
    return l->backend->get_map && l->backend->get_map(l->b, map);
}

void
lun_fail_queued(struct lun *l, bool fail)
{
    if (l->backend->fail_queued)
        l->backend->fail_queued(l->b, fail);
}

/* ---- queues ------------------------------------------------------ */

struct lun_queue *
lun_queue_create(struct lun *l)
{
    struct lun_queue *q = calloc(1, sizeof *q);

    if (!q)
        return NULL;
    q->lun = l;
    q->refused_fd = q->epoll_fd = -1;
    q->refused_end = &q->refused;
    q->q = l->backend->queue_create(l->b);
    if (!q->q) {
        int saved = errno;

        free(q);
        errno = saved;
        return NULL;
    }
    return q;
}

/* Without refused_fd nobody polls, and there is nothing to set. */
static void
show_refused(struct lun_queue *q)
{
    uint64_t n = 1;

    if (q->refused_fd < 0)
        return;
    /* neither can fail on an eventfd that is not blocking */
    if (q->refused)
        (void)!write(q->refused_fd, &n, sizeof n);
    else
        (void)!read(q->refused_fd, &n, sizeof n);
}

static void
refuse(struct lun_queue *q, struct lun_io *io, int error)
{
    io->error = error;
    io->next = NULL;
    *q->refused_end = io;
    q->refused_end = &io->next;
    show_refused(q);
}

static struct lun_io *
pop_refused(struct lun_queue *q)
{
    struct lun_io *io = q->refused;

    if (!io)
        return NULL;
    q->refused = io->next;
    if (!q->refused)
        q->refused_end = &q->refused;
    io->next = NULL;
    return io;
}

/* Forget io if it waits among the refused. */
static bool
unrefuse(struct lun_queue *q, const struct lun_io *io)
{
    for (struct lun_io **p = &q->refused; *p; p = &(*p)->next) {
        if (*p != io)
            continue;
        *p = io->next;
        if (!*p)
            q->refused_end = p;
        return true;
    }
    return false;
}

void
lun_queue_destroy(struct lun_queue *q)
{
    struct lun_io *io;

    if (!q)
        return;
    while ((io = pop_refused(q)))
        q->lun->backend->io_put(q->q, io);
    if (q->epoll_fd >= 0)
        close(q->epoll_fd);
    if (q->refused_fd >= 0)
        close(q->refused_fd);
    q->lun->backend->queue_destroy(q->q);
    free(q);
}

static int
watch(int epoll_fd, int fd)
{
    struct epoll_event ev = {.events = EPOLLIN};

    return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &ev);
}

int
lun_queue_fd(struct lun_queue *q)
{
    int fd = q->lun->backend->queue_fd(q->q);

    if (q->epoll_fd >= 0 || fd < 0)
        return q->epoll_fd;
    q->refused_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    q->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (q->refused_fd < 0 || q->epoll_fd < 0 ||
        watch(q->epoll_fd, q->refused_fd) < 0 || watch(q->epoll_fd, fd) < 0) {
        log_error("lun %s: no descriptor to wait for requests with: %s",
                  q->lun->opt.name, strerror(errno));
        close(q->refused_fd);
        close(q->epoll_fd);
        q->refused_fd = q->epoll_fd = -1;
    }
    if (q->refused)
        show_refused(q);
    return q->epoll_fd;
}

void
lun_queue_interrupt(struct lun_queue *q)
{
    q->lun->backend->queue_interrupt(q->q);
}

/* ---- requests ---------------------------------------------------- */

struct lun_io *
lun_io_get(struct lun_queue *q, size_t room)
{
    struct lun_io *io = q->lun->backend->io_get(q->q, room);

    if (!io)
        return NULL;
    io->queue = q;
    io->next = NULL;
    return io;
}

void
lun_io_put(struct lun_io *io)
{
    if (io)
        io->queue->lun->backend->io_put(io->queue->q, io);
}

/* NBD's proto.md: past the end is "no space" for what puts data there and
 * "invalid" for what does not. */
static int
check_range(struct lun *l, const struct lun_io *io)
{
    uint64_t size = l->size, mask = (uint64_t)l->block_size - 1;

    if (io->count == 0 || ((io->offset | io->count) & mask) ||
        io->count > l->max_io)
        return -EINVAL;
    if (io->offset <= size && io->count <= size - io->offset)
        return 0;
    return io->op == LUN_WRITE || io->op == LUN_ZERO ? -ENOSPC : -EINVAL;
}

static int
check_write(struct lun *l, const struct lun_io *io)
{
    uint64_t no = l->registration_no;

    if (l->readonly)
        return -EROFS;
    if ((io->op == LUN_TRIM && !l->can_trim) ||
        (io->op == LUN_ZERO && !l->can_zero))
        return -EOPNOTSUPP;
    if (l->opt.fence == LUN_FENCE_PR && (no == 0 || io->registration_no != no))
        return -EBADE;
    return 0;
}

static int
check(struct lun *l, const struct lun_io *io)
{
    int err;

    if (io->op > LUN_ZERO || (io->flags & ~(LUN_FUA | LUN_NO_HOLE)))
        return -EINVAL;
    if (l->wrong_id)
        return -ESTALE;
    if (!l->known)
        return -EAGAIN;
    if (io->op == LUN_FLUSH)
        return 0;
    err = check_range(l, io);
    if (!err && lun_op_writes(io->op))
        err = check_write(l, io);
    return err;
}

void
lun_submit(struct lun_queue *q, struct lun_io *io)
{
    int err;

    if (!rule_kept(RULE_CLOSE))
        io->registration_no = q->lun->registration_no;
    err = check(q->lun, io);
    io->error = 0;
    if (err)
        refuse(q, io, err);
    else
        q->lun->backend->submit(q->q, io);
}

size_t
lun_reap(struct lun_queue *q, struct lun_io **ios, size_t max,
         uint64_t deadline_ms)
{
    size_t n = 0;

    while (n < max && q->refused)
        ios[n++] = pop_refused(q);
    if (n > 0) {
        show_refused(q);
        deadline_ms = 0;
    }
    return n + q->lun->backend->reap(q->q, ios + n, max - n, deadline_ms);
}

void
lun_abandon(struct lun_io *io)
{
    struct lun_queue *q = io->queue;

    if (!unrefuse(q, io)) {
        q->lun->backend->abandon(q->q, io);
        return;
    }
    show_refused(q);
    lun_io_put(io);
}

bool
lun_run(struct lun_queue *q, struct lun_io *io, uint64_t deadline_ms)
{
    struct lun_io *done;

    lun_submit(q, io);
    if (lun_reap(q, &done, 1, deadline_ms) == 1)
        return true;
    lun_abandon(io);
    return false;
}

int
lun_extents(struct lun *l, uint64_t offset, uint64_t count,
            struct lun_extent *extents, size_t max, uint64_t deadline_ms)
{
    uint64_t size = l->size, mask = (uint64_t)l->block_size - 1;

    if (l->wrong_id)
        return -ESTALE;
    if (!l->known)
        return -EAGAIN;
    if (max == 0 || count == 0 || ((offset | count) & mask) || offset > size ||
        count > size - offset)
        return -EINVAL;
    return l->backend->extents(l->b, offset, count, extents, max, deadline_ms);
}

/* ---- the right to write ------------------------------------------ */

int
lun_register(struct lun *l, uint64_t deadline_ms)
{
    int err;

    /* What was admitted under a registration that is gone is refused from
     * here on, before there is a new one. */
    pthread_mutex_lock(&l->lock);
    renew_locked(l);
    pthread_mutex_unlock(&l->lock);
    err = l->backend->do_register(l->b, deadline_ms);
    pthread_mutex_lock(&l->lock);
    if (l->opt.fence == LUN_FENCE_DRAIN && !err && !l->drain_ok) {
        l->drain_ok = true;
        l->drain_no++;
    }
    renew_locked(l);
    pthread_mutex_unlock(&l->lock);
    return err;
}

void
lun_release(struct lun *l)
{
    l->backend->release(l->b);
    pthread_mutex_lock(&l->lock);
    renew_locked(l);
    pthread_mutex_unlock(&l->lock);
}

int
lun_check_registration(struct lun *l, uint64_t deadline_ms)
{
    if (l->opt.fence == LUN_FENCE_DRAIN)
        return 0;
    return l->backend->check_registration(l->b, deadline_ms);
}

int
lun_fence(struct lun *l, unsigned host_number, uint64_t deadline_ms)
{
    if (l->opt.fence == LUN_FENCE_DRAIN)
        return -EOPNOTSUPP;
    if (l->registration_no == 0)
        return -EBADE;
    return l->backend->fence(l->b, host_number, deadline_ms);
}
