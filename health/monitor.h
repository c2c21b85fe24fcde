/* SPDX-License-Identifier: BSD-3-Clause */
/* Watches one LUN: probes it, gathers what is known, keeps the verdict. */
#ifndef DETOUR_HEALTH_MONITOR_H
#define DETOUR_HEALTH_MONITOR_H

#include <stdbool.h>
#include <stdint.h>

#include "health/slow.h"
#include "health/verdict.h"
#include "lun/lun.h"

struct monitor;

struct monitor_options {
    const char *name; /* of the LUN, for log lines */
    unsigned probe_interval_ms, probe_timeout_ms, io_timeout_ms;
    bool check_registration; /* look for our key about once a second */
    /* When did the oldest unanswered request of the owner leave?  0: none.
     * Called from the monitor's thread; must not block.  May be NULL. */
    uint64_t (*oldest_ms)(void *opaque);
    /* When was a request of the owner last answered, with whatever but a path
     * error?  0: never.  As above; NULL: not told, and then a request under
     * way keeps an overdue probe from making LOST until it is overdue too. */
    uint64_t (*answered_ms)(void *opaque);
    /* How long the owner's requests took at the device: SLOW_BUCKETS counts
     * (slow_bucket), since ever.  As above; NULL: not told. */
    void (*durations)(void *opaque, uint64_t *counts);
    struct slow_options slow;
    /* The verdict, the registration or the LUN's status changed.  Called
     * from the monitor's thread without locks; must not block. */
    void (*changed)(void *opaque);
    void *opaque;
};

struct monitor_status {
    struct verdict verdict;
    struct lun_status lun;
    uint64_t probe_ms;     /* when the last probe answered; 0: never */
    unsigned probe_us;     /* how long it took */
    unsigned probes_stuck; /* overdue and not come back */
    /* medians of probes: of slow.h's last window, and of its past; 0: none yet
     */
    unsigned recent_us, usual_us;
};

/* monitor_start - watch l until monitor_stop.
 *
 * Tells l (lun_fail_queued) when its own paths are LOST, and when they are
 * not any more.
 *
 * One thread that never touches the device itself: probes are reads of the
 * LUN's first block on a lun_queue of its own, waited for with a deadline.
 * An overdue probe is left under way, since its coming back is news; when
 * there are two of them no new one is sent until one has come back.
 * lun_check_registration runs in a second thread, since it may hang.
 *
 * errors:  NULL and errno
 * owns:    opt is copied, but for opaque; l must outlive the monitor
 */
struct monitor *monitor_start(struct lun *l, const struct monitor_options *opt);

/* monitor_stop - end the threads and free m; NULL is fine.  Waits at most
 * for the deadline of a lun_check_registration, half a second.  No callback
 * runs afterwards. */
void monitor_stop(struct monitor *m);

/* monitor_kick - something happened: judge at once.  For lun_options.notify.
 * threads: any */
void monitor_kick(struct monitor *m);

/* monitor_path_error - a request came back with a path error (-errno). */
void monitor_path_error(struct monitor *m, int error);

/* monitor_get - copy what is known; never blocks on the device.
 *
 * st->lun is lun_get_status of this moment, the rest of the last judgement. */
void monitor_get(struct monitor *m, struct monitor_status *st);

#endif
