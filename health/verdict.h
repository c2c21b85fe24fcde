/* SPDX-License-Identifier: BSD-3-Clause */
/* Is the LUN reachable over our own paths?  A pure function of samples and
 * time: no I/O, no clock, no thread. */
#ifndef DETOUR_HEALTH_VERDICT_H
#define DETOUR_HEALTH_VERDICT_H

#include <stdbool.h>
#include <stdint.h>

enum verdict_state {
    VERDICT_UNKNOWN,  /* nothing was heard yet */
    VERDICT_GOOD,     /* every path that is known works */
    VERDICT_DEGRADED, /* it works, over fewer paths than known */
    VERDICT_SLOW,     /* it works, but takes far longer than lately (slow.h) */
    VERDICT_LOST,     /* no path works */
};

/* Samples come from the monitor; times are on one monotonic clock, in ms. */
struct verdict_sample {
    unsigned paths_good, paths_known; /* 0 known: paths cannot be told */
    bool known;                       /* identity and size have been read */
    bool wrong_id;                    /* it is not the LUN that was expected */
    bool probe_done;        /* a probe finished since the last sample */
    int probe_error;        /* of that probe: 0 or -errno */
    uint64_t done_sent_ms;  /* when that probe left */
    uint64_t probe_sent_ms; /* when the oldest unanswered probe left; 0: none */
    uint64_t io_sent_ms; /* when the oldest unanswered request left; 0: none */
    uint64_t io_done_ms; /* when a request was last answered, with whatever
                            but a path error; 0: never, or not told */
    bool io_path_error;  /* a request came back with a path error */
    /* by slow.h: how long probes take, and what was usual; 0: not slow */
    unsigned slow_us, usual_us;
};

struct verdict_options {
    unsigned probe_timeout_ms;
    unsigned io_timeout_ms;
};

struct verdict {
    enum verdict_state state;
    uint64_t since_ms; /* of the last change of state */
    uint64_t good_ms;  /* start of the present run of good answers; 0: none.
                          An overdue probe ends a run, whatever the state */
    uint64_t slow_ms;  /* the last time it was slow; 0: never */
    char reason[160];  /* for people; never empty */

    /* verdict_step's own memory */
    uint64_t bad_ms;    /* the last time something spoke for LOST; 0: never */
    uint64_t answer_ms; /* the last time a probe was answered; 0: never */
};

/* verdict_init - start with VERDICT_UNKNOWN at now_ms. */
void verdict_init(struct verdict *v, uint64_t now_ms);

/* verdict_step - judge one sample.
 *
 * LOST when paths are known and none is good; when a probe came back with a
 * path error; when a request came back with a path error and no probe has
 * succeeded since; or when a request and a probe are both overdue (slow is
 * not dead).  A probe alone that is overdue makes LOST only when nothing
 * contradicts it: no probe and no request was answered within the last
 * probe_timeout and, where answers are not told (io_done_ms 0), no request is
 * under way that may still be answered in time.  Contradicted, it makes
 * DEGRADED.  GOOD or DEGRADED again only after a probe that was sent later
 * than the last thing that spoke for LOST has succeeded.
 *
 * SLOW instead of GOOD or DEGRADED when the sample says so; the reason tells
 * what it would be otherwise.
 *
 * UNKNOWN stays for io_timeout at most: paths that are still being opened are
 * not lost.  LOST follows when nothing good was heard by then, or at once
 * when it is another LUN.
 *
 * A probe has succeeded when the device answered it, if only with an error
 * of its own: a medium error or a reservation conflict came over a path.
 *
 * returns: true when v->state changed
 */
bool verdict_step(struct verdict *v, const struct verdict_options *opt,
                  const struct verdict_sample *s, uint64_t now_ms);

/* verdict_usable - GOOD, DEGRADED or SLOW. */
bool verdict_usable(const struct verdict *v);
const char *verdict_state_name(enum verdict_state s);

#endif
