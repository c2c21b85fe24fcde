/* SPDX-License-Identifier: BSD-3-Clause */
/* detourctl: shows and commands the processes of detour on this host. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "common/config.h"
#include "health/check.h"
#include "health/ctl_client.h"
#include "health/ctl_cluster.h"
#include "health/ctl_colour.h"
#include "health/ctl_events.h"
#include "health/ctl_print.h"

#define DEFAULT_RUNDIR   "/run/detour"
#define WATCH_INTERVAL_S 1

/* exit status: detourctl(8) */
enum {
    AS_WANTED = 0,
    NOT_AS_WANTED = 1,
    CANNOT = 2
};

struct ctl {
    const char *config_file; /* NULL: the default, which may be missing */
    char *rundir;
    const char *sysroot;   /* check's */
    struct config *config; /* of commands over the network */
    const char *client;    /* or NULL */
    bool json, follow;
    unsigned for_s;                   /* redirect's; 0: until return */
    const char *command, *lun, *host; /* the latter two or NULL */

    char **sockets;
    struct ctl_call *calls; /* one for each socket */
    size_t n;
};

/* ---- waiting ------------------------------------------------------------- */

/* From now on these wait for pause_s, which a person ends by them. */
static void
hold_signals(sigset_t *ends)
{
    sigemptyset(ends);
    sigaddset(ends, SIGINT);
    sigaddset(ends, SIGTERM);
    sigaddset(ends, SIGHUP);
    sigprocmask(SIG_BLOCK, ends, NULL);
}

/* Returns false when a signal came first. */
static bool
pause_s(const sigset_t *ends, unsigned seconds)
{
    struct timespec now, end, left;

    clock_gettime(CLOCK_MONOTONIC, &end);
    end.tv_sec += (time_t)seconds;
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        left.tv_sec = end.tv_sec - now.tv_sec;
        left.tv_nsec = end.tv_nsec - now.tv_nsec;
        if (left.tv_nsec < 0) {
            left.tv_sec--;
            left.tv_nsec += 1000000000;
        }
        if (left.tv_sec < 0)
            return true;
        if (sigtimedwait(ends, NULL, &left) >= 0)
            return false;
    }
}

/* ---- asking -------------------------------------------------------------- */

static const char *
base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static bool
is_proxy_socket(const char *path)
{
    return strcmp(base_name(path), "proxy.sock") == 0;
}

/* Of a process that does not say only the file's name is known, and both
 * parts of plugin-LUN-CLIENT.sock may hold a '-': rather one too many. */
static bool
may_serve(const struct ctl *c, const struct ctl_call *call)
{
    const char *name = base_name(call->socket_path);
    char prefix[256], suffix[256];

    if (call->status == 200)
        return ctl_serves(call->reply, c->lun, c->client);
    if (is_proxy_socket(call->socket_path))
        return !c->client;
    snprintf(prefix, sizeof prefix, "plugin-%s-", c->lun ? c->lun : "");
    snprintf(suffix, sizeof suffix, "-%s.sock", c->client ? c->client : "");
    return (!c->lun || strncmp(name, prefix, strlen(prefix)) == 0) &&
           (!c->client ||
            (strlen(name) > strlen(suffix) &&
             strcmp(name + strlen(name) - strlen(suffix), suffix) == 0));
}

static void
drop_call(struct ctl *c, size_t i)
{
    ctl_call_fini(&c->calls[i]);
    memmove(&c->calls[i], &c->calls[i + 1],
            (c->n - i - 1) * sizeof c->calls[0]);
    c->n--;
}

static void
forget(struct ctl *c)
{
    for (size_t i = 0; i < c->n; i++)
        ctl_call_fini(&c->calls[i]);
    for (size_t i = 0; c->sockets && c->sockets[i]; i++)
        free(c->sockets[i]);
    free(c->sockets);
    free(c->calls);
    c->sockets = NULL;
    c->calls = NULL;
    c->n = 0;
}

/* Finds the processes and asks each for its status; keeps those that have, or
 * may have, to do with the LUN and client asked for. */
static int
gather(struct ctl *c, bool plugins, bool proxies)
{
    int n = ctl_find(c->rundir, &c->sockets), err;

    if (n < 0) {
        fprintf(stderr, "detourctl: %s: %s\n", c->rundir, strerror(-n));
        return n;
    }
    c->calls = calloc((size_t)n + 1, sizeof *c->calls);
    if (!c->calls)
        return -ENOMEM;
    for (int i = 0; i < n; i++) {
        if (!(is_proxy_socket(c->sockets[i]) ? proxies : plugins))
            continue;
        c->calls[c->n++] = (struct ctl_call){
            .socket_path = c->sockets[i],
            .method = "GET",
            .path = "/status",
        };
    }
    err = ctl_ask(c->calls, c->n);
    for (size_t i = c->n; err == 0 && i-- > 0;)
        if (!may_serve(c, &c->calls[i]))
            drop_call(c, i);
    return err;
}

