/* SPDX-License-Identifier: BSD-3-Clause */
/* The status page: page.html, with what is known now in its middle. */
#include "health/page.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdlib.h>

#include "health/fields.h"

/* page.html lies in the program; the assembler puts it there. */
__asm__(".pushsection .rodata\n"
        ".global detour_page_begin\n"
        "detour_page_begin:\n"
        ".incbin \"health/page.html\"\n"
        ".byte 0\n"
        ".popsection\n");
extern const char detour_page_begin[] __attribute__((visibility("hidden")));

#define MARK "@CONTENT@"

/* ---- words ------------------------------------------------------------- */

/* What may stand between tags and in a quoted attribute.  Control characters
 * and those that turn the direction of text have no business there. */
static void
text(FILE *f, const char *s)
{
    for (const unsigned char *p = (const unsigned char *)s; *p; p++) {
        if (*p == '<')
            fputs("&lt;", f);
        else if (*p == '>')
            fputs("&gt;", f);
        else if (*p == '&')
            fputs("&amp;", f);
        else if (*p == '"')
            fputs("&quot;", f);
        else if (*p == '\'')
            fputs("&#39;", f);
        else if (*p < 0x20 || *p == 0x7f)
            fputc('?', f);
        else if (p[0] == 0xe2 &&
                 ((p[1] == 0x80 && p[2] >= 0xaa && p[2] <= 0xae) ||
                  (p[1] == 0x81 && p[2] >= 0xa6 && p[2] <= 0xa9))) {
            fputc('?', f);
            p += 2;
        } else
            fputc(*p, f);
    }
}

static void
field(FILE *f, const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);

    if (json_is_integer(v))
        fprintf(f, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    else if (json_is_real(v))
        fprintf(f, "%.1f", json_real_value(v));
    else if (*field_text(o, key))
        text(f, field_text(o, key));
    else
        fputs("–", f);
}

/* Seconds as people say them; nothing when they are not known. */
static void
span(FILE *f, const json_t *o, const char *key)
{
    double s = field_number(o, key, -1);
    unsigned long n;

    if (s < 0 || s > 1e9) {
        fputs("–", f);
        return;
    }
    n = (unsigned long)s;
    if (n < 10)
        fprintf(f, "%.1f s", s);
    else if (n < 60)
        fprintf(f, "%lu s", n);
    else if (n < 3600)
        fprintf(f, "%lu min %02lu s", n / 60, n % 60);
    else if (n < 86400)
        fprintf(f, "%lu h %02lu min", n / 3600, n / 60 % 60);
    else
        fprintf(f, "%lu d %02lu h", n / 86400, n / 3600 % 24);
}

/* One of four words, whatever stands there. */
static const char *
level(const json_t *o)
{
    static const char *const known[] = {"pass", "warn", "fail"};

    for (size_t i = 0; i < 3; i++)
        if (field_is(o, "status", known[i]))
            return known[i];
    return "unknown";
}

/* Not by colour alone. */
static const char *
sign(const char *class)
{
    static const char *const signs[][2] = {
        {"pass", "●"}, {"warn", "▲"}, {"fail", "■"}};

    for (size_t i = 0; i < 3; i++)
        if (strcmp(signs[i][0], class) == 0)
            return signs[i][1];
    return "?";
}

static void
mark(FILE *f, const char *class, const char *words)
{
    fprintf(f, "<span class=\"mark %s\">%s ", class, sign(class));
    text(f, words);
    fputs("</span>", f);
}

/* ---- the matrix -------------------------------------------------------- */

