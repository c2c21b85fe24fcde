/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit-detour-plugin: nbdkit's callbacks, turned into requests.
 *
 * Order of the callbacks (nbdkit-plugin(3)): config and config_complete read
 * and check the configuration; after_fork starts the router, since threads
 * do not survive a fork; open to close, for each connection; cleanup stops
 * the router when the last connection has closed.  A signal that ends nbdkit
 * comes here first: ending.c.
 */
#define NBDKIT_API_VERSION 2
#define THREAD_MODEL       NBDKIT_THREAD_MODEL_PARALLEL

#include <nbdkit-plugin.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "health/control.h"
#include "lun/error.h"
#include "plugin/ending.h"
#include "plugin/orders.h"
#include "plugin/parameters.h"
#include "plugin/request.h"
#include "plugin/router.h"

/* -D detour.log=1: debug lines too */
NBDKIT_DLL_PUBLIC int detour_debug_log;

static struct parameters parameters; /* fixed after config_complete */
/* fixed after after_fork */
static struct router *router;
static struct control *control;
static char *control_path;

/* ---- configuration ----------------------------------------------------- */

static int
detour_config(const char *key, const char *value)
{
    return parameters_set(&parameters, key, value);
}

static int
detour_config_complete(void)
{
    return parameters_complete(&parameters);
}

#define detour_config_help                                                     \
    "lun=NAME      (required) a [lun NAME] section of the configuration\n"     \
    "config=FILE   the configuration; default " CONFIG_DEFAULT_FILE "\n"       \
    "client=NAME   tells plugins that serve one LUN on one host apart;\n"      \
    "              default 'main'"

static void
detour_dump_plugin(void)
{
    printf("detour_version=%s\n", DETOUR_VERSION);
    printf("detour_default_config=%s\n", CONFIG_DEFAULT_FILE);
    printf("detour_backends=block,iscsi\n");
    printf("detour_fence=pr,drain\n");
}

/* ---- life -------------------------------------------------------------- */

static int
start_control(void)
{
    const struct config *config = parameters.config;

    if (asprintf(&control_path, "%s/plugin-%s-%s.sock", config->rundir,
                 parameters.lun->name, parameters.client) < 0) {
        control_path = NULL;
        nbdkit_error("asprintf: %m");
        return -1;
    }
    control = control_start(control_path, orders_handle, router);
    if (!control) {
        nbdkit_error("%s: cannot listen: %m", control_path);
        return -1;
    }
    control_let_read(control, config->health.group);
    return 0;
}