/* ---- printing ------------------------------------------------------------ */

static json_t *
as_json(const struct ctl *c)
{
    json_t *all = json_array();

    for (size_t i = 0; i < c->n; i++) {
        const struct ctl_call *call = &c->calls[i];

        json_array_append_new(
            all, json_pack("{s:s, s:i, s:s*, s:O*}", "socket",
                           call->socket_path, "status", (int)call->status,
                           "error", call->error[0] ? call->error : NULL,
                           "answer", call->reply));
    }
    return json_pack("{s:o}", "processes", all);
}

static int
print_json(const struct ctl *c)
{
    json_t *j = as_json(c);
    int err = j ? json_dumpf(j, stdout,
                             JSON_INDENT(2) | JSON_ENSURE_ASCII |
                                 JSON_REAL_PRECISION(12))
                : -1;

    json_decref(j);
    puts("");
    return err;
}

static void
print_failure(const struct ctl_call *call)
{
    char text[sizeof call->error];

    /* a peer's words may be in it */
    strcpy(text, call->error);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    printf("%s: %s\n", base_name(call->socket_path), text);
}

/* ---- commands ------------------------------------------------------------ */

static int
none_found(const struct ctl *c, const char *what)
{
    if (c->json)
        print_json(c);
    fprintf(stderr, "detourctl: %s: no %s%s%s%s%s is running\n", c->rundir,
            what, c->lun ? " of lun " : "", c->lun ? c->lun : "",
            c->client ? " for client " : "", c->client ? c->client : "");
    return NOT_AS_WANTED;
}

static int
run_status(struct ctl *c)
{
    int result = AS_WANTED;

    if (gather(c, true, true) < 0)
        return CANNOT;
    if (c->n == 0)
        return none_found(c, "process of detour");
    for (size_t i = 0; i < c->n; i++)
        if (c->calls[i].status != 200 ||
            !ctl_as_wanted(c->calls[i].reply, c->lun))
            result = NOT_AS_WANTED;
    if (c->json)
        return print_json(c) < 0 ? CANNOT : result;
    for (size_t i = 0; i < c->n; i++) {
        if (c->calls[i].status == 200)
            ctl_print_status(stdout, c->calls[i].reply, c->lun);
        else
            print_failure(&c->calls[i]);
    }
    return result;
}

static int
run_part(struct ctl *c, enum ctl_part part)
{
    int result = AS_WANTED;

    if (gather(c, true, part == CTL_PATHS) < 0)
        return CANNOT;
    if (c->n == 0)
        return none_found(c,
                          part == CTL_PATHS ? "process of detour" : "plugin");
    for (size_t i = 0; i < c->n; i++) {
        bool good = c->calls[i].status == 200;

        if (!good)
            result = NOT_AS_WANTED;
        if (good && !c->json)
            ctl_print_part(stdout, c->calls[i].reply, c->lun, part);
        else if (!good && !c->json)
            print_failure(&c->calls[i]);
    }
    return c->json && print_json(c) < 0 ? CANNOT : result;
}

static int
run_paths(struct ctl *c)
{
    return run_part(c, CTL_PATHS);
}

static int
run_peers(struct ctl *c)
{
    return run_part(c, CTL_PEERS);
}

static int
run_watch(struct ctl *c)
{
    bool screen = isatty(STDOUT_FILENO) && !c->json;
    char text[32];
    sigset_t ends;
    struct tm tm;
    int result;

    hold_signals(&ends);
    do {
        time_t now = time(NULL);

        forget(c);
        if (screen)
            fputs("\033[H\033[J", stdout);
        if (!c->json && localtime_r(&now, &tm)) {
            strftime(text, sizeof text, "%F %T", &tm);
            printf("%s\n", text);
        }
        result = run_status(c);
        if (!screen && !c->json)
            puts("");
        fflush(stdout);
    } while (result != CANNOT && !ferror(stdout) &&
             pause_s(&ends, WATCH_INTERVAL_S));
    return result;
}

static int
run_cluster(struct ctl *c)
{
    json_t *cluster;
    int result;

    /* nobody special may ask: the host's key and devices are not looked at */
    c->config = config_load_health(
        c->config_file ? c->config_file : CONFIG_DEFAULT_FILE, stderr);
    cluster = c->config ? ctl_cluster_ask(c->config, stderr) : NULL;

    if (!cluster)
        return CANNOT;
    result = ctl_cluster_as_wanted(cluster) ? AS_WANTED : NOT_AS_WANTED;
    if (!c->json)
        ctl_cluster_print(stdout, cluster);
    else if (json_dumpf(cluster, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) <
             0)
        result = CANNOT;
    else
        puts("");
    json_decref(cluster);
    return result;
}

