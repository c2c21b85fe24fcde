/* SPDX-License-Identifier: BSD-3-Clause */
/* Judges a history unit by unit: sorts all begins and ends in time, hands them
 * out to chunks of the LUN, and walks each chunk's units with a cell.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/blockcheck/cell.h"
#include "tests/blockcheck/ruling.h"

#define CHUNK 128u /* units */

const char *const fault_names[FAULT_KINDS] = {
    [FAULT_OLD] = "older value after a newer one",
    [FAULT_NOBODY] = "written by nobody",
    [FAULT_TORN] = "torn",
    [FAULT_ELSEWHERE] = "written for another place",
    [FAULT_FUTURE] = "read before it was written",
};

struct event {
    uint64_t ns;
    uint32_t what; /* index of the request * 2, + 1: its end */
};

/* An event in a chunk, for the units first to last of it. */
struct touch {
    uint32_t what;
    uint16_t first, last;
};

struct judge {
    const struct trace *h;
    struct ruling *result;
    uint32_t *clients; /* of each lane: the first lane of its client */
    uint64_t *over_ns; /* of each request that failed; see cell.h */
    struct event *events;
    size_t nevents;
    uint64_t first_chunk;
    size_t nchunks;
    size_t *begins; /* nchunks + 1: where in touches each chunk's begin */
    struct touch *touches;
    struct cell cell;
};

static const struct request *
request_of(const struct judge *j, uint32_t what)
{
    return &j->h->requests[what / 2];
}

/* ---- events ----------------------------------------------------------- */

static bool
tells_something(const struct request *r)
{
    if (r->count == 0 || r->kind == REQUEST_FLUSH)
        return false;
    return r->kind != REQUEST_READ || request_ok(r);
}

/* What begins comes before what ends at the same time: more is possible. */
static int
by_time(const void *a, const void *b)
{
    const struct event *x = a, *y = b;

    if (x->ns != y->ns)
        return x->ns < y->ns ? -1 : 1;
    if (x->what % 2 != y->what % 2)
        return x->what % 2 ? 1 : -1;
    return (x->what > y->what) - (x->what < y->what);
}

static int
make_events(struct judge *j)
{
    const struct trace *h = j->h;

    j->events = malloc((2 * h->nrequests + 1) * sizeof *j->events);
    if (!j->events)
        return -ENOMEM;
    for (size_t i = 0; i < h->nrequests; i++) {
        const struct request *r = &h->requests[i];
        uint32_t what = (uint32_t)i * 2;

        if (r->offset % h->unit || r->count % h->unit)
            return -EINVAL;
        if (!tells_something(r))
            continue;
        j->events[j->nevents++] = (struct event){r->start_ns, what};
        if (r->end_ns != NEVER)
            j->events[j->nevents++] = (struct event){r->end_ns, what + 1};
    }
    qsort(j->events, j->nevents, sizeof *j->events, by_time);
    return 0;
}

/* ---- clients ---------------------------------------------------------- */

static uint32_t
client_of(const struct trace *h, const struct lane *lane)
{
    uint32_t i = 0;

    while (h->lanes[i].writer != lane->writer)
        i++;
    return i;
}

static int
make_clients(struct judge *j)
{
    j->clients = calloc(j->h->nlanes + 1, sizeof *j->clients);
    if (!j->clients)
        return -ENOMEM;
    for (size_t i = 0; i < j->h->nlanes; i++)
        j->clients[i] = client_of(j->h, &j->h->lanes[i]);
    return 0;
}

/* From the last event to the first: when is a client served next? */
static int
find_over(struct judge *j)
{
    const struct trace *h = j->h;
    uint64_t *served = malloc((h->nlanes + 1) * sizeof *served);

    j->over_ns = malloc((h->nrequests + 1) * sizeof *j->over_ns);
    if (!j->over_ns || !served) {
        free(served);
        return -ENOMEM;
    }
    for (size_t i = 0; i < h->nlanes; i++)
        served[i] = NEVER;
    for (size_t i = j->nevents; i-- > 0;) {
        uint32_t what = j->events[i].what;
        const struct request *r = request_of(j, what);
        uint64_t *next = &served[j->clients[r->lane]];

        if (what % 2)
            j->over_ns[what / 2] = *next;
        else if (request_ok(r) && r->end_ns < *next)
            *next = r->end_ns;
    }
    free(served);
    return 0;
}

