/* SPDX-License-Identifier: BSD-3-Clause */
/* An nbdkit plugin with nothing but lun/ below it: no routes, no gate, no
 * monitor, no deadline.  What detour's own plugin costs beside it, those
 * cost (`make bench B=bare').
 *
 * Parameter: device=PATH.  Requests larger than the LUN takes at once are
 * refused: the benchmark makes none.
 */
#define NBDKIT_API_VERSION 2
#define THREAD_MODEL       NBDKIT_THREAD_MODEL_PARALLEL

#include <nbdkit-plugin.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "lun/lun.h"

#define STOP_MS 1000

static char *device;
static struct lun *lun;
static pthread_key_t queue_key;

static int
bare_config(const char *key, const char *value)
{
    if (strcmp(key, "device") != 0 || device) {
        nbdkit_error("device=PATH, once, and nothing else");
        return -1;
    }
    device = nbdkit_realpath(value);
    return device ? 0 : -1;
}

static void
drop_queue(void *q)
{
    lun_queue_destroy(q);
}

static int
bare_after_fork(void)
{
    struct lun_options opt = {
        .name = "bare",
        .device = device,
        .process = "bare",
        .cluster_number = 1,
        .host_number = 1,
        .fence = LUN_FENCE_DRAIN,
        .probe_interval_ms = 250,
        .probe_timeout_ms = 750,
    };

    lun = device && pthread_key_create(&queue_key, drop_queue) == 0
              ? lun_create(&opt)
              : NULL;
    if (!lun)
        nbdkit_error("cannot use device=%s: %m", device ? device : "");
    return lun ? 0 : -1;
}

static void
bare_cleanup(void)
{
    lun_destroy(lun, clock_ms() + STOP_MS);
}

static void
bare_unload(void)
{
    free(device);
}

static void *
bare_open(int readonly)
{
    (void)readonly;
    return NBDKIT_HANDLE_NOT_NEEDED;
}

static void
bare_close(void *handle)
{
    (void)handle;
    lun_queue_destroy(pthread_getspecific(queue_key));
    pthread_setspecific(queue_key, NULL);
}

static int64_t
bare_get_size(void *handle)
{
    struct lun_status st;

    (void)handle;
    lun_get_status(lun, &st);
    if (!st.known) {
        nbdkit_error("%s is not there (yet)", device);
        return -1;
    }
    return (int64_t)st.size;
}

static int
yes(void *handle)
{
    (void)handle;
    return 1;
}

static struct lun_queue *
thread_queue(void)
{
    struct lun_queue *q = pthread_getspecific(queue_key);

    if (!q) {
        q = lun_queue_create(lun);
        pthread_setspecific(queue_key, q);
    }
    return q;
}

static int
finish(struct lun_io *io, int error)
{
    lun_io_put(io);
    if (error)
        nbdkit_set_error(-error);
    return error ? -1 : 0;
}

/* The caller's data goes in, or comes out. */
static int
run(enum lun_op op, const void *from, void *to, uint32_t count, uint64_t offset)
{
    struct lun_queue *q = thread_queue();
    struct lun_io *io = q ? lun_io_get(q, count) : NULL;

    if (!io) {
        nbdkit_set_error(ENOMEM);
        return -1;
    }
    io->op = op;
    io->offset = offset;
    io->count = count;
    if (from)
        memcpy(io->data, from, count);
    if (!lun_run(q, io, CLOCK_NEVER)) {
        nbdkit_set_error(EIO);
        return -1;
    }
    if (to && io->error == 0)
        memcpy(to, io->data, count);
    return finish(io, io->error);
}

static int
bare_pread(void *handle, void *buf, uint32_t count, uint64_t offset,
           uint32_t flags)
{
    (void)handle;
    (void)flags;
    return run(LUN_READ, NULL, buf, count, offset);
}

static int
bare_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
            uint32_t flags)
{
    (void)handle;
    (void)flags;
    return run(LUN_WRITE, buf, NULL, count, offset);
}

static int
bare_flush(void *handle, uint32_t flags)
{
    (void)handle;
    (void)flags;
    return run(LUN_FLUSH, NULL, NULL, 0, 0);
}

static struct nbdkit_plugin plugin = {
    .name = "bare",
    .longname = "lun/ and nothing else, for the benchmarks",
    .config = bare_config,
    .after_fork = bare_after_fork,
    .cleanup = bare_cleanup,
    .unload = bare_unload,
    .open = bare_open,
    .close = bare_close,
    .get_size = bare_get_size,
    .can_multi_conn = yes,
    .can_flush = yes,
    .pread = bare_pread,
    .pwrite = bare_pwrite,
    .flush = bare_flush,
};

NBDKIT_REGISTER_PLUGIN(plugin)
