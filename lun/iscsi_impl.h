/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of the iscsi backend, shared by its files and nobody else.
 *
 * Threads.  Each path (portal) has a thread, the only one that touches its
 * libiscsi context.  One keeper thread looks after the registration.  Owners'
 * threads enter through the queues and the blocking calls of backend.h.
 * Everything the threads share is guarded by the one lock of struct
 * iscsi_lun, which is never held across I/O (an eventfd's write aside, which
 * cannot block).  Functions that end in _locked want it held.
 *
 * A request is always in exactly one place:
 *
 *   FREE --submit--> INBOX of a path --> SENT --answer--> DONE --reap--> FREE
 *                ^\-> HELD (no path may take it now)
 *                 \---- path failed, was not in the target
 *   SENT --path failed, a write in the target--> LOST with its nexus
 *   LOST --nexus proven dead--> HELD (sent again) or freed (was abandoned)
 *   LOST --no path is left--> DONE; a ghost stays with the nexus in its place
 */
#ifndef DETOUR_LUN_ISCSI_IMPL_H
#define DETOUR_LUN_ISCSI_IMPL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>

#include "common/clock.h"
#include "common/iscsi_url.h"
#include "lun/backend.h"
#include "lun/lun.h"
#include "lun/sense.h"

_Static_assert(ISCSI_URL_PORTALS_MAX <= LUN_PATH_MAX,
               "lun_get_paths tells of each portal");

/* ---- timers and limits that lean on each other -------------------------- */

/* A cut at t=0 that swallows everything, defaults (common/timers.h):
 *   t<=250   the next NOP-Out goes out                      probe_interval
 *   t<=1000  nothing was heard since: the path has failed    probe_timeout
 *   then     an attempt to log in each BACKOFF_MIN, doubling to BACKOFF_MAX,
 *            counted from the start of the attempt before; an attempt ends
 *            after max(probe_timeout, LOGIN_MIN), so a heal is noticed
 *            within BACKOFF_MAX and one login. */
#define ISCSI_BACKOFF_MIN_MS 100
#define ISCSI_BACKOFF_MAX_MS 2000
#define ISCSI_LOGIN_MIN_MS   1000
/* after "busy", "task aborted" and their kin */
#define ISCSI_PAUSE_MS 10
/* a command that the target aborts or finds busy this often is the path's
 * fault: 300 pauses of 10 ms are 3 s */
#define ISCSI_TRIES_MAX 300
/* Commands in a path's target at once.  It is below the command windows that
 * targets grant (64 LIO, 128 tgtd), so that a probe always finds room: a
 * NOP-Out that waits behind a full window would make slow look like dead. */
#define ISCSI_DEPTH 32
/* A reset may have dropped commands without an answer; those that are older
 * than it and open for so long count as lost.  Much longer than a slow disk
 * takes: each one that is lost costs the session, and fencing that costs the
 * next reset where the target has no PREEMPT AND ABORT. */
#define ISCSI_DOUBT_MS 5000
/* Before a LUN RESET the nexus that sends it rests: its own commands would be
 * dropped without an answer (LIO tells only other sessions, by TASK ABORTED).
 * What hangs, perhaps because of what the reset is to end, is not waited for
 * longer than this. */
#define ISCSI_REST_MS 200
/* the keeper's own commands, when nobody waits with a deadline */
#define ISCSI_KEEPER_MS 10000
/* between attempts to bury when the target refuses what it takes, doubling */
#define ISCSI_REFUSED_MIN_MS 500
#define ISCSI_REFUSED_MAX_MS 8000
/* a key whose REGISTER was never answered is looked for this long */
#define ISCSI_STRAY_MS 300000
#define ISCSI_MAX_IO   (8u << 20)
#define ISCSI_ZERO_MAX (1u << 20) /* bytes of zeroes in one WRITE */
#define ISCSI_KEYS_MAX 1023       /* registrations on the LUN, of all hosts */

/* ---- requests ----------------------------------------------------------- */

enum iscsi_place {
    ISCSI_FREE,
    ISCSI_HELD,
    ISCSI_INBOX,
    ISCSI_SENT,
    ISCSI_LOST,
    ISCSI_DONE,
};

