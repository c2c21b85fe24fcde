/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of a link share and nobody else may see.
 *
 * link.c        the public calls and the state machine, run by the thread
 * link_conn.c   one libnbd handle and its socket: made, pumped, closed
 * link_io.c     commands on a LIVE link, from any thread
 * link_lead.c   who polls the socket of a LIVE link
 *
 * Lock order: libnbd's own handle lock, then k->lock (libnbd calls us back
 * with its lock held).  So no libnbd call is made with k->lock held.
 */
#ifndef DETOUR_COMMON_LINK_IMPL_H
#define DETOUR_COMMON_LINK_IMPL_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>

#include <libnbd.h>

#include "common/link.h"

#define LINK_TEXT_MAX sizeof(((struct link_status *)0)->error)

/* A command under way; lives on the stack of the thread in link_run. */
struct link_wait {
    TAILQ_ENTRY(link_wait) entry;
    struct link *link;
    uint64_t since_ms;
    struct link_command *command;
    uint64_t seen;      /* bytes of a READ that have come, in order */
    int error;          /* as libnbd gives it, positive; valid after done */
    atomic_bool issued; /* libnbd's call that took it has returned */
    bool retired;       /* libnbd has forgotten it; valid after done */
    atomic_bool ended;  /* libnbd has called back */
    atomic_bool leads;  /* its worker polls; written by that, with k->lock */
    pthread_t thread;   /* valid when leads */
    sem_t done;
};

/* Who polls the socket and lets libnbd act; see link_lead.c. */
enum link_leader {
    LINK_LED_BY_THREAD,
    LINK_LED_BY_NOBODY, /* LIVE, nothing unanswered */
    LINK_LED_BY_WORKER, /* LIVE, the one whose link_wait.leads */
};

/* The files that decide whom we trust, as they were when they were read. */
struct link_file {
    uint64_t device, inode, ctime_s, ctime_ns; /* all 0: there is none */
};
struct link_stamp {
    struct link_file ca, crl;
};

enum link_question {
    LINK_ASKS_NOTHING,
    LINK_ASKS_INFO,
    LINK_ASKS_GO,
};

struct link {
    /* fixed after create */
    struct link_options opt;
    char name[256]; /* "PEER ADDRESS:PORT" */
    int wake_fd;    /* eventfd: the thread must look again */
    int lead_fd;    /* eventfd: a worker that leads must look again */
    pthread_t thread;

    /* Link thread only until LIVE, then fixed until link_destroy: a thread
     * that saw LIVE under lock and stands in waits may use it. */
    struct nbd_handle *nbd;
    bool has_extents; /* base:allocation was negotiated */

    /* link thread only */
    short revents;          /* of the socket, since the last step */
    int socket_error;       /* errno that the socket reported, or 0 */
    char failure[256];      /* why the connection is of no more use, or "" */
    enum link_failure kind; /* of that, before it is proven */
    struct link_stamp stamp;
    enum link_question question;
    bool answered; /* to question; error then tells what */
    int answer_error;
    char peer_text[256]; /* what the peer said beside an error */
    bool hears;          /* INFO is asked so that peer_text is filled */
    bool proven;         /* this connection has brought an answer to an INFO */
    char told[256];      /* the failure that was logged last; "" once proven */
    uint64_t asked_us;
    uint64_t deadline_ms; /* of the attempt, the INFO or the GO */
    uint64_t next_ms;     /* the next attempt or INFO */
    unsigned backoff_ms;
    unsigned attempts; /* failed ones since the link was last up */
    uint64_t wake_ms;  /* when poll must return at the latest */
    bool leading;      /* it led when it last slept, LIVE */

    /* What the leader polls the socket for, 0 while it is not in poll; see
     * link_conn_poll. */
    atomic_uint watching;
    atomic_uint unanswered; /* of waits; grows with lock held */

