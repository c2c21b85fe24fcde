/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking detour's processes on this host, and other hosts, many at once. */
#ifndef DETOUR_HEALTH_CTL_CLIENT_H
#define DETOUR_HEALTH_CTL_CLIENT_H

#include <jansson.h>
#include <stddef.h>

/* A process that has not answered by then is reported as not answering. */
#define CTL_TIMEOUT_MS 2000

/* Paths of PEM files. */
struct ctl_tls {
    const char *ca;         /* who may answer */
    const char *cert, *key; /* ours; or NULL */
};

struct ctl_call {
    /* set by the caller, whose they stay */
    const char *socket_path;
    const char *origin; /* "http://10.0.0.1:10811": asked over the network
                           instead; NULL: over socket_path */
    const struct ctl_tls *tls; /* for an origin that is https:// */
    unsigned timeout_ms;       /* 0: CTL_TIMEOUT_MS */
    const char *method;        /* "GET" or "POST" */
    const char *path;
    const json_t *body; /* or NULL */

    /* the answer */
    unsigned status; /* HTTP's; 0: there was no answer */
    json_t *reply;   /* an object, or NULL; freed with ctl_call_fini */
    char error[300]; /* why not 200; "" with 200 */
};

/* ctl_ask - make n calls at once; returns after the longest timeout.
 *
 * errors:  -ENOMEM; everything else is told in the calls
 */
int ctl_ask(struct ctl_call *calls, size_t n);

/* ctl_call_fini - free the answer. */
void ctl_call_fini(struct ctl_call *c);

/* ctl_find - the paths of the control sockets in a folder, sorted.
 *
 * returns: how many, or -errno
 * owns:    the caller frees each and the array; on errors there is nothing
 */
int ctl_find(const char *rundir, char ***paths);

#endif
