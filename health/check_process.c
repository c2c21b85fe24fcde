/* SPDX-License-Identifier: BSD-3-Clause */
/* The processes of detour on this host: what they say of themselves. */
#include <stdlib.h>
#include <string.h>

#include "health/check.h"
#include "health/ctl_client.h"
#include "health/fields.h"
#include "health/picture.h"

/* Of whom a finding is, and of which LUN. */
struct speaker {
    struct check *k;
    const char *process, *lun;
};

static const struct check_lun *
learn(struct check *k, const char *name, const json_t *st)
{
    for (size_t i = 0; i < k->nluns; i++) {
        struct check_lun *l = &k->luns[i];

        if (strcmp(l->config->name, name) != 0)
            continue;
        if (!l->id[0] && *field_text(st, "id")) {
            field_print(l->id, sizeof l->id, "%s", field_text(st, "id"));
            l->size = (uint64_t)field_number(st, "size", 0);
        }
        return l;
    }
    return NULL;
}

static void
judge_identity(const struct speaker *s, const struct check_lun *l,
               const json_t *st)
{
    const char *id = field_text(st, "id");

    if (*id && strcmp(id, l->id) != 0)
        check_add(s->k, CHECK_PROBLEM, s->lun,
                  "what was the LUN when it started is another one now: "
                  "restart it, and find out why",
                  "%s uses %s, and the device is %s", s->process, id, l->id);
    else if (*id && l->config->wwid && strcmp(id, l->config->wwid) != 0)
        check_add(s->k, CHECK_PROBLEM, s->lun, "correct device or wwid",
                  "%s has found %s, and wwid wants %s", s->process, id,
                  l->config->wwid);
}

static void
judge_lun(const struct speaker *s, const json_t *st)
{
    const struct check_lun *l = learn(s->k, s->lun, st);
    const json_t *verdict = json_object_get(st, "verdict");
    const json_t *registration = json_object_get(st, "registration");

    if (!l) {
        check_add(s->k, CHECK_WARNING, s->lun,
                  "restart it, or put the LUN back",
                  "%s serves it, and the configuration has no such LUN of "
                  "this host",
                  s->process);
        return;
    }
    judge_identity(s, l, st);
    if (!field_is(verdict, "state", "good"))
        check_add(s->k, CHECK_WARNING, s->lun,
                  "detourctl paths tells which; repair it before the next "
                  "one goes",
                  "%s finds the host's paths %s: %s", s->process,
                  field_text(verdict, "state"), field_text(verdict, "reason"));
    if (l->config->fence == CONFIG_FENCE_PR &&
        !field_is(registration, "state", "registered"))
        check_add(s->k, CHECK_PROBLEM, s->lun,
                  "the process' log tells why the target refuses; without "
                  "reservations set fence = drain on all hosts",
                  "fence = pr, but %s is not registered: %s", s->process,
                  field_text(registration, "state"));
    if (field_number(st, "orphans", 0) > 0)
        check_add(s->k, CHECK_WARNING, s->lun,
                  "docs/fencing.md tells when they are proven gone",
                  "%s has %.0f writes that were given up and may still take "
                  "effect",
                  s->process, field_number(st, "orphans", 0));
}

static void
judge_version(struct check *k, const char *process, const json_t *answer)
{
    const char *version = field_text(answer, "version");

    if (strcmp(version, DETOUR_VERSION) != 0)
        check_add(k, CHECK_WARNING, process,
                  "restart it; a plugin's VMs are migrated away before",
                  "runs version %s, and %s is installed", version,
                  DETOUR_VERSION);
    if (!field_is(answer, "host", k->config->self->name))
        check_add(k, CHECK_PROBLEM, process, "restart it",
                  "was started as host %s, and this host is %s",
                  field_text(answer, "host"), k->config->self->name);
}

static void
judge_proxy(struct check *k, const json_t *answer)
{
    json_t *one;
    size_t i;

    json_array_foreach(json_object_get(answer, "luns"), i, one)
    {
        const struct speaker s = {k, "proxy", field_text(one, "lun")};

        judge_lun(&s, json_object_get(one, "lun_status"));
        if (!field_is(one, "state", "serving"))
            check_add(k, CHECK_WARNING, s.lun,
                      "when it is drained: detourctl undrain",
                      "the proxy serves it to nobody: %s: %s",
                      field_text(one, "state"), field_text(one, "reason"));
    }
}

static void
judge_answer(struct check *k, const struct ctl_call *call)
{
    char *name = picture_name(call->socket_path);
    const struct speaker s = {k, name ? name : "?",
                              field_text(call->reply, "lun")};

    if (call->status != 200) {
        check_add(k, CHECK_PROBLEM, s.process,
                  "see DIAGNOSTICS in detourctl(8)", "%s", call->error);
    } else {
        judge_version(k, s.process, call->reply);
        if (field_is(call->reply, "process", "proxy"))
            judge_proxy(k, call->reply);
        else
            judge_lun(&s, json_object_get(call->reply, "lun_status"));
    }
    free(name);
}

static void
ask_all(struct check *k, char **paths, size_t n, struct ctl_call *calls)
{
    bool proxy = false;

    for (size_t i = 0; i < n; i++)
        calls[i] = (struct ctl_call){
            .socket_path = paths[i], .method = "GET", .path = "/status"};
    if (ctl_ask(calls, n) < 0)
        return;
    for (size_t i = 0; i < n; i++) {
        const char *slash = strrchr(paths[i], '/');

        proxy |= slash && strcmp(slash, "/proxy.sock") == 0;
        judge_answer(k, &calls[i]);
        ctl_call_fini(&calls[i]);
    }
    if (!proxy)
        check_add(k, CHECK_WARNING, "proxy", "start detour-proxy",
                  "no proxy runs here: no peer can take a detour through "
                  "this host");
}

void
check_processes(struct check *k)
{
    char **paths = NULL;
    int n = ctl_find(k->config->rundir, &paths);
    struct ctl_call *calls;

    if (n < 0)
        return; /* check_layout told it */
    calls = calloc((size_t)n + 1, sizeof *calls);
    if (calls)
        ask_all(k, paths, (size_t)n, calls);
    for (int i = 0; i < n; i++)
        free(paths[i]);
    free(paths);
    free(calls);
}
