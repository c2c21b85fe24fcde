/* SPDX-License-Identifier: BSD-3-Clause */
/* Aligned buffers of one queue, kept for the next request. */
#include "lun/buffers.h"

#include <stdlib.h>
#include <string.h>

#include "lun/lun.h"

static size_t
class_size(unsigned class)
{
    return (size_t)LUN_BUFFER_ALIGN << class;
}

static unsigned
class_of(size_t size)
{
    unsigned class = 0;

    while (class_size(class) < size)
        class ++;
    return class;
}

void *
buffers_get(struct buffers *b, size_t size)
{
    unsigned class;
    void *buf;

    if (size > BUFFERS_MAX)
        return NULL;
    class = class_of(size);
    buf = b->idle[class];
    if (buf) {
        memcpy(&b->idle[class], buf, sizeof(void *));
        b->kept -= class_size(class);
        return buf;
    }
    if (posix_memalign(&buf, LUN_BUFFER_ALIGN, class_size(class)) != 0)
        return NULL;
    return buf;
}

void
buffers_put(struct buffers *b, void *buf, size_t size)
{
    unsigned class;

    if (!buf)
        return;
    class = class_of(size);
    if (class_size(class) > BUFFERS_KEPT - b->kept) {
        free(buf);
        return;
    }
    memcpy(buf, &b->idle[class], sizeof(void *));
    b->idle[class] = buf;
    b->kept += class_size(class);
}

void
buffers_fini(struct buffers *b)
{
    for (unsigned class = 0; class < BUFFERS_CLASSES; class ++) {
        while (b->idle[class])
            free(buffers_get(b, class_size(class)));
    }
}
