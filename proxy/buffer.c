/* SPDX-License-Identifier: BSD-3-Clause */
/* Bytes on their way out. */
#include "proxy/buffer.h"

#include <stdlib.h>
#include <string.h>

uint8_t *
buffer_add(struct buffer *b, size_t len)
{
    uint8_t *p;

    if (b->failed)
        return NULL;
    if (len > b->cap - b->len) {
        size_t cap = 2 * (b->len + len) + 512;
        uint8_t *bigger = realloc(b->data, cap);

        if (!bigger) {
            b->failed = true;
            return NULL;
        }
        b->data = bigger;
        b->cap = cap;
    }
    p = b->data + b->len;
    b->len += len;
    return p;
}

void
buffer_append(struct buffer *b, const void *data, size_t len)
{
    uint8_t *p = buffer_add(b, len);

    if (p && len > 0)
        memcpy(p, data, len);
}

void
buffer_clear(struct buffer *b)
{
    b->len = 0;
}

void
buffer_fini(struct buffer *b)
{
    free(b->data);
    *b = (struct buffer){0};
}
