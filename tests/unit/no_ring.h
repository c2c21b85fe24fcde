/* SPDX-License-Identifier: BSD-3-Clause */
/* Tests of the block backend that run once as they are, and once where io_uring
 * is forbidden. */
#ifndef DETOUR_TESTS_NO_RING_H
#define DETOUR_TESTS_NO_RING_H

#include <errno.h>
#include <liburing.h>
#include <stdbool.h>

static bool no_ring;

int __wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring,
                               unsigned flags);
int __real_io_uring_queue_init(unsigned entries, struct io_uring *ring,
                               unsigned flags);

int
__wrap_io_uring_queue_init(unsigned entries, struct io_uring *ring,
                           unsigned flags)
{
    return no_ring ? -EPERM : __real_io_uring_queue_init(entries, ring, flags);
}

/* For a test's setup, where *state tells which of the two it is. */
static inline void
no_ring_setup(void **state)
{
    no_ring = *state != NULL;
    *state = NULL;
}

/* Both of them, for the table of tests. */
#define no_ring_tests(f, setup, teardown)                                      \
    {#f, f, setup, teardown, NULL},                                            \
    {                                                                          \
#f " (no io_uring)", f, setup, teardown, &no_ring                      \
    }

#endif
