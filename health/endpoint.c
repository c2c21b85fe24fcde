/* SPDX-License-Identifier: BSD-3-Clause */
/* What detour-health serves on the network.
 *
 * Threads: requests are answered on those of health/http, one for each
 * address.  What they share is fixed, but for the picture, which has a lock. */
#include "health/endpoint.h"

#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/listen.h"
#include "common/log.h"
#include "health/documents.h"
#include "health/http.h"
#include "health/metrics.h"
#include "health/page.h"

#define CLIENTS        64u /* at once, for each address */
#define CLIENTS_PER_IP 16u /* or one machine could keep all others waiting */
#define CLIENT_MS      10000
#define CLIENT_MEMORY  (32 * 1024)
#define JSON_AS_SERVED (JSON_COMPACT | JSON_REAL_PRECISION(12))
#define PAGES          5

struct answer {
    unsigned status;
    const char *type;
    char *body; /* malloc's */
    size_t len;
};

struct endpoint {
    struct gather *gather;
    struct {
        struct answer answer; /* without a body: none was made */
        uint64_t made_ms;
    } last[PAGES]; /* with the picture's lock */
    bool client_certificates;
    char *policy;
    gnutls_datum_t cert, key, ca; /* PEM, ending in NUL */
    struct http **servers;        /* NULL ends them */
};

/* ---- bodies ------------------------------------------------------------ */

/* Takes j. */
static void
json_body(struct answer *a, json_t *j, const char *type)
{
    a->body = j ? json_dumps(j, JSON_AS_SERVED) : NULL;
    a->len = a->body ? strlen(a->body) : 0;
    a->type = type;
    json_decref(j);
}

static void
make_status(struct answer *a, const struct picture *p, const struct moment *now)
{
    json_body(a, documents_status(p, now), "application/json");
}

static void
make_health(struct answer *a, const struct picture *p, const struct moment *now)
{
    json_t *status = documents_status(p, now);
    json_t *health = status ? documents_health(status, now) : NULL;

    a->status = documents_http_status(health);
    json_body(a, health, "application/health+json");
    json_decref(status);
}

static json_t *
cluster(const struct picture *p, const struct moment *now)
{
    json_t *status = documents_status(p, now);
    json_t *all = status ? documents_cluster(p, status, now) : NULL;

    json_decref(status);
    return all;
}

static void
make_cluster(struct answer *a, const struct picture *p,
             const struct moment *now)
{
    json_body(a, cluster(p, now), "application/json");
}

static void
make_metrics(struct answer *a, const struct picture *p,
             const struct moment *now)
{
    json_t *status = documents_status(p, now);
    FILE *f = status ? open_memstream(&a->body, &a->len) : NULL;

    a->type = METRICS_CONTENT_TYPE;
    if (f) {
        metrics_write(f, status);
        fclose(f);
    }
    json_decref(status);
}

static void
make_page(struct answer *a, const struct picture *p, const struct moment *now)
{
    json_t *all = cluster(p, now), *history = documents_history(p, now);
    FILE *f = all && history ? open_memstream(&a->body, &a->len) : NULL;

    a->type = "text/html; charset=utf-8";
    if (f) {
        page_write(f, all, history);
        fclose(f);
    }
    json_decref(history);
    json_decref(all);
}

static const struct {
    const char *path;
    void (*make)(struct answer *a, const struct picture *p,
                 const struct moment *now);
} pages[PAGES] = {
    {"/health", make_health}, {"/metrics", make_metrics},
    {"/status", make_status}, {"/cluster", make_cluster},
    {"/", make_page},
};

/* The page as it is now, or was a moment ago; without a body: no memory. */
static struct answer
get_page(struct endpoint *e, size_t i, const struct moment *now)
{
    const struct picture *p = gather_lock(e->gather);
    struct answer *last = &e->last[i].answer, a;

    if (!last->body || now->ms >= e->last[i].made_ms + ENDPOINT_SHARED_MS) {
        free(last->body);
        *last = (struct answer){.status = MHD_HTTP_OK};
        pages[i].make(last, p, now);
        e->last[i].made_ms = now->ms;
    }
    a = *last;
    a.body = last->body ? malloc(last->len + 1) : NULL;
    if (a.body)
        memcpy(a.body, last->body, last->len);
    gather_unlock(e->gather);
    return a;
}

/* ---- answering --------------------------------------------------------- */

/* Takes a->body. */
static enum MHD_Result
send_answer(struct endpoint *e, struct MHD_Connection *conn,
            const struct answer *a)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(a->len, a->body, MHD_RESPMEM_MUST_FREE);
    enum MHD_Result result = MHD_NO;

    if (!r) {
        free(a->body);
        return MHD_NO;
    }
    if (MHD_add_response_header(r, "Content-Type", a->type) &&
        MHD_add_response_header(r, "Cache-Control", "no-store") &&
        MHD_add_response_header(r, "X-Content-Type-Options", "nosniff") &&
        MHD_add_response_header(r, "Content-Security-Policy", e->policy) &&
        MHD_add_response_header(r, "Connection", "close") &&
        (a->status != MHD_HTTP_METHOD_NOT_ALLOWED ||
         MHD_add_response_header(r, "Allow", "GET, HEAD")))
        result = MHD_queue_response(conn, a->status, r);
    MHD_destroy_response(r);
    return result;
}

