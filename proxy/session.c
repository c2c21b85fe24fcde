/* SPDX-License-Identifier: BSD-3-Clause */
/* Sessions and their generations. */
#include "proxy/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/rules.h"

static void
client_free(struct session_client *c)
{
    if (!c)
        return;
    free(c->host);
    free(c->client);
    free(c);
}

static void
session_free(struct session *s)
{
    lun_tally_put(s->tally);
    free(s);
}

static void
clients_free(struct session_client **list)
{
    while (*list) {
        struct session_client *c = *list;

        *list = c->next;
        client_free(c);
    }
}

void
session_table_fini(struct session_table *t)
{
    while (t->sessions) {
        struct session *s = t->sessions;

        t->sessions = s->next;
        session_free(s);
    }
    clients_free(&t->clients);
    clients_free(&t->plain);
}

static struct session_client *
find(const struct session_table *t, const char *host, const char *client)
{
    for (struct session_client *c = client[0] ? t->clients : t->plain; c;
         c = c->next)
        if (strcmp(c->client, client) == 0 && strcmp(c->host, host) == 0)
            return c;
    return NULL;
}

static int
add_client(struct session_table *t, const char *host, const char *client,
           struct session_client **added)
{
    struct session_client **list = client[0] ? &t->clients : &t->plain, *c;
    unsigned n = 0;

    for (c = *list; c; c = c->next)
        n += strcmp(c->host, host) == 0;
    /* Forgetting one would let its old generations in again. */
    if (n >= SESSION_CLIENTS_MAX)
        return -ENOSPC;
    c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->host = strdup(host);
    c->client = strdup(client);
    if (!c->host || !c->client) {
        client_free(c);
        return -ENOMEM;
    }
    c->next = *list;
    *list = c;
    *added = c;
    return 0;
}

int
session_claim(struct session_table *t, const char *host, const char *client,
              uint64_t generation, uint64_t *seen)
{
    struct session_client *c = find(t, host, client);
    int rc = c ? 0 : add_client(t, host, client, &c);

    if (rc)
        return rc;
    if (generation < c->generation) {
        *seen = c->generation;
        return -ESTALE;
    }
    c->generation = generation;
    for (struct session *s = t->sessions; s; s = s->next) {
        if (s->of != c || s->generation >= generation || !rule_kept(RULE_OLDER))
            continue;
        for (struct session_member *m = s->members; m; m = m->next)
            m->order(m, SESSION_FINISH);
    }
    return 0;
}

struct session *
session_older(struct session_table *t, const char *host, const char *client,
              uint64_t generation)
{
    const struct session_client *c = find(t, host, client);

    for (struct session *s = t->sessions; c && s; s = s->next)
        if (s->of == c && s->generation < generation &&
            ((s->members && rule_kept(RULE_OLDER)) ||
             lun_tally_count(s->tally) > 0))
            return s;
    return NULL;
}

static struct session *
add_session(struct session_table *t, struct session_client *c, const char *host,
            uint64_t generation, uint64_t since_ms)
{
    struct session *s = calloc(1, sizeof *s);

    if (!s)
        return NULL;
    s->tally = lun_tally_create();
    if (!s->tally) {
        free(s);
        return NULL;
    }
    s->of = c;
    s->host = host;
    s->generation = generation;
    s->since_ms = since_ms;
    s->next = t->sessions;
    t->sessions = s;
    return s;
}

int
session_join(struct session_table *t, const char *host, const char *client,
             uint64_t generation, struct session_member *m)
{
    struct session_client *c = NULL;
    struct session *s = NULL;

    if (client[0]) {
        c = find(t, host, client);
        if (!c || c->generation != generation)
            return -ESTALE;
        for (s = t->sessions; s; s = s->next)
            if (s->of == c && s->generation == generation)
                break;
    } else if (!find(t, host, "")) {
        struct session_client *plain; /* for its account */
        int rc = add_client(t, host, "", &plain);

        if (rc)
            return rc;
    }
    if (!s)
        s = add_session(t, c, host, generation, m->since_ms);
    if (!s)
        return -ENOMEM;
    m->session = s;
    m->next = s->members;
    s->members = m;
    return 0;
}

static void
add_work(struct session_work *w, const struct session_member *m)
{
    w->requests += atomic_load(&m->requests);
    w->bytes_read += atomic_load(&m->bytes_read);
    w->bytes_written += atomic_load(&m->bytes_written);
}

static struct session_client *
account(const struct session_table *t, const struct session *s)
{
    return s->of ? s->of : find(t, s->host, "");
}

static void
each_work(const struct session_table *t, const struct session_client *list,
          void (*fn)(void *opaque, const struct session_client *c,
                     const struct session_work *w),
          void *opaque)
{
    for (const struct session_client *c = list; c; c = c->next) {
        struct session_work w = c->past;

        for (const struct session *s = t->sessions; s; s = s->next)
            for (const struct session_member *m = s->members;
                 m && account(t, s) == c; m = m->next)
                add_work(&w, m);
        fn(opaque, c, &w);
    }
}

void
session_each_work(const struct session_table *t,
                  void (*fn)(void *opaque, const struct session_client *c,
                             const struct session_work *w),
                  void *opaque)
{
    each_work(t, t->clients, fn, opaque);
    each_work(t, t->plain, fn, opaque);
}

void
session_leave(struct session_table *t, struct session_member *m)
{
    struct session_member **p = &m->session->members;

    add_work(&account(t, m->session)->past, m);
    while (*p != m)
        p = &(*p)->next;
    *p = m->next;
    m->session = NULL;
    m->next = NULL;
    session_sweep(t);
}

void
session_order_all(struct session_table *t, enum session_order o)
{
    for (struct session *s = t->sessions; s; s = s->next)
        for (struct session_member *m = s->members; m; m = m->next)
            m->order(m, o);
}

static void
count(const struct session *s, struct session_counts *n)
{
    n->sessions += s->members != NULL;
    n->pending += lun_tally_count(s->tally);
    for (struct session_member *m = s->members; m; m = m->next) {
        uint64_t oldest = atomic_load(&m->oldest_ms);

        n->members++;
        n->inflight += atomic_load(&m->inflight);
        if (oldest && (!n->oldest_ms || oldest < n->oldest_ms))
            n->oldest_ms = oldest;
        if (atomic_load(&m->answered_ms) > n->answered_ms)
            n->answered_ms = atomic_load(&m->answered_ms);
    }
}

struct session_counts
session_sweep(struct session_table *t)
{
    struct session_counts n = {0};

    for (struct session **p = &t->sessions; *p;) {
        struct session *s = *p;

        if (!s->members && !s->pins && lun_tally_count(s->tally) == 0) {
            *p = s->next;
            session_free(s);
            continue;
        }
        count(s, &n);
        p = &s->next;
    }
    return n;
}
