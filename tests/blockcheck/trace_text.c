/* SPDX-License-Identifier: BSD-3-Clause */
/* Histories as text: one request a line, see trace_save. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "tests/blockcheck/trace.h"

#define MAX_COUNT UINT32_C(0x10000000) /* of one request, bytes */

/* ---- writing ---------------------------------------------------------- */

char *
value_text(uint64_t value, char buf[32])
{
    if (value == VALUE_ZERO)
        snprintf(buf, 32, "0");
    else if (value_is_strange(value))
        snprintf(buf, 32, "?%08" PRIx32, value_seq(value));
    else
        snprintf(buf, 32, "%" PRIx32 ":%" PRIu32, value_writer(value),
                 value_seq(value));
    return buf;
}

static void
save_answer(const struct request *r, FILE *to)
{
    if (r->end_ns == NEVER)
        fputs(" - lost ", to);
    else if (r->error == ERROR_LOST)
        fprintf(to, " %" PRIu64 " lost ", r->end_ns);
    else if (r->error == 0)
        fprintf(to, " %" PRIu64 " ok ", r->end_ns);
    else
        fprintf(to, " %" PRIu64 " %" PRIu32 " ", r->end_ns, r->error);
}

static void
save_request(const struct trace *h, const struct request *r, FILE *to)
{
    const struct lane *lane = &h->lanes[r->lane];
    const struct run *run;
    char text[32];

    fprintf(to, "%s%s %" PRIx32 ".%" PRIu32 " %" PRIu64, request_names[r->kind],
            r->flags & REQUEST_FUA ? ",fua" : "", lane->writer, lane->thread,
            r->start_ns);
    save_answer(r, to);
    fprintf(to, "%" PRIu64 "+%" PRIu32, r->offset, r->count);
    if (r->kind == REQUEST_WRITE)
        fprintf(to, " %s", value_text(r->value, text));
    for (uint32_t i = 0; r->kind == REQUEST_READ && i < r->runs; i++) {
        run = &h->runs[r->first_run + i];
        fprintf(to, " %s", value_text(run->value, text));
        if (run->units > 1)
            fprintf(to, "*%" PRIu64, run->units);
    }
    fputc('\n', to);
}

int
trace_save(const struct trace *h, FILE *to)
{
    char text[32];

    fprintf(to, "unit %" PRIu32 "\n", h->unit);
    for (size_t i = 0; i < h->nrequests; i++)
        save_request(h, &h->requests[i], to);
    for (size_t i = 0; i < h->nnotes; i++)
        fprintf(to, "note %s %s\n", value_text(h->notes[i].value, text),
                h->notes[i].text);
    if (fflush(to) != 0)
        return -errno;
    return ferror(to) ? -EIO : 0;
}

/* ---- reading ---------------------------------------------------------- */

/* A number at *at, which must be followed by until (or a blank, the end). */
static int
read_number(char **at, int base, char until, uint64_t most, uint64_t *n)
{
    char *end;

    if (!strchr("0123456789abcdef", **at) || **at == '\0')
        return -EINVAL;
    errno = 0;
    *n = strtoull(*at, &end, base);
    if (errno != 0 || *n > most || *end != until)
        return -EINVAL;
    *at = until ? end + 1 : end;
    return 0;
}

/* VALUE, up to the end of the word. */
static int
read_value(char *word, uint64_t *value)
{
    uint64_t high, low;
    char *at = word;

    if (strcmp(word, "0") == 0) {
        *value = VALUE_ZERO;
        return 0;
    }
    if (*word == '?') {
        at++;
        if (read_number(&at, 16, '\0', UINT32_MAX, &low) < 0)
            return -EINVAL;
        *value = value_make(WRITER_STRANGE, (uint32_t)low);
        return 0;
    }
    if (read_number(&at, 16, ':', WRITER_STRANGE - 1, &high) < 0 ||
        read_number(&at, 10, '\0', UINT32_MAX, &low) < 0)
        return -EINVAL;
    *value = value_make((uint32_t)high, (uint32_t)low);
    return *value == VALUE_ZERO ? -EINVAL : 0;
}

static int
read_kind(char *word, struct request *r)
{
    char *comma = strchr(word, ',');

    if (comma) {
        if (strcmp(comma, ",fua") != 0)
            return -EINVAL;
        *comma = '\0';
        r->flags = REQUEST_FUA;
    }
    for (uint8_t i = 0; i < REQUEST_KINDS; i++)
        if (strcmp(word, request_names[i]) == 0) {
            r->kind = i;
            return 0;
        }
    return -EINVAL;
}

static int
read_lane(struct trace *h, char *word, struct request *r)
{
    uint64_t writer, thread;
    int lane;

    if (read_number(&word, 16, '.', UINT32_MAX, &writer) < 0 ||
        read_number(&word, 10, '\0', UINT32_MAX, &thread) < 0)
        return -EINVAL;
    lane = trace_lane(h, (uint32_t)writer, (uint32_t)thread);
    r->lane = (uint16_t)lane;
    return lane < 0 ? lane : 0;
}

