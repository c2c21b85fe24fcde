/* SPDX-License-Identifier: BSD-3-Clause */
/* detourctl: shows and commands the processes of detour on this host. */
#include <errno.h>
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config.h"
#include "health/check.h"
#include "health/ctl.h"
#include "health/ctl_colour.h"
#include "health/ctl_gone.h"
#include "health/ctl_order.h"
#include "health/ctl_show.h"

#define DEFAULT_RUNDIR "/run/detour"
#define HOSTS_MAX      255 /* named at once */

/* ---- commands ------------------------------------------------------------ */

static int
run_check(struct ctl *c)
{
    int found = check_run(c->config_file ? c->config_file : CONFIG_DEFAULT_FILE,
                          c->sysroot ? c->sysroot : "", c->json, stdout);

    if (found < 0)
        fprintf(stderr, "detourctl: check: %s\n", strerror(-found));
    return found < 0 ? CTL_CANNOT : found ? CTL_NOT_AS_WANTED : CTL_AS_WANTED;
}

static const struct command {
    const char *name;
    int (*run)(struct ctl *c);
    int min_args, max_args;
    bool takes_client;
    bool host_first; /* HOST [LUN], or HOST...; not LUN [HOST] */
    bool no_rundir;  /* begins with the configuration */
} commands[] = {
    {"status", ctl_show_status, 0, 1, true, false, false},
    {"cluster", ctl_show_cluster, 0, 0, false, false, true},
    {"watch", ctl_show_watch, 0, 1, true, false, false},
    {"paths", ctl_show_paths, 0, 1, true, false, false},
    {"peers", ctl_show_peers, 0, 1, true, false, false},
    {"events", ctl_show_events, 0, 1, true, false, false},
    {"check", run_check, 0, 0, false, false, true},
    {"redirect", ctl_order_redirect, 1, 2, true, false, false},
    {"return", ctl_order_return, 1, 1, true, false, false},
    {"drain", ctl_order_drain, 0, 1, false, false, false},
    {"undrain", ctl_order_undrain, 0, 1, false, false, false},
    {"confirm-dead", ctl_order_confirm_dead, 1, 2, true, true, false},
    {"gone", ctl_gone, 1, HOSTS_MAX, false, true, true},
};

/* ---- the command line ---------------------------------------------------- */

static const char usage[] =
    "usage: detourctl [OPTIONS] COMMAND\n"
    "\n"
    "commands:\n"
    "  status [LUN]         show the processes of this host\n"
    "  cluster              show all hosts and their LUNs\n"
    "  watch [LUN]          status again and again\n"
    "  paths [LUN]          only this host's paths\n"
    "  peers [LUN]          only who would serve this host\n"
    "  events [LUN]         what changed, when and why\n"
    "  check                what will hurt one day, and what to do about it\n"
    "  redirect LUN [PEER]  send the LUN's I/O through a peer, until return\n"
    "  return LUN           back to the host's own paths\n"
    "  drain [LUN]          serve no more peers (of that LUN)\n"
    "  undrain [LUN]        serve them again\n"
    "  confirm-dead HOST [LUN]\n"
    "                       the host is powered off: wait for it no more\n"
    "  gone HOST...         may what ran on these hosts, which are off, be\n"
    "                       started elsewhere?\n"
    "\n"
    "options:\n"
    "  --config FILE        configuration (" CONFIG_DEFAULT_FILE ")\n"
    "  --rundir DIR         where the processes' sockets are\n"
    "  --client NAME        only the plugin process of this client\n"
    "  --json               answers as JSON\n"
    "  --for TIME           redirect: only for so long (30s, 10m, 2h)\n"
    "  --follow             events: go on with what changes from now on\n"
    "  --lun NAME           gone: only this LUN\n"
    "  --wait TIME          gone: ask for so long, until they may (30s, 10m, "
    "2h)\n"
    "  --sysroot DIR        check: DIR/etc, DIR/proc, DIR/sys instead of /\n"
    "  --help, --version\n";

static int
misused(const char *text, const char *what)
{
    fprintf(stderr, "detourctl: %s%s; try detourctl --help\n", text, what);
    return CTL_CANNOT;
}

#define WANTS_SPAN " wants a time such as 30s, 10m or 2h, at most 24h, not "

/* "90", "90s", "10m", "2h"; 0: it is no such time. */
static unsigned
parse_span(const char *text)
{
    static const char units[] = "smh";
    static const unsigned long worth[] = {1, 60, 3600};
    unsigned long n, each = 1;
    const char *unit;
    char *end;

    errno = 0;
    n = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || errno != 0)
        return 0;
    if (end[0] != '\0') {
        unit = strchr(units, end[0]);
        if (!unit || end[1] != '\0')
            return 0;
        each = worth[unit - units];
    }
    return n > 86400 / each ? 0 : (unsigned)(n * each);
}

