/* SPDX-License-Identifier: BSD-3-Clause */
/* The LUN as a host reaches it itself: I/O that can be abandoned, identity,
 * paths, and the registration that gives the right to write.
 *
 * Threads.  A struct lun may be used from any thread.  A struct lun_queue
 * and the requests taken from it belong to one thread at a time; only
 * lun_queue_interrupt may be called on it from others.
 *
 * Writing, in one paragraph (docs/design.md section 5).  With LUN_FENCE_PR a
 * host may write only while its key is registered on the LUN.  lun_register
 * makes a registration, which has a number; each write names the registration
 * it was admitted under and is refused with -EBADE once that one is gone.  When
 * another host fences us, the library ends the registration, calls notify,
 * and serves no write until the owner has closed all its sessions, has
 * nothing under way, and calls lun_register anew.
 */
#ifndef DETOUR_LUN_H
#define DETOUR_LUN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct lun;
struct lun_queue;
struct lun_tally;

/* ---- opening ---------------------------------------------------------- */

enum lun_fence {
    LUN_FENCE_PR,
    LUN_FENCE_DRAIN
};

#define LUN_ID_MAX   128 /* with the final NUL */
#define LUN_PATH_MAX 32 /* a kernel device with more is not used */

struct lun_options {
    const char *name;     /* for messages and file names */
    const char *device;   /* /dev/..., /path/to/file, or iscsi://... */
    const char *process;  /* unique on this host: "proxy", or the client; no
                             '.' or '/'; who has it after another one waits
                             for its writes */
    const char *rundir;   /* locks live here */
    const char *statedir; /* epochs and keys in use live here */
    unsigned cluster_number;
    unsigned host_number;
    enum lun_fence fence;
    bool readonly;
    const char *expected_id; /* or NULL; another identity: never usable */
    const char *initiator;   /* iscsi: our IQN */
    const char *chap_user;   /* iscsi: or NULL */
    const char *chap_secret_file;
    unsigned probe_interval_ms; /* iscsi: each path is probed by itself */
    unsigned probe_timeout_ms;
    const char *multipathd; /* block: its socket's name; NULL: the usual one */
    /* Called from a thread of the library, holding none of its locks,
     * whenever lun_get_status might answer something new.  It must not block
     * and must not call lun_destroy. */
    void (*notify)(void *opaque);
    void *opaque;
};

/* lun_create - begin to reach a LUN.
 *
 * Returns at once, also while the device is missing or hangs: opening,
 * logging in and asking for the identity go on in the background, for ever.
 *
 * errors:  NULL, errno EINVAL: the device string cannot be understood (said
 *          with log_error); ENOMEM, EAGAIN: no memory, no thread
 * owns:    opt and all it points at stay the caller's and are copied, but
 *          for opaque; the caller ends it with lun_destroy
 */
struct lun *lun_create(const struct lun_options *opt);

/* lun_destroy - let go of the LUN; NULL is fine.
 *
 * All queues must have been destroyed, or never be used again because the
 * process ends; nothing may be under way on them.  Waits up to deadline_ms for
 * orphans; what has not come back then is left to the kernel (block) or cut off
 * (iscsi), memory included: the process is expected to end soon.
 *
 * returns: how many writes, trims and zeroes never came back
 */
unsigned lun_destroy(struct lun *l, uint64_t deadline_ms);

/* ---- status ----------------------------------------------------------- */

enum lun_path_state {
    LUN_PATH_UNKNOWN,
    LUN_PATH_GOOD,
    LUN_PATH_FAILED,
};

struct lun_path {
    char name[128]; /* kernel device or portal */
    enum lun_path_state state;
    uint64_t since_ms; /* of the last change of state */
    char error[160];   /* why it failed; "" while good */
    char detail[160];  /* what else is known, for people; or "" */
};

#define LUN_MAP_NAME_MAX 128 /* with the final NUL */

/* A dm-multipath map below the LUN. */
struct lun_map {
    char name[LUN_MAP_NAME_MAX]; /* "": the kernel has not told yet */
    uint64_t read_ms;            /* when it last did; 0: never */
    bool queues;                 /* without a path I/O waits, was told then */
    unsigned orders;     /* how often we had the kernel fail what waited */
    char multipathd[96]; /* what it says, or why it says nothing */
};

enum lun_registration {
    LUN_UNREGISTERED, /* never was, or another try failed */
    LUN_REGISTERED,
    LUN_FENCED, /* our key is gone: drain, then lun_register */
};

struct lun_status {
    /* fixed once known, but for size, which may grow, and for readonly: a
     * target may tell that only when we have registered */
    bool known;          /* identity and size have been read */
    char id[LUN_ID_MAX]; /* "naa.6001...", "file.<fs>.<inode>", ... */
    uint64_t size;       /* bytes */
    uint32_t block_size; /* bytes; all offsets and counts are multiples */
    uint32_t preferred;  /* bytes; I/O of this size is no read-modify-write */
    uint32_t max_io;     /* bytes in one request; larger ones are -EINVAL */
    bool readonly;       /* device or options say so */
    bool can_trim, can_zero, can_extents;
    bool wrong_id; /* expected_id differs: nothing is served */

