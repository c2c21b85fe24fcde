/* SPDX-License-Identifier: BSD-3-Clause */
/* What all connections have in common: the configuration, the certificates,
 * the LUNs, and the list of the connections themselves with its limits. */
#ifndef DETOUR_PROXY_SERVER_H
#define DETOUR_PROXY_SERVER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/config.h"
#include "proxy/limit.h"
#include "proxy/share.h"
#include "proxy/tls.h"

struct conn;

/* A certificate is checked for each of them: enough for the peers of a whole
 * cluster that all come back at once, too few to use up the descriptors.  No
 * more than half of all connections are strangers', and half of these places
 * are kept for those who come from an address of a configured host. */
#define SERVER_STRANGERS_MAX         512 /* not yet known by certificate */
#define SERVER_STRANGERS_ADDRESS_MAX 256 /* of these, from one address */
#define SERVER_HOST_MAX              1024
#define SERVER_CONNS_MAX             4096
/* socket, eventfd, and what a lun_queue takes */
#define SERVER_FDS_PER_CONN 7

struct server {
    /* fixed after server_create */
    const struct config *config;
    struct tls *tls;
    struct share **shares; /* those that this host serves */
    size_t nshares;
    uint64_t started_ms;
    unsigned max_conns;
    _Atomic uint64_t *held;   /* bytes of payload, by host, as config->hosts */
    _Atomic uint64_t refused; /* connections and requests for a LUN */
    _Atomic uint64_t tls_errors; /* of these, for TLS or a certificate */

    pthread_mutex_t lock;
    pthread_cond_t gone; /* a connection has ended */
    /* guarded by lock */
    struct conn *conns;
    unsigned nconns;
    pthread_t last; /* of the threads that have ended; it ends the others */
    bool any_last;
    uint64_t last_id;
    bool draining, stopping;
    struct limit refusals;
};

/* server_create - load certificates, begin to reach every LUN that names
 * this host.
 *
 * errors:  NULL, said with log_error
 * owns:    c must outlive it; ended with server_stop and server_destroy
 */
struct server *server_create(const struct config *c);

/* server_stop - drain, then end every connection and its thread.
 *
 * returns: whether all of them have ended before deadline_ms
 */
bool server_stop(struct server *s, uint64_t deadline_ms);

/* server_destroy - all connections must have ended; NULL is fine. */
void server_destroy(struct server *s, uint64_t deadline_ms);

/* server_share - the LUN of that name, if this host serves it, or NULL. */
struct share *server_share(struct server *s, const char *name);

/* server_drain - one LUN (name) or all of them (NULL), and new ones too.
 *
 * errors:  -ENOENT no such LUN
 */
int server_drain(struct server *s, const char *name, bool on);

/* server_reload - load the certificates anew; connections whose certificate
 * does not hold any more are ended. */
void server_reload(struct server *s);

/* server_add - a stranger's connection begins; gives it its id.
 *
 * Those who connect from anywhere leave room for those who connect from an
 * address of a configured host.
 *
 * errors:  -EBUSY and *why
 */
int server_add(struct server *s, struct conn *c, const char **why);

/* server_identify - the stranger turns out to be a host.
 *
 * errors:  -EBUSY and *why
 */
int server_identify(struct server *s, struct conn *c,
                    const struct config_host *peer, const char **why);

/* server_remove - the connection has ended, or has no thread; nobody else
 * refers to it now. */
void server_remove(struct server *s, struct conn *c);

/* server_leave - the same, from the connection's own thread.
 *
 * returns: whether *before, a thread that left earlier, has to be joined as
 *          the last thing that the caller does.  So each is joined by the next
 *          one, and server_stop joins the last.
 */
bool server_leave(struct server *s, struct conn *c, pthread_t *before);

/* server_refused - log why somebody was not let in, but not too often. */
void server_refused(struct server *s, const struct conn *c, const char *why);

#endif
