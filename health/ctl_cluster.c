/* SPDX-License-Identifier: BSD-3-Clause */
/* The cluster as its detour-health processes see it, for people. */
#include "health/ctl_cluster.h"

#include <string.h>

#include "health/ctl_client.h"
#include "health/ctl_colour.h"
#include "health/ctl_print.h"
#include "health/fields.h"

#define WIDTH_MAX 64

/* ---- asking -------------------------------------------------------------- */

void
ctl_origin(const struct config *c, const char *address, char *to, size_t room)
{
    bool v6 = strchr(address, ':');

    snprintf(to, room, "%s://%s%s%s:%u", c->health.cert ? "https" : "http",
             v6 ? "[" : "", address, v6 ? "]" : "", c->health.at.port);
}

static json_t *
ask_at(const struct config *c, const char *host, const char *address,
       FILE *errors)
{
    const struct ctl_tls tls = {
        .ca = c->health.ca ? c->health.ca : c->ca,
        .cert = c->health.cert,
        .key = c->health.key,
    };
    char origin[CTL_ORIGIN_MAX];
    struct ctl_call call = {
        .origin = origin,
        .tls = c->health.cert ? &tls : NULL,
        .method = "GET",
        .path = "/cluster",
    };
    json_t *answer;

    ctl_origin(c, address, origin, sizeof origin);
    if (ctl_ask(&call, 1) < 0)
        return NULL;
    answer = json_incref(call.reply);
    ctl_call_fini(&call);
    if (call.status == 200 && field_is(answer, "cluster", c->cluster_name))
        return answer;
    fprintf(errors, "detourctl: %s at %s: %s\n", host, origin,
            call.status == 200 ? "answered for another cluster" : call.error);
    json_decref(answer);
    return NULL;
}

static json_t *
ask_host(const struct config *c, const struct config_host *at, const char *name,
         FILE *errors)
{
    json_t *answer = NULL;

    for (size_t i = 0; !answer && i < at->naddresses; i++)
        answer = ask_at(c, name, at->addresses[i], errors);
    return answer;
}

json_t *
ctl_cluster_ask(const struct config *c, FILE *errors)
{
    const struct config_host *own = &c->health.at;
    json_t *answer =
        ask_host(c, own->naddresses ? own : c->self, c->self->name, errors);

    for (size_t i = 0; !answer && i < c->nhosts; i++)
        if (&c->hosts[i] != c->self)
            answer = ask_host(c, &c->hosts[i], c->hosts[i].name, errors);
    return answer;
}

/* ---- printing ------------------------------------------------------------ */

static const char *
cell_state(const json_t *row, const char *host)
{
    const json_t *cell = json_object_get(json_object_get(row, "hosts"), host);
    const char *state = field_text(cell, "state");

    return *state ? state : "-";
}

static void
print_padded(FILE *f, const char *word, int width)
{
    char coloured[WIDTH_MAX + 32];
    int pad = width - (int)strlen(word);

    fprintf(f, "  %s%*s", ctl_colour(word, coloured, sizeof coloured),
            pad > 0 ? pad : 0, "");
}

static int
wider(int width, const char *word)
{
    size_t len = strlen(word);

    if (len > WIDTH_MAX)
        len = WIDTH_MAX;
    return (int)len > width ? (int)len : width;
}

static int
column_width(const json_t *rows, const char *host)
{
    int width = wider(wider(0, "unknown"), host); /* or a status */
    json_t *row;
    size_t i;

    json_array_foreach(rows, i, row) width =
        wider(width, cell_state(row, host));
    return width;
}

static void
print_matrix(FILE *f, const json_t *hosts, const json_t *rows)
{
    int first = wider(0, "status");
    json_t *row, *host;
    size_t i, j;

    json_array_foreach(rows, i, row) first =
        wider(first, field_text(row, "lun"));
    fprintf(f, "%*s", first, "");
    json_array_foreach(hosts, j, host)
    {
        const char *name = field_text(host, "host");

        fprintf(f, "  %-*s", column_width(rows, name), name);
    }
    fprintf(f, "\n%-*s", first, "status");
    json_array_foreach(hosts, j, host)
        print_padded(f, field_text(host, "status"),
                     column_width(rows, field_text(host, "host")));
    json_array_foreach(rows, i, row)
    {
        fprintf(f, "\n%-*s", first, field_text(row, "lun"));
        json_array_foreach(hosts, j, host)
        {
            const char *name = field_text(host, "host");

            print_padded(f, cell_state(row, name), column_width(rows, name));
        }
    }
    fprintf(f, "\n");
}

static void
print_trouble(FILE *f, const json_t *rows)
{
    const char *host;
    json_t *row, *cell;
    size_t i;

    json_array_foreach(rows, i, row)
    {
        json_object_foreach(json_object_get(row, "hosts"), host, cell)
        {
            const char *peer = field_text(cell, "peer");

            if (field_is(cell, "status", "pass"))
                continue;
            fprintf(f, "lun %s on %s: %s%s%s: %s\n", field_text(row, "lun"),
                    host, field_text(cell, "state"), *peer ? ", peer " : "",
                    peer, field_text(cell, "reason"));
        }
    }
}

void
ctl_cluster_print(FILE *f, json_t *cluster)
{
    const json_t *hosts = json_object_get(cluster, "hosts");
    const json_t *rows = json_object_get(cluster, "luns");
    json_t *host;
    size_t i;

    ctl_scrub(cluster);
    fprintf(f, "cluster %s, told by %s at %s\n", field_text(cluster, "cluster"),
            field_text(cluster, "host"), field_text(cluster, "time"));
    print_matrix(f, hosts, rows);
    json_array_foreach(hosts, i, host)
    {
        if (!json_is_true(json_object_get(host, "answers")))
            fprintf(f, "host %s: %s\n", field_text(host, "host"),
                    field_has(host, "error") ? field_text(host, "error")
                                             : "its word is old");
    }
    print_trouble(f, rows);
}

bool
ctl_cluster_as_wanted(const json_t *cluster)
{
    const json_t *hosts = json_object_get(cluster, "hosts");
    json_t *host;
    size_t i;

    json_array_foreach(hosts, i, host)
    {
        if (!field_is(host, "status", "pass"))
            return false;
    }
    return json_array_size(hosts) > 0;
}
