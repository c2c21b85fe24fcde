/* SPDX-License-Identifier: BSD-3-Clause */
/* Bytes on their way out: a buffer that grows and remembers its failure. */
#ifndef DETOUR_PROXY_BUFFER_H
#define DETOUR_PROXY_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buffer {
    uint8_t *data;
    size_t len, cap;
    bool failed; /* no memory once: nothing was appended since */
};

/* buffer_add - room for len more bytes at the end, to be filled in.
 *
 * errors:  NULL: no memory, b->failed is set and stays
 * owns:    b; end it with buffer_fini.  The answer is valid until the next
 *          call on b
 */
uint8_t *buffer_add(struct buffer *b, size_t len);

/* buffer_append - copy len bytes to the end; failures as buffer_add. */
void buffer_append(struct buffer *b, const void *data, size_t len);

/* buffer_clear - forget the bytes, keep the memory. */
void buffer_clear(struct buffer *b);

/* buffer_fini - free the memory; b is empty and usable then. */
void buffer_fini(struct buffer *b);

#endif
