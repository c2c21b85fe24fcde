/* SPDX-License-Identifier: BSD-3-Clause */
/* The block backend: a kernel block device or a regular file as the LUN. */
#include "lun/block.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "lun/hostlock.h"
#include "lun/wait.h"

#define LOOK_INTERVAL_MS     1000 /* open again, read the size again */
#define PRECEDED_INTERVAL_MS 50   /* try the predecessor's lock again */
#define JOBS_STUCK_MAX       8
#define ORPHAN_FLOOR_MS      500 /* lun_destroy waits so long for its threads */

/* ---- life -------------------------------------------------------- */

struct block *
block_get(struct block *b)
{
    b->refs++;
    return b;
}

void
block_put(struct block *b)
{
    if (--b->refs > 0)
        return;
    device_put(b->device);
    job_group_destroy(b->jobs);
    job_group_destroy(b->registers);
    job_group_destroy(b->map_jobs);
    job_group_destroy(b->order_jobs);
    if (b->lock_fd >= 0)
        close(b->lock_fd);
    if (b->process_fd >= 0) {
        /* Nothing is under way any more, and the kernel takes its time to
         * let go of a ring's files. */
        hostlock_drop(b->process_fd);
        close(b->process_fd);
    }
    if (b->reaper_epoll >= 0)
        close(b->reaper_epoll);
    if (b->reaper_wake >= 0)
        close(b->reaper_wake);
    if (b->watch_wake >= 0)
        close(b->watch_wake);
    pthread_cond_destroy(&b->worker_wanted);
    pthread_mutex_destroy(&b->worker_lock);
    pthread_cond_destroy(&b->moved);
    pthread_mutex_destroy(&b->lock);
    free(b->name);
    free(b->path);
    free(b->expected_id);
    free(b);
}

int
block_thread(struct block *b, void *(*main)(void *))
{
    pthread_attr_t attr;
    pthread_t thread;
    int err;

    block_get(b);
    pthread_mutex_lock(&b->lock);
    b->threads++;
    pthread_mutex_unlock(&b->lock);
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    err = -pthread_create(&thread, &attr, main, b);
    pthread_attr_destroy(&attr);
    if (err)
        block_thread_end(b);
    return err;
}

void
block_thread_end(struct block *b)
{
    pthread_mutex_lock(&b->lock);
    b->threads--;
    pthread_cond_broadcast(&b->moved);
    pthread_mutex_unlock(&b->lock);
    block_put(b);
}

void
block_changed(struct block *b)
{
    struct lun *l;

    pthread_mutex_lock(&b->lock);
    l = b->lun;
    b->notifying += l != NULL;
    pthread_mutex_unlock(&b->lock);
    if (!l)
        return;
    lun_changed(l);
    pthread_mutex_lock(&b->lock);
    b->notifying--;
    pthread_cond_broadcast(&b->moved);
    pthread_mutex_unlock(&b->lock);
}

struct device *
block_device(struct block *b)
{
    struct device *d;

    pthread_mutex_lock(&b->lock);
    d = b->device ? device_get(b->device) : NULL;
    pthread_mutex_unlock(&b->lock);
    return d;
}

/* ---- the device comes and goes ----------------------------------- */

static void
set_path_state_locked(struct block *b, enum lun_path_state state,
                      const char *why)
{
    struct lun_path *p = &b->path_state;

    snprintf(p->error, sizeof p->error, "%s", why);
    if (p->state == state)
        return;
    p->state = state;
    p->since_ms = clock_ms();
}

/* What stands there until the watcher has looked: the device is its own one
 * path, unless there are paths below it, which it has to count first. */
static void
begin_paths_locked(struct block *b)
{
    const struct device *d = b->device;

    b->paths.n = !d || (!d->multipath && !d->nvme);
    b->paths.paths[0] = b->path_state;
}

/* Is it the LUN that was asked for, and the one seen before?  Said once. */
static bool
right_one_locked(struct block *b, const struct device *d)
{
    const char *want = b->expected_id ? b->expected_id : b->id;

    if (*want && strcmp(want, d->id) != 0) {
        if (!b->wrong_id)
            log_error("lun %s: %s is %s, not %s: not used", b->name, b->path,
                      d->id, want);
        b->wrong_id = true;
        return false;
    }
    if (b->block_size && b->block_size != d->block_size) {
        log_error("lun %s: %s has blocks of %u bytes now, not %u: not used",
                  b->name, b->path, d->block_size, b->block_size);
        b->wrong_id = true;
        return false;
    }
    b->wrong_id = false;
    return true;
}

/* Paths are registered one by one, LUN_PATH_MAX of them at most: writes over
 * others would meet conflicts, and it is the kernel that chooses the path.
 * Said once; keeper only. */