    unsigned paths_good, paths_known;
    enum lun_registration registration;
    uint64_t registration_no; /* of the present or last one; 0: never */
    uint64_t key;             /* newest key of ours; 0: none */
    unsigned inflight;        /* requests submitted and not come back */
    unsigned orphans;         /* of these: abandoned writes, trims, zeroes,
                                 and REGISTERs given up; and one as long as
                                 a killed process of our name may have any */
    unsigned orphan_reads;
};

/* lun_get_status - what is known now; never blocks on the device. */
void lun_get_status(struct lun *l, struct lun_status *st);

/* lun_max_io - status.max_io alone, without a lock; 0: nothing is known yet. */
uint32_t lun_max_io(struct lun *l);

/* lun_get_paths - copy up to max paths; returns how many there are. */
size_t lun_get_paths(struct lun *l, struct lun_path *paths, size_t max);

/* lun_get_map - the map below the LUN; false: there is none.  Never blocks. */
bool lun_get_map(struct lun *l, struct lun_map *map);

/* lun_fail_queued - are the own paths given up (fail) or in use?
 *
 * While they are given up, a multipath map that queues I/O without a path is
 * made to fail it, so that what was abandoned there comes back and shutting
 * down does not hang.  It stays so when fail ends: lun/queueing.h.  Returns
 * at once.
 *
 * threads: any
 */
void lun_fail_queued(struct lun *l, bool fail);

/* ---- requests --------------------------------------------------------- */

enum lun_op {
    LUN_READ,
    LUN_WRITE,
    LUN_FLUSH,
    LUN_TRIM,
    LUN_ZERO
};

#define LUN_FUA     1u /* on the medium before it is answered */
#define LUN_NO_HOLE 2u /* LUN_ZERO must leave the range allocated */

/* Buffers are aligned to this, enough for any O_DIRECT device. */
#define LUN_BUFFER_ALIGN 4096

struct lun_io {
    /* set by the caller before lun_submit */
    enum lun_op op;
    unsigned flags;
    uint64_t offset; /* bytes */
    uint64_t count;  /* bytes; READ and WRITE: at most the room asked for */
    /* Registration this was admitted under; 0: none needed, which is right
     * for reads and flushes and for every request with LUN_FENCE_DRAIN. */
    uint64_t registration_no;
    struct lun_tally *tally; /* or NULL; the request holds a reference */
    void *opaque;            /* the caller's own */

    /* set by the library */
    char *data; /* count bytes of LUN_BUFFER_ALIGN-aligned memory */
    int error;  /* valid when it was reaped: 0 or -errno */
    struct lun_queue *queue;
    struct lun_io *next; /* in lists of the library's own */
};

/* lun_queue_create - a place to submit requests and to wait for them.
 *
 * errors:  NULL and errno
 * owns:    ended with lun_queue_destroy
 * threads: used by one thread at a time; many queues work side by side
 */
struct lun_queue *lun_queue_create(struct lun *l);

/* lun_queue_destroy - abandon whatever is under way and free q; NULL is fine.
 *
 * Never waits for the device.  Requests taken with lun_io_get and neither
 * submitted nor put back must not exist any more. */
void lun_queue_destroy(struct lun_queue *q);

/* lun_io_get - a request with room for a payload of room bytes.
 *
 * errors:  NULL, errno ENOMEM
 * owns:    the caller, until lun_submit or lun_io_put
 */
struct lun_io *lun_io_get(struct lun_queue *q, size_t room);

/* lun_io_put - give back a request that is not under way; NULL is fine. */
void lun_io_put(struct lun_io *io);

/* lun_submit - start a request.
 *
 * It may leave with others at the owner's next lun_reap, as long as nobody
 * has asked for lun_queue_fd.
 *
 * Always takes the request: what is wrong with it (-EINVAL misaligned or too
 * large, -ENOSPC write past the end, -EROFS, -EBADE registration gone,
 * -EOPNOTSUPP, -ENOLINK no path, -EAGAIN too early, nothing known yet) is
 * told when it is reaped.
 *
 * owns:    the library, until it is reaped; data included
 */
void lun_submit(struct lun_queue *q, struct lun_io *io);

/* lun_reap - collect finished requests.
 *
 * Waits until at least one is finished, deadline_ms has come (0: do not
 * wait), or lun_queue_interrupt was called since the last lun_reap began.
 *
 * A write, trim or zero whose error is of LUN_CLASS_PATH was perhaps carried
 * out and may still be, later (iscsi: it left on a nexus that is gone): it
 * goes on counting in status.orphans and in its tally until that nexus is
 * fenced, by us or by another host.
 *
 * returns: how many were stored in ios, 0 to max; never negative
 * owns:    the caller owns those again
 */
size_t lun_reap(struct lun_queue *q, struct lun_io **ios, size_t max,
                uint64_t deadline_ms);

/* lun_queue_fd - readable when lun_reap would find something.
 *
 * For poll(); never read from it.  Valid until the queue is destroyed. */
