/* SPDX-License-Identifier: BSD-3-Clause */
/* Decides whether a history is possible for a LUN that keeps its promises. */
#ifndef BLOCKCHECK_RULING_H
#define BLOCKCHECK_RULING_H

#include <stddef.h>
#include <stdint.h>

#include "tests/blockcheck/trace.h"

/* The rules, for each unit by itself:
 *
 * 1. A unit holds one value at a time.  At first it is whatever a read that
 *    ended before the first write began found there; without such a read,
 *    anything.
 * 2. A write or zero that succeeded takes effect between its start and its
 *    answer, at least once; more often is allowed, since a route that changes
 *    sends a request again.  A trim that succeeded does so or does nothing.
 * 3. A request that failed, was lost with its connection or was never answered
 *    takes effect at any time after its start, or not at all.  But it is over
 *    when a write or zero has succeeded that began after its failure was told,
 *    if that is the same client's (one run of blockcheck is one client);
 *    another client's, if it began after the first success of what the one
 *    that failed asked for after the failure: until it is served again nobody
 *    has ended what it left.  The one that succeeded took effect after the last
 *    time that the other did.
 * 4. A read that succeeded found the value of some moment between its start and
 *    its answer.  One that failed says nothing.
 *
 * Nothing else changes a unit.  A read is a fault when no order of effects and
 * reads explains it together with all before it.  This is exact: whatever a LUN
 * of these rules can do is accepted, in any concurrency, and nothing else is
 * (reads of one unit beyond 64 at the same time are left out, and counted). */
enum fault_kind {
    FAULT_OLD,       /* an older value, though a newer one was certain */
    FAULT_NOBODY,    /* a value that nobody wrote to this unit */
    FAULT_TORN,      /* parts of two writes */
    FAULT_ELSEWHERE, /* what was written for another place */
    FAULT_FUTURE,    /* a value before its write began */
    FAULT_KINDS
};

extern const char *const fault_names[FAULT_KINDS];

struct fault {
    enum fault_kind kind;
    uint64_t offset; /* of the unit */
    uint64_t value;  /* that was found */
    size_t request;  /* the read; index into the history */
};

#define RULING_OF_KIND 4 /* faults of one kind that are told */
#define RULING_FAULTS  (RULING_OF_KIND * FAULT_KINDS)

struct ruling {
    uint64_t units; /* touched by any request */
    uint64_t reads; /* of a unit, judged */
    uint64_t left_out;
    uint64_t nfaults; /* units with a fault */
    uint64_t of_kind[FAULT_KINDS];
    size_t ntold;
    struct fault faults[RULING_FAULTS]; /* the first of each kind, by offset */
};

/* ruling_make - is it possible?  Yes when v->nfaults is 0.
 *
 * errors:  -ENOMEM; -EINVAL a request is not of whole units, or there are more
 *          than 2^31
 * threads: any; reads h only
 */
int ruling_make(const struct trace *h, struct ruling *v);

/* ruling_story - print what happened to the unit of a fault, in order of time.
 *
 * shapes:  most lines at most, those nearest to the fault
 */
void ruling_story(const struct trace *h, const struct fault *f, size_t most,
                  FILE *to);

#endif
