/* SPDX-License-Identifier: BSD-3-Clause */
/* Is a device far slower than it was itself lately?  A pure function of
 * durations and time: no I/O, no clock, no thread.
 *
 * Time is cut into windows.  What a window says is the median of its probes'
 * durations; one that is still unanswered at the window's end counts as having
 * taken until then.  The past is the median of the last SLOW_PAST windows, and
 * is not known before SLOW_PAST_MIN of them.
 *
 *   limit   factor times the past, at least least_ms
 *   far     the window is at or above the limit; and so is that of requests, by
 *           their own past, if at least SLOW_REQUESTS were answered in it
 *   near    the window is below half of the limit
 *   slow    begins with SLOW_FAR windows in a row that are far, ends with
 *           SLOW_NEAR in a row that are near
 *
 * A window without any probe says nothing, for or against.  Slow windows are
 * part of the past too: after half of SLOW_PAST they are what is usual.
 *
 * Probes decide, since each is the same read.  Requests alone say little: they
 * take longer as soon as VMs send larger ones, or more at a time.  But when
 * they are as quick as ever, the VMs have no reason to complain of the paths.
 *
 * Defaults (common/timers.h), probes take 100 ms from t=0, usually 0.5 ms:
 *
 *   t=7.5 s    earliest: 2.5 s of the window were left, so that it is far, and
 *              so is the next one
 *   t=12.5 s   latest: the window was nearly over, hence near
 *
 * and when they are quick again from t=0, 12.5 s to 17.5 s later.
 *
 * source: the median as what is usual, since half of the samples may be
 * anything without moving it far (breakdown point: F. R. Hampel, "The influence
 * curve and its role in robust estimation", JASA 69, 1974).  A factor instead
 * of a multiple of the deviation, since durations are skewed, and a least one
 * since nobody minds 2 ms where there were 0.2.
 */
#ifndef DETOUR_HEALTH_SLOW_H
#define DETOUR_HEALTH_SLOW_H

#include <stdbool.h>
#include <stdint.h>

#define SLOW_PAST     720 /* windows: an hour of 5 s each */
#define SLOW_PAST_MIN 6
#define SLOW_FAR      2
#define SLOW_NEAR     3
#define SLOW_REQUESTS 20
#define SLOW_SAMPLES  128 /* of a window; later ones are passed over */

/* How many requests took how long, ever: bucket 0 less than 1 ms, bucket i
 * less than 2^i ms, the last one anything more. */
#define SLOW_BUCKETS 18

struct slow_options {
    unsigned factor;    /* 0: never slow */
    unsigned least_ms;  /* never slow below */
    unsigned window_ms; /* several probe_intervals */
};

/* Medians of the last windows, in microseconds, a ring. */
struct slow_past {
    uint32_t us[SLOW_PAST];
    unsigned long n; /* in all */
};

/* All zeroes, but for slow_init. */
struct slow {
    bool is;
    unsigned recent_us; /* of the last window that said something; 0: none */
    unsigned usual_us;  /* the past; 0: not known yet */
    /* while it is: the two as they were when it began */
    unsigned began_us, before_us;

    /* its own memory */
    unsigned far, near; /* windows in a row */
    uint64_t since_ms;  /* when this window began */
    uint32_t us[SLOW_SAMPLES];
    unsigned n;       /* of them */
    bool have_counts; /* counts is of this window's begin */
    uint64_t counts[SLOW_BUCKETS];
    struct slow_past probes, requests;
};

/* slow_init - nothing is known; a window begins at now_ms. */
void slow_init(struct slow *s, uint64_t now_ms);

/* slow_bucket - where a request that took so many ms is counted. */
unsigned slow_bucket(uint64_t ms);

/* slow_probe - a probe was answered after us. */
void slow_probe(struct slow *s, uint64_t us);

/* slow_pause - the device is not usable, which is another matter: not slow,
 * and the window begins anew.  The past stays. */
void slow_pause(struct slow *s, uint64_t now_ms);

/* slow_due - is the window over, so that slow_step should be called? */
bool slow_due(const struct slow *s, const struct slow_options *opt,
              uint64_t now_ms);

/* slow_step - judge the window that is over; nothing if none is.
 *
 * counts: SLOW_BUCKETS of them, as they are now; NULL: requests are not told
 * pending_us: how long the newest probe has been under way; 0: none is
 *
 * returns: true when s->is changed
 */
bool slow_step(struct slow *s, const struct slow_options *opt,
               const uint64_t *counts, uint64_t pending_us, uint64_t now_ms);

#endif
