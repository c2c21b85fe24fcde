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
#include "health/ctl_client.h"
#include "health/ctl_print.h"

#define DEFAULT_RUNDIR "/run/detour"

/* exit status: detourctl(8) */
enum {
    AS_WANTED = 0,
    NOT_AS_WANTED = 1,
    CANNOT = 2
};

struct ctl {
    const char *config_file; /* NULL: the default, which may be missing */
    char *rundir;
    const char *client; /* or NULL */
    bool json;
    const char *command, *lun, *host; /* the latter two or NULL */

    char **sockets;
    struct ctl_call *calls; /* one for each socket */
    size_t n;
};

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

static int
run_redirect(struct ctl *c)
{
    json_t *body = json_pack("{s:s*}", "peer", c->host);
    int result = run_plugin_command(c, "/redirect", body);

    json_decref(body);
    return result;
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
} commands[] = {
    {"status", run_status, 0, 1, true, false},
    {"redirect", run_redirect, 1, 2, true, false},
    {"return", run_return, 1, 1, true, false},
    {"drain", run_drain, 0, 1, false, false},
    {"undrain", run_undrain, 0, 1, false, false},
    {"confirm-dead", run_confirm_dead, 1, 2, true, true},
};

/* ---- the command line ---------------------------------------------------- */

static const char usage[] =
    "usage: detourctl [OPTIONS] COMMAND\n"
    "\n"
    "commands:\n"
    "  status [LUN]         show the processes of this host\n"
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
    "  --help, --version\n";

static int
misused(const char *text, const char *what)
{
    fprintf(stderr, "detourctl: %s%s; try detourctl --help\n", text, what);
    return CANNOT;
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
        HELP,
        VERSION
    };
    static const struct option options[] = {
        {"config", required_argument, NULL, CONFIG},
        {"rundir", required_argument, NULL, RUNDIR},
        {"client", required_argument, NULL, CLIENT},
        {"json", no_argument, NULL, JSON},
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
    if (c->client && !command->takes_client)
        return misused("--client means nothing to ", c->command);
    c->lun = nargs > command->host_first
                 ? argv[optind + 1 + command->host_first]
                 : NULL;
    c->host = nargs > !command->host_first
                  ? argv[optind + 1 + !command->host_first]
                  : NULL;
    if (!choose_rundir(c))
        return CANNOT;
    return command->run(c);
}

int
main(int argc, char **argv)
{
    struct ctl c = {.config_file = NULL};
    int result = run(&c, argc, argv);

    for (size_t i = 0; i < c.n; i++)
        ctl_call_fini(&c.calls[i]);
    for (size_t i = 0; c.sockets && c.sockets[i]; i++)
        free(c.sockets[i]);
    free(c.sockets);
    free(c.calls);
    free(c.rundir);
    if (fflush(stdout) != 0 || ferror(stdout)) {
        perror("detourctl: standard output");
        return CANNOT;
    }
    return result;
}