/* What stays of a write whose owner got -ENOLINK or -EBADE: it counts in
 * status.orphans and in the tally until its nexus is proven dead. */
struct iscsi_ghost {
    struct lun_io io; /* op and tally only */
    SLIST_ENTRY(iscsi_ghost) link;
};

struct iscsi_request {
    struct lun_io io;          /* first: what the owner holds */
    size_t room;               /* bytes allocated at io.data */
    struct iscsi_ghost *ghost; /* made beforehand, since it must not fail */
    struct scsi_task *task;    /* path thread only */

    /* guarded by lock */
    enum iscsi_place place;
    TAILQ_ENTRY(iscsi_request) link; /* in the list of its place */
    struct iscsi_queue *queue;       /* NULL: abandoned */
    struct iscsi_path *path;         /* INBOX, SENT: whose */

    /* the path's thread while SENT, else guarded by lock */
    TAILQ_ENTRY(iscsi_request) finished; /* in iscsi_path.finished */
    int result;                          /* when it is in there */
    bool in_target;         /* a command left and was not answered */
    bool syncing;           /* that is the SYNCHRONIZE CACHE behind it */
    bool same;              /* that is a WRITE SAME */
    bool sync16;            /* that is a SYNCHRONIZE CACHE (16) */
    uint64_t done;          /* bytes of it that were answered */
    uint64_t step;          /* bytes of the command in the target */
    uint64_t sent_ms;       /* when that command left */
    uint64_t resume_ms;     /* not in the target: send again then; 0: no */
    unsigned tries;         /* without progress */
    unsigned char list[24]; /* parameters of an UNMAP */
};

TAILQ_HEAD(iscsi_requests, iscsi_request);

struct iscsi_queue {
    struct iscsi_lun *lun;
    int fd; /* eventfd: done is not empty, or interrupted */
    /* guarded by lun->lock */
    struct iscsi_requests done;
    bool interrupted;
    /* the owner's thread only */
    struct iscsi_requests spare; /* to be taken again */
    unsigned nspare;
    size_t spare_bytes; /* at their data; never above SPARE_BYTES */
};

/* ---- control commands --------------------------------------------------- */

/* A command of our own, not of a queue.  Reference counted, since its caller
 * may give up while the target still has it. */
struct iscsi_control {
    STAILQ_ENTRY(iscsi_control) link;
    const char *name; /* for messages */
    bool lun_reset;   /* the task management function, not a CDB */
    uint8_t cdb[16];
    size_t cdb_len;
    uint8_t out[32];
    size_t out_len;
    uint8_t *in; /* in_max bytes, or NULL */
    size_t in_max;

    /* guarded by lock */
    unsigned refs;
    bool done;

    /* the path's thread until done */
    struct scsi_task *task;
    struct iscsi_path *path;
    unsigned tries;
    uint64_t sent_ms;   /* for the last time */
    uint64_t resume_ms; /* send again at; 0: not waiting */
    size_t in_len;
    int error;    /* 0 or -errno */
    bool refused; /* ILLEGAL REQUEST: the target does not know this */
    struct sense_verdict verdict;
};

STAILQ_HEAD(iscsi_controls, iscsi_control);

/* ---- nexuses and paths -------------------------------------------------- */

/* One login of one path, and afterwards its grave as long as something that
 * was sent on it may still take effect. */
struct iscsi_nexus {
    TAILQ_ENTRY(iscsi_nexus) link; /* in iscsi_lun.graves */
    uint64_t id;                   /* never used twice, unlike its address */
    /* guarded by lock */
    uint64_t key;             /* 0: no REGISTER was sent */
    bool answered;            /* the REGISTER was */
    bool missed;              /* it was not, and the key is not on the LUN */
    bool inherited;           /* our predecessor's; it may have had writes */
    uint64_t registration_no; /* it is a member of; 0: of none */
    uint64_t died_ms;
    struct iscsi_requests lost;
    SLIST_HEAD(, iscsi_ghost) ghosts;
    unsigned nghosts;
};

TAILQ_HEAD(iscsi_nexuses, iscsi_nexus);

