/* SPDX-License-Identifier: BSD-3-Clause */
/* What was asked of a LUN and what it answered: kept, saved, loaded, merged. */
#ifndef BLOCKCHECK_TRACE_H
#define BLOCKCHECK_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "tests/blockcheck/stamp.h"

enum request_kind {
    REQUEST_READ,
    REQUEST_WRITE,
    REQUEST_ZERO,
    REQUEST_TRIM,
    REQUEST_FLUSH,
    REQUEST_KINDS
};

#define NEVER       UINT64_MAX
#define ERROR_LOST  UINT32_C(0xffffffff) /* the connection broke before */
#define REQUEST_FUA 1u

struct request {
    uint64_t start_ns; /* before it was handed to the connection */
    uint64_t end_ns;   /* after it was answered or lost; NEVER */
    uint64_t offset;
    uint32_t count; /* bytes */
    uint32_t error; /* 0, an errno value, ERROR_LOST; valid unless NEVER */
    union {
        uint64_t value;     /* what each of its units was to hold */
        uint64_t first_run; /* of a read: index of the first of its runs */
    };
    uint32_t runs; /* of a read */
    uint16_t lane; /* index into lanes */
    uint8_t kind;  /* enum request_kind */
    uint8_t flags; /* REQUEST_FUA */
};

/* So many units in a row that a read found to hold the same value. */
struct run {
    uint64_t value;
    uint64_t units;
};

/* One connection of one run of blockcheck. */
struct lane {
    uint32_t writer;
    uint32_t thread;
};

/* What a strange value is, for people; see stamp_read. */
struct note {
    uint64_t value;
    char text[120];
};

struct trace {
    uint32_t unit; /* bytes */
    size_t nrequests, nruns, nlanes, nnotes;
    struct request *requests; /* in no certain order */
    struct run *runs;
    struct lane *lanes;
    struct note *notes;
    size_t room_requests, room_runs, room_lanes, room_notes;
};

/* request_ok - was there an answer, and was it success? */
static inline bool
request_ok(const struct request *r)
{
    return r->end_ns != NEVER && r->error == 0;
}

/* trace_init - empty, for units of so many bytes. */
void trace_init(struct trace *h, uint32_t unit);

/* trace_fini - free what it holds; an empty one is accepted. */
void trace_fini(struct trace *h);

/* trace_lane - the index of a lane, which is added when it is new.
 *
 * errors:  -ENOMEM, -EOVERFLOW more than 65535
 */
int trace_lane(struct trace *h, uint32_t writer, uint32_t thread);

/* trace_add - note a request that is over, whatever its end.
 *
 * errors:  -ENOMEM
 */
int trace_add(struct trace *h, const struct request *r);

/* trace_add_read - the same for a read that found values.
 *
 * shapes:  values has r->count / h->unit elements
 * errors:  -ENOMEM
 */
int trace_add_read(struct trace *h, const struct request *r,
                   const uint64_t *values);

/* trace_note - say what a strange value is; the first note stays.
 *
 * errors:  -ENOMEM
 */
int trace_note(struct trace *h, uint64_t value, const char *text);

/* trace_note_of - that text; "" when there is none. */
const char *trace_note_of(const struct trace *h, uint64_t value);

/* trace_value - what a read found in the unit at offset.
 *
 * shapes:  r is a read that succeeded and covers offset
 */
uint64_t trace_value(const struct trace *h, const struct request *r,
                     uint64_t offset);

/* trace_merge - add all of from to h; from stays as it is.
 *
 * errors:  -ENOMEM; -EINVAL the units differ; on error h holds a part of it
 */
int trace_merge(struct trace *h, const struct trace *from);

/* trace_save - as text, one request a line:
 *
 *   unit 512
 *   write LANE START END ANSWER OFFSET+COUNT VALUE
 *   read  LANE START END ANSWER OFFSET+COUNT [VALUE[*UNITS]]...
 *   note VALUE TEXT
 *
 * LANE is writer.thread and VALUE writer:seq, 0 (zeroes) or ?hash, writer and
 * hash hexadecimal; times in ns, END - when it was never answered; ANSWER ok,
 * lost or an errno value; write, zero and trim may be followed by ",fua".
 *
 * errors:  -EIO or what the stream says
 */
int trace_save(const struct trace *h, FILE *to);

/* trace_load - add what trace_save wrote; `#' begins a comment.
 *
 * line:    set to the number of the line that cannot be read
 * errors:  -ENOMEM, -EIO; -EINVAL a line is wrong, or the unit is another
 */
int trace_load(struct trace *h, FILE *from, unsigned *line);

/* value_text - VALUE as above; returns buf. */
char *value_text(uint64_t value, char buf[32]);

extern const char *const request_names[REQUEST_KINDS];

#endif
