/* SPDX-License-Identifier: BSD-3-Clause */
/* detourctl's commands that only look. */
#include "health/ctl_show.h"

#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "health/ctl_cluster.h"
#include "health/ctl_events.h"
#include "health/ctl_print.h"

#define WATCH_INTERVAL_S 1

int
ctl_show_status(struct ctl *c)
{
    int result = CTL_AS_WANTED;

    if (ctl_gather(c, true, true) < 0)
        return CTL_CANNOT;
    if (c->n == 0)
        return ctl_none_found(c, "process of detour");
    for (size_t i = 0; i < c->n; i++)
        if (c->calls[i].status != 200 ||
            !ctl_as_wanted(c->calls[i].reply, c->lun))
            result = CTL_NOT_AS_WANTED;
    if (c->json)
        return ctl_print_json(c) < 0 ? CTL_CANNOT : result;
    for (size_t i = 0; i < c->n; i++) {
        if (c->calls[i].status == 200)
            ctl_print_status(stdout, c->calls[i].reply, c->lun);
        else
            ctl_print_failure(&c->calls[i]);
    }
    return result;
}

static int
run_part(struct ctl *c, enum ctl_part part)
{
    int result = CTL_AS_WANTED;

    if (ctl_gather(c, true, part == CTL_PATHS) < 0)
        return CTL_CANNOT;
    if (c->n == 0)
        return ctl_none_found(c, part == CTL_PATHS ? "process of detour"
                                                   : "plugin");
    for (size_t i = 0; i < c->n; i++) {
        bool good = c->calls[i].status == 200;

        if (!good)
            result = CTL_NOT_AS_WANTED;
        if (good && !c->json)
            ctl_print_part(stdout, c->calls[i].reply, c->lun, part);
        else if (!good && !c->json)
            ctl_print_failure(&c->calls[i]);
    }
    return c->json && ctl_print_json(c) < 0 ? CTL_CANNOT : result;
}

int
ctl_show_paths(struct ctl *c)
{
    return run_part(c, CTL_PATHS);
}

int
ctl_show_peers(struct ctl *c)
{
    return run_part(c, CTL_PEERS);
}

int
ctl_show_watch(struct ctl *c)
{
    bool screen = isatty(STDOUT_FILENO) && !c->json;
    char text[32];
    sigset_t ends;
    struct tm tm;
    int result;

    ctl_hold_signals(&ends);
    do {
        time_t now = time(NULL);

        ctl_forget(c);
        if (screen)
            fputs("\033[H\033[J", stdout);
        if (!c->json && localtime_r(&now, &tm)) {
            strftime(text, sizeof text, "%F %T", &tm);
            printf("%s\n", text);
        }
        result = ctl_show_status(c);
        if (!screen && !c->json)
            puts("");
        fflush(stdout);
    } while (result != CTL_CANNOT && !ferror(stdout) &&
             ctl_pause(&ends, WATCH_INTERVAL_S));
    return result;
}

int
ctl_show_cluster(struct ctl *c)
{
    json_t *cluster;
    int result;

    /* nobody special may ask: the host's key and devices are not looked at */
    c->config = config_load_health(
        c->config_file ? c->config_file : CONFIG_DEFAULT_FILE, stderr);
    cluster = c->config ? ctl_cluster_ask(c->config, stderr) : NULL;

    if (!cluster)
        return CTL_CANNOT;
    result = ctl_cluster_as_wanted(cluster) ? CTL_AS_WANTED : CTL_NOT_AS_WANTED;
    if (!c->json)
        ctl_cluster_print(stdout, cluster);
    else if (json_dumpf(cluster, stdout, JSON_INDENT(2) | JSON_ENSURE_ASCII) <
             0)
        result = CTL_CANNOT;
    else
        puts("");
    json_decref(cluster);
    return result;
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
    const char *name = ctl_base_name(call->socket_path);

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

int
ctl_show_events(struct ctl *c)
{
    json_t *seen = json_object();
    int result = CTL_CANNOT;
    sigset_t ends;

    if (c->follow)
        ctl_hold_signals(&ends);
    do {
        json_t *news;

        ctl_forget(c);
        result = CTL_CANNOT;
        if (!seen || ctl_gather(c, true, true) < 0)
            break;
        if (c->n == 0 && !c->follow) {
            result = ctl_none_found(c, "process of detour");
            break;
        }
        news = events_now(c);
        news = news ? ctl_events_new(news, seen) : NULL;
        if (news && print_events(c, news) == 0)
            result = CTL_AS_WANTED;
        json_decref(news);
    } while (result == CTL_AS_WANTED && c->follow &&
             ctl_pause(&ends, WATCH_INTERVAL_S));
    json_decref(seen);
    return result;
}