int lun_queue_fd(struct lun_queue *q);

/* lun_queue_interrupt - make a lun_reap that waits return now.
 *
 * threads: any, as long as q is not destroyed meanwhile
 */
void lun_queue_interrupt(struct lun_queue *q);

/* lun_abandon - give up a submitted request.
 *
 * It is never reaped.  The library keeps it, counted as an orphan, until the
 * device lets go of it (block) or its nexus is fenced or proven gone (iscsi);
 * only then its buffer is freed and its tally counted down.
 *
 * owns:    the library; io is not the caller's any more
 */
void lun_abandon(struct lun_io *io);

/* lun_run - one request, start to end, on a queue with nothing under way.
 *
 * Waits for io until deadline_ms or an interrupt; then abandons it.
 *
 * returns: true: it finished, io->error tells and io is the caller's;
 *          false: it was abandoned, io is gone
 */
bool lun_run(struct lun_queue *q, struct lun_io *io, uint64_t deadline_ms);

/* ---- tallies: has all of it come back? --------------------------------- */

/* lun_tally_create - count the writes, trims and zeroes of one session.
 *
 * owns:    reference counted: lun_tally_put, by its maker and by the library
 *          for each request under way
 * threads: any
 */
struct lun_tally *lun_tally_create(void);
void lun_tally_put(struct lun_tally *t);

/* lun_tally_wait - wait until nothing it counts is under way.
 *
 * returns: true, or false when deadline_ms came first
 */
bool lun_tally_wait(struct lun_tally *t, uint64_t deadline_ms);
unsigned lun_tally_count(struct lun_tally *t);

/* ---- block status ------------------------------------------------------ */

struct lun_extent {
    uint64_t count; /* bytes */
    bool hole;      /* not allocated; always reads as zeroes as well */
};

/* lun_extents - which parts of a range are allocated.
 *
 * Blocks up to deadline_ms in a thread of its own.  Where the backend does
 * not know, one extent that is no hole.
 *
 * shapes:  offset, count multiples of block_size, count > 0; the answer
 *          begins at offset, holds 1 to max extents, may end before or after
 *          offset + count
 * returns: the number of extents, or -errno
 */
int lun_extents(struct lun *l, uint64_t offset, uint64_t count,
                struct lun_extent *extents, size_t max, uint64_t deadline_ms);

/* ---- the right to write ------------------------------------------------ */

/* lun_register - get the right to write, under a new registration number.
 *
 * The caller promises that every session of its own is closed and that it
 * has nothing under way.  The library waits until its orphans, REGISTERs
 * included, have come back (block) or their nexus is fenced (iscsi), takes
 * the host's lock as docs/design.md section 5 says, registers under a new
 * epoch, makes the reservation if there is none, and waits for the answers.
 * If the present registration still stands it is kept, number and all.  With
 * LUN_FENCE_DRAIN it waits for the orphans and does nothing else.
 *
 * errors:  -ETIMEDOUT  deadline_ms came first; what is under way goes on
 *          -ENOLINK    no path
 *          -EBUSY      the LUN carries a reservation that is not ours in type
 *          -EOPNOTSUPP the target knows no persistent reservations
 *          -ESTALE     it is not the LUN that was expected
 * threads: one at a time for a LUN
 */
int lun_register(struct lun *l, uint64_t deadline_ms);

/* lun_release - the caller is done with writing for now.
 *
 * Says that nothing is under way and nothing will be submitted until the
 * next lun_register; drops the host's shared lock (block), so that other
 * processes of the host may register anew.  The key stays on the LUN. */
void lun_release(struct lun *l);

/* lun_check_registration - look for our key and the reservation on the LUN.
 *
 * For the monitor's tick.  A lost key ends the registration (LUN_FENCED,
 * notify); a lost reservation is made again.
 *
 * errors:  -EBADE fenced; path errors as lun_register
 */
int lun_check_registration(struct lun *l, uint64_t deadline_ms);

/* lun_fence - cut a host off: nothing it sent takes effect afterwards.
 *
 * Preempts-and-aborts every key of that host in this cluster, and reads the
 * keys again until none is left, so that a nexus it registers meanwhile is
 * caught as well.  Where the target refuses PREEMPT AND ABORT, or
 * is known to abort a part only (lun/quirk.h): PREEMPT and then LUN RESET,
 * with one warning for each LUN.  No key from the start: a LUN
 * RESET, since another host may have taken the key and not yet, or never,
 * ended what was under way.  Block does without where it cut the host off
 * itself and no key has come or gone since, and on devices that know no LUN
 * RESET (NVMe) but PREEMPT AND ABORT.
 *
 * errors:  -EBADE we are not registered ourselves; -EOPNOTSUPP with
 *          LUN_FENCE_DRAIN; path errors and -ETIMEDOUT: assume nothing.
 *          -ENOLINK comes at once when no path is left (iscsi)
 * threads: any
 */
int lun_fence(struct lun *l, unsigned host_number, uint64_t deadline_ms);

#endif