static enum MHD_Result
refuse(struct endpoint *e, struct MHD_Connection *conn, unsigned status,
       const char *why)
{
    struct answer a = {.status = status, .type = "text/plain; charset=utf-8"};

    a.body = strdup(why);
    if (!a.body)
        return MHD_NO;
    a.len = strlen(a.body);
    return send_answer(e, conn, &a);
}

static bool
shows_certificate(struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    gnutls_typed_vdata_st purpose = {
        .type = GNUTLS_DT_KEY_PURPOSE_OID,
        .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT,
    };
    unsigned status = 1;

    return info &&
           gnutls_certificate_verify_peers(info->tls_session, &purpose, 1,
                                           &status) >= 0 &&
           status == 0;
}

static enum MHD_Result
on_request(void *cls, struct MHD_Connection *conn, const char *url,
           const char *method, const char *version, const char *data,
           size_t *len, void **slot)
{
    struct moment now = {clock_ms(), time(NULL)};
    struct endpoint *e = cls;
    struct answer a;

    (void)version;
    (void)data;
    (void)len;
    (void)slot;
    if (e->client_certificates && !shows_certificate(conn))
        return refuse(e, conn, MHD_HTTP_FORBIDDEN,
                      "a certificate of the cluster is needed\n");
    if (strcmp(method, "GET") && strcmp(method, "HEAD"))
        return refuse(e, conn, MHD_HTTP_METHOD_NOT_ALLOWED,
                      "only GET and HEAD\n");
    for (size_t i = 0; i < PAGES; i++) {
        if (strcmp(url, pages[i].path))
            continue;
        a = get_page(e, i, &now);
        return a.body ? send_answer(e, conn, &a)
                      : refuse(e, conn, MHD_HTTP_INTERNAL_SERVER_ERROR,
                               "out of memory\n");
    }
    return refuse(e, conn, MHD_HTTP_NOT_FOUND,
                  "there are /, /health, /metrics, /status and /cluster\n");
}

/* ---- start and stop ---------------------------------------------------- */

static bool
load_pem(const char *path, gnutls_datum_t *to)
{
    int r = gnutls_load_file(path, to);

    if (r < 0)
        log_error("%s: %s", path, gnutls_strerror(r));
    return r >= 0;
}

static bool
load_tls(struct endpoint *e, const struct config *c)
{
    const struct config_health *h = &c->health;

    return !h->cert ||
           (load_pem(h->cert, &e->cert) && load_pem(h->key, &e->key) &&
            load_pem(h->ca ? h->ca : c->ca, &e->ca));
}

/* fds are taken one by one; those that are not are left to close. */
static bool
start_servers(struct endpoint *e, int *fds, size_t n)
{
    const struct http_tls tls = {
        .cert = (const char *)e->cert.data,
        .key = (const char *)e->key.data,
        .client_ca = e->client_certificates ? (const char *)e->ca.data : NULL,
    };
    const struct http_options opt = {
        .clients = CLIENTS,
        .per_ip = CLIENTS_PER_IP,
        .client_ms = CLIENT_MS,
        .memory = CLIENT_MEMORY,
        .tls = e->cert.data ? &tls : NULL,
        .handle = on_request,
        .opaque = e,
    };

    e->servers = calloc(n + 1, sizeof(struct http *));
    for (size_t i = 0; e->servers && i < n; i++) {
        int fd = fds[i];

        fds[i] = -1;
        e->servers[i] = http_start_take_fd(fd, &opt);
        if (!e->servers[i]) {
            log_error("cannot serve HTTP%s: %s", opt.tls ? " over TLS" : "",
                      strerror(errno));
            return false;
        }
    }
    return e->servers != NULL;
}

static bool
start(struct endpoint *e, const struct config *c)
{
    struct config_host at = c->health.at;
    bool good;
    int *fds;

    if (at.naddresses == 0) {
        at.addresses = c->self->addresses;
        at.naddresses = c->self->naddresses;
    }
    e->policy = page_policy();
    if (!e->policy) {
        log_error("cannot hash the page: %s", strerror(errno));
        return false;
    }
    if (!load_tls(e, c))
        return false;
    fds = listen_open(&at);
    if (!fds)
        return false;
    good = start_servers(e, fds, at.naddresses);
    listen_close(fds, at.naddresses);
    return good;
}

struct endpoint *
endpoint_start(const struct config *c, struct gather *g)
{
    struct endpoint *e = calloc(1, sizeof *e);

    if (!e) {
        log_error("out of memory");
        return NULL;
    }
    e->gather = g;
    e->client_certificates = c->health.client_certificates;
    if (start(e, c))
        return e;
    endpoint_stop(e);
    return NULL;
}

void
endpoint_stop(struct endpoint *e)
{
    if (!e)
        return;
    for (size_t i = 0; e->servers && e->servers[i]; i++)
        http_stop(e->servers[i]);
    free(e->servers);
    for (size_t i = 0; i < PAGES; i++)
        free(e->last[i].answer.body);
    gnutls_free(e->cert.data);
    gnutls_free(e->key.data);
    gnutls_free(e->ca.data);
    free(e->policy);
    free(e);
}