static int
read_times(char *start, char *end, struct request *r)
{
    if (read_number(&start, 10, '\0', NEVER - 1, &r->start_ns) < 0)
        return -EINVAL;
    r->end_ns = NEVER;
    if (strcmp(end, "-") == 0)
        return 0;
    if (read_number(&end, 10, '\0', NEVER - 1, &r->end_ns) < 0)
        return -EINVAL;
    return r->end_ns < r->start_ns ? -EINVAL : 0;
}

static int
read_answer(char *word, struct request *r)
{
    uint64_t error = 0;

    if (strcmp(word, "lost") == 0)
        error = ERROR_LOST;
    else if (strcmp(word, "ok") != 0 &&
             read_number(&word, 10, '\0', 4095, &error) < 0)
        return -EINVAL;
    r->error = (uint32_t)error;
    return 0;
}

static int
read_range(const struct trace *h, char *word, struct request *r)
{
    uint64_t count;

    if (read_number(&word, 10, '+', INT64_MAX, &r->offset) < 0 ||
        read_number(&word, 10, '\0', MAX_COUNT, &count) < 0 ||
        r->offset % h->unit != 0 || count % h->unit != 0)
        return -EINVAL;
    r->count = (uint32_t)count;
    return 0;
}

/* The values of a read, "VALUE*UNITS" each, into the units they stand for. */
static int
read_runs(const struct trace *h, char **save, struct request *r,
          uint64_t **values)
{
    size_t n = r->count / h->unit, have = 0;
    uint64_t units, value;
    char *word, *star;

    *values = calloc(n + 1, sizeof **values);
    if (!*values)
        return -ENOMEM;
    while ((word = strtok_r(NULL, " \n", save)) != NULL) {
        units = 1;
        star = strchr(word, '*');
        if (star) {
            *star++ = '\0';
            if (read_number(&star, 10, '\0', n, &units) < 0)
                return -EINVAL;
        }
        if (read_value(word, &value) < 0 || units > n - have)
            return -EINVAL;
        while (units-- > 0)
            (*values)[have++] = value;
    }
    return have == (request_ok(r) ? n : 0) ? 0 : -EINVAL;
}

static int
read_tail(struct trace *h, char **save, struct request *r)
{
    uint64_t *values = NULL;
    char *word;
    int rc;

    if (r->kind == REQUEST_READ) {
        rc = read_runs(h, save, r, &values);
        if (rc == 0 && request_ok(r))
            rc = trace_add_read(h, r, values);
        else if (rc == 0)
            rc = trace_add(h, r);
        free(values);
        return rc;
    }
    if (r->kind == REQUEST_WRITE) {
        word = strtok_r(NULL, " \n", save);
        if (!word || read_value(word, &r->value) < 0)
            return -EINVAL;
    }
    return strtok_r(NULL, " \n", save) ? -EINVAL : trace_add(h, r);
}

static int
read_request(struct trace *h, char *kind, char **save)
{
    struct request r = {0};
    char *word[5];
    int rc;

    for (size_t i = 0; i < 5; i++) {
        word[i] = strtok_r(NULL, " \n", save);
        if (!word[i])
            return -EINVAL;
    }
    rc = read_kind(kind, &r);
    if (rc == 0)
        rc = read_lane(h, word[0], &r);
    if (rc == 0)
        rc = read_times(word[1], word[2], &r);
    if (rc == 0)
        rc = read_answer(word[3], &r);
    if (rc == 0)
        rc = read_range(h, word[4], &r);
    return rc == 0 ? read_tail(h, save, &r) : rc;
}

static int
read_note(struct trace *h, char **save)
{
    char *word = strtok_r(NULL, " ", save), *text = strtok_r(NULL, "\n", save);
    uint64_t value;

    if (!word || !text || read_value(word, &value) < 0)
        return -EINVAL;
    return trace_note(h, value, text);
}

static int
read_unit(struct trace *h, char **save)
{
    char *word = strtok_r(NULL, " \n", save);
    uint64_t unit;

    if (!word || read_number(&word, 10, '\0', MAX_COUNT, &unit) < 0 ||
        unit < UNIT_MIN || unit % UNIT_MIN != 0)
        return -EINVAL;
    if (h->unit != 0 && h->unit != unit)
        return -EINVAL;
    h->unit = (uint32_t)unit;
    return 0;
}

static int
read_line(struct trace *h, char *line)
{
    char *save, *word = strtok_r(line, " \n", &save);

    if (!word || *word == '#')
        return 0;
    if (strcmp(word, "unit") == 0)
        return read_unit(h, &save);
    if (h->unit == 0)
        return -EINVAL;
    if (strcmp(word, "note") == 0)
        return read_note(h, &save);
    return read_request(h, word, &save);
}

int
trace_load(struct trace *h, FILE *from, unsigned *line)
{
    char *text = NULL;
    size_t room = 0;
    int r = 0;

    *line = 0;
    while (r == 0 && getline(&text, &room, from) != -1) {
        ++*line;
        r = read_line(h, text);
    }
    free(text);
    return r == 0 && ferror(from) ? -EIO : r;
}
