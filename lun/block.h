/* SPDX-License-Identifier: BSD-3-Clause */
/* The block backend's insides, shared by block*.c only.
 *
 * Threads.  Owners submit and reap on their queues.  Four kinds of threads
 * belong to the backend; each may be stuck in the kernel for ever, so that
 * all are detached and hold a reference on struct block, which lun_destroy
 * leaves to them when they do not end in time:
 *   keeper   opens the device, looks at its size each second (block.c)
 *   watcher  hears of paths, keeps what is known of them (block_watch.c)
 *   reaper   takes abandoned requests out of rings (block_reaper.c)
 *   workers  carry out what io_uring could only do in a kernel thread
 *            (block_worker.c)
 * Locks, in the order they are taken: queue, worker, block.
 *
 * Why workers.  A request that io_uring cannot start without waiting (flush,
 * trim, zero, a file system that must allocate, a device without free tags)
 * goes to a kernel thread of the thread that submitted it, and that thread
 * can then not exit before the request is done: io_wq_put_and_exit() in
 * io_uring/io-wq.c.  A caller's thread would be lost to a hung device.  So
 * reads and writes carry RWF_NOWAIT, and what comes back with -EAGAIN, like
 * all the others, is done by a thread of ours.  Where io_uring is forbidden,
 * all is. */
#ifndef DETOUR_LUN_BLOCK_H
#define DETOUR_LUN_BLOCK_H

#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>

#include "lun/backend.h"
#include "lun/buffers.h"
#include "lun/device.h"
#include "lun/job.h"
#include "lun/path_set.h"

#define KEY_HOST_MAX      4095 /* struct key */
#define BLOCK_WORKERS_MAX 64
#define BLOCK_MAX_IO      BUFFERS_MAX

/* The paths of a multipath map that the kernel holds for good. */
struct block_slaves {
    size_t n;
    char names[LUN_PATH_MAX][SYSFS_NAME_MAX];
};

struct block {
    /* fixed after block_create */
    const struct lun_options *opt; /* not after block_destroy */
    char *name, *path, *expected_id;
    bool want_readonly;
    int lock_fd;    /* shared by the host's processes; -1: no rundir */
    int process_fd; /* the lock of those with our name; -1: no rundir */
    struct job_group *jobs, *registers;
    struct job_group *map_jobs, *order_jobs; /* one may be stuck in each */
    int reaper_epoll, reaper_wake;
    int watch_wake;            /* eventfd */
    struct block_watch *watch; /* the watcher's own; it frees it */
    bool many_paths;           /* the keeper's: it said that there are more than
                                  can be used */

    atomic_uint refs;
    atomic_uint inflight;
    atomic_uint generation; /* of device */

    pthread_mutex_t lock;
    pthread_cond_t moved; /* something below changed */
    /* guarded by lock */
    struct lun *lun;            /* NULL: destroyed, tell nobody */
    unsigned notifying;         /* threads inside lun_changed */
    struct device *device;      /* NULL: not there (any more) */
    char id[LUN_ID_MAX];        /* of the first device seen; "" before */
    struct lun_path path_state; /* of the device as a whole */
    struct path_set paths;      /* below it; n 0: not looked at yet */
    struct lun_map map;         /* name "": there is none, or not read yet */
    bool fail_queued;           /* the own paths are given up */
    bool look_now;              /* at the device, before its time */
    uint64_t size;
    uint32_t block_size, preferred;
    bool readonly, can_trim, wrong_id;
    bool stop;
    bool drop_lock;   /* as soon as nothing of ours may still take effect */
    unsigned threads; /* of the backend, all kinds */
    enum lun_registration registration;
    uint64_t registration_no, key;
    unsigned orphans, orphan_reads;
    bool preceded; /* by a process whose writes may be in the kernel still:
                      process_fd is not locked yet; never set again */
    struct block_queue *handed_over; /* to the reaper */
    struct block_slaves tried;       /* paths our REGISTER was sent on */
    bool warned_reset;
    bool warned_ring; /* said that there is no io_uring */
    uint64_t cut_off[(KEY_HOST_MAX + 64) / 64]; /* by us; a bit for each host */
    uint32_t cut_off_at;                        /* this generation of keys */

