/* SPDX-License-Identifier: BSD-3-Clause */
/* Prints what happened to one unit, in order of time, for who must find out. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/blockcheck/ruling.h"

struct line {
    uint64_t start_ns;
    size_t request;
};

static int
by_start(const void *a, const void *b)
{
    const struct line *x = a, *y = b;

    return (x->start_ns > y->start_ns) - (x->start_ns < y->start_ns);
}

static bool
covers(const struct request *r, uint64_t offset)
{
    return r->kind != REQUEST_FLUSH && r->offset <= offset &&
           offset - r->offset < r->count;
}

static uint64_t
begin_of(const struct trace *h)
{
    uint64_t first = NEVER;

    for (size_t i = 0; i < h->nrequests; i++)
        if (h->requests[i].start_ns < first)
            first = h->requests[i].start_ns;
    return first;
}

/* All that touched the unit before the fault was seen, in order of start. */
static size_t
collect(const struct trace *h, const struct fault *f, struct line *lines)
{
    uint64_t end_ns = h->requests[f->request].end_ns;
    size_t n = 0;

    for (size_t i = 0; i < h->nrequests; i++)
        if (covers(&h->requests[i], f->offset) &&
            h->requests[i].start_ns <= end_ns)
            lines[n++] = (struct line){h->requests[i].start_ns, i};
    qsort(lines, n, sizeof *lines, by_start);
    return n;
}

static const char *
answer_text(const struct request *r)
{
    if (r->end_ns == NEVER)
        return "never answered";
    if (r->error == ERROR_LOST)
        return "lost with its connection";
    return r->error == 0 ? "ok" : strerror((int)r->error);
}

static void
print_time(uint64_t ns, uint64_t begin_ns, FILE *to)
{
    if (ns == NEVER)
        fprintf(to, "%12s", "-");
    else
        fprintf(to, "%12.6f", (double)(ns - begin_ns) / 1e9);
}

static void
print_request(const struct trace *h, size_t index, const struct fault *f,
              uint64_t begin_ns, FILE *to)
{
    const struct request *r = &h->requests[index];
    bool found = r->kind == REQUEST_READ && request_ok(r);
    uint64_t value = found ? trace_value(h, r, f->offset) : r->value;
    char text[32];

    fputs("  ", to);
    print_time(r->start_ns, begin_ns, to);
    print_time(r->end_ns, begin_ns, to);
    fprintf(to, "  %8x.%-2u %-5s%-4s %12" PRIu64 "+%-7" PRIu32 " %-14s %s%s\n",
            h->lanes[r->lane].writer, h->lanes[r->lane].thread,
            request_names[r->kind], r->flags & REQUEST_FUA ? ",fua" : "",
            r->offset, r->count,
            found || r->kind != REQUEST_READ ? value_text(value, text) : "",
            answer_text(r), index == f->request ? "  <== impossible" : "");
}

static bool
makes(const struct trace *h, size_t index, uint64_t value)
{
    const struct request *r = &h->requests[index];

    return r->kind != REQUEST_READ && r->value == value;
}

void
ruling_story(const struct trace *h, const struct fault *f, size_t most,
             FILE *to)
{
    struct line *lines = calloc(h->nrequests + 1, sizeof *lines);
    uint64_t begin_ns = begin_of(h);
    size_t n, skip;
    char text[32];

    fprintf(to, "unit at %" PRIu64 ": %s: found %s%s%s\n", f->offset,
            fault_names[f->kind], value_text(f->value, text),
            *trace_note_of(h, f->value) ? ", " : "",
            trace_note_of(h, f->value));
    if (!lines)
        return;
    n = collect(h, f, lines);
    skip = n > most ? n - most : 0;
    fprintf(to, "  %12s%12s  %-11s %-9s %12s %-7s %-14s %s\n", "begin s",
            "end s", "who", "what", "offset", "+bytes", "value", "answer");
    for (size_t i = 0; i < n; i++)
        if (i >= skip || makes(h, lines[i].request, f->value))
            print_request(h, lines[i].request, f, begin_ns, to);
        else if (i + 1 == skip)
            fprintf(to, "  ... %zu requests before these left out\n", skip);
    free(lines);
}