/* ---- chunks ----------------------------------------------------------- */

static uint64_t
chunk_of(const struct judge *j, uint64_t offset)
{
    return offset / j->h->unit / CHUNK;
}

static int
make_chunks(struct judge *j)
{
    uint64_t first = UINT64_MAX, last = 0;

    for (size_t i = 0; i < j->nevents; i++) {
        const struct request *r = request_of(j, j->events[i].what);
        uint64_t end = chunk_of(j, r->offset + r->count - 1);

        if (chunk_of(j, r->offset) < first)
            first = chunk_of(j, r->offset);
        if (end > last)
            last = end;
    }
    j->first_chunk = first;
    j->nchunks = j->nevents > 0 ? (size_t)(last - first + 1) : 0;
    j->begins = calloc(j->nchunks + 2, sizeof *j->begins);
    return j->begins ? 0 : -ENOMEM;
}

/* Calls for each chunk that an event touches. */
static void
spread(struct judge *j, const struct event *e, bool fill)
{
    const struct request *r = request_of(j, e->what);
    uint64_t first = r->offset / j->h->unit;
    uint64_t last = (r->offset + r->count - 1) / j->h->unit;

    for (uint64_t c = first / CHUNK; c <= last / CHUNK; c++) {
        size_t *at = &j->begins[c - j->first_chunk + 1];

        if (fill) {
            uint64_t begin = c * CHUNK;

            j->touches[*at] = (struct touch){
                .what = e->what,
                .first = (uint16_t)(first > begin ? first - begin : 0),
                .last = (uint16_t)(last - begin < CHUNK ? last - begin
                                                        : CHUNK - 1)};
        }
        ++*at;
    }
}

/* A counting sort by chunk; within one, time's order stays.  begins[c + 1]
 * counts, then is where chunk c is filled, and so ends as where it ends. */
static int
make_touches(struct judge *j)
{
    size_t sum = 0;

    for (size_t i = 0; i < j->nevents; i++)
        spread(j, &j->events[i], false);
    for (size_t c = 1; c <= j->nchunks; c++) {
        size_t n = j->begins[c];

        j->begins[c] = sum;
        sum += n;
    }
    j->touches = malloc((sum + 1) * sizeof *j->touches);
    if (!j->touches)
        return -ENOMEM;
    for (size_t i = 0; i < j->nevents; i++)
        spread(j, &j->events[i], true);
    free(j->events);
    j->events = NULL;
    return 0;
}

/* ---- one unit
 * ---------------------------------------------------------------- */

/* One unit of the LUN and the touches of its chunk. */
struct place {
    const struct touch *from, *to;
    uint16_t index; /* in the chunk */
    uint64_t offset;
};

static const struct touch *
next_touch(const struct place *p, const struct touch *t)
{
    while (t < p->to && (p->index < t->first || p->index > t->last))
        t++;
    return t;
}

/* What was there at first: a read tells that ended before any change began. */
static bool
initial_value(const struct judge *j, const struct place *p, uint64_t *value)
{
    const struct touch *t = p->from;

    while ((t = next_touch(p, t)) < p->to) {
        const struct request *r = request_of(j, t->what);

        if (r->kind != REQUEST_READ)
            return false;
        if (t->what % 2) {
            *value = trace_value(j->h, r, p->offset);
            return true;
        }
        t++;
    }
    return false;
}

static int
change_event(struct judge *j, const struct request *r, uint32_t what)
{
    uint32_t id = what / 2;

    if (what % 2 == 0)
        return cell_change_begins(&j->cell, id, j->clients[r->lane], r->value,
                                  r->start_ns);
    if (request_ok(r))
        return cell_change_ends(
            &j->cell, id, r->kind == REQUEST_TRIM ? CELL_MAYBE : CELL_DONE,
            r->end_ns);
    cell_change_fails(&j->cell, id, r->end_ns, j->over_ns[id]);
    return 0;
}

