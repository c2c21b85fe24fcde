/* SPDX-License-Identifier: BSD-3-Clause */
/* What detourctl's commands share: whom to ask, waiting, exit statuses. */
#ifndef DETOUR_HEALTH_CTL_H
#define DETOUR_HEALTH_CTL_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/config.h"
#include "health/ctl_client.h"

/* exit status: detourctl(8) */
enum {
    CTL_AS_WANTED = 0,
    CTL_NOT_AS_WANTED = 1,
    CTL_CANNOT = 2
};

struct ctl {
    const char *config_file; /* NULL: the default, which may be missing */
    char *rundir;
    const char *sysroot;   /* check's */
    struct config *config; /* of commands over the network */
    const char *client;    /* or NULL */
    bool json, follow;
    unsigned for_s;                   /* redirect's; 0: until return */
    unsigned wait_s;                  /* gone's; 0: do not */
    const char *command, *lun, *host; /* the latter two or NULL */
    char **args;                      /* all that followed the command */
    int nargs;

    char **sockets;
    struct ctl_call *calls; /* one for each socket */
    size_t n;
};

/* ctl_hold_signals - what a person ends a command by now waits for
 * ctl_pause. */
void ctl_hold_signals(sigset_t *ends);

/* ctl_pause - false when one of those signals came before the time was over. */
bool ctl_pause(const sigset_t *ends, unsigned seconds);

/* ctl_gather - find the processes and ask each for its status; keep those that
 * have, or may have, to do with the LUN and client asked for.
 *
 * errors:  -errno, told
 * owns:    until ctl_forget, which must come before the next ctl_gather
 */
int ctl_gather(struct ctl *c, bool plugins, bool proxies);
void ctl_forget(struct ctl *c);

/* ctl_drop - forget one of those that were gathered. */
void ctl_drop(struct ctl *c, size_t i);

/* ctl_none_found - tell that there is nobody; returns CTL_NOT_AS_WANTED. */
int ctl_none_found(const struct ctl *c, const char *what);

/* ctl_print_json - the answers; returns negative when they have no JSON. */
int ctl_print_json(const struct ctl *c);

/* ctl_print_failure - why a process did not answer as it should. */
void ctl_print_failure(const struct ctl_call *call);

/* ctl_base_name - "proxy.sock" of a path. */
const char *ctl_base_name(const char *path);

#endif