    pthread_mutex_t lock;
    pthread_cond_t cond; /* go_name was taken care of; waits is empty; a
                            worker leads no longer */
    /* guarded by lock */
    struct link_status status;
    /* Our own dup of libnbd's socket, -1: none; the thread sets it, and not
     * while a worker leads. */
    int fd;
    enum link_leader leader;
    char reason[LINK_TEXT_MAX]; /* what libnbd said to a worker that led */
    bool stop, breaking;
    char *go_name; /* of the last GO that was asked for, ours; or NULL */
    uint64_t go_deadline_ms;
    bool go_done;
    int go_result;
    TAILQ_HEAD(, link_wait) waits; /* oldest first */
};

/* link_conn_open - begin one attempt: a new handle, connecting.
 * errors:  -1 and k->failure */
int link_conn_open(struct link *k);

/* link_conn_close - end the connection and its handle; both may be missing. */
void link_conn_close(struct link *k);

/* link_conn_drop - close our part of the socket, keep the handle. */
void link_conn_drop(struct link *k);

/* link_conn_check - is the connection, just negotiated, one that we may trust?
 * errors:  -1 and k->failure */
int link_conn_check(struct link *k);

/* link_conn_recheck - do CA and CRL still say so?  When they have changed
 * since the handshake the peer may be revoked.
 * errors:  -1 and k->failure */
int link_conn_recheck(struct link *k);

/* link_conn_ask - send NBD_OPT_INFO or NBD_OPT_GO for an export.
 * The answer is noted in k->answered and what stands beside it.
 * errors:  -1 and k->peer_text: not sent, the connection is as it was */
int link_conn_ask(struct link *k, enum link_question q, const char *name);

/* link_conn_export - what the peer told about the export, into st. */
void link_conn_export(struct link *k, struct link_status *st);

/* link_conn_events - what to poll the socket for in libnbd's direction.
 * threads: any */
short link_conn_events(unsigned direction);

/* link_conn_note_reason - keep what libnbd said in this thread when the
 * connection broke; the first reason counts.
 * threads: any, without k->lock */
void link_conn_note_reason(struct link *k);

/* link_conn_poll - sleep until the socket, the eventfd or k->wake_ms.  Where a
 * worker leads, or nobody, of the socket only its end counts. */
void link_conn_poll(struct link *k);

/* link_conn_pump - let libnbd act on what poll found. */
void link_conn_pump(struct link *k);

/* link_conn_ended - has libnbd done with the connection and its commands? */
bool link_conn_ended(struct link *k);

/* link_conn_over - has the connection ended?  Then k->failure says why. */
bool link_conn_over(struct link *k);

/* link_conn_farewell - say NBD_CMD_DISC and wait a little for the end. */
void link_conn_farewell(struct link *k);

/* link_reset_locked - RST; what is queued in the socket is thrown away.
 * threads: any, with k->lock held */
void link_reset_locked(struct link *k);

/* link_wake - make the thread look again.  threads: any */
void link_wake(struct link *k);

/* link_wake_leader - make whoever leads look again.  threads: any */
void link_wake_leader(struct link *k);

/* link_lead_begin_locked - w was put into waits: it leads when nobody does.
 * link_lead_end_locked - it was taken out: if it leads, hand on.
 * threads: the worker of w, with k->lock held */
void link_lead_begin_locked(struct link *k, struct link_wait *w);
void link_lead_end_locked(struct link *k, struct link_wait *w);

/* link_lead_wait - until w->done is posted; meanwhile lead, if w does.
 * threads: the worker of w, once libnbd has taken the command */
void link_lead_wait(struct link *k, struct link_wait *w);

/* link_lead_ended - libnbd has called back for w, which is not posted yet.
 * threads: any */
void link_lead_ended(struct link_wait *w);

/* link_lead_by_thread - shall the thread poll for answers?  Ends that when
 * none is awaited.  threads: the link's */
bool link_lead_by_thread(struct link *k);

/* link_text - copy what a peer or library said for people to read: printable
 * ASCII (it ends in JSON, cut anywhere), at most LINK_TEXT_MAX bytes. */
void link_text(char *to, const char *from);

#endif