    pthread_mutex_t worker_lock;
    pthread_cond_t worker_wanted;
    /* guarded by worker_lock */
    struct lun_io *waiting, **waiting_end;
    unsigned nwaiting, workers, workers_idle;
    bool worker_stop;
};

enum block_where {
    BLOCK_OWNER,  /* not submitted, or reaped */
    BLOCK_RING,   /* in io_uring */
    BLOCK_WORKER, /* with a worker, or waiting for one */
    BLOCK_DONE,   /* in the queue's done list */
};

struct block_request {
    struct lun_io io;
    struct block_queue *q;
    size_t room;
    uint64_t done;          /* bytes read or written so far */
    struct device *device;  /* while with a worker */
    enum block_where where; /* guarded by q->lock */
    atomic_bool abandoned;  /* written under q->lock */
};

struct block_queue {
    struct block *b;  /* a reference */
    int wake_fd;      /* eventfd: something is done, or an interrupt */
    atomic_uint refs; /* owner, reaper's watch, each request at a worker */
    atomic_bool dead; /* destroyed; written under lock */
    bool has_ring;    /* fixed; false: io_uring is forbidden here */

    /* owner only */
    unsigned unsent; /* requests in the ring that the kernel was not told of */
    int poll_fd;     /* -1: nobody asked for it */
    struct buffers buffers;

    pthread_mutex_t lock;
    /* guarded by lock; the submission side of ring is the owner's */
    struct io_uring ring;
    struct device *device; /* registered in ring's slot 1; or NULL */
    unsigned generation;
    bool woken;              /* wake_fd is readable */
    bool interrupted;        /* and no reap has ended for it yet */
    bool poll_armed;         /* a poll of wake_fd is in the ring */
    bool owner_waits;        /* in the kernel, and will reap what comes */
    bool watched;            /* by the reaper, which has a reference */
    unsigned in_ring;        /* requests, abandoned ones too */
    unsigned given_up;       /* of these: abandoned */
    unsigned writes, others; /* under way and not abandoned */
    struct lun_io *done, **done_end;
    struct block_queue *next; /* in block.handed_over */
};

static inline struct block_request *
block_request(struct lun_io *io)
{
    return (struct block_request *)io;
}

/* ---- block.c ----------------------------------------------------- */

struct block *block_get(struct block *b);
void block_put(struct block *b);

/* block_thread - start a detached thread that calls main(b) and then
 * block_thread_end; errors: -errno. */
int block_thread(struct block *b, void *(*main)(void *));
void block_thread_end(struct block *b);

/* block_changed - lun_changed, unless the LUN is being destroyed; hold no
 * lock. */
void block_changed(struct block *b);

/* block_device - a reference on the device; NULL: there is none now. */
struct device *block_device(struct block *b);

/* block_fenced - a conflict under registration no: it is gone; no lock. */
void block_fenced(struct block *b, uint64_t no);

/* block_succeed - wait until what a predecessor of our name left in the kernel
 * has come back; deadline_ms as hostlock_exclusive's.  No lock.
 *
 * errors:  -ETIMEDOUT, or what flock gave
 */
int block_succeed(struct block *b, uint64_t deadline_ms);

/* block_orphans_begin - count orphans up; block_orphan_end - one came back:
 * count it down and free it.  The latter without locks. */
void block_orphans_begin(struct block *b, unsigned writes, unsigned others);
void block_orphan_end(struct block *b, struct block_request *r);

/* block_drop_lock_locked - let go of the host's lock if that is wanted and
 * no orphan, REGISTERs included, is left: another process that registered
 * anew would give it back the right to write. */
