/* SPDX-License-Identifier: BSD-3-Clause */
/* The plugin's end: nbdkit quits, or a signal asks for it. */
#ifndef DETOUR_PLUGIN_ENDING_H
#define DETOUR_PLUGIN_ENDING_H

#include "health/control.h"
#include "plugin/router.h"

struct ending_options {
    struct router *router;
    struct control *control;
    const char *lun; /* its name, for the log */
};

/* ending_start - watch for the end, until ending_stop.
 *
 * When nbdkit quits, requests that wait are let go.  From here on SIGTERM,
 * SIGINT and SIGHUP are not nbdkit's: while clients are connected they hand
 * over to a successor (router_hand_over) and end the process.
 *
 * errors:  -1 and a message; nbdkit exits then, and ending_stop is not needed
 * owns:    what opt points at must outlive ending_stop
 * threads: starts its own, so call it after a fork; one for the process
 */
int ending_start(const struct ending_options *opt);

/* ending_stop - give the signals back to nbdkit and end the threads; nothing
 * when they were not started.  nbdkit_shutdown was called before. */
void ending_stop(void);

/* ending_connected, ending_disconnected - a client came, or went.
 *
 * threads: any */
void ending_connected(void);
void ending_disconnected(void);

#endif
