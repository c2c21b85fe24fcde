/* SPDX-License-Identifier: BSD-3-Clause */
/* detour-proxy: serves this host's LUNs to authenticated peers. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/daemon.h"
#include "common/listen.h"
#include "common/log.h"
#include "health/control.h"
#include "proxy/conn.h"
#include "proxy/limit.h"
#include "proxy/server.h"
#include "proxy/status.h"

/* From SIGTERM on: connections have so long to end, then the LUNs' orphans,
 * then the process ends as it is. */
#define STOP_CONNS_MS 1500
#define STOP_LUNS_MS  200
#define STOP_S        2
/* Connections taken from one listener before the others, and signals, get their
 * turn. */
#define ACCEPT_IN_A_ROW 64
/* After accept() found no descriptor or no memory. */
#define ACCEPT_PAUSE_MS 100
/* That is tried ten times a second, for as long as it lasts: told so often. */
#define ACCEPT_TELL_MS 10000

static const char usage[] =
    "Usage: detour-proxy [--config FILE] [--debug] [--check]\n"
    "       detour-proxy --version | --help\n"
    "\n"
    "Serves this host's LUNs to the other hosts of the cluster, NBD over TLS.\n"
    "\n"
    "  --config FILE  configuration (default " CONFIG_DEFAULT_FILE ")\n"
    "  --debug        log each connection's story\n"
    "  --check        check configuration and certificates, then exit\n"
    "  --version      print the version, then exit\n"
    "  --help         print this, then exit\n";

/* Held as long as the process lives; the kernel lets go of it. */
static bool
lock_host(const struct config *c)
{
    char path[4096];
    int fd;

    if (mkdir(c->rundir, 0755) < 0 && errno != EEXIST) {
        log_error("rundir %s: %s", c->rundir, strerror(errno));
        return false;
    }
    snprintf(path, sizeof path, "%s/proxy.lock", c->rundir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
        return true;
    if (fd >= 0 && errno == EWOULDBLOCK)
        log_error("%s: another detour-proxy of this host runs already", path);
    else
        log_error("%s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return false;
}

/* sd_notify(3), without the library. */
static void
notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    socklen_t len;
    int fd;

    if (!path || (path[0] != '/' && path[0] != '@') ||
        strlen(path) >= sizeof to.sun_path)
        return;
    strcpy(to.sun_path, path);
    len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path));
    if (path[0] == '@')
        to.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL,
                         (struct sockaddr *)&to, len) < 0)
        log_warning("cannot notify systemd: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void
tell_no_room(int error)
{
    static struct limit told = {.burst = 2, .every_ms = ACCEPT_TELL_MS};
    unsigned withheld;

    if (limit_allow(&told, clock_ms(), &withheld))
        log_error("accept: %s: peers that connect now must wait (%u more "
                  "tries since this was last said)",
                  strerror(error), withheld);
}

/* Returns false when there is no room for a connection now. */
static bool
accept_some(struct server *s, int listener)
{
    for (unsigned i = 0; i < ACCEPT_IN_A_ROW; i++) {
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof from;
        int fd = accept4(listener, (struct sockaddr *)&from, &len,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            conn_start_take_fd(s, fd, &from);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM ||
            errno == ENOBUFS) {
            tell_no_room(errno);
            return false;
        }
        /* what else is said is that connection's own misfortune */
        if (errno == EAGAIN)
            break;
    }
    return true;
}

static void
reload(struct server *s)
{
    notify("RELOADING=1");
    server_reload(s);
    notify("READY=1");
}

/* Returns when it is time to stop.  fds: the signals, then the listeners. */
static void
serve(struct server *s, struct pollfd *fds, size_t n)
{
    for (;;) {
        struct signalfd_siginfo info;
        bool room = true;

        if (poll(fds, n, -1) < 0)
            continue;
        if (fds[0].revents && read(fds[0].fd, &info, sizeof info) > 0) {
            if (info.ssi_signo != SIGHUP)
                return;
            reload(s);
        }
        for (size_t i = 1; i < n && room; i++)
            if (fds[i].revents)
                room = accept_some(s, fds[i].fd);
        if (!room)
            poll(fds, 1, ACCEPT_PAUSE_MS);
    }
}

static bool
serve_listeners(struct server *s, const int *listeners, size_t n, int signals)
{
    struct pollfd *fds = calloc(n + 1, sizeof *fds);

    if (!fds) {
        log_error("out of memory");
        return false;
    }
    fds[0] = (struct pollfd){.fd = signals, .events = POLLIN};
    for (size_t i = 0; i < n; i++)
        fds[i + 1] = (struct pollfd){.fd = listeners[i], .events = POLLIN};
    serve(s, fds, n + 1);
    free(fds);
    return true;
}

static void
out_of_time(int signo)
{
    static const char text[] = "detour-proxy: warning: requests still hang: "
                               "ending without them\n";

    (void)signo;
    (void)!write(STDERR_FILENO, text, sizeof text - 1);
    _exit(0);
}

static int
block_signals(void)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, out_of_time);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void
stop(struct server *s, int status)
{
    uint64_t now_ms = clock_ms();

    log_info("stopping");
    notify("STOPPING=1");
    alarm(STOP_S);
    if (!server_stop(s, now_ms + STOP_CONNS_MS)) {
        /* they use what would be freed now */
        log_warning("connections still wait for requests that hang");
        _exit(status);
    }
    server_destroy(s, clock_ms() + STOP_LUNS_MS);
}

static int
run(const struct config *c, int signals)
{
    struct server *s = server_create(c);
    struct control *control = NULL;
    int *listeners = NULL;
    char path[4096];
    int status = 1;

    if (!s)
        return 1;
    snprintf(path, sizeof path, "%s/proxy.sock", c->rundir);
    control = control_start(path, status_handle, s);
    if (!control)
        log_error("%s: %s", path, strerror(errno));
    else
        listeners = listen_open(c->self);
    if (control)
        control_let_read(control, c->health.group);
    if (listeners) {
        notify("READY=1");
        log_info("serving as %s (version %s)", c->self->name, DETOUR_VERSION);
        if (serve_listeners(s, listeners, c->self->naddresses, signals))
            status = 0;
    }
    listen_close(listeners, c->self->naddresses);
    control_stop(control);
    stop(s, status);
    return status;
}

static int
check(const struct config *c)
{
    char err[512];
    struct tls *t = tls_create(c, err, sizeof err);

    if (!t) {
        log_error("%s", err);
        return 1;
    }
    tls_destroy(t);
    printf("%s: good\n", c->file);
    return 0;
}

int
main(int argc, char **argv)
{
    struct daemon_options o = {.config = CONFIG_DEFAULT_FILE};
    int status = daemon_options(argc, argv, "detour-proxy", usage, &o), signals;
    struct config *c;

    if (status >= 0)
        return status;
    log_init("detour-proxy", o.debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    c = config_load(o.config, stderr);
    if (!c)
        return 1;
    if (o.check) {
        status = check(c);
    } else {
        signals = block_signals();
        status = 1;
        if (signals < 0)
            log_error("signalfd: %s", strerror(errno));
        else if (lock_host(c))
            status = run(c, signals);
    }
    config_destroy(c);
    return status;
}