static int
one_event(struct judge *j, const struct place *p, uint32_t what)
{
    const struct request *r = request_of(j, what);
    uint32_t id = what / 2;
    int rc;

    if (r->kind != REQUEST_READ)
        return change_event(j, r, what);
    if (what % 2)
        return cell_read_ends(&j->cell, id);
    rc = cell_read_begins(&j->cell, id, trace_value(j->h, r, p->offset));
    if (rc == -ENOSPC) {
        j->result->left_out++;
        return 0;
    }
    j->result->reads++;
    return rc;
}

static enum fault_kind
strange_kind(const struct judge *j, uint64_t value)
{
    const char *note = trace_note_of(j->h, value);

    if (strncmp(note, "torn", 4) == 0)
        return FAULT_TORN;
    if (strncmp(note, "elsewhere", 9) == 0)
        return FAULT_ELSEWHERE;
    return FAULT_NOBODY;
}

static enum fault_kind
kind_of_fault(const struct judge *j, const struct place *p,
              const struct request *read, uint64_t value)
{
    const struct touch *t = p->from;
    uint64_t first;

    if (initial_value(j, p, &first) && first == value)
        return FAULT_OLD;
    if (value_is_strange(value))
        return strange_kind(j, value);
    for (; (t = next_touch(p, t)) < p->to; t++) {
        const struct request *r = request_of(j, t->what);

        if (r->kind != REQUEST_READ && r->value == value)
            return r->start_ns > read->end_ns ? FAULT_FUTURE : FAULT_OLD;
    }
    return FAULT_NOBODY;
}

static void
note_fault(struct judge *j, const struct place *p, uint32_t what)
{
    const struct request *read = request_of(j, what);
    uint64_t value = trace_value(j->h, read, p->offset);
    struct ruling *v = j->result;
    enum fault_kind kind = kind_of_fault(j, p, read, value);

    v->nfaults++;
    if (v->of_kind[kind]++ < RULING_OF_KIND)
        v->faults[v->ntold++] = (struct fault){.kind = kind,
                                               .offset = p->offset,
                                               .value = value,
                                               .request = what / 2};
}

static int
judge_unit(struct judge *j, const struct place *p)
{
    const struct touch *t = next_touch(p, p->from);
    uint64_t value;
    int r;

    if (t == p->to)
        return 0;
    j->result->units++;
    r = cell_reset(&j->cell, initial_value(j, p, &value) ? &value : NULL);
    for (; r == 0 && t < p->to; t = next_touch(p, t + 1)) {
        r = one_event(j, p, t->what);
        if (r == -EILSEQ) {
            note_fault(j, p, t->what);
            return 0; /* one fault tells enough of a unit */
        }
    }
    return r;
}

static int
judge_chunk(struct judge *j, size_t chunk)
{
    struct place p = {.from = j->touches + j->begins[chunk],
                      .to = j->touches + j->begins[chunk + 1]};
    int r = 0;

    for (p.index = 0; r == 0 && p.index < CHUNK; p.index++) {
        p.offset = ((j->first_chunk + chunk) * CHUNK + p.index) * j->h->unit;
        r = judge_unit(j, &p);
    }
    return r;
}

int
ruling_make(const struct trace *h, struct ruling *v)
{
    struct judge j = {.h = h, .result = v};
    int r;

    memset(v, 0, sizeof *v);
    if (h->nrequests > INT32_MAX)
        return -EINVAL;
    cell_init(&j.cell);
    r = make_events(&j);
    if (r == 0)
        r = make_clients(&j);
    if (r == 0)
        r = find_over(&j);
    if (r == 0)
        r = make_chunks(&j);
    if (r == 0)
        r = make_touches(&j);
    for (size_t i = 0; r == 0 && i < j.nchunks; i++)
        r = judge_chunk(&j, i);
    cell_fini(&j.cell);
    free(j.touches);
    free(j.begins);
    free(j.events);
    free(j.over_ns);
    free(j.clients);
    return r;
}