static void
write_cell(FILE *f, const json_t *cell)
{
    const char *state = field_text(cell, "state");
    const char *class = strcmp(state, "unknown") ? level(cell) : "unknown";

    if (!cell || strcmp(state, "off") == 0) {
        fprintf(f, "<td class=\"quiet\">%s</td>",
                cell ? "nothing runs" : "not a member");
        return;
    }
    fputs("<td>", f);
    mark(f, class, state);
    if (field_has(cell, "since_s")) {
        fputs("<br><small>for ", f);
        span(f, cell, "since_s");
        fputs("</small>", f);
    }
    if (strcmp(class, "pass") && *field_text(cell, "reason")) {
        fputs("<br><small class=\"text\">", f);
        text(f, field_text(cell, "reason"));
        fputs("</small>", f);
    }
    fputs("</td>", f);
}

static void
write_host_head(FILE *f, const json_t *host)
{
    const char *class = level(host);

    fputs("<th scope=\"col\">", f);
    text(f, field_text(host, "host"));
    fputs("<br>", f);
    mark(f, class, class);
    if (!json_is_true(json_object_get(host, "answers"))) {
        fputs("<br><small class=\"text\">last word ", f);
        if (field_has(host, "age_s")) {
            span(f, host, "age_s");
            fputs(" ago", f);
        } else {
            fputs("never", f);
        }
        if (field_has(host, "error")) {
            fputs(": ", f);
            text(f, field_text(host, "error"));
        }
        fputs("</small>", f);
    }
    fputs("</th>", f);
}

static void
write_matrix(FILE *f, const json_t *cluster)
{
    const json_t *hosts = json_object_get(cluster, "hosts");
    json_t *h, *row;
    size_t i, j;

    fputs("<h2>LUNs and hosts</h2>\n<div class=\"scroll\">"
          "<table class=\"matrix\">\n<tr><th scope=\"col\">LUN</th>",
          f);
    json_array_foreach(hosts, i, h)
    {
        write_host_head(f, h);
    }
    fputs("</tr>\n", f);
    json_array_foreach(json_object_get(cluster, "luns"), i, row)
    {
        fputs("<tr><th scope=\"row\">", f);
        text(f, field_text(row, "lun"));
        fputs("</th>", f);
        json_array_foreach(hosts, j, h)
        {
            write_cell(f, json_object_get(json_object_get(row, "hosts"),
                                          field_text(h, "host")));
        }
        fputs("</tr>\n", f);
    }
    fputs("</table></div>\n", f);
}

/* ---- what is wrong ----------------------------------------------------- */

static void
write_problem(FILE *f, const json_t *check)
{
    fputs("<li>", f);
    mark(f, level(check), level(check));
    fputs(" ", f);
    if (field_has(check, "lun")) {
        text(f, field_text(check, "lun"));
        fputs(", ", f);
    }
    text(f, field_text(check, "aspect"));
    fputs(": ", f);
    field(f, check, "value");
    if (*field_text(check, "unit")) {
        fputs(" ", f);
        text(f, field_text(check, "unit"));
    }
    if (field_has(check, "reason")) {
        fputs(", ", f);
        text(f, field_text(check, "reason"));
    }
    fputs(" <small>", f);
    text(f, field_text(check, "source"));
    fputs("</small></li>\n", f);
}

static void
write_problems(FILE *f, const json_t *checks)
{
    static const char *const order[] = {"fail", "warn"};
    bool any = false;
    json_t *c;
    size_t i;

    for (size_t k = 0; k < 2; k++) {
        json_array_foreach(checks, i, c)
        {
            if (!field_is(c, "status", order[k]))
                continue;
            if (!any)
                fputs("<h2>What is not as it should be on this host</h2>"
                      "\n<ul>\n",
                      f);
            any = true;
            write_problem(f, c);
        }
    }
    if (any)
        fputs("</ul>\n", f);
}

/* ---- curves ------------------------------------------------------------ */

