/* SPDX-License-Identifier: BSD-3-Clause */
/* nbdkit-detour-plugin: nbdkit's callbacks, turned into requests.
 *
 * Order of the callbacks (nbdkit-plugin(3)): config and config_complete read
 * and check the configuration; after_fork starts the router, since threads
 * do not survive a fork; open to close, for each connection; cleanup stops
 * the router when the last connection has closed.  A signal that ends nbdkit
 * comes here first, see end_when_asked.
 */
#define NBDKIT_API_VERSION 2
#define THREAD_MODEL       NBDKIT_THREAD_MODEL_PARALLEL

#include <nbdkit-plugin.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/config.h"
#include "common/log.h"
#include "health/control.h"
#include "lun/error.h"
#include "plugin/request.h"
#include "plugin/router.h"

#define QUIT_S 1 /* nbdkit may take so long when it is told to quit */

/* -D detour.log=1: debug lines too */
NBDKIT_DLL_PUBLIC int detour_debug_log;

/* fixed after config_complete */
static char *param_lun, *param_config, *param_client;
static struct config *config;
static const struct config_lun *lun;
/* fixed after after_fork */
static struct router *router;
static struct control *control;
static char *control_path;
static pthread_t quit_watcher, end_watcher;
static bool have_quit_watcher;
static pthread_mutex_t end_lock = PTHREAD_MUTEX_INITIALIZER;
static bool handing_over; /* guarded by end_lock */
/* by themselves */
static sem_t end_asked;
static atomic_bool cleaning;
static atomic_uint connections;

/* ---- configuration ----------------------------------------------------- */

static int
set_once(char **to, const char *key, const char *value)
{
    if (*to) {
        nbdkit_error("%s= was given twice", key);
        return -1;
    }
    *to = strdup(value);
    if (!*to)
        nbdkit_error("strdup: %m");
    return *to ? 0 : -1;
}

static int
detour_config(const char *key, const char *value)
{
    if (strcmp(key, "lun") == 0)
        return set_once(&param_lun, key, value);
    if (strcmp(key, "client") == 0)
        return set_once(&param_client, key, value);
    if (strcmp(key, "config") == 0) {
        char *path = nbdkit_absolute_path(value);
        int r = path ? set_once(&param_config, key, path) : -1;

        free(path);
        return r;
    }
    nbdkit_error("unknown parameter '%s': see nbdkit detour --help", key);
    return -1;
}

/* Each line that config_load wrote becomes one nbdkit_error. */
static void
tell_lines(char *text)
{
    char *save = NULL;

    for (char *line = strtok_r(text, "\n", &save); line;
         line = strtok_r(NULL, "\n", &save))
        nbdkit_error("%s", line);
}

static int
load_config(void)
{
    const char *file = param_config ? param_config : CONFIG_DEFAULT_FILE;
    char *text = NULL;
    size_t len = 0;
    FILE *errors = open_memstream(&text, &len);

    if (!errors) {
        nbdkit_error("open_memstream: %m");
        return -1;
    }
    config = config_load(file, errors);
    fclose(errors);
    if (!config) {
        tell_lines(text);
        nbdkit_error("%s: not usable: see the lines above", file);
    }
    free(text);
    return config ? 0 : -1;
}

static bool
name_is_plain(const char *name)
{
    return name[0] != '\0' && strlen(name) < 64 &&
           name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuv"
                             "wxyz0123456789_-")] == '\0';
}

/* By the proxy, which is a process of this host as well, and by what lies in
 * statedir beside LUN.CLIENT. */
static bool
name_is_taken(const char *name)
{
    return strcmp(name, "proxy") == 0 || strcmp(name, "epoch") == 0 ||
           strcmp(name, "keys") == 0;
}

