/* SPDX-License-Identifier: BSD-3-Clause */
/* The plugin's end: nbdkit quits, or a signal asks for it.
 *
 * Threads: one waits for nbdkit to quit, one for a signal; nbdkit's call
 * ending_stop and tell of connections.
 */
#include "plugin/ending.h"

#define NBDKIT_API_VERSION 2

#include <nbdkit-plugin.h>

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "plugin/request.h"

#define QUIT_S 1 /* nbdkit may take so long when it is told to quit */

/* fixed after ending_start */
static struct ending_options own;
static pthread_t quit_watcher, end_watcher;
static bool started;
static pthread_mutex_t end_lock = PTHREAD_MUTEX_INITIALIZER;
static bool handing_over; /* guarded by end_lock */
/* by themselves */
static sem_t end_asked;
static atomic_bool cleaning;
static atomic_uint connections;

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
        router_close(own.router);
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
    control_stop(own.control);
    request_hand_over();
    router_hand_over(own.router);
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
                 own.lun, n, n == 1 ? "" : "s");
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

int
ending_start(const struct ending_options *opt)
{
    own = *opt;
    if (pthread_create(&quit_watcher, NULL, watch_quit, NULL) != 0) {
        nbdkit_error("cannot start a thread");
        return -1;
    }
    started = start_end_watcher() == 0;
    return started ? 0 : -1;
}

void
ending_stop(void)
{
    if (!started)
        return;
    stop_end_watcher();
    pthread_join(quit_watcher, NULL);
    started = false;
}

void
ending_connected(void)
{
    atomic_fetch_add(&connections, 1);
}

void
ending_disconnected(void)
{
    atomic_fetch_sub(&connections, 1);
}