/* Returns -1 to go on, or the exit status. */
static int
parse_options(struct ctl *c, int argc, char **argv)
{
    enum {
        CONFIG = 1,
        RUNDIR,
        CLIENT,
        JSON,
        FOR,
        FOLLOW,
        LUN,
        WAIT,
        SYSROOT,
        HELP,
        VERSION
    };
    static const struct option options[] = {
        {"config", required_argument, NULL, CONFIG},
        {"rundir", required_argument, NULL, RUNDIR},
        {"client", required_argument, NULL, CLIENT},
        {"json", no_argument, NULL, JSON},
        {"for", required_argument, NULL, FOR},
        {"follow", no_argument, NULL, FOLLOW},
        {"lun", required_argument, NULL, LUN},
        {"wait", required_argument, NULL, WAIT},
        {"sysroot", required_argument, NULL, SYSROOT},
        {"help", no_argument, NULL, HELP},
        {"version", no_argument, NULL, VERSION},
        {NULL, 0, NULL, 0},
    };
    int o;

    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (o) {
        case CONFIG:
            c->config_file = optarg;
            break;
        case RUNDIR:
            free(c->rundir);
            c->rundir = strdup(optarg);
            break;
        case CLIENT:
            c->client = optarg;
            break;
        case JSON:
            c->json = true;
            break;
        case FOR:
            c->for_s = parse_span(optarg);
            if (c->for_s == 0)
                return misused("--for" WANTS_SPAN, optarg);
            break;
        case FOLLOW:
            c->follow = true;
            break;
        case LUN:
            c->lun = optarg;
            break;
        case WAIT:
            c->wait_s = parse_span(optarg);
            if (c->wait_s == 0)
                return misused("--wait" WANTS_SPAN, optarg);
            break;
        case SYSROOT:
            c->sysroot = optarg;
            break;
        case HELP:
            fputs(usage, stdout);
            return CTL_AS_WANTED;
        case VERSION:
            puts("detourctl " DETOUR_VERSION);
            return CTL_AS_WANTED;
        default:
            fputs("try detourctl --help\n", stderr);
            return CTL_CANNOT;
        }
    }
    return -1;
}

static const struct command *
find_command(const char *name)
{
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

/* A host in trouble must be seen into, so that a missing default file is no
 * reason to stop; one that was named, or has mistakes, is.  Keys and secrets
 * are nothing to us: who may ask the sockets need not be able to read them. */
static bool
choose_rundir(struct ctl *c)
{
    const char *file = c->config_file ? c->config_file : CONFIG_DEFAULT_FILE;
    struct config *config;

    if (c->rundir)
        return true;
    if (!c->config_file && access(file, F_OK) < 0 && errno == ENOENT) {
        c->rundir = strdup(DEFAULT_RUNDIR);
        return c->rundir != NULL;
    }
    config = config_load_text(file, stderr);
    if (!config) {
        fputs("detourctl: the configuration cannot be used; --rundir DIR "
              "does without it\n",
              stderr);
        return false;
    }
    c->rundir = strdup(config->rundir);
    config_destroy(config);
    return c->rundir != NULL;
}

static const char *
wrong_option(const struct ctl *c, const struct command *command)
{
    if (c->client && !command->takes_client)
        return "--client means nothing to ";
    if (c->for_s && command->run != ctl_order_redirect)
        return "--for means nothing to ";
    if (c->sysroot && command->run != run_check)
        return "--sysroot means nothing to ";
    if (c->rundir && command->no_rundir)
        return "--rundir means nothing to ";
    if (c->follow && command->run != ctl_show_events)
        return "--follow means nothing to ";
    if (c->wait_s && command->run != ctl_gone)
        return "--wait means nothing to ";
    if (c->lun && command->run != ctl_gone)
        return "--lun means nothing to ";
    return NULL;
}

/* Which of them is the LUN, and which the host; gone takes hosts alone. */
static void
take_args(struct ctl *c, const struct command *command, char **args, int nargs)
{
    c->args = args;
    c->nargs = nargs;
    if (command->run == ctl_gone)
        return;
    if (nargs > command->host_first)
        c->lun = args[command->host_first];
    if (nargs > !command->host_first)
        c->host = args[!command->host_first];
}

static int
run(struct ctl *c, int argc, char **argv)
{
    const struct command *command;
    int result = parse_options(c, argc, argv), nargs;

    if (result >= 0)
        return result;
    if (optind == argc)
        return misused("a command is missing", "");
    c->command = argv[optind];
    command = find_command(c->command);
    if (!command)
        return misused("there is no command ", c->command);
    nargs = argc - optind - 1;
    if (nargs < command->min_args)
        return misused(command->host_first ? "a host must be named for "
                                           : "a LUN must be named for ",
                       c->command);
    if (nargs > command->max_args)
        return misused("too many arguments for ", c->command);
    if (wrong_option(c, command))
        return misused(wrong_option(c, command), c->command);
    take_args(c, command, argv + optind + 1, nargs);
    if (!command->no_rundir && !choose_rundir(c))
        return CTL_CANNOT;
    ctl_colour_choose(stdout);
    return command->run(c);
}

int
main(int argc, char **argv)
{
    struct ctl c = {.config_file = NULL};
    int result = run(&c, argc, argv);

    ctl_forget(&c);
    free(c.rundir);
    config_destroy(c.config);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("detourctl: standard output");
        return CTL_CANNOT;
    }
    return result;
}
