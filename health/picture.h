/* SPDX-License-Identifier: BSD-3-Clause */
/* What was last heard of this host's processes and of the other hosts, and
 * when.  No I/O, no clock, no thread. */
#ifndef DETOUR_HEALTH_PICTURE_H
#define DETOUR_HEALTH_PICTURE_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "common/config.h"
#include "health/certs.h"
#include "health/history.h"

/* Worked timeline, a process hangs right after it has answered, while another
 * one hangs already (a round lasts until the last answer or timeout):
 *
 *   t=0      its last answer; the round goes on for ASK_TIMEOUT
 *   t=1000   the round ends
 *   t=1500   the next one begins                         ASK_INTERVAL
 *   t=2500   it has not answered: it is told as silent   ASK_TIMEOUT
 *   t=2600   whatever happened to us: too old an answer  PICTURE_SILENT
 */
#define PICTURE_ASK_INTERVAL_MS 500
#define PICTURE_ASK_TIMEOUT_MS  1000
#define PICTURE_SILENT_MS       2600

/* The other hosts, over the network; two lost rounds in a row are told. */
#define PICTURE_HOST_INTERVAL_MS 2000
#define PICTURE_HOST_TIMEOUT_MS  1500
#define PICTURE_HOST_SILENT_MS   7000

/* A moment on both clocks: ages are counted on the first, the second is for
 * people and certificates. */
struct moment {
    uint64_t ms;
    time_t wall;
};

/* Who is asked: a process, by its socket, or a host. */
struct picture_source {
    char *name;           /* "plugin-LUN-CLIENT", "proxy"; a host's name */
    uint64_t since_ms;    /* when it was first seen */
    json_t *answer;       /* its last; NULL: none yet */
    uint64_t asked_ms;    /* when that was asked for; 0: never */
    uint64_t answered_ms; /* when that came; 0: never */
    char error[300];      /* why there was none the last time; "": there was */
    struct history stall_ms, probe_us;
};

struct picture {
    const struct config *config; /* the caller's */
    uint64_t looked_ms; /* when the run directory was last listed; 0: never */
    char error[300];    /* why not the last time; "": it was */
    struct picture_source *processes; /* sorted by name */
    size_t nprocesses;
    struct picture_source *hosts; /* as in config, but for this one */
    size_t nhosts;
    struct cert certs[CERTS_MAX];
    size_t ncerts;
};

/* picture_init - nobody was heard yet; ended with picture_fini in any case.
 *
 * errors:  -ENOMEM
 */
int picture_init(struct picture *p, const struct config *c, uint64_t now_ms);
void picture_fini(struct picture *p);

/* picture_processes - these are the sockets there are now, sorted by name.
 *
 * New ones are added; one that is gone was taken away by its process, which
 * ended in order, and is forgotten.  (A process that dies leaves it.)
 *
 * errors:  -ENOMEM; p is as it was then
 */
int picture_processes(struct picture *p, char *const *paths, size_t n,
                      uint64_t now_ms);

/* picture_find - a process of that name, or NULL. */
struct picture_source *picture_find(struct picture *p, const char *name);

/* picture_heard - s was asked.
 *
 * owns:    takes answer, which is never changed again; NULL: there was none,
 *          and error says why
 */
void picture_heard(struct picture_source *s, json_t *answer, const char *error,
                   uint64_t now_ms);

/* picture_silent - may nothing be said of s from its last answer?  It did not
 * answer when last asked, or longer ago than limit_ms. */
bool picture_silent(const struct picture_source *s, uint64_t limit_ms,
                    uint64_t now_ms);

/* picture_name - "plugin-vm1-a" of "/run/detour/plugin-vm1-a.sock".
 *
 * owns:    the caller frees it; NULL without memory
 */
char *picture_name(const char *path);

#endif
