/* SPDX-License-Identifier: BSD-3-Clause */
/* The workload: connections that ask, check nothing, and note everything. */
#ifndef BLOCKCHECK_LOAD_H
#define BLOCKCHECK_LOAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "tests/blockcheck/conn.h"
#include "tests/blockcheck/trace.h"

#define LOAD_THREADS 64
#define LOAD_DEPTH   256

/* Fixed while it runs, except for what is atomic. */
struct load {
    const char *uri;
    uint64_t offset, size; /* the range; multiples of the unit */
    uint32_t unit;         /* bytes */
    uint32_t writer;
    uint64_t seed;
    unsigned threads, depth;
    unsigned rate;         /* requests each second, all threads; 0: no limit */
    uint64_t most;         /* requests in all; 0: no limit */
    uint64_t reconnect_ns; /* how long to try again; 0: a loss is the end */
    uint64_t patience_ns;  /* for answers after the end */
    struct conn_info can;
    atomic_bool stop;       /* no new requests */
    atomic_uint seq;        /* of the last write */
    atomic_uint_fast64_t n; /* requests begun */
    atomic_uint busy;       /* threads that run */
};

/* What became of one connection's share. */
struct load_result {
    unsigned reconnects;
    uint64_t unread; /* bytes that a scan could not read */
    char lost[160];  /* why the connection could not be had again, or "" */
};

struct worker;

/* worker_start - begin to ask, on a connection and thread of its own.
 *
 * owns:    worker_join frees it; h is the worker's until then
 * errors:  NULL with errno set
 */
struct worker *worker_start(struct load *l, unsigned thread, struct trace *h);

/* worker_join - wait until it has ended: after l->stop and the last answer. */
void worker_join(struct worker *w, struct load_result *result);

/* load_scan - read the whole range once, as thread 0.
 *
 * errors:  -ENOMEM; what could not be read is told in result
 */
int load_scan(struct load *l, struct trace *h, struct load_result *result);

#endif