void block_drop_lock_locked(struct block *b);

/* ---- block_queue.c ----------------------------------------------- */

void *block_queue_create(void *b);
void block_queue_destroy(void *q);
int block_queue_fd(void *q);
void block_queue_interrupt(void *q);
struct lun_io *block_io_get(void *q, size_t room);
void block_io_put(void *q, struct lun_io *io);
void block_submit(void *q, struct lun_io *io);
size_t block_reap(void *q, struct lun_io **ios, size_t max,
                  uint64_t deadline_ms);
void block_abandon(void *q, struct lun_io *io);

/* block_queue_drain_locked - take what is finished out of the ring.
 *
 * Abandoned requests are put in *orphans, to be ended without locks.
 * returns: the registration that met a conflict, or 0
 */
uint64_t block_queue_drain_locked(struct block_queue *q,
                                  struct lun_io **orphans);
/* block_queue_settle - the other half: end orphans, tell of the conflict. */
void block_queue_settle(struct block *b, struct lun_io *orphans,
                        uint64_t conflict);

/* block_queue_returned - a worker is done with r; takes its reference. */
void block_queue_returned(struct block_request *r, int error);
void block_queue_put(struct block_queue *q);
void block_queue_wake_locked(struct block_queue *q);

/* ---- block_worker.c ---------------------------------------------- */

/* block_worker_give - have r carried out, from r->done on.
 *
 * errors:  -EAGAIN no thread could be made; r is still the caller's
 * owns:    takes the references r->device and one on r->q
 */
int block_worker_give(struct block *b, struct block_request *r);

/* block_worker_take_back - all that wait for a worker, of queue q, or just r
 * when it is not NULL; linked by io.next. */
struct lun_io *block_worker_take_back(struct block *b, struct block_queue *q,
                                      struct block_request *r);
/* block_worker_stop - idle workers end. */
void block_worker_stop(struct block *b);

/* ---- block_reaper.c ---------------------------------------------- */

/* block_reaper_start - errors: -errno. */
int block_reaper_start(struct block *b);

/* block_reaper_watch - reap what was abandoned, also when the owner does not
 * come again; q->lock is held. */
void block_reaper_watch_locked(struct block_queue *q);

/* block_reaper_take - q is dead: reap all of it, then let go of it. */
void block_reaper_take(struct block_queue *q);
void block_reaper_kick(struct block *b);

/* ---- block_paths.c ----------------------------------------------- */

struct dm_map;
struct multipathd_map;

/* block_paths_gather - the paths below d, with what the kernel's map and
 * multipathd say of them (either may be NULL), into seen.
 *
 * Paths are those in sysfs; one counts as failed when sysfs or the map says
 * so.  A device without paths of its own is one, in the state whole and, for
 * a disk, in that of its sysfs entry.  Reads memory of the kernel only.
 */
void block_paths_gather(const struct device *d, const struct lun_path *whole,
                        const struct dm_map *map,
                        const struct multipathd_map *daemon,
                        struct path_set *seen);
size_t block_get_paths(void *b, struct lun_path *paths, size_t max);
void block_good_slaves(const struct device *d, struct block_slaves *good);

/* ---- block_watch.c ----------------------------------------------- */

/* block_watch_start - errors: -errno. */
int block_watch_start(struct block *b);
void block_watch_kick(struct block *b);
bool block_get_map(void *b, struct lun_map *map);
void block_fail_queued(void *b, bool fail);

/* ---- block_extents.c --------------------------------------------- */

int block_extents(void *b, uint64_t offset, uint64_t count,
                  struct lun_extent *extents, size_t max, uint64_t deadline_ms);

/* ---- block_register.c -------------------------------------------- */

int block_register(void *b, uint64_t deadline_ms);
void block_release(void *b);
int block_check_registration(void *b, uint64_t deadline_ms);
int block_fence(void *b, unsigned host_number, uint64_t deadline_ms);

#endif