static int
detour_get_ready(void)
{
    log_init("nbdkit: detour",
             detour_debug_log ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    return 0;
}

/* nbdkit exits when after_fork fails, without a call to cleanup. */
static int
stop_router(void)
{
    router_stop(router);
    router = NULL;
    return -1;
}

static int
start_ending(void)
{
    const struct ending_options opt = {router, control, parameters.lun->name};

    return ending_start(&opt);
}

static int
detour_after_fork(void)
{
    struct router_options opt = {parameters.config, parameters.lun,
                                 parameters.client};
    char err[512];
    int e = request_thread_init();

    if (e < 0) {
        nbdkit_error("cannot start: %s", strerror(-e));
        return -1;
    }
    router = router_start(&opt, err, sizeof err);
    if (!router) {
        nbdkit_error("%s", err);
        return -1;
    }
    if (start_control() < 0)
        return stop_router();
    /* the last one, since nbdkit exits when it cannot be had */
    if (start_ending() == 0)
        return 0;
    control_stop(control);
    return stop_router();
}

static void
detour_cleanup(void)
{
    /* With nbdkit -s the end of the connection is the end, without a word to
     * those who sleep. */
    nbdkit_shutdown();
    ending_stop();
    control_stop(control);
    if (router)
        request_thread_fini();
    router_stop(router);
    router = NULL;
    control = NULL;
}

static void
detour_unload(void)
{
    parameters_fini(&parameters);
    free(control_path);
}

/* ---- a connection ------------------------------------------------------ */

static void *
detour_open(int readonly)
{
    (void)readonly;
    ending_connected();
    return NBDKIT_HANDLE_NOT_NEEDED;
}

/* The calling thread may be the one that made requests (nbdkit -t 1), and is
 * not waited for before cleanup. */
static void
detour_close(void *handle)
{
    (void)handle;
    ending_disconnected();
    request_thread_end();
}

static int
get_lun(struct router_lun *l)
{
    int e = router_get_lun(router, l, parameters.lun->timers.queue_limit);

    if (e == -ESHUTDOWN)
        nbdkit_error("lun %s: stopping", parameters.lun->name);
    else if (e < 0)
        nbdkit_error("lun %s: its size is not known: no path of our own and "
                     "no peer told it",
                     parameters.lun->name);
    if (e < 0) {
        nbdkit_set_error(-e);
    }
    return e < 0 ? -1 : 0;
}

static int64_t
detour_get_size(void *handle)
{
    struct router_lun l;

    (void)handle;
    return get_lun(&l) < 0 ? -1 : (int64_t)l.size;
}

static int
detour_block_size(void *handle, uint32_t *minimum, uint32_t *preferred,
                  uint32_t *maximum)
{
    struct router_lun l;

    (void)handle;
    if (get_lun(&l) < 0)
        return -1;
    *minimum = l.block_size;
    *preferred = l.preferred;
    *maximum = l.max_io;
    return 0;
}

static int
detour_can_write(void *handle)
{
    struct router_lun l;

    (void)handle;
    return get_lun(&l) < 0 ? -1 : !l.readonly;
}

static int
yes(void *handle)
{
    (void)handle;
    return 1;
}

static int
no(void *handle)
{
    (void)handle;
    return 0;
}

static int
fua_native(void *handle)
{
    (void)handle;
    return NBDKIT_FUA_NATIVE;
}

static int
cache_nothing(void *handle)
{
    (void)handle;
    return NBDKIT_CACHE_NONE;
}

/* ---- requests ---------------------------------------------------------- */

static const char *
op_name(enum lun_op op)
{
    static const char *const names[] = {
        [LUN_READ] = "read", [LUN_WRITE] = "write", [LUN_FLUSH] = "flush",
        [LUN_TRIM] = "trim", [LUN_ZERO] = "zero",
    };

    return names[op];
}

/* nbdkit would make EINVAL of errors that NBD has no word for. */
static int
wire_errno(int e)
{
    return lun_error_class(-e) == LUN_CLASS_LUN && e != ENOSPC && e != EDQUOT
               ? EIO
               : e;
}

/* nbdkit tells nobody that a client has gone, or has said NBD_CMD_DISC; but a
 * sleep ends early then, with a word in the log (nbdkit_nanosleep in nbdkit's
 * server/public.c). */
static bool
client_gone(void)
{
    return nbdkit_nanosleep(0, 0) < 0;
}

#define DROP_APART_MS 20

/* nbdkit before 1.34 may abort when two replies fail at the same time, as those
 * to a client that is gone do.  What was held comes out all at once; the first
 * reply that fails keeps nbdkit from sending the others. */
static void
drop_apart(void)
{
    static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
    const struct timespec apart = {.tv_nsec = DROP_APART_MS * 1000000};

    pthread_mutex_lock(&turn);
    nanosleep(&apart, NULL);
    pthread_mutex_unlock(&turn);
}

static int
run(struct request *q)
{
    int e;

    q->client_gone = client_gone;
    e = request_run(router, q, parameters.lun->timers.queue_limit);
    if (e == 0)
        return 0;
    if (e == -EOPNOTSUPP && q->op == LUN_ZERO) { /* nbdkit writes zeroes */
        nbdkit_set_error(EOPNOTSUPP);
        return -1;
    }
    nbdkit_error("lun %s: %s of %llu bytes at %llu: %s", parameters.lun->name,
                 op_name(q->op), (unsigned long long)q->count,
                 (unsigned long long)q->offset,
                 e == -ECANCELED
                     ? "not sent: it was held, and its client is gone"
                     : strerror(-e));
    if (e == -ECANCELED)
        drop_apart();
    nbdkit_set_error(e == -ECANCELED ? ESHUTDOWN : wire_errno(-e));
    return -1;
}

static unsigned
flags_of(uint32_t flags)
{
    return (flags & NBDKIT_FLAG_FUA) ? LUN_FUA : 0;
}

static int
detour_pread(void *handle, void *buf, uint32_t count, uint64_t offset,
             uint32_t flags)
{
    struct request q = {.op = LUN_READ,
                        .flags = flags_of(flags),
                        .offset = offset,
                        .count = count,
                        .data = buf};

    (void)handle;
    return run(&q);
}

static int
detour_pwrite(void *handle, const void *buf, uint32_t count, uint64_t offset,
              uint32_t flags)
{
    struct request q = {.op = LUN_WRITE,
                        .flags = flags_of(flags),
                        .offset = offset,
                        .count = count};

    (void)handle;
    /* struct request has one pointer for both ways; a WRITE only reads. */
    memcpy(&q.data, &buf, sizeof q.data);
    return run(&q);
}

static int
detour_flush(void *handle, uint32_t flags)
{
    struct request q = {.op = LUN_FLUSH, .flags = flags_of(flags)};

    (void)handle;
    return run(&q);
}

static int
detour_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct request q = {.op = LUN_TRIM,
                        .flags = flags_of(flags),
                        .offset = offset,
                        .count = count};

    (void)handle;
    return run(&q);
}

