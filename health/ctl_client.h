/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking detour's processes on this host, many at once. */
#ifndef DETOUR_HEALTH_CTL_CLIENT_H
#define DETOUR_HEALTH_CTL_CLIENT_H

#include <jansson.h>
#include <stddef.h>

/* A process that has not answered by then is reported as not answering. */
#define CTL_TIMEOUT_MS 2000

struct ctl_call {
    /* set by the caller, whose they stay */
    const char *socket_path;
    const char *method; /* "GET" or "POST" */
    const char *path;
    const json_t *body; /* or NULL */

    /* the answer */
    unsigned status; /* HTTP's; 0: there was no answer */
    json_t *reply;   /* an object, or NULL; freed with ctl_call_fini */
    char error[300]; /* why not 200; "" with 200 */
};

/* ctl_ask - make n calls at once; returns after CTL_TIMEOUT_MS at the latest.
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
