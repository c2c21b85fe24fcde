/* SPDX-License-Identifier: BSD-3-Clause */
/* The plugin's side of its control socket: status and orders. */
#include "plugin/orders.h"

#include <stdbool.h>
#include <string.h>

#include "health/control.h"
#include "plugin/router.h"

static unsigned
reply_error(json_t **reply, unsigned status, const char *text)
{
    *reply = json_pack("{ss}", "error", text);
    return status;
}

static unsigned
confirm_dead(struct router *r, const json_t *body, json_t **reply)
{
    const json_t *host = body ? json_object_get(body, "host") : NULL;
    char err[256], by[64];

    if (!json_is_string(host))
        return reply_error(reply, 400, "\"host\" must be a host's name");
    control_caller(by, sizeof by);
    if (router_confirm_dead(r, json_string_value(host), by, err, sizeof err) <
        0)
        return reply_error(reply, 409, err);
    return 200;
}

/* The orders; NULL at the end. */
static const char *const orders[] = {"/redirect", "/return", "/confirm-dead",
                                     NULL};

static bool
is_order(const char *path)
{
    for (size_t i = 0; orders[i]; i++)
        if (strcmp(path, orders[i]) == 0)
            return true;
    return false;
}

static unsigned
redirect(struct router *r, const json_t *body, json_t **reply)
{
    const json_t *peer = json_object_get(body, "peer");
    const json_t *for_s = json_object_get(body, "for_s");
    json_int_t s = json_integer_value(for_s);
    struct router_order order = {.peer = json_string_value(peer)};
    char err[256];

    if (peer && !json_is_string(peer) && !json_is_null(peer))
        return reply_error(reply, 400, "\"peer\" must be a host's name");
    if (for_s && (s < 1 || s > ROUTER_ORDER_MAX_S))
        return reply_error(reply, 400,
                           "\"for_s\" must be whole seconds, 1 to 86400");
    order.for_ms = (uint64_t)s * 1000;
    if (router_redirect(r, &order, err, sizeof err) < 0)
        return reply_error(reply, 409, err);
    return 200;
}

static unsigned
order(struct router *r, const char *path, const json_t *body, json_t **reply)
{
    if (strcmp(path, "/redirect") == 0)
        return redirect(r, body, reply);
    if (strcmp(path, "/confirm-dead") == 0)
        return confirm_dead(r, body, reply);
    router_return(r);
    return 200;
}

unsigned
orders_handle(void *opaque, const char *method, const char *path,
              const json_t *body, json_t **reply)
{
    if (strcmp(path, "/status") == 0) {
        if (strcmp(method, "GET") != 0)
            return reply_error(reply, 405, "status is asked with GET");
        *reply = router_status(opaque);
        return *reply ? 200 : reply_error(reply, 500, "no memory");
    }
    if (is_order(path)) {
        if (strcmp(method, "POST") != 0)
            return reply_error(reply, 405, "orders are given with POST");
        return order(opaque, path, body, reply);
    }
    return reply_error(reply, 404,
                       "only /status, /redirect, /return, /confirm-dead");
}