struct iscsi_path {
    /* fixed after create */
    struct iscsi_lun *lun;
    unsigned index;
    const char *portal;
    pthread_t thread;
    int fd; /* eventfd that wakes the thread */

    /* guarded by lun->lock */
    enum lun_path_state state;
    uint64_t since_ms;
    char error[160];
    char dropped[80]; /* not "": end the session because of this */
    /* The session ends for our own reasons: the path is still called GOOD,
     * without a nexus, until the login that follows at once has failed. */
    bool renewing;
    struct iscsi_nexus *nexus; /* NULL: none that serves */
    struct iscsi_requests inbox, sent;
    struct iscsi_controls controls; /* not taken by the thread yet */
    unsigned nsent;
    bool resting;    /* take nothing from the inbox: a reset is to follow */
    unsigned silent; /* commands of our own without an answer, in a row */

    /* the path's thread only */
    struct iscsi_context *ctx;
    int connect_status; /* of connecting, logging in, the ping; -1: not known */
    bool closing;       /* callbacks do nothing any more */
    char trouble[160];  /* why the session is to be given up; "" : it is not */
    struct iscsi_requests finished; /* to be handed over after a round */
    unsigned waiting;               /* requests that wait for resume_ms */
    struct iscsi_controls issued;
    uint64_t heard_ms;    /* of the last answer */
    uint64_t nop_sent_ms; /* 0: no NOP-Out is unanswered */
    uint64_t next_nop_ms;
    /* Commands sent before may never be answered; 0: no.  Resets that follow
     * while these are waited for have their turn afterwards. */
    uint64_t doubt_ms;
    uint64_t reset_ms; /* of the last reset */
    uint64_t attempt_ms;
    unsigned backoff_ms;
    bool serving;
};

/* A nexus to send commands of our own on, and how long to wait. */
struct iscsi_via {
    struct iscsi_path *path;
    uint64_t nexus; /* its id */
    uint64_t key;   /* of this nexus, 0: not registered */
    uint64_t deadline_ms;
};

/* ---- the LUN ------------------------------------------------------------ */

/* What the target tells about the LUN, learned by each path at login. */
struct iscsi_info {
    char id[LUN_ID_MAX];
    uint64_t size;
    uint32_t block_size;
    uint32_t preferred;
    uint32_t max_io;
    bool mode_known; /* the next two were told; see iscsi_setup_mode */
    bool readonly;
    bool fua;           /* DPOFUA */
    bool unmap;         /* LBPU */
    bool same_unmap;    /* LBPWS, and unmapped blocks read as zeroes */
    bool reads_zeroes;  /* LBPRZ */
    bool provisioned;   /* LBPME: GET LBA STATUS makes sense */
    uint64_t unmap_max; /* bytes in one UNMAP */
    uint64_t same_max;  /* bytes in one WRITE SAME */
    bool plain_only;    /* reservations guard plain WRITEs only */
    bool partial_abort; /* quirk_partial_abort */
};

struct iscsi_lun {
    /* fixed after create */
    struct lun *owner;
    const struct lun_options *opt;
    struct iscsi_url_parts url;
    char *secret; /* CHAP, or NULL */
    struct iscsi_path paths[ISCSI_URL_PORTALS_MAX];
    size_t npaths;
    void *zeroes; /* ISCSI_ZERO_MAX bytes, never written */
    /* unknown to the target: WRITE SAME, SYNCHRONIZE CACHE (16) */
    atomic_bool same_refused, sync16_refused;
    pthread_t keeper;
    atomic_int save_error; /* of the last try to save keys; 0: none */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* anything below */

    atomic_bool stopping; /* set under lock */

    /* guarded by lock */
    bool known, wrong_id;
    struct iscsi_info info;
    struct iscsi_requests held;
    unsigned next_path; /* round robin */
    unsigned inflight;  /* submitted, not reaped, abandoned ones included */
    unsigned abandoned_writes, abandoned_reads; /* not lost with a nexus */
    struct iscsi_nexuses graves;
    bool busy;           /* it is somebody's turn; see iscsi_pr.c */
    uint64_t last_nexus; /* the newest id */
    enum lun_registration registration;
    uint64_t registration_no;
    uint64_t key;                    /* the newest */
    bool check_keys, check_capacity; /* for the keeper */
    bool no_abort; /* PREEMPT AND ABORT is of no use, and we said so */
    bool no_reset; /* the last LUN RESET was refused, and we said so */
    unsigned bury_backoff_ms; /* the target refuses what graves take; or 0 */
    uint64_t bury_ms;         /* not before this, then */
};

