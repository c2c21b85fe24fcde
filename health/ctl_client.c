/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking detour's processes and other hosts, by libcurl. */
#include "health/ctl_client.h"

#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLY_MAX (4u << 20) /* no process of ours says that much */
/* Nor has so many values: jansson takes some 230 bytes for the two of "{},",
 * and who answers at a host's address need not be that host. */
#define VALUES_MAX (256u << 10)

struct exchange {
    CURL *curl;
    struct curl_slist *headers;
    char *body;
    FILE *answer; /* memory stream into text */
    char *text;
    size_t len;
    char curl_error[CURL_ERROR_SIZE];
};

/* ---- one exchange -------------------------------------------------------- */

static size_t
take_answer(char *data, size_t size, size_t n, void *opaque)
{
    struct exchange *x = opaque;

    (void)size; /* is always 1 */
    if (ftello(x->answer) + (off_t)n > REPLY_MAX)
        return 0;
    return fwrite(data, 1, n, x->answer);
}

static void
exchange_fini(struct exchange *x)
{
    curl_easy_cleanup(x->curl);
    curl_slist_free_all(x->headers);
    free(x->body);
    if (x->answer)
        fclose(x->answer);
    free(x->text);
}

static long
timeout_ms(const struct ctl_call *c)
{
    return c->timeout_ms ? (long)c->timeout_ms : CTL_TIMEOUT_MS;
}

/* Where to; false: libcurl cannot do that. */
static bool
set_address(CURL *h, const struct ctl_call *c)
{
    const struct ctl_tls *tls = c->tls;
    char url[256];

    snprintf(url, sizeof url, "%s%s",
             c->origin ? c->origin : "http://localhost", c->path);
    if (curl_easy_setopt(h, CURLOPT_URL, url))
        return false;
    if (!c->origin)
        return !curl_easy_setopt(h, CURLOPT_UNIX_SOCKET_PATH, c->socket_path);
    if (!tls)
        return true;
    if (curl_easy_setopt(h, CURLOPT_CAINFO, tls->ca) ||
        curl_easy_setopt(h, CURLOPT_CAPATH, NULL))
        return false;
    return !tls->cert || (!curl_easy_setopt(h, CURLOPT_SSLCERT, tls->cert) &&
                          !curl_easy_setopt(h, CURLOPT_SSLKEY, tls->key));
}

/* No proxy of the environment, no redirection, nothing but HTTP. */
static bool
set_options(struct exchange *x, const struct ctl_call *c)
{
    CURL *h = x->curl;

    if (!set_address(h, c) || curl_easy_setopt(h, CURLOPT_PROXY, "") ||
        curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L) ||
        curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, timeout_ms(c)) ||
        curl_easy_setopt(h, CURLOPT_ERRORBUFFER, x->curl_error) ||
        curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_answer) ||
        curl_easy_setopt(h, CURLOPT_WRITEDATA, x) ||
        curl_easy_setopt(h, CURLOPT_PRIVATE, x))
        return false;
    if (strcmp(c->method, "POST") != 0)
        return true;
    return !curl_easy_setopt(h, CURLOPT_HTTPHEADER, x->headers) &&
           !curl_easy_setopt(h, CURLOPT_POSTFIELDS, x->body);
}

static bool
exchange_init(struct exchange *x, const struct ctl_call *c)
{
    x->curl = curl_easy_init();
    x->headers = curl_slist_append(NULL, "Content-Type: application/json");
    x->body = c->body ? json_dumps(c->body, JSON_COMPACT) : strdup("");
    x->answer = open_memstream(&x->text, &x->len);
    return x->curl && x->headers && x->body && x->answer && set_options(x, c);
}

static void
explain_failure(struct ctl_call *c, const struct exchange *x, CURLcode code)
{
    long os_error = 0;

    curl_easy_getinfo(x->curl, CURLINFO_OS_ERRNO, &os_error);
    if (code == CURLE_OPERATION_TIMEDOUT)
        snprintf(c->error, sizeof c->error, "no answer within %.3g s",
                 (double)timeout_ms(c) / 1000);
    else if (!c->origin && code == CURLE_COULDNT_CONNECT &&
             os_error == ECONNREFUSED)
        snprintf(c->error, sizeof c->error,
                 "nobody listens: the process has died");
    else if (code == CURLE_COULDNT_CONNECT && os_error != 0)
        snprintf(c->error, sizeof c->error, "cannot connect: %s",
                 strerror((int)os_error));
    else
        snprintf(c->error, sizeof c->error, "no answer: %s",
                 x->curl_error[0] ? x->curl_error : curl_easy_strerror(code));
}

