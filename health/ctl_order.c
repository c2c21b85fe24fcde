/* SPDX-License-Identifier: BSD-3-Clause */
/* detourctl's commands that make processes do something. */
#include "health/ctl_order.h"

#include <stdio.h>

static void
print_outcome(const struct ctl *c, const struct ctl_call *call)
{
    if (call->status == 200)
        printf("%s: %s: done\n", ctl_base_name(call->socket_path), c->command);
    else
        ctl_print_failure(call);
}

/* Sends the command to all that were gathered.  Who did not answer a moment
 * ago is asked as well: it may have been busy. */
static int
post(struct ctl *c, const char *path, json_t *body)
{
    int result = CTL_AS_WANTED;

    for (size_t i = 0; i < c->n; i++) {
        ctl_call_fini(&c->calls[i]);
        c->calls[i].method = "POST";
        c->calls[i].path = path;
        c->calls[i].body = body;
    }
    if (ctl_ask(c->calls, c->n) < 0)
        return CTL_CANNOT;
    for (size_t i = 0; i < c->n; i++) {
        if (c->calls[i].status != 200)
            result = CTL_NOT_AS_WANTED;
        if (!c->json)
            print_outcome(c, &c->calls[i]);
    }
    return c->json && ctl_print_json(c) < 0 ? CTL_CANNOT : result;
}

static int
run_plugin_command(struct ctl *c, const char *path, json_t *body)
{
    if (ctl_gather(c, true, false) < 0)
        return CTL_CANNOT;
    return c->n ? post(c, path, body) : ctl_none_found(c, "plugin");
}

int
ctl_order_redirect(struct ctl *c)
{
    json_t *body = json_pack("{s:s*, s:o*}", "peer", c->host, "for_s",
                             c->for_s ? json_integer(c->for_s) : NULL);
    int result = run_plugin_command(c, "/redirect", body);

    json_decref(body);
    return result;
}

int
ctl_order_confirm_dead(struct ctl *c)
{
    json_t *body = json_pack("{s:s}", "host", c->host);
    int result = run_plugin_command(c, "/confirm-dead", body);

    json_decref(body);
    return result;
}

int
ctl_order_return(struct ctl *c)
{
    return run_plugin_command(c, "/return", NULL);
}

static int
run_proxy_command(struct ctl *c, const char *path)
{
    json_t *body = json_pack("{s:s*}", "lun", c->lun);
    int result = CTL_CANNOT;

    if (ctl_gather(c, false, true) >= 0)
        result = c->n ? post(c, path, body) : ctl_none_found(c, "proxy");
    json_decref(body);
    return result;
}

int
ctl_order_drain(struct ctl *c)
{
    return run_proxy_command(c, "/drain");
}

int
ctl_order_undrain(struct ctl *c)
{
    return run_proxy_command(c, "/undrain");
}
