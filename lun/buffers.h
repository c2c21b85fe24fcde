/* SPDX-License-Identifier: BSD-3-Clause */
/* Aligned buffers, kept for the next request: small ones by the queue they
 * were used on, large ones by the process, for any queue.
 *
 * A large buffer that goes back to malloc goes back to the kernel, and each of
 * its pages has to be faulted in and cleared when the next one is made: that
 * took half of the CPU time of 1 MiB reads. */
#ifndef DETOUR_LUN_BUFFERS_H
#define DETOUR_LUN_BUFFERS_H

#include <stddef.h>

#define BUFFERS_CLASSES 14            /* 4 KiB, 8 KiB, ... 32 MiB */
#define BUFFERS_MAX     (32u << 20)   /* bytes of the largest one */
#define BUFFERS_SMALL   (64u * 1024)  /* bytes of the largest small one */
#define BUFFERS_KEPT    (256u * 1024) /* bytes that lie idle in a queue */
#define BUFFERS_SHARED  (8u << 20)    /* and in the process, at most */

/* Idle buffers; each holds the next one's address. */
struct buffers_shelf {
    void *idle[BUFFERS_CLASSES];
    size_t kept; /* bytes in idle */
};

/* In place, zeroed to begin with.  One thread at a time. */
struct buffers {
    struct buffers_shelf own;
};

/* buffers_get - a buffer of at least size bytes, aligned to
 * LUN_BUFFER_ALIGN; its content is left over from earlier.
 *
 * errors:  NULL: no memory, or size > BUFFERS_MAX
 * owns:    the caller, ended by buffers_put, or by free() from any thread
 */
void *buffers_get(struct buffers *b, size_t size);

/* buffers_put - size as given to buffers_get; NULL is fine. */
void buffers_put(struct buffers *b, void *buf, size_t size);

/* buffers_fini - free what is idle in b; the process keeps its share. */
void buffers_fini(struct buffers *b);

#endif