static int
detour_config_complete(void)
{
    if (!param_lun) {
        nbdkit_error("lun=NAME is needed: a [lun NAME] section of the "
                     "configuration file");
        return -1;
    }
    if (!param_client && set_once(&param_client, "client", "main") < 0)
        return -1;
    if (!name_is_plain(param_client)) {
        nbdkit_error("client=%s: up to 63 letters, digits, '_' and '-'",
                     param_client);
        return -1;
    }
    if (name_is_taken(param_client)) {
        nbdkit_error("client=%s: taken by other files of a LUN", param_client);
        return -1;
    }
    if (load_config() < 0)
        return -1;
    lun = config_lun(config, param_lun);
    if (!lun) {
        nbdkit_error("%s has no section [lun %s]", config->file, param_lun);
        return -1;
    }
    if (!config_lun_has(lun, config->self)) {
        nbdkit_error("%s: host %s is not one of the hosts of LUN %s",
                     config->file, config->self->name, lun->name);
        return -1;
    }
    return 0;
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

/* ---- status and orders ------------------------------------------------- */

static unsigned
reply_error(json_t **reply, unsigned status, const char *text)
{
    *reply = json_pack("{ss}", "error", text);
    return status;
}

static unsigned
confirm_dead(const json_t *body, json_t **reply)
{
    const json_t *host = body ? json_object_get(body, "host") : NULL;
    char err[256], by[64];

    if (!json_is_string(host))
        return reply_error(reply, 400, "\"host\" must be a host's name");
    control_caller(by, sizeof by);
    if (router_confirm_dead(router, json_string_value(host), by, err,
                            sizeof err) < 0)
        return reply_error(reply, 409, err);
    return 200;
}

/* The orders; NULL at the end. */
static const char *const orders[] = {"/redirect", "/return", "/confirm-dead",
                                     NULL};

static bool
is_order(const char *path)
{
    for (size_t i = 0; orders[i]; i++)
        if (strcmp(path, orders[i]) == 0)
            return true;
    return false;
}

static unsigned
redirect(const json_t *body, json_t **reply)
{
    const json_t *peer = json_object_get(body, "peer");
    const json_t *for_s = json_object_get(body, "for_s");
    json_int_t s = json_integer_value(for_s);
    struct router_order order = {.peer = json_string_value(peer)};
    char err[256];

    if (peer && !json_is_string(peer) && !json_is_null(peer))
        return reply_error(reply, 400, "\"peer\" must be a host's name");
    if (for_s && (s < 1 || s > ROUTER_ORDER_MAX_S))
        return reply_error(reply, 400,
                           "\"for_s\" must be whole seconds, 1 to 86400");
    order.for_ms = (uint64_t)s * 1000;
    if (router_redirect(router, &order, err, sizeof err) < 0)
        return reply_error(reply, 409, err);
    return 200;
}

static unsigned
order(const char *path, const json_t *body, json_t **reply)
{
    if (strcmp(path, "/redirect") == 0)
        return redirect(body, reply);
    if (strcmp(path, "/confirm-dead") == 0)
        return confirm_dead(body, reply);
    router_return(router);
    return 200;
}

static unsigned
control_request(void *opaque, const char *method, const char *path,
                const json_t *body, json_t **reply)
{
    (void)opaque;
    if (strcmp(path, "/status") == 0) {
        if (strcmp(method, "GET") != 0)
            return reply_error(reply, 405, "status is asked with GET");
        *reply = router_status(router);
        return *reply ? 200 : reply_error(reply, 500, "no memory");
    }
    if (is_order(path)) {
        if (strcmp(method, "POST") != 0)
            return reply_error(reply, 405, "orders are given with POST");
        return order(path, body, reply);
    }
    return reply_error(reply, 404,
                       "only /status, /redirect, /return, /confirm-dead");
}

/* ---- life -------------------------------------------------------------- */

/* nbdkit has no callback for "we are shutting down", and waits for requests
 * before cleanup; but nbdkit_nanosleep ends early then.  Requests that are
 * held, or hang, are let go from here. */
static void *
watch_quit(void *opaque)
{
    (void)opaque;
    while (nbdkit_nanosleep(3600, 0) == 0)
        ;
    pthread_mutex_lock(&end_lock);
    if (!handing_over) /* or the router ends already */
        router_close(router);
    pthread_mutex_unlock(&end_lock);
    return NULL;
}

static void
ask_for_end(int signal)
{
    int saved = errno;

    (void)signal;
    sem_post(&end_asked); /* may be called from a signal handler */
    errno = saved;
}

/* What makes nbdkit quit; restored before the plugin is unloaded. */
static const int end_signals[] = {SIGTERM, SIGINT, SIGHUP};
#define END_SIGNALS (sizeof end_signals / sizeof end_signals[0])
static struct sigaction nbdkits_own[END_SIGNALS];

static void
hand_over(void)
{
    pthread_mutex_lock(&end_lock);
    handing_over = true;
    pthread_mutex_unlock(&end_lock);
    control_stop(control);
    request_hand_over();
    router_hand_over(router);
    _exit(EXIT_SUCCESS);
}

/* false: nbdkit has not come to our cleanup by deadline. */
static bool
wait_for_cleanup(const struct timespec *deadline)
{
    while (!atomic_load(&cleaning)) {
        if (sem_clockwait(&end_asked, CLOCK_MONOTONIC, deadline) < 0 &&
            errno == ETIMEDOUT)
            return false;
    }
    return true;
}

/* SIGTERM is an upgrade, or a restart by the administrator, and must not be an
 * I/O error to a VM.  But from the moment that nbdkit knows of it, nbdkit
 * answers ESHUTDOWN to all that comes, and waits for ever for clients that ask
 * nothing (server/protocol.c, server/sockets.c).  So it is never told while VMs
 * are connected: the route is left in good order, what has no answer then gets
 * none, and the process ends; a client with reconnect-delay asks the successor.
 * exit(3) would run the destructors of libraries beneath nbdkit's threads. */
static void *
end_when_asked(void *opaque)
{
    struct timespec deadline;
    unsigned n;

    (void)opaque;
    while (sem_wait(&end_asked) < 0)
        ;
    if (atomic_load(&cleaning))
        return NULL;
    n = atomic_load(&connections);
    if (n > 0) {
        log_info("lun %s: stopping under %u connection%s: what is not answered "
                 "is left to the successor",
                 lun->name, n, n == 1 ? "" : "s");
        hand_over();
    }
    nbdkit_shutdown();
    /* it waits also for a client that has only begun to talk */
    clock_gettime(CLOCK_MONOTONIC, &deadline);
    deadline.tv_sec += QUIT_S;
    if (!wait_for_cleanup(&deadline))
        hand_over();
    return NULL;
}

static int
start_end_watcher(void)
{
    struct sigaction act = {.sa_handler = ask_for_end, .sa_flags = SA_RESTART};

    if (sem_init(&end_asked, 0, 0) < 0 ||
        pthread_create(&end_watcher, NULL, end_when_asked, NULL) != 0) {
        nbdkit_error("cannot start a thread");
        return -1;
    }
    for (size_t i = 0; i < END_SIGNALS; i++)
        sigaction(end_signals[i], &act, &nbdkits_own[i]);
    return 0;
}

static void
stop_end_watcher(void)
{
    for (size_t i = 0; i < END_SIGNALS; i++)
        sigaction(end_signals[i], &nbdkits_own[i], NULL);
    atomic_store(&cleaning, true);
    sem_post(&end_asked);
    pthread_join(end_watcher, NULL);
}

static int
start_control(void)
{
    if (asprintf(&control_path, "%s/plugin-%s-%s.sock", config->rundir,
                 lun->name, param_client) < 0) {
        control_path = NULL;
        nbdkit_error("asprintf: %m");
        return -1;
    }
    control = control_start(control_path, control_request, NULL);
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
detour_after_fork(void)
{
    struct router_options opt = {config, lun, param_client};
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
    have_quit_watcher =
        pthread_create(&quit_watcher, NULL, watch_quit, NULL) == 0;
    if (!have_quit_watcher)
        nbdkit_error("cannot start a thread");
    /* the last one, since nbdkit exits when it cannot be had */
    if (have_quit_watcher && start_end_watcher() == 0)
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
    if (have_quit_watcher) {
        stop_end_watcher();
        pthread_join(quit_watcher, NULL);
    }
    control_stop(control);
    if (router)
        request_thread_fini();
    router_stop(router);
    router = NULL;
    control = NULL;
    have_quit_watcher = false;
}

static void
detour_unload(void)
{
    config_destroy(config);
    free(control_path);
    free(param_lun);
    free(param_config);
    free(param_client);
}

/* ---- a connection ------------------------------------------------------ */

static void *
detour_open(int readonly)
{
    (void)readonly;
    atomic_fetch_add(&connections, 1);
    return NBDKIT_HANDLE_NOT_NEEDED;
}

/* The calling thread may be the one that made requests (nbdkit -t 1), and is
 * not waited for before cleanup. */
static void
detour_close(void *handle)
{
    (void)handle;
    atomic_fetch_sub(&connections, 1);
    request_thread_end();
}

static int
get_lun(struct router_lun *l)
{
    int e = router_get_lun(router, l, lun->timers.queue_limit);

    if (e == -ESHUTDOWN)
        nbdkit_error("lun %s: stopping", lun->name);
    else if (e < 0)
        nbdkit_error("lun %s: its size is not known: no path of our own and "
                     "no peer told it",
                     lun->name);
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

static int
run(const struct request *q)
{
    int e = request_run(router, q, lun->timers.queue_limit);

    if (e == 0)
        return 0;
    if (e == -EOPNOTSUPP && q->op == LUN_ZERO) { /* nbdkit writes zeroes */
        nbdkit_set_error(EOPNOTSUPP);
        return -1;
    }
    nbdkit_error("lun %s: %s of %llu bytes at %llu: %s", lun->name,
                 op_name(q->op), (unsigned long long)q->count,
                 (unsigned long long)q->offset, strerror(-e));
    nbdkit_set_error(wire_errno(-e));
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
    struct request q = {LUN_READ, flags_of(flags), offset, count, buf};

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
    struct request q = {LUN_FLUSH, flags_of(flags), 0, 0, NULL};

    (void)handle;
    return run(&q);
}

static int
detour_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct request q = {LUN_TRIM, flags_of(flags), offset, count, NULL};

    (void)handle;
    return run(&q);
}

static int
detour_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
    struct request q = {LUN_ZERO, flags_of(flags), offset, count, NULL};

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
