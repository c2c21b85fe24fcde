/* SPDX-License-Identifier: BSD-3-Clause */
/* Histories in memory: growing arrays; reads are kept as runs of values. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/blockcheck/trace.h"

const char *const request_names[REQUEST_KINDS] = {"read", "write", "zero",
                                                  "trim", "flush"};

void
trace_init(struct trace *h, uint32_t unit)
{
    memset(h, 0, sizeof *h);
    h->unit = unit;
}

void
trace_fini(struct trace *h)
{
    free(h->requests);
    free(h->runs);
    free(h->lanes);
    free(h->notes);
    trace_init(h, h->unit);
}

/* Room for more elements behind the n that are there. */
static int
reserve(void **array, size_t *room, size_t n, size_t more, size_t size)
{
    size_t want = *room ? *room : 64;
    void *bigger;

    if (more > SIZE_MAX / size / 4 - n)
        return -ENOMEM;
    if (n + more <= *room)
        return 0;
    while (want < n + more)
        want += want / 2;
    bigger = realloc(*array, want * size);
    if (!bigger)
        return -ENOMEM;
    *array = bigger;
    *room = want;
    return 0;
}

#define RESERVE(h, what, more)                                                 \
    reserve((void **)&(h)->what, &(h)->room_##what, (h)->n##what, more,        \
            sizeof *(h)->what)

int
trace_lane(struct trace *h, uint32_t writer, uint32_t thread)
{
    for (size_t i = h->nlanes; i-- > 0;)
        if (h->lanes[i].writer == writer && h->lanes[i].thread == thread)
            return (int)i;
    if (h->nlanes > UINT16_MAX)
        return -EOVERFLOW;
    if (RESERVE(h, lanes, 1) < 0)
        return -ENOMEM;
    h->lanes[h->nlanes] = (struct lane){.writer = writer, .thread = thread};
    return (int)h->nlanes++;
}

int
trace_add(struct trace *h, const struct request *r)
{
    if (RESERVE(h, requests, 1) < 0)
        return -ENOMEM;
    h->requests[h->nrequests++] = *r;
    return 0;
}

int
trace_add_read(struct trace *h, const struct request *r, const uint64_t *values)
{
    struct request read = *r;
    size_t n = r->count / h->unit;

    if (RESERVE(h, runs, n) < 0)
        return -ENOMEM;
    read.first_run = h->nruns;
    read.runs = 0;
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && values[i] == values[i - 1]) {
            h->runs[h->nruns - 1].units++;
            continue;
        }
        h->runs[h->nruns++] = (struct run){.value = values[i], .units = 1};
        read.runs++;
    }
    return trace_add(h, &read);
}

const char *
trace_note_of(const struct trace *h, uint64_t value)
{
    for (size_t i = 0; i < h->nnotes; i++)
        if (h->notes[i].value == value)
            return h->notes[i].text;
    return "";
}

int
trace_note(struct trace *h, uint64_t value, const char *text)
{
    struct note *note;

    if (*text == '\0' || *trace_note_of(h, value) != '\0')
        return 0;
    if (RESERVE(h, notes, 1) < 0)
        return -ENOMEM;
    note = &h->notes[h->nnotes++];
    note->value = value;
    strncpy(note->text, text, sizeof note->text - 1);
    note->text[sizeof note->text - 1] = '\0';
    return 0;
}

uint64_t
trace_value(const struct trace *h, const struct request *r, uint64_t offset)
{
    const struct run *run = &h->runs[r->first_run];
    uint64_t unit = (offset - r->offset) / h->unit;

    while (unit >= run->units)
        unit -= run++->units;
    return run->value;
}

/* The lane indices and the runs of a request move with it. */
static int
merge_request(struct trace *h, const struct trace *from,
              const struct request *r, size_t runs_before)
{
    const struct lane *lane = &from->lanes[r->lane];
    int at = trace_lane(h, lane->writer, lane->thread);
    struct request copy = *r;

    if (at < 0)
        return at;
    copy.lane = (uint16_t)at;
    if (r->kind == REQUEST_READ)
        copy.first_run = r->first_run + runs_before;
    return trace_add(h, &copy);
}

int
trace_merge(struct trace *h, const struct trace *from)
{
    size_t runs_before = h->nruns;
    int r = 0;

    if (h->unit != from->unit)
        return -EINVAL;
    if (RESERVE(h, runs, from->nruns) < 0 ||
        RESERVE(h, requests, from->nrequests) < 0)
        return -ENOMEM;
    if (from->nruns > 0)
        memcpy(h->runs + h->nruns, from->runs, from->nruns * sizeof *h->runs);
    h->nruns += from->nruns;
    for (size_t i = 0; i < from->nrequests && r == 0; i++)
        r = merge_request(h, from, &from->requests[i], runs_before);
    for (size_t i = 0; i < from->nnotes && r == 0; i++)
        r = trace_note(h, from->notes[i].value, from->notes[i].text);
    return r;
}