/* A gap in what was heard is a gap in the curve. */
static void
write_lines(FILE *f, const json_t *values, double most)
{
    size_t i, n = json_array_size(values);
    bool open = false;
    json_t *v;

    json_array_foreach(values, i, v)
    {
        double x = 120.0 - (double)(n - 1 - i);
        double y = 31 - 30 * json_number_value(v) / most;

        if (!json_is_number(v)) {
            fputs(open ? "\"/>" : "", f);
            open = false;
            continue;
        }
        fputs(open ? "" : "<polyline points=\"", f);
        /* a single sample would not be seen */
        if (!open)
            fprintf(f, "%.1f,%.1f ", x - 0.9, y);
        fprintf(f, "%.1f,%.1f ", x, y);
        open = true;
    }
    fputs(open ? "\"/>" : "", f);
}

static void
milliseconds(FILE *f, double ms)
{
    if (ms < 100)
        fprintf(f, "%.2g ms", ms);
    else if (ms < 1000)
        fprintf(f, "%.0f ms", ms);
    else
        fprintf(f, "%.1f s", ms / 1000);
}

static void
write_curve(FILE *f, const char *name, const json_t *values, double to_ms,
            double least)
{
    double most = 0, last = -1;
    json_t *v;
    size_t i;

    json_array_foreach(values, i, v)
    {
        double value = json_number_value(v);

        if (!json_is_number(v))
            continue;
        most = value > most ? value : most;
        last = value;
    }
    if (last < 0)
        return;
    fprintf(f,
            "<figure><svg viewBox=\"0 0 120 32\" "
            "preserveAspectRatio=\"none\" role=\"img\" "
            "aria-label=\"%s over ten minutes\">",
            name);
    write_lines(f, values, most > least ? most : least);
    fprintf(f, "</svg><figcaption>%s: ", name);
    milliseconds(f, last * to_ms);
    fputs(", at most ", f);
    milliseconds(f, most * to_ms);
    fputs(" in 10 min</figcaption></figure>", f);
}

static void
write_curves(FILE *f, const json_t *history)
{
    fputs("<div class=\"curves\">", f);
    write_curve(f, "longest wait", json_object_get(history, "stall_ms"), 1,
                100);
    write_curve(f, "probe latency", json_object_get(history, "probe_us"), 1e-3,
                1000);
    fputs("</div>\n", f);
}

/* ---- one process ------------------------------------------------------- */

static void
row_head(FILE *f, const char *label, const char *name)
{
    fprintf(f, "<tr><th scope=\"row\">%s ", label);
    text(f, name);
    fputs("</th><td>", f);
}

static void
colon_reason(FILE *f, const json_t *o, const char *key)
{
    if (*field_text(o, key)) {
        fputs(": ", f);
        text(f, field_text(o, key));
    }
}

static void
write_paths(FILE *f, const json_t *lun)
{
    const json_t *verdict = json_object_get(lun, "verdict");
    json_t *p;
    size_t i;

    row_head(f, "own paths", "");
    field(f, verdict, "state");
    fputs(" for ", f);
    span(f, verdict, "since_s");
    colon_reason(f, verdict, "reason");
    fputs("</td></tr>\n", f);
    json_array_foreach(json_object_get(lun, "paths"), i, p)
    {
        bool good = field_is(p, "state", "good");

        row_head(f, "path", field_text(p, "name"));
        mark(f, good ? "pass" : "warn", field_text(p, "state"));
        fputs(" for ", f);
        span(f, p, "since_s");
        colon_reason(f, p, "error");
        fputs("</td></tr>\n", f);
    }
}

static void
write_device(FILE *f, const json_t *lun)
{
    const json_t *r = json_object_get(lun, "registration");

    row_head(f, "registration", "");
    field(f, r, "state");
    fputs(", key ", f);
    field(f, r, "key");
    fputs("</td></tr>\n", f);
    row_head(f, "orphans", "");
    field(f, lun, "orphans");
    fputs(" writes, ", f);
    field(f, lun, "orphan_reads");
    fputs(" reads</td></tr>\n", f);
}

