/* SPDX-License-Identifier: BSD-3-Clause */
/* One NBD connection to a peer's proxy: parked before NBD_OPT_GO, then live.
 *
 * Each link has a thread of its own that runs libnbd's state machine.  Commands
 * are issued from any thread; the one that waits alone for an answer polls the
 * socket in place of the link's.
 */
#ifndef DETOUR_COMMON_LINK_H
#define DETOUR_COMMON_LINK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct link;

/* Why an attempt to connect, up to LINK_PARKED, did not succeed. */
enum link_failure {
    LINK_FAIL_CERTIFICATE, /* the peer's: not of our CA, ended, revoked, or
                              without the address (GnuTLS does not say which) */
    LINK_FAIL_REFUSED,     /* it was reached, and ended the handshake: it does
                              not accept our certificate, or is no proxy */
    LINK_FAIL_UNREACHABLE, /* nobody answers at the address, or not in time */
    LINK_FAIL_FILES,       /* our own certificate, key, CA or CRL */
};
#define LINK_FAILURES 4

/* How many of each. */
struct link_failures {
    atomic_ulong of[LINK_FAILURES];
};

enum link_state {
    LINK_CONNECTING, /* TCP, TLS, options; tried again for ever */
    LINK_PARKED,     /* negotiated up to before NBD_OPT_GO, asked
                        NBD_OPT_INFO regularly */
    LINK_GOING,      /* NBD_OPT_GO sent, not answered */
    LINK_LIVE,       /* GO was granted: commands may be issued */
    LINK_DEAD,       /* was LIVE or GOING and broke; never comes back */
};

struct link_options {
    const char *peer;    /* the host's name, for messages */
    const char *address; /* IP literal; the certificate must carry it */
    uint16_t port;
    const char *tls_dir;   /* ca-cert.pem, client-cert.pem, client-key.pem and
                              perhaps ca-crl.pem; NULL: no TLS (tests only) */
    const char *info_name; /* export name asked for in NBD_OPT_INFO; long
                              enough to show that data would come through */
    unsigned link_timeout_ms;     /* unacknowledged data, late INFO answer */
    unsigned open_timeout_ms;     /* connect up to LINK_PARKED; GO */
    unsigned standby_interval_ms; /* between two NBD_OPT_INFO */
    /* The state or the INFO answer changed.  From the link's thread, without
     * locks; must not block. */
    void (*changed)(void *opaque);
    void *opaque;
    /* Where failed attempts are counted, by several links perhaps, before
     * changed tells of them; must outlive the link.  NULL: nowhere. */
    struct link_failures *failures;
};

struct link_status {
    enum link_state state;
    uint64_t since_ms;     /* of the last change of state */
    char error[256];       /* why it is CONNECTING again or DEAD, or was before
                              it was PARKED and has not answered yet; or "" */
    bool would_serve;      /* the last INFO was answered without an error */
    char refusal[256];     /* why not */
    char description[256]; /* of the export, as the peer gave it */
    uint64_t info_ms;      /* when the last INFO was answered; 0: none was on
                              this connection */
    uint64_t info_sent_ms; /* when an INFO left that is not answered; 0: none */
    unsigned rtt_us;       /* of the last INFO */
    uint64_t size;         /* of the export, when would_serve or LIVE */
    uint16_t flags;        /* its NBD transmission flags */
    uint32_t block_min, block_preferred, block_max; /* 0: not told */
};

/* link_create - begin to connect; returns at once.
 *
 * errors:  NULL and errno
 * owns:    opt is copied, but for opaque; ended with link_destroy
 */
struct link *link_create(const struct link_options *opt);

/* link_end - begin what link_destroy does, without waiting: so that several
 * links end at the same time.  Only link_destroy may follow. */
void link_end(struct link *k);

/* link_destroy - close and free; NULL is fine.
 *
 * A LIVE link without commands under way says NBD_CMD_DISC first; otherwise
 * the connection is reset (SO_LINGER 0: nothing unsent leaves the host) and
 * its commands end with -ENOTCONN.  Bounded by 500 ms.
 * No thread may be inside another call on k.
 */
void link_destroy(struct link *k);

/* link_get_status - copy; never blocks on the network.  threads: any */
void link_get_status(struct link *k, struct link_status *st);

/* link_failure_name - one lower-case word, as status and metrics have it. */
const char *link_failure_name(enum link_failure f);

/* link_go - ask a parked peer for an export and go live.
 *
 * errors:  0; -EACCES  refused: the connection stays parked, the reason
 *                      stands in link_status.refusal
 *             -EBUSY   the link is not LINK_PARKED
 *             -ETIMEDOUT, -ENOTCONN  the link is LINK_DEAD
 * units:   deadline_ms as clock_ms
 * threads: one at a time
 */
int link_go(struct link *k, const char *export_name, uint64_t deadline_ms);

/* link_go_begin - link_go without waiting for the answer; opt.changed tells
 * when it is there.
 *
 * errors:  0; -EBUSY as link_go; -ENOMEM
 */
int link_go_begin(struct link *k, const char *export_name,
                  uint64_t deadline_ms);

/* link_go_result - what became of the last GO; -EINPROGRESS: nothing yet. */
int link_go_result(struct link *k);

/* link_break - reset the connection now; commands end with -ENOTCONN.
 * threads: any */
void link_break(struct link *k);

enum link_op {
    LINK_READ,
    LINK_WRITE,
    LINK_FLUSH,
    LINK_TRIM,
    LINK_ZERO,
    LINK_EXTENTS,
};

/* As LUN_FUA and LUN_NO_HOLE. */
#define LINK_FUA     1u
#define LINK_NO_HOLE 2u

struct link_extent {
    uint64_t count; /* bytes */
    uint32_t flags; /* NBD_STATE_* of base:allocation */
};

struct link_command {
    enum link_op op;
    unsigned flags;
    uint64_t offset, count; /* bytes */
    void *data; /* READ, WRITE: count bytes, not touched after the end */
    struct link_extent *extents; /* EXTENTS: room for max_extents */
    size_t max_extents, n_extents;
};

/* link_run - carry out one command on a LIVE link and wait for the answer.
 *
 * errors:  0, or -errno as the peer answered; -ENOTCONN: not LIVE, or the
 *          connection broke before the answer.  With -ENOTCONN *sent tells
 *          whether the peer may have got the command (and may carry it out).
 *          -ESHUTDOWN: the peer is draining and did not carry it out.
 * owns:    c and its data stay the caller's and are never touched after
 *          the return
 * threads: many at once
 */
int link_run(struct link *k, struct link_command *c, bool *sent);

/* link_oldest_ms - when the oldest unanswered command left; 0: none.
 * threads: any */
uint64_t link_oldest_ms(struct link *k);

#endif
