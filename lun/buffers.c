/* SPDX-License-Identifier: BSD-3-Clause */
/* Aligned buffers, kept for the next request. */
#include "lun/buffers.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "lun/lun.h"

static pthread_mutex_t shared_lock = PTHREAD_MUTEX_INITIALIZER;
static struct buffers_shelf shared; /* guarded by shared_lock */

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

static void *
take(struct buffers_shelf *s, unsigned class)
{
    void *buf = s->idle[class];

    if (buf) {
        memcpy(&s->idle[class], buf, sizeof(void *));
        s->kept -= class_size(class);
    }
    return buf;
}

/* false: there is no room for it */
static bool
lay(struct buffers_shelf *s, unsigned class, void *buf, size_t most)
{
    if (class_size(class) > most - s->kept)
        return false;
    memcpy(buf, &s->idle[class], sizeof(void *));
    s->idle[class] = buf;
    s->kept += class_size(class);
    return true;
}

static void *
take_shared(unsigned class)
{
    void *buf;

    pthread_mutex_lock(&shared_lock);
    buf = take(&shared, class);
    pthread_mutex_unlock(&shared_lock);
    return buf;
}

static bool
lay_shared(unsigned class, void *buf)
{
    bool laid;

    pthread_mutex_lock(&shared_lock);
    laid = lay(&shared, class, buf, BUFFERS_SHARED);
    pthread_mutex_unlock(&shared_lock);
    return laid;
}

void *
buffers_get(struct buffers *b, size_t size)
{
    unsigned class;
    void *buf;

    if (size > BUFFERS_MAX)
        return NULL;
    class = class_of(size);
    buf = size <= BUFFERS_SMALL ? take(&b->own, class) : take_shared(class);
    if (buf)
        return buf;
    if (posix_memalign(&buf, LUN_BUFFER_ALIGN, class_size(class)) != 0)
        return NULL;
    return buf;
}

void
buffers_put(struct buffers *b, void *buf, size_t size)
{
    unsigned class;
    bool laid;

    if (!buf)
        return;
    class = class_of(size);
    laid = size <= BUFFERS_SMALL ? lay(&b->own, class, buf, BUFFERS_KEPT)
                                 : lay_shared(class, buf);
    if (!laid)
        free(buf);
}

void
buffers_fini(struct buffers *b)
{
    for (unsigned class = 0; class < BUFFERS_CLASSES; class ++) {
        void *buf;

        while ((buf = take(&b->own, class)))
            free(buf);
    }
}