static bool
few_enough(struct block *b, const struct device *d)
{
    size_t n = device_count_paths(d);
    bool many = n > LUN_PATH_MAX;

    if (many && !b->many_paths)
        log_error("lun %s: %s has %zu paths, at most %d can be used: take some "
                  "away, in the zoning or at the array%s",
                  b->name, b->path, n, LUN_PATH_MAX,
                  b->device ? "; writes over those that are not registered fail"
                            : "; not used");
    else if (!many && b->many_paths)
        log_info("lun %s: %s has %zu paths now, all can be used", b->name,
                 b->path, n);
    b->many_paths = many;
    return !many;
}

static void
adopt_locked(struct block *b, struct device *d)
{
    snprintf(b->id, sizeof b->id, "%s", d->id);
    b->device = d;
    b->generation++;
    b->map = (struct lun_map){.read_ms = 0};
    b->size = d->size;
    b->block_size = d->block_size;
    b->preferred = d->preferred;
    b->readonly = d->readonly;
    b->can_trim = device_can_trim(d);
    set_path_state_locked(b, LUN_PATH_GOOD, "");
    snprintf(b->path_state.name, sizeof b->path_state.name, "%s",
             d->file ? b->path : d->name);
    begin_paths_locked(b);
    log_info("lun %s: %s is %s, %llu bytes", b->name, b->path, d->id,
             (unsigned long long)d->size);
}

static void
open_device(struct block *b, bool readonly)
{
    struct device *d = device_open(b->path, readonly);
    int err = d ? 0 : -errno;
    bool few = d && few_enough(b, d);

    pthread_mutex_lock(&b->lock);
    if (err) {
        if (b->path_state.state != LUN_PATH_FAILED)
            log_warning("lun %s: cannot open %s: %s; trying again each second",
                        b->name, b->path, strerror(-err));
        set_path_state_locked(b, LUN_PATH_FAILED, strerror(-err));
    } else if (!few) {
        set_path_state_locked(b, LUN_PATH_FAILED,
                              "more paths than can be used");
    } else if (right_one_locked(b, d)) {
        adopt_locked(b, d);
        d = NULL;
    } else {
        set_path_state_locked(b, LUN_PATH_FAILED, strerror(ESTALE));
    }
    if (!b->device)
        begin_paths_locked(b);
    pthread_mutex_unlock(&b->lock);
    device_put(d);
    block_watch_kick(b);
    block_changed(b);
}

/* What is under way on it has references of its own. */
static void
lose_device(struct block *b, struct device *d)
{
    pthread_mutex_lock(&b->lock);
    b->device = NULL;
    b->generation++;
    b->map = (struct lun_map){.read_ms = 0};
    set_path_state_locked(b, LUN_PATH_FAILED, strerror(ENODEV));
    begin_paths_locked(b);
    pthread_mutex_unlock(&b->lock);
    log_warning("lun %s: %s is gone or another device now", b->name, b->path);
    device_put(d);
    block_watch_kick(b);
    block_changed(b);
}

static void
look_at_device(struct block *b, struct device *d)
{
    bool grown, trim = device_can_trim(d);
    bool news;

    if (device_refresh(d, b->path, &grown) < 0) {
        lose_device(b, d);
        return;
    }
    few_enough(b, d);
    pthread_mutex_lock(&b->lock);
    b->size = d->size;
    news = grown || b->can_trim != trim;
    b->can_trim = trim;
    pthread_mutex_unlock(&b->lock);
    if (grown)
        log_info("lun %s: grew to %llu bytes", b->name,
                 (unsigned long long)d->size);
    if (news)
        block_changed(b);
}

int
block_succeed(struct block *b, uint64_t deadline_ms)
{
    bool preceded;
    int err;

    pthread_mutex_lock(&b->lock);
    preceded = b->preceded;
    pthread_mutex_unlock(&b->lock);
    if (!preceded)
        return 0;
    err = hostlock_exclusive(b->process_fd, deadline_ms);
    if (err)
        return err;
    pthread_mutex_lock(&b->lock);
    b->preceded = false;
    pthread_mutex_unlock(&b->lock);
    return 0;
}

/* The first to see that the predecessor's I/O has ended tells. */
static void
look_at_predecessor(struct block *b)
{
    bool preceded;

    pthread_mutex_lock(&b->lock);
    preceded = b->preceded;
    pthread_mutex_unlock(&b->lock);
    if (preceded && block_succeed(b, 0) == 0)
        block_changed(b);
}

static bool
pause_keeper(struct block *b)
{
    uint64_t until_ms = clock_ms() + LOOK_INTERVAL_MS;
    bool stop;

    pthread_mutex_lock(&b->lock);
    if (b->preceded)
        until_ms = clock_ms() + PRECEDED_INTERVAL_MS;
    while (!b->stop && !b->look_now && wait_cond(&b->moved, &b->lock, until_ms))
        ;
    b->look_now = false;
    block_drop_lock_locked(b);
    stop = b->stop;
    pthread_mutex_unlock(&b->lock);
    return !stop;
}

