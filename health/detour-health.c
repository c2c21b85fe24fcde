/* SPDX-License-Identifier: BSD-3-Clause */
/* detour-health: tells over HTTP how detour fares on this host. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "common/daemon.h"
#include "common/log.h"
#include "health/endpoint.h"
#include "health/gather.h"

static const char usage[] =
    "Usage: detour-health [--config FILE] [--debug] [--check]\n"
    "       detour-health --version | --help\n"
    "\n"
    "Serves the state of this host and its cluster: /health, /metrics,\n"
    "/status, /cluster, and a page for people at /.\n"
    "\n"
    "  --config FILE  configuration (default " CONFIG_DEFAULT_FILE ")\n"
    "  --debug        log more\n"
    "  --check        check the configuration, then exit\n"
    "  --version      print the version, then exit\n"
    "  --help         print this, then exit\n";

static int
run(const struct config *c, const sigset_t *ends)
{
    struct gather *g = gather_start(c);
    struct endpoint *e = NULL;
    int sig;

    if (!g) {
        log_error("cannot start: %s", strerror(errno));
        return 1;
    }
    e = endpoint_start(c, g);
    if (e) {
        log_info("serving the state of %s (version %s)", c->self->name,
                 DETOUR_VERSION);
        sigwait(ends, &sig);
        log_info("stopping");
    }
    endpoint_stop(e);
    gather_stop(g);
    return e ? 0 : 1;
}

int
main(int argc, char **argv)
{
    struct daemon_options o = {.config = CONFIG_DEFAULT_FILE};
    int status = daemon_options(argc, argv, "detour-health", usage, &o);
    struct config *c;
    sigset_t ends;

    if (status >= 0)
        return status;
    log_init("detour-health", o.debug ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
    c = config_load_health(o.config, stderr);
    if (!c)
        return 1;
    if (o.check) {
        printf("%s: good\n", c->file);
        config_destroy(c);
        return 0;
    }
    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigprocmask(SIG_BLOCK, &ends, NULL);
    if (geteuid() == 0)
        log_warning("running as root, which is not needed");
    status = run(c, &ends);
    config_destroy(c);
    return status;
}