static int
detour_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct request q = {.op = LUN_ZERO,
                        .flags = flags_of(flags),
                        .offset = offset,
                        .count = count};

    (void)handle;
    if (!(flags & NBDKIT_FLAG_MAY_TRIM))
        q.flags |= LUN_NO_HOLE;
    return run(&q);
}

#define EXTENTS_MAX 64

static int
detour_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
               struct nbdkit_extents *extents)
{
    struct lun_extent ext[EXTENTS_MAX];
    int n = request_extents(router, offset, count, ext,
                            (flags & NBDKIT_FLAG_REQ_ONE) ? 1 : EXTENTS_MAX);

    (void)handle;
    if (n < 0) {
        nbdkit_set_error(-n);
        return -1;
    }
    for (int i = 0; i < n; i++) {
        uint32_t type =
            ext[i].hole ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;

        if (nbdkit_add_extent(extents, offset, ext[i].count, type) < 0)
            return -1;
        offset += ext[i].count;
    }
    return 0;
}

static struct nbdkit_plugin plugin = {
    .name = "detour",
    .version = DETOUR_VERSION,
    .longname = "detour: a shared LUN that outlives the loss of its paths",
    .description = "Serves a shared LUN to this host's virtual machines.  When "
                   "the host loses\nits own paths, I/O takes a detour over "
                   "mutual TLS to a peer that has them.",
    .unload = detour_unload,
    .config = detour_config,
    .config_complete = detour_config_complete,
    .config_help = detour_config_help,
    .magic_config_key = "lun",
    .dump_plugin = detour_dump_plugin,
    .get_ready = detour_get_ready,
    .after_fork = detour_after_fork,
    .cleanup = detour_cleanup,
    .open = detour_open,
    .close = detour_close,
    .get_size = detour_get_size,
    .block_size = detour_block_size,
    .can_write = detour_can_write,
    .can_flush = yes,
    .is_rotational = no,
    .can_trim = yes,
    .can_zero = yes,
    .can_fast_zero = no,
    .can_fua = fua_native,
    .can_multi_conn = yes,
    .can_cache = cache_nothing,
    .can_extents = yes,
    .pread = detour_pread,
    .pwrite = detour_pwrite,
    .flush = detour_flush,
    .trim = detour_trim,
    .zero = detour_zero,
    .extents = detour_extents,
    .errno_is_preserved = 0,
};

/* The macro makes it without one. */
struct nbdkit_plugin *plugin_init(void);

NBDKIT_REGISTER_PLUGIN(plugin)