static int
run_check(struct ctl *c)
{
    int found = check_run(c->config_file ? c->config_file : CONFIG_DEFAULT_FILE,
                          c->sysroot ? c->sysroot : "", c->json, stdout);

    if (found < 0)
        fprintf(stderr, "detourctl: check: %s\n", strerror(-found));
    return found < 0 ? CANNOT : found ? NOT_AS_WANTED : AS_WANTED;
}

/* ---- events -------------------------------------------------------------- */

static double
wall_s(void)
{
    struct timeval tv;

    gettimeofday(&tv, NULL);
    return (double)tv.tv_sec + (double)tv.tv_usec / 1e6;
}

/* "plugin-vm1-a" of its socket. */
static void
process_name(const struct ctl_call *call, char *to, size_t room)
{
    const char *name = base_name(call->socket_path);

    snprintf(to, room, "%.*s", (int)(strlen(name) - strlen(".sock")), name);
}

/* Of all that were gathered; NULL: no memory. */
static json_t *
events_now(const struct ctl *c)
{
    json_t *all = json_array();

    for (size_t i = 0; all && i < c->n; i++) {
        struct ctl_call *call = &c->calls[i];
        char name[256];
        json_t *its;

        process_name(call, name, sizeof name);
        its = call->status == 200
                  ? ctl_events_of(call->reply, name, c->lun, wall_s())
                  : ctl_events_silent(name, call->error, wall_s());
        if (!its || json_array_extend(all, its) < 0) {
            json_decref(all);
            all = NULL;
        }
        json_decref(its);
    }
    return all ? ctl_events_sort(all) : NULL;
}

static int
print_events(const struct ctl *c, const json_t *events)
{
    int err = 0;

    if (!c->json)
        ctl_events_print(stdout, events);
    else if (c->follow) {
        for (size_t i = 0; err == 0 && i < json_array_size(events); i++) {
            err = json_dumpf(json_array_get(events, i), stdout,
                             JSON_COMPACT | JSON_ENSURE_ASCII);
            puts("");
        }
    } else {
        json_t *o = json_pack("{s:O}", "events", events);

        err =
            o ? json_dumpf(o, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) : -1;
        json_decref(o);
        puts("");
    }
    return fflush(stdout) != 0 ? -1 : err;
}

static int
run_events(struct ctl *c)
{
    json_t *seen = json_object();
    int result = CANNOT;
    sigset_t ends;

    if (c->follow)
        hold_signals(&ends);
    do {
        json_t *news;

        forget(c);
        result = CANNOT;
        if (!seen || gather(c, true, true) < 0)
            break;
        if (c->n == 0 && !c->follow) {
            result = none_found(c, "process of detour");
            break;
        }
        news = events_now(c);
        news = news ? ctl_events_new(news, seen) : NULL;
        if (news && print_events(c, news) == 0)
            result = AS_WANTED;
        json_decref(news);
    } while (result == AS_WANTED && c->follow &&
             pause_s(&ends, WATCH_INTERVAL_S));
    json_decref(seen);
    return result;
}

static void
print_outcome(const struct ctl *c, const struct ctl_call *call)
{
    if (call->status == 200)
        printf("%s: %s: done\n", base_name(call->socket_path), c->command);
    else
        print_failure(call);
}

/* Sends the command to all that were gathered.  Who did not answer a moment
 * ago is asked as well: it may have been busy. */
static int
post(struct ctl *c, const char *path, json_t *body)
{
    int result = AS_WANTED;

    for (size_t i = 0; i < c->n; i++) {
        ctl_call_fini(&c->calls[i]);
        c->calls[i].method = "POST";
        c->calls[i].path = path;
        c->calls[i].body = body;
    }
    if (ctl_ask(c->calls, c->n) < 0)
        return CANNOT;
    for (size_t i = 0; i < c->n; i++) {
        if (c->calls[i].status != 200)
            result = NOT_AS_WANTED;
        if (!c->json)
            print_outcome(c, &c->calls[i]);
    }
    return c->json && print_json(c) < 0 ? CANNOT : result;
}

static int
run_plugin_command(struct ctl *c, const char *path, json_t *body)
{
    if (gather(c, true, false) < 0)
        return CANNOT;
    return c->n ? post(c, path, body) : none_found(c, "plugin");
}

/* Those that took the order take it back when the time is over, or when the
 * person ends it before. */
static int
return_later(struct ctl *c, const sigset_t *ends, int result)
{
    int returned;

    for (size_t i = c->n; i-- > 0;)
        if (c->calls[i].status != 200)
            drop_call(c, i);
    if (c->n == 0)
        return result;
    fflush(stdout);
    pause_s(ends, c->for_s);
    c->command = "return";
    returned = post(c, "/return", NULL);
    return returned > result ? returned : result;
}

