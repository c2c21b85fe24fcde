/* SPDX-License-Identifier: BSD-3-Clause */
/* What detourctl's commands share: whom to ask, waiting, telling failures. */
#include "health/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "health/ctl_print.h"

/* ---- waiting ------------------------------------------------------------- */

void
ctl_hold_signals(sigset_t *ends)
{
    sigemptyset(ends);
    sigaddset(ends, SIGINT);
    sigaddset(ends, SIGTERM);
    sigaddset(ends, SIGHUP);
    sigprocmask(SIG_BLOCK, ends, NULL);
}

bool
ctl_pause(const sigset_t *ends, unsigned seconds)
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

const char *
ctl_base_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static bool
is_proxy_socket(const char *path)
{
    return strcmp(ctl_base_name(path), "proxy.sock") == 0;
}

/* Of a process that does not say only the file's name is known, and both
 * parts of plugin-LUN-CLIENT.sock may hold a '-': rather one too many. */
static bool
may_serve(const struct ctl *c, const struct ctl_call *call)
{
    const char *name = ctl_base_name(call->socket_path);
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

void
ctl_drop(struct ctl *c, size_t i)
{
    ctl_call_fini(&c->calls[i]);
    memmove(&c->calls[i], &c->calls[i + 1],
            (c->n - i - 1) * sizeof c->calls[0]);
    c->n--;
}

void
ctl_forget(struct ctl *c)
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

int
ctl_gather(struct ctl *c, bool plugins, bool proxies)
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
            ctl_drop(c, i);
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

int
ctl_print_json(const struct ctl *c)
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

void
ctl_print_failure(const struct ctl_call *call)
{
    char text[sizeof call->error];

    /* a peer's words may be in it */
    strcpy(text, call->error);
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    printf("%s: %s\n", ctl_base_name(call->socket_path), text);
}

/* ---- commands ------------------------------------------------------------ */

int
ctl_none_found(const struct ctl *c, const char *what)
{
    if (c->json)
        ctl_print_json(c);
    fprintf(stderr, "detourctl: %s: no %s%s%s%s%s is running\n", c->rundir,
            what, c->lun ? " of lun " : "", c->lun ? c->lun : "",
            c->client ? " for client " : "", c->client ? c->client : "");
    return CTL_NOT_AS_WANTED;
}