/* The LUN may be written through this nexus now. */
static inline bool
iscsi_member_locked(const struct iscsi_lun *l, const struct iscsi_nexus *n)
{
    if (!n)
        return false;
    if (l->opt->fence == LUN_FENCE_DRAIN)
        return true;
    return l->registration == LUN_REGISTERED &&
           n->registration_no == l->registration_no;
}

/* ---- iscsi_route.c: which path takes a request -------------------------- */

/* iscsi_route_locked - place a request that is in no list: INBOX, HELD or,
 * with an error, DONE. */
void iscsi_route_locked(struct iscsi_lun *l, struct iscsi_request *r);

/* iscsi_route_held_locked - try again for all that are held. */
void iscsi_route_held_locked(struct iscsi_lun *l);

/* iscsi_route_finish_locked - r, in no list, is over: DONE, or freed when it
 * was abandoned. */
void iscsi_route_finish_locked(struct iscsi_lun *l, struct iscsi_request *r,
                               int error);

/* iscsi_route_path_lost_locked - move what a path has under way, controls
 * too, and bury its nexus. */
void iscsi_route_path_lost_locked(struct iscsi_path *p);

/* iscsi_route_fenced_locked - end all writes that wait; -EBADE. */
void iscsi_route_fenced_locked(struct iscsi_lun *l);

/* iscsi_route_settle_locked - nothing sent on the dead nexus n can take
 * effect any more: send its writes again, let go of its ghosts, free n. */
void iscsi_route_settle_locked(struct iscsi_lun *l, struct iscsi_nexus *n);

/* iscsi_route_dirty_locked - may something sent on n still change the LUN? */
bool iscsi_route_dirty_locked(const struct iscsi_nexus *n);

unsigned iscsi_route_good_locked(const struct iscsi_lun *l);

/* ---- iscsi_queue.c: the owners' side ------------------------------------ */

void *iscsi_queue_create(void *b);
void iscsi_queue_destroy(void *q);
int iscsi_queue_fd(void *q);
void iscsi_queue_interrupt(void *q);
struct lun_io *iscsi_queue_io_get(void *q, size_t room);
void iscsi_queue_io_put(void *q, struct lun_io *io);
void iscsi_queue_submit(void *q, struct lun_io *io);
size_t iscsi_queue_reap(void *q, struct lun_io **ios, size_t max,
                        uint64_t deadline_ms);
void iscsi_queue_abandon(void *q, struct lun_io *io);
void iscsi_queue_free(struct iscsi_request *r);
/* iscsi_queue_wake_locked - make the queue's fd readable. */
void iscsi_queue_wake_locked(struct iscsi_queue *q);

/* ---- iscsi_path.c: one thread for each portal --------------------------- */

/* iscsi_path_start - errors: -errno; nothing to stop then. */
int iscsi_path_start(struct iscsi_path *p);
/* iscsi_path_stop - after l->stopping was set: wait for the thread. */
void iscsi_path_stop(struct iscsi_path *p);
void iscsi_path_wake(struct iscsi_path *p);
enum iscsi_drop {
    ISCSI_RENEW,
    ISCSI_FAIL
};
/* iscsi_path_drop_locked - have the session ended, and a new one made at once
 * or as after a failure. */
void iscsi_path_drop_locked(struct iscsi_path *p, enum iscsi_drop how,
                            const char *why);
/* iscsi_path_trouble - from the path's thread: end the session after this
 * round. */
