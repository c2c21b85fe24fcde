/* SPDX-License-Identifier: BSD-3-Clause */
/* Aligned buffers of one queue, kept for the next request. */
#ifndef DETOUR_LUN_BUFFERS_H
#define DETOUR_LUN_BUFFERS_H

#include <stddef.h>

#define BUFFERS_CLASSES 14            /* 4 KiB, 8 KiB, ... 32 MiB */
#define BUFFERS_MAX     (32u << 20)   /* bytes of the largest one */
#define BUFFERS_KEPT    (512u * 1024) /* bytes that lie idle at most */

/* In place, zeroed to begin with.  One thread at a time. */
struct buffers {
    void *idle[BUFFERS_CLASSES]; /* each holds the next one's address */
    size_t kept;                 /* bytes in idle */
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

/* buffers_fini - free what is idle. */
void buffers_fini(struct buffers *b);

#endif
