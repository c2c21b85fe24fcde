/* SPDX-License-Identifier: BSD-3-Clause */
/* Latencies, errors and the longest stall, counted after the fact. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/blockcheck/summary.h"

#define BAR 40 /* columns */

struct moment {
    uint64_t ns;
    bool end, success;
};

static void
count(struct summary *s, const struct request *r)
{
    uint64_t ns = r->end_ns - r->start_ns, us = ns / 1000;
    unsigned bucket = us == 0 ? 0 : 64 - (unsigned)__builtin_clzll(us);

    s->requests++;
    s->by_kind[r->kind]++;
    if (r->end_ns == NEVER) {
        s->unanswered++;
        return;
    }
    if (r->error == ERROR_LOST) {
        s->lost++;
        return;
    }
    if (r->error != 0) {
        s->errors++;
        s->by_errno[r->error < SUMMARY_ERRNOS ? r->error : 0]++;
    }
    s->latency[bucket < SUMMARY_BUCKETS ? bucket : SUMMARY_BUCKETS - 1]++;
    if (ns > s->slowest_ns)
        s->slowest_ns = ns;
}

static int
by_time(const void *a, const void *b)
{
    const struct moment *x = a, *y = b;

    if (x->ns != y->ns)
        return x->ns < y->ns ? -1 : 1;
    return (int)x->end - (int)y->end;
}

static void
note_stall(struct summary *s, uint64_t begin_ns, uint64_t end_ns)
{
    if (end_ns - begin_ns <= s->stall_ns)
        return;
    s->stall_ns = end_ns - begin_ns;
    s->stall_begin_ns = begin_ns;
}

/* What is wanted and not had keeps the clock running. */
static void
find_stall(struct summary *s, const struct moment *m, size_t n)
{
    uint64_t under_way = 0, since_ns = 0;
    bool wanting = false;

    for (size_t i = 0; i < n; i++) {
        if (!m[i].end) {
            if (!wanting)
                since_ns = m[i].ns;
            wanting = true;
            under_way++;
            continue;
        }
        under_way--;
        if (!m[i].success)
            continue;
        note_stall(s, since_ns, m[i].ns);
        since_ns = m[i].ns;
        wanting = under_way > 0;
    }
    if (wanting && n > 0)
        note_stall(s, since_ns, m[n - 1].ns);
}

int
summary_make(const struct trace *h, struct summary *s)
{
    struct moment *m = malloc((2 * h->nrequests + 1) * sizeof *m);
    size_t n = 0;

    memset(s, 0, sizeof *s);
    if (!m)
        return -ENOMEM;
    for (size_t i = 0; i < h->nrequests; i++) {
        const struct request *r = &h->requests[i];

        count(s, r);
        m[n++] = (struct moment){.ns = r->start_ns};
        if (r->end_ns != NEVER)
            m[n++] = (struct moment){
                .ns = r->end_ns, .end = true, .success = r->error == 0};
    }
    qsort(m, n, sizeof *m, by_time);
    find_stall(s, m, n);
    free(m);
    return 0;
}

uint64_t
summary_machine_ns(const struct summary *s, const struct summary_pause *pauses,
                   size_t n)
{
    uint64_t sum = 0, stall_end = s->stall_begin_ns + s->stall_ns;

    for (size_t i = 0; i < n; i++) {
        uint64_t begin = pauses[i].begin_ns, end = pauses[i].end_ns;

        if (begin < s->stall_begin_ns)
            begin = s->stall_begin_ns;
        if (end > stall_end)
            end = stall_end;
        if (begin < end)
            sum += end - begin;
    }
    return sum;
}

static void
print_latency(const struct summary *s, FILE *to)
{
    uint64_t most = 1;

    for (size_t i = 0; i < SUMMARY_BUCKETS; i++)
        if (s->latency[i] > most)
            most = s->latency[i];
    for (size_t i = 0; i < SUMMARY_BUCKETS; i++) {
        int bar = (int)((s->latency[i] * BAR + most - 1) / most);

        if (s->latency[i] > 0)
            fprintf(to, "latency   < %10.3f ms %10" PRIu64 " %.*s\n",
                    (double)(UINT64_C(1) << i) / 1e3, s->latency[i], bar,
                    "########################################");
    }
}

void
summary_print(const struct summary *s, FILE *to)
{
    fputs("requests ", to);
    for (size_t i = 0; i < REQUEST_KINDS; i++)
        fprintf(to, " %s %" PRIu64, request_names[i], s->by_kind[i]);
    fprintf(to,
            "\nerrors    told %" PRIu64 ", lost with a connection %" PRIu64
            ", never answered %" PRIu64 "\n",
            s->errors, s->lost, s->unanswered);
    for (int i = 0; i < SUMMARY_ERRNOS; i++)
        if (s->by_errno[i] > 0)
            fprintf(to, "error     %s %" PRIu64 "\n",
                    i ? strerrorname_np(i) : "unknown", s->by_errno[i]);
    print_latency(s, to);
    fprintf(to, "slowest   %.3f ms, longest stall %.3f ms\n",
            (double)s->slowest_ns / 1e6, (double)s->stall_ns / 1e6);
}