/* Only this thread sets b->device, so that it may look at it without a
 * reference. */
static void *
keep(void *opaque)
{
    struct block *b = opaque;
    bool readonly = b->want_readonly;

    do {
        if (b->device)
            look_at_device(b, b->device);
        else
            open_device(b, readonly);
        look_at_predecessor(b);
    } while (pause_keeper(b));
    block_thread_end(b);
    return NULL;
}

/* ---- creating ---------------------------------------------------- */

static int
prepare(struct block *b, const struct lun_options *opt)
{
    pthread_mutex_init(&b->lock, NULL);
    pthread_mutex_init(&b->worker_lock, NULL);
    wait_cond_init(&b->moved);
    wait_cond_init(&b->worker_wanted);
    b->refs = 1;
    b->waiting_end = &b->waiting;
    b->lock_fd = b->process_fd = b->reaper_epoll = b->reaper_wake = -1;
    b->watch_wake = -1;
    b->want_readonly = opt->readonly;
    b->name = strdup(opt->name);
    b->path = strdup(opt->device);
    b->expected_id = opt->expected_id ? strdup(opt->expected_id) : NULL;
    b->jobs = job_group_create(JOBS_STUCK_MAX);
    b->registers = job_group_create(JOBS_STUCK_MAX);
    b->map_jobs = job_group_create(1);
    b->order_jobs = job_group_create(1);
    if (!b->name || !b->path || (opt->expected_id && !b->expected_id) ||
        !b->jobs || !b->registers || !b->map_jobs || !b->order_jobs)
        return -ENOMEM;
    snprintf(b->path_state.name, sizeof b->path_state.name, "%s", b->path);
    b->path_state.since_ms = clock_ms();
    begin_paths_locked(b);
    return 0;
}

static int
check_options(const struct lun_options *opt)
{
    if (opt->device[0] != '/') {
        log_error("lun %s: device %s is neither a path that begins with / "
                  "nor iscsi://",
                  opt->name, opt->device);
        return -EINVAL;
    }
    if (opt->fence == LUN_FENCE_PR && (!opt->rundir || !opt->statedir)) {
        log_error("lun %s: reservations need rundir and statedir", opt->name);
        return -EINVAL;
    }
    if (opt->rundir && !opt->process) {
        log_error("lun %s: locks need a name of the process", opt->name);
        return -EINVAL;
    }
    return 0;
}

static int
open_locks(struct block *b, const struct lun_options *opt)
{
    int err;

    if (!opt->rundir)
        return 0;
    b->lock_fd = hostlock_open(opt->rundir, opt->name, NULL);
    b->process_fd = hostlock_open(opt->rundir, opt->name, opt->process);
    err = b->lock_fd < 0 ? b->lock_fd : b->process_fd < 0 ? b->process_fd : 0;
    if (err) {
        log_error("lun %s: cannot open its locks in %s: %s", opt->name,
                  opt->rundir, strerror(-err));
        return err;
    }
    b->preceded = true;
    if (block_succeed(b, 0) < 0)
        log_warning("lun %s: I/O of another process \"%s\" is under way: "
                    "waiting for its end",
                    opt->name, opt->process);
    return 0;
}

static void
stop_threads(struct block *b)
{
    pthread_mutex_lock(&b->lock);
    b->stop = true;
    pthread_cond_broadcast(&b->moved);
    pthread_mutex_unlock(&b->lock);
    block_worker_stop(b);
    block_reaper_kick(b);
    block_watch_kick(b);
}

/* Returns when nobody is telling it anything any more. */
static void
forget_lun_locked(struct block *b)
{
    b->lun = NULL;
    b->opt = NULL;
    while (b->notifying > 0)
        pthread_cond_wait(&b->moved, &b->lock);
}

/* Reads count where a map queued them: they would keep the process. */
static bool
worth_waiting_locked(const struct block *b)
{
    return b->orphans > 0 || (b->map.queues && b->orphan_reads > 0);
}

static void *
block_create(struct lun *l, const struct lun_options *opt)
{
    struct block *b = calloc(1, sizeof *b);
    int err;

    if (!b)
        return NULL;
    err = prepare(b, opt);
    if (!err)
        err = check_options(opt);
    if (!err)
        err = open_locks(b, opt);
    b->opt = opt;
    b->lun = l;
    if (!err)
        err = block_reaper_start(b);
    if (!err)
        err = block_watch_start(b);
    if (!err)
        err = block_thread(b, keep);
    if (!err)
        return b;
    stop_threads(b);
    pthread_mutex_lock(&b->lock);
    forget_lun_locked(b);
    pthread_mutex_unlock(&b->lock);
    block_put(b);
    errno = -err;
    return NULL;
}