static void
write_peers(FILE *f, const json_t *peers)
{
    json_t *p;
    size_t i;

    json_array_foreach(peers, i, p)
    {
        bool ready = field_is(p, "state", "ready");

        row_head(f, "peer", field_text(p, "host"));
        mark(f, ready ? "pass" : "warn", field_text(p, "state"));
        fputs(" load ", f);
        field(f, p, "load");
        colon_reason(f, p, "reason");
        fputs("</td></tr>\n", f);
    }
}

static void
write_queue(FILE *f, const json_t *q)
{
    row_head(f, "requests", "");
    field(f, q, "held");
    fputs(" wait (oldest ", f);
    field(f, q, "oldest_held_ms");
    fputs(" ms), ", f);
    field(f, q, "inflight");
    fputs(" under way (oldest ", f);
    field(f, q, "oldest_inflight_ms");
    fputs(" ms), longest stall ever ", f);
    field(f, q, "longest_stall_ms");
    fputs(" ms</td></tr>\n", f);
}

static const json_t *
find_check(const json_t *checks, const char *source, const char *aspect,
           const char *lun)
{
    json_t *c;
    size_t i;

    json_array_foreach(checks, i, c)
    {
        if (field_is(c, "source", source) && field_is(c, "aspect", aspect) &&
            (!lun || field_is(c, "lun", lun)))
            return c;
    }
    return NULL;
}

static void
write_plugin(FILE *f, const json_t *process, const json_t *checks,
             const json_t *history)
{
    const char *name = field_text(process, "name");
    const json_t *answer = json_object_get(process, "answer");
    const json_t *route = json_object_get(answer, "route");
    const json_t *lun = json_object_get(answer, "lun_status");

    mark(f, level(find_check(checks, name, "route", NULL)),
         field_text(route, "phase"));
    if (*field_text(route, "peer")) {
        fputs(" <small>through ", f);
        text(f, field_text(route, "peer"));
        fputs("</small>", f);
    }
    fputs("</h3>\n<p class=\"text\">for ", f);
    span(f, route, "since_s");
    colon_reason(f, route, "reason");
    fputs("</p>\n<table>\n", f);
    write_queue(f, json_object_get(answer, "queue"));
    write_paths(f, lun);
    write_device(f, lun);
    write_peers(f, json_object_get(answer, "peers"));
    fputs("</table>\n", f);
    write_curves(f, json_object_get(history, name));
}

static void
write_share(FILE *f, const json_t *share, const json_t *checks)
{
    const char *lun = field_text(share, "lun");
    json_t *s;
    size_t i;

    row_head(f, "", lun);
    mark(f, level(find_check(checks, "proxy", "proxy", lun)),
         field_text(share, "state"));
    fputs(" for ", f);
    span(f, share, "since_s");
    colon_reason(f, share, "reason");
    json_array_foreach(json_object_get(share, "sessions"), i, s)
    {
        fputs("<br>", f);
        text(f, field_text(s, "host"));
        fputs(" <small>", f);
        text(f, field_text(s, "client"));
        fputs(" for ", f);
        span(f, s, "age_s");
        fputs("</small>", f);
    }
    fputs("</td></tr>\n", f);
}

static void
write_proxy(FILE *f, const json_t *process, const json_t *checks)
{
    const json_t *answer = json_object_get(process, "answer");
    bool draining = json_is_true(json_object_get(answer, "draining"));
    json_t *share;
    size_t i;

    mark(f, draining ? "warn" : "pass", draining ? "draining" : "answers");
    fputs("</h3>\n<p>serves this host's LUNs to its peers; connections: ", f);
    field(f, answer, "connections");
    fputs("</p>\n<table>\n", f);
    json_array_foreach(json_object_get(answer, "luns"), i, share)
    {
        write_share(f, share, checks);
    }
    fputs("</table>\n", f);
}