void iscsi_path_trouble(struct iscsi_path *p, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* iscsi_path_doubt - from the path's thread: the LUN was reset. */
void iscsi_path_doubt(struct iscsi_path *p);
/* iscsi_path_poll - one round of the session; -errno when it is over. */
int iscsi_path_poll(struct iscsi_path *p, uint64_t until_ms);

/* ---- iscsi_setup.c: from a socket to a path that knows its LUN ---------- */

/* iscsi_setup - connect, log in, learn about the LUN; in the path's thread.
 *
 * errors:  -errno, p->trouble says why
 */
int iscsi_setup(struct iscsi_path *p, struct iscsi_info *info);

/* iscsi_setup_capacity - ask for the size again; sets l->info.size. */
int iscsi_setup_capacity(struct iscsi_path *p, uint64_t nexus,
                         uint64_t deadline_ms);

/* iscsi_setup_mode - ask for write protection and DPOFUA again, through a
 * nexus that has registered, if the target did not tell at login.
 *
 * errors:  as iscsi_control_run; -EBADE: it is not registered (any more)
 */
int iscsi_setup_mode(const struct iscsi_via *via);

/* ---- iscsi_command.c: requests as SCSI commands ------------------------- */

/* iscsi_command_start - send r's next command, for the first time or after a
 * pause. */
void iscsi_command_start(struct iscsi_path *p, struct iscsi_request *r);
/* iscsi_command_verdict - what an answer means; the news are taken note of. */
struct sense_verdict iscsi_command_verdict(struct iscsi_path *p, int status,
                                           const struct scsi_task *task);

/* ---- iscsi_control.c: our own commands ---------------------------------- */

struct iscsi_control *iscsi_control_create(const char *name, const uint8_t *cdb,
                                           size_t cdb_len, size_t in_max);
void iscsi_control_put(struct iscsi_lun *l, struct iscsi_control *c);

/* iscsi_control_run - have it carried out on nexus id of p, and wait.
 *
 * errors:  -ENOLINK  that is not p's nexus (any more)
 *          -ETIMEDOUT  the answer is open; -errno as the target answered
 * owns:    c stays the caller's; its answer is valid unless -ENOLINK or
 *          -ETIMEDOUT
 * threads: any but a path's, without the lock
 */
int iscsi_control_run(struct iscsi_path *p, uint64_t nexus,
                      struct iscsi_control *c, uint64_t deadline_ms);
/* iscsi_control_here - the same from p's own thread, before it serves. */
int iscsi_control_here(struct iscsi_path *p, struct iscsi_control *c,
                       uint64_t deadline_ms);
/* iscsi_control_start - send c; from p's thread. */
void iscsi_control_start(struct iscsi_path *p, struct iscsi_control *c);
/* iscsi_control_resume - send again what waited; from p's thread. */
void iscsi_control_resume(struct iscsi_path *p, uint64_t now_ms);
/* iscsi_control_open_since - was a SCSI command of ours sent at sent_ms, or
 * before, and is not answered yet? */
bool iscsi_control_open_since(struct iscsi_path *p, uint64_t sent_ms);
/* iscsi_control_next_ms - when iscsi_control_resume is due. */
uint64_t iscsi_control_next_ms(struct iscsi_path *p);
/* iscsi_control_fail_all_locked - the path has failed. */
void iscsi_control_fail_all_locked(struct iscsi_path *p);

/* ---- iscsi_reserve.c: PERSISTENT RESERVE, LUN RESET; a command each --- */

struct iscsi_keys {
    size_t n;
    uint64_t keys[ISCSI_KEYS_MAX];
};

/* The errors are those of iscsi_control_run. */
int iscsi_reserve_read_keys(const struct iscsi_via *via,
                            struct iscsi_keys *keys);
bool iscsi_reserve_has(const struct iscsi_keys *keys, uint64_t key);
int iscsi_reserve_register(const struct iscsi_via *via, uint64_t key);
/* iscsi_reserve_ensure - see that the reservation guards the LUN: make it, or
 * find one of a type that serves; -EBUSY: it is of another. */
int iscsi_reserve_ensure(const struct iscsi_via *via);
/* iscsi_reserve_preempt_abort - remove victim's registration, and abort what is
 * under way through its nexus where the target can.
 *
 * returns: 0 fenced, 1 preempted but not aborted: a LUN RESET is needed
 * errors:  -EBADE no such key, or we are not registered ourselves
 */
int iscsi_reserve_preempt_abort(const struct iscsi_via *via, uint64_t victim);
/* iscsi_reserve_preempt - only remove it; errors as above. */
int iscsi_reserve_preempt(const struct iscsi_via *via, uint64_t victim);
int iscsi_reserve_lun_reset(const struct iscsi_via *via);

/* ---- iscsi_pr.c: the right to write ------------------------------------- */

int iscsi_pr_register(void *b, uint64_t deadline_ms);
void iscsi_pr_release(void *b);
int iscsi_pr_check(void *b, uint64_t deadline_ms);

/* Which nexus is wanted for a command. */
enum iscsi_wanted {
    ISCSI_MEMBER, /* of the present registration (drain: any) */
    ISCSI_FRESH,  /* that never sent a REGISTER */
};

/* iscsi_pr_via_locked - find one, rather not on a path that has left our
 * commands without an answer; false: there is none now. */
bool iscsi_pr_via_locked(struct iscsi_lun *l, enum iscsi_wanted wanted,
                         uint64_t deadline_ms, struct iscsi_via *via);
/* iscsi_pr_attempt_locked - find a member; as long as others are left that
 * may do as well, via->deadline_ms leaves them half of the time. */
bool iscsi_pr_attempt_locked(struct iscsi_lun *l, uint64_t deadline_ms,
                             struct iscsi_via *via);
/* iscsi_pr_turn_locked - only one thread at a time changes the registration;
 * false: deadline_ms came first. */
bool iscsi_pr_turn_locked(struct iscsi_lun *l, uint64_t deadline_ms);
void iscsi_pr_turn_over_locked(struct iscsi_lun *l);
/* iscsi_pr_standing_locked - do these keys prove that nobody fenced us? */
bool iscsi_pr_standing_locked(const struct iscsi_lun *l,
                              const struct iscsi_keys *keys);
/* iscsi_pr_end_locked - the registration is over. */
void iscsi_pr_end_locked(struct iscsi_lun *l, const char *why);
/* iscsi_pr_conflict_locked - a write met a RESERVATION CONFLICT on p. */
void iscsi_pr_conflict_locked(struct iscsi_path *p);
/* iscsi_pr_join - make a fresh nexus a member; in one's turn.
 *
 * errors:  -EBADE the registration is over; else as iscsi_control_run
 */
int iscsi_pr_join(struct iscsi_lun *l, struct iscsi_via *via);
/* iscsi_pr_look - check keys and reservation through a member; in one's turn.
 */
int iscsi_pr_look(struct iscsi_lun *l, const struct iscsi_via *via);

/* ---- iscsi_inherit.c: from process to process --------------------------- */

/* iscsi_inherit_load - dig graves for the keys that our predecessor left.
 *
 * errors:  -errno, said with log_error
 */
int iscsi_inherit_load(struct iscsi_lun *l);
/* iscsi_inherit_save - on disk before a REGISTER with a new key leaves. */
int iscsi_inherit_save(struct iscsi_lun *l);
/* iscsi_inherit_due_locked - is what it may have left not fenced yet? */
bool iscsi_inherit_due_locked(const struct iscsi_lun *l);
/* iscsi_inherit_leave - all threads are gone: note whether all came back. */
void iscsi_inherit_leave(struct iscsi_lun *l, bool clean);

/* ---- iscsi_fence.c: cutting off other hosts, and our own dead nexuses --- */

int iscsi_fence(void *b, unsigned host_number, uint64_t deadline_ms);
/* iscsi_fence_graves_due_locked - is there anything to bury? */
bool iscsi_fence_graves_due_locked(const struct iscsi_lun *l);
/* iscsi_fence_graves - prove our dead nexuses dead through via, which is
 * registered (drain: any); in one's turn.
 *
 * errors:  -EAGAIN the keys changed meanwhile: ask again; -EBADE we are not
 *          registered; else as iscsi_control_run
 */
int iscsi_fence_graves(struct iscsi_lun *l, const struct iscsi_via *via);

/* ---- iscsi_keeper.c: the thread that looks after all of this ------------ */

void *iscsi_keeper_main(void *lun);

#endif