static int
run_redirect(struct ctl *c)
{
    json_t *body = json_pack("{s:s*}", "peer", c->host);
    sigset_t ends;
    int result;

    if (c->for_s)
        hold_signals(&ends); /* before there is something to take back */
    result = run_plugin_command(c, "/redirect", body);
    json_decref(body);
    return c->for_s ? return_later(c, &ends, result) : result;
}

static int
run_confirm_dead(struct ctl *c)
{
    json_t *body = json_pack("{s:s}", "host", c->host);
    int result = run_plugin_command(c, "/confirm-dead", body);

    json_decref(body);
    return result;
}

static int
run_return(struct ctl *c)
{
    return run_plugin_command(c, "/return", NULL);
}

static int
run_proxy_command(struct ctl *c, const char *path)
{
    json_t *body = json_pack("{s:s*}", "lun", c->lun);
    int result = CANNOT;

    if (gather(c, false, true) >= 0)
        result = c->n ? post(c, path, body) : none_found(c, "proxy");
    json_decref(body);
    return result;
}

static int
run_drain(struct ctl *c)
{
    return run_proxy_command(c, "/drain");
}

static int
run_undrain(struct ctl *c)
{
    return run_proxy_command(c, "/undrain");
}

static const struct command {
    const char *name;
    int (*run)(struct ctl *c);
    int min_args, max_args;
    bool takes_client;
    bool host_first; /* HOST [LUN], not LUN [HOST] */
    bool no_rundir;  /* begins with the configuration */
} commands[] = {
    {"status", run_status, 0, 1, true, false, false},
    {"cluster", run_cluster, 0, 0, false, false, true},
    {"watch", run_watch, 0, 1, true, false, false},
    {"paths", run_paths, 0, 1, true, false, false},
    {"peers", run_peers, 0, 1, true, false, false},
    {"events", run_events, 0, 1, true, false, false},
    {"check", run_check, 0, 0, false, false, true},
    {"redirect", run_redirect, 1, 2, true, false, false},
    {"return", run_return, 1, 1, true, false, false},
    {"drain", run_drain, 0, 1, false, false, false},
    {"undrain", run_undrain, 0, 1, false, false, false},
    {"confirm-dead", run_confirm_dead, 1, 2, true, true, false},
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
    "\n"
    "options:\n"
    "  --config FILE        configuration (" CONFIG_DEFAULT_FILE ")\n"
    "  --rundir DIR         where the processes' sockets are\n"
    "  --client NAME        only the plugin process of this client\n"
    "  --json               answers as JSON\n"
    "  --for TIME           redirect: return after so long (30s, 10m, 2h)\n"
    "  --follow             events: go on with what changes from now on\n"
    "  --sysroot DIR        check: DIR/etc, DIR/proc, DIR/sys instead of /\n"
    "  --help, --version\n";

static int
misused(const char *text, const char *what)
{
    fprintf(stderr, "detourctl: %s%s; try detourctl --help\n", text, what);
    return CANNOT;
}

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
                return misused("--for wants a time such as 30s, 10m or 2h, "
                               "at most 24h, not ",
                               optarg);
            break;
        case FOLLOW:
            c->follow = true;
            break;
        case SYSROOT:
            c->sysroot = optarg;
            break;
        case HELP:
            fputs(usage, stdout);
            return AS_WANTED;
        case VERSION:
            puts("detourctl " DETOUR_VERSION);
            return AS_WANTED;
        default:
            fputs("try detourctl --help\n", stderr);
            return CANNOT;
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
 * reason to stop; one that was named, or has mistakes, is. */
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
    config = config_load(file, stderr);
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
    if (c->for_s && command->run != run_redirect)
        return "--for means nothing to ";
    if (c->sysroot && command->run != run_check)
        return "--sysroot means nothing to ";
    if (c->rundir && command->no_rundir)
        return "--rundir means nothing to ";
    if (c->follow && command->run != run_events)
        return "--follow means nothing to ";
    return NULL;
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
    c->lun = nargs > command->host_first
                 ? argv[optind + 1 + command->host_first]
                 : NULL;
    c->host = nargs > !command->host_first
                  ? argv[optind + 1 + !command->host_first]
                  : NULL;
    if (!command->no_rundir && !choose_rundir(c))
        return CANNOT;
    ctl_colour_choose(stdout);
    return command->run(c);
}

int
main(int argc, char **argv)
{
    struct ctl c = {.config_file = NULL};
    int result = run(&c, argc, argv);

    forget(&c);
    free(c.rundir);
    config_destroy(c.config);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("detourctl: standard output");
        return CANNOT;
    }
    return result;
}