static unsigned
block_destroy(void *opaque, uint64_t deadline_ms)
{
    struct block *b = opaque;
    uint64_t floor_ms = clock_ms() + ORPHAN_FLOOR_MS;
    unsigned lost;

    pthread_mutex_lock(&b->lock);
    if (b->orphans + b->orphan_reads > 0)
        b->fail_queued = true;
    pthread_mutex_unlock(&b->lock);
    block_watch_kick(b);
    pthread_mutex_lock(&b->lock);
    while (worth_waiting_locked(b) &&
           wait_cond(&b->moved, &b->lock, deadline_ms))
        ;
    lost = b->orphans;
    pthread_mutex_unlock(&b->lock);
    stop_threads(b);
    pthread_mutex_lock(&b->lock);
    forget_lun_locked(b);
    /* Threads that nothing holds up are gone in no time. */
    while (lost == 0 && b->orphan_reads == 0 && b->threads > 0 &&
           wait_cond(&b->moved, &b->lock, floor_ms))
        ;
    pthread_mutex_unlock(&b->lock);
    if (lost > 0)
        log_warning("lun %s: %u writes never came back", b->name, lost);
    block_put(b);
    return lost;
}

/* ---- status ------------------------------------------------------ */

static void
block_get_status(void *opaque, struct lun_status *st)
{
    struct block *b = opaque;

    pthread_mutex_lock(&b->lock);
    st->known = b->block_size > 0 && !b->wrong_id;
    memcpy(st->id, b->id, sizeof st->id);
    st->size = b->size;
    st->block_size = b->block_size;
    st->preferred = b->preferred;
    st->max_io = BLOCK_MAX_IO;
    st->readonly = b->readonly;
    st->can_trim = b->can_trim;
    st->can_zero = true;
    st->can_extents = b->device && b->device->file;
    st->wrong_id = b->wrong_id;
    st->registration = b->registration;
    st->registration_no = b->registration_no;
    st->key = b->key;
    st->inflight = b->inflight;
    st->orphans = b->orphans + job_group_stuck(b->registers) + b->preceded;
    st->orphan_reads = b->orphan_reads;
    st->paths_good = path_set_good(&b->paths);
    st->paths_known = (unsigned)b->paths.n;
    pthread_mutex_unlock(&b->lock);
}

void
block_fenced(struct block *b, uint64_t no)
{
    bool news;

    pthread_mutex_lock(&b->lock);
    news = b->registration == LUN_REGISTERED && b->registration_no == no;
    if (news)
        b->registration = LUN_FENCED;
    pthread_mutex_unlock(&b->lock);
    if (!news)
        return;
    log_warning("lun %s: another host fenced us: no writes until registered "
                "anew",
                b->name);
    block_changed(b);
}

void
block_orphans_begin(struct block *b, unsigned writes, unsigned others)
{
    pthread_mutex_lock(&b->lock);
    b->orphans += writes;
    b->orphan_reads += others;
    pthread_mutex_unlock(&b->lock);
}

void
block_drop_lock_locked(struct block *b)
{
    if (!b->drop_lock || b->lock_fd < 0 || b->orphans > 0 ||
        job_group_stuck(b->registers) > 0)
        return;
    hostlock_drop(b->lock_fd);
    b->drop_lock = false;
}

void
block_orphan_end(struct block *b, struct block_request *r)
{
    bool stop;

    lun_tally_end(&r->io);
    pthread_mutex_lock(&b->lock);
    if (lun_op_writes(r->io.op))
        b->orphans--;
    else
        b->orphan_reads--;
    b->inflight--; /* never fewer than its orphans */
    block_drop_lock_locked(b);
    stop = b->stop;
    pthread_cond_broadcast(&b->moved);
    pthread_mutex_unlock(&b->lock);
    free(r->io.data);
    free(r);
    if (stop)
        block_reaper_kick(b);
    else
        block_changed(b);
}

const struct lun_backend lun_backend_block = {
    .name = "block",
    .create = block_create,
    .destroy = block_destroy,
    .get_status = block_get_status,
    .get_paths = block_get_paths,
    .get_map = block_get_map,
    .fail_queued = block_fail_queued,
    .queue_create = block_queue_create,
    .queue_destroy = block_queue_destroy,
    .queue_fd = block_queue_fd,
    .queue_interrupt = block_queue_interrupt,
    .io_get = block_io_get,
    .io_put = block_io_put,
    .submit = block_submit,
    .reap = block_reap,
    .abandon = block_abandon,
    .extents = block_extents,
    .do_register = block_register,
    .release = block_release,
    .check_registration = block_check_registration,
    .fence = block_fence,
};