/* Reckoned from what separates them, within texts too. */
static bool
has_too_many_values(const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += text[i] == ',' || text[i] == '{' || text[i] == '[';
    return n > VALUES_MAX;
}

static void
read_answer(struct ctl_call *c, struct exchange *x)
{
    const char *error;
    long status = 0;

    curl_easy_getinfo(x->curl, CURLINFO_RESPONSE_CODE, &status);
    c->status = (unsigned)status;
    fflush(x->answer);
    if (!has_too_many_values(x->text, x->len))
        c->reply = json_loadb(x->text, x->len, 0, NULL);
    if (!json_is_object(c->reply)) {
        json_decref(c->reply);
        c->reply = NULL;
        c->status = 0;
        snprintf(c->error, sizeof c->error,
                 "answered with something that is not detour's");
        return;
    }
    c->error[0] = '\0';
    if (status == 200)
        return;
    error = json_string_value(json_object_get(c->reply, "error"));
    if (error)
        snprintf(c->error, sizeof c->error, "%s", error);
    else
        snprintf(c->error, sizeof c->error, "HTTP status %ld", status);
}

/* ---- all at once --------------------------------------------------------- */

static void
run_all(CURLM *multi)
{
    int running = 1;

    while (running > 0) {
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            return;
        if (running > 0 &&
            curl_multi_poll(multi, NULL, 0, 1000, NULL) != CURLM_OK)
            return;
    }
}

static void
collect(CURLM *multi, struct ctl_call *calls, struct exchange *exchanges)
{
    CURLMsg *msg;
    int left;

    while ((msg = curl_multi_info_read(multi, &left))) {
        struct exchange *x = NULL;

        if (msg->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&x);
        if (msg->data.result == CURLE_OK)
            read_answer(&calls[x - exchanges], x);
        else
            explain_failure(&calls[x - exchanges], x, msg->data.result);
    }
}

int
ctl_ask(struct ctl_call *calls, size_t n)
{
    struct exchange *x = calloc(n ? n : 1, sizeof *x);
    CURLM *multi = curl_multi_init();
    int err = -ENOMEM;

    if (!x || !multi)
        goto out;
    for (size_t i = 0; i < n; i++) {
        calls[i].status = 0;
        calls[i].reply = NULL;
        snprintf(calls[i].error, sizeof calls[i].error, "no answer");
        if (!exchange_init(&x[i], &calls[i]) ||
            curl_multi_add_handle(multi, x[i].curl) != CURLM_OK)
            goto out;
    }
    run_all(multi);
    collect(multi, calls, x);
    err = 0;

out:
    for (size_t i = 0; x && i < n; i++) {
        if (x[i].curl)
            curl_multi_remove_handle(multi, x[i].curl);
        exchange_fini(&x[i]);
    }
    curl_multi_cleanup(multi);
    free(x);
    return err;
}

void
ctl_call_fini(struct ctl_call *c)
{
    json_decref(c->reply);
    c->reply = NULL;
}

/* ---- finding the processes ----------------------------------------------- */

/* The folder may hold other sockets, nbdkit's for instance: those are not
 * spoken to. */
static int
is_control_socket(const struct dirent *e)
{
    return fnmatch("plugin-*.sock", e->d_name, 0) == 0 ||
           strcmp(e->d_name, "proxy.sock") == 0;
}

static void
free_strings(char **strings, int n)
{
    for (int i = 0; i < n; i++)
        free(strings[i]);
    free(strings);
}

static void
free_entries(struct dirent **entries, int n)
{
    for (int i = 0; i < n; i++)
        free(entries[i]);
    free(entries);
}

int
ctl_find(const char *rundir, char ***paths)
{
    struct dirent **entries;
    int n = scandir(rundir, &entries, is_control_socket, alphasort);
    char **found;

    if (n < 0)
        return -errno;
    found = calloc((size_t)n + 1, sizeof *found);
    for (int i = 0; found && i < n; i++) {
        if (asprintf(&found[i], "%s/%s", rundir, entries[i]->d_name) < 0) {
            free_strings(found, i);
            found = NULL;
        }
    }
    free_entries(entries, n);
    if (!found)
        return -ENOMEM;
    *paths = found;
    return n;
}