/* Nothing of what it said before: that may be wrong by now. */
static void
write_silent(FILE *f, const json_t *process, const json_t *checks)
{
    const json_t *check =
        find_check(checks, field_text(process, "name"), "process", NULL);

    mark(f, "unknown", "unknown");
    fputs("</h3>\n<p class=\"text\">", f);
    text(f, field_text(check, "reason"));
    fputs("</p>\n", f);
}

static void
write_process(FILE *f, const json_t *process, const json_t *checks,
              const json_t *history)
{
    const json_t *answer = json_object_get(process, "answer");

    fputs("<article><h3>", f);
    text(f, field_text(process, "name"));
    if (!json_is_true(json_object_get(process, "answers")))
        write_silent(f, process, checks);
    else if (field_is(answer, "process", "proxy"))
        write_proxy(f, process, checks);
    else
        write_plugin(f, process, checks, history);
    fputs("</article>\n", f);
}

static void
write_processes(FILE *f, const json_t *status, const json_t *history)
{
    const json_t *checks = json_object_get(status, "checks");
    json_t *p;
    size_t i;

    fputs("<h2>Processes of this host</h2>\n<div class=\"cards\">\n", f);
    json_array_foreach(json_object_get(status, "processes"), i, p)
    {
        write_process(f, p, checks, history);
    }
    fputs("</div>\n", f);
}

/* ---- the page ---------------------------------------------------------- */

static const json_t *
own_status(const json_t *cluster)
{
    json_t *h;
    size_t i;

    json_array_foreach(json_object_get(cluster, "hosts"), i, h)
    {
        if (field_is(h, "host", field_text(cluster, "host")))
            return json_object_get(h, "answer");
    }
    return NULL;
}

static void
write_content(FILE *f, const json_t *cluster, const json_t *history)
{
    const json_t *status = own_status(cluster);

    fputs("<header><h1>", f);
    text(f, field_text(cluster, "host"));
    fputs("</h1>", f);
    mark(f, level(status), level(status));
    fputs("<small>cluster ", f);
    text(f, field_text(cluster, "cluster"));
    fputs(", detour ", f);
    text(f, field_text(status, "version"));
    fputs(", as of ", f);
    text(f, field_text(cluster, "time"));
    fputs("</small></header>\n", f);
    write_matrix(f, cluster);
    write_problems(f, json_object_get(status, "checks"));
    write_processes(f, status, history);
}

void
page_write(FILE *f, const json_t *cluster, const json_t *history)
{
    const char *middle = strstr(detour_page_begin, MARK);

    fwrite(detour_page_begin, 1, (size_t)(middle - detour_page_begin), f);
    write_content(f, cluster, history);
    fputs(middle + strlen(MARK), f);
}

/* ---- the policy -------------------------------------------------------- */

/* "sha256-..." of what stands between begin and end in the page. */
static int
hash_of(const char *begin, const char *end, gnutls_datum_t *base64)
{
    const char *from = strstr(detour_page_begin, begin) + strlen(begin);
    unsigned char digest[32];
    const gnutls_datum_t raw = {digest, sizeof digest};

    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, from,
                         (size_t)(strstr(from, end) - from), digest) < 0)
        return -ENOTSUP;
    return gnutls_base64_encode2(&raw, base64) < 0 ? -ENOMEM : 0;
}

char *
page_policy(void)
{
    gnutls_datum_t style = {NULL, 0}, script = {NULL, 0};
    char *policy = NULL;
    int err = hash_of("<style>", "</style>", &style);

    if (err == 0)
        err = hash_of("<script>", "</script>", &script);
    if (err == 0 &&
        asprintf(&policy,
                 "default-src 'none'; style-src 'sha256-%.*s'; "
                 "script-src 'sha256-%.*s'; connect-src 'self'; img-src data:; "
                 "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                 (int)style.size, style.data, (int)script.size,
                 script.data) < 0) {
        policy = NULL;
        err = -ENOMEM;
    }
    gnutls_free(style.data);
    gnutls_free(script.data);
    errno = -err;
    return policy;
}
