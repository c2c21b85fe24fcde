/* SPDX-License-Identifier: BSD-3-Clause */
/* Parses and writes export names and export descriptions. */
#include "common/export.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* ---- reading ---------------------------------------------------------- */

/* A piece of somebody else's text, not NUL-terminated. */
struct span {
    const char *at;
    size_t len;
};

static bool
span_is(struct span s, const char *word)
{
    return s.len == strlen(word) && memcmp(s.at, word, s.len) == 0;
}

/* Cut everything up to the first sep off *rest, and sep with it.  Without sep
 * all of it is cut off, and rest->at is NULL: there was nothing behind. */
static struct span
cut(struct span *rest, char sep)
{
    const char *hit = memchr(rest->at, sep, rest->len);
    struct span head = *rest;

    if (!hit) {
        *rest = (struct span){NULL, 0};
        return head;
    }
    head.len = (size_t)(hit - head.at);
    rest->at = hit + 1;
    rest->len -= head.len + 1;
    return head;
}

static int
hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The byte that begins at s, one or three characters long; -1: none such.
 * Control characters and NUL are refused however they are written: these
 * words end in log lines and file names. */
static int
decode_byte(struct span s, size_t *used)
{
    int byte = (unsigned char)s.at[0];

    *used = 1;
    if (byte == '%') {
        int high = s.len < 3 ? -1 : hex_digit(s.at[1]);
        int low = s.len < 3 ? -1 : hex_digit(s.at[2]);

        if (high < 0 || low < 0)
            return -1;
        byte = high * 16 + low;
        *used = 3;
    }
    return byte < 0x20 || byte == 0x7f ? -1 : byte;
}

/* NULL, or what is wrong with it. */
static const char *
decode(struct span s, char *word, size_t size)
{
    size_t n = 0;

    if (s.len == 0)
        return "is empty";
    while (s.len > 0) {
        size_t used;
        int byte = decode_byte(s, &used);

        if (byte < 0)
            return "holds a character that is not allowed";
        if (n + 1 >= size)
            return "is too long";
        word[n++] = (char)byte;
        s.at += used;
        s.len -= used;
    }
    word[n] = '\0';
    return NULL;
}

/* Digits only: strtoull takes signs, blanks and other bases. */
static const char *
number(struct span s, uint64_t max, uint64_t *out)
{
    uint64_t n = 0;

    if (s.len == 0)
        return "is empty";
    for (size_t i = 0; i < s.len; i++) {
        unsigned digit = (unsigned char)s.at[i] - (unsigned)'0';

        if (digit > 9)
            return "is not a number";
        if (digit > max || n > (max - digit) / 10)
            return "is too large";
        n = n * 10 + digit;
    }
    *out = n;
    return NULL;
}

/* ---- export names ------------------------------------------------------ */

static int __attribute__((format(printf, 3, 4)))
refuse(char *err, size_t errlen, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(err, errlen, fmt, ap);
    va_end(ap);
    return -EINVAL;
}

static const char *
parse_generation(struct span value, struct export_name *e)
{
    const char *wrong = number(value, UINT64_MAX, &e->generation);

    if (!wrong && e->generation == 0)
        wrong = "is zero";
    return wrong;
}

static const char *
parse_fence(struct span value, struct export_name *e)
{
    while (value.at) {
        struct span host = cut(&value, ',');
        const char *wrong;

        if (e->nfence == EXPORT_FENCE_MAX)
            return "names too many hosts";
        wrong = decode(host, e->fence[e->nfence], EXPORT_WORD_MAX);
        if (wrong)
            return wrong;
        e->nfence++;
    }
    return NULL;
}

/* Whatever it is made of, nobody looks at it. */
static const char *
parse_pad(struct span value, struct export_name *e)
{
    if (value.len == 0)
        return "is empty";
    if (value.len > EXPORT_PAD)
        return "is too long";
    e->pad = (unsigned)value.len;
    return NULL;
}

/* One "key=value".  Emptiness tells whether a key was there before, since no
 * value may be empty or zero. */
static int
parse_part(struct span part, struct export_name *e, char *err, size_t errlen)
{
    struct span value = part;
    struct span key = cut(&value, '=');
    const char *wrong = NULL;
    bool twice = false;

    if (!value.at)
        return refuse(err, errlen, "export name: '=' expected after '?'");
    if (span_is(key, "client")) {
        twice = e->client[0];
        wrong = decode(value, e->client, sizeof(e->client));
    } else if (span_is(key, "generation")) {
        twice = e->generation;
        wrong = parse_generation(value, e);
    } else if (span_is(key, "id")) {
        twice = e->id[0];
        wrong = decode(value, e->id, sizeof(e->id));
    } else if (span_is(key, "fence")) {
        twice = e->nfence;
        wrong = parse_fence(value, e);
    } else if (span_is(key, "pad")) {
        twice = e->pad;
        wrong = parse_pad(value, e);
    } else {
        return refuse(err, errlen, "export name: unknown part %.*s",
                      (int)(key.len < 32 ? key.len : 32), key.at);
    }
    if (twice)
        wrong = "is given twice";
    if (wrong)
        return refuse(err, errlen, "export name: %.*s %s", (int)key.len, key.at,
                      wrong);
    return 0;
}

int
export_name_parse(const char *name, size_t len, struct export_name *e,
                  char *err, size_t errlen)
{
    struct span rest = {name, len};
    struct span lun;
    const char *wrong;
    int r = 0;

    memset(e, 0, sizeof(*e));
    if (len > EXPORT_NAME_MAX)
        return refuse(err, errlen, "export name: is too long");
    if (len == 0)
        return 0; /* the default export; whether there is one is not ours */
    lun = cut(&rest, '?');
    wrong = decode(lun, e->lun, sizeof(e->lun));
    if (wrong)
        return refuse(err, errlen, "export name: the LUN's name %s", wrong);
    while (r == 0 && rest.at)
        r = parse_part(cut(&rest, '&'), e, err, errlen);
    return r;
}

/* ---- writing ----------------------------------------------------------- */

/* Appends to buf; once something did not fit, full is set and stays. */
struct writer {
    char *buf;
    size_t size; /* with the final NUL */
    size_t used;
    bool full;
};

static struct writer
writer(char *buf, size_t size)
{
    struct writer w = {.buf = buf, .size = size, .full = size == 0};

    if (size > 0)
        buf[0] = '\0';
    return w;
}

static void __attribute__((format(printf, 2, 3)))
put(struct writer *w, const char *fmt, ...)
{
    va_list ap;
    int n;

    if (w->full)
        return;
    va_start(ap, fmt);
    n = vsnprintf(w->buf + w->used, w->size - w->used, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= w->size - w->used)
        w->full = true;
    else
        w->used += (size_t)n;
}

static bool
is_plain(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c >= '0' && c <= '9') || (c && strchr("._-:", c));
}

static void
put_word(struct writer *w, const char *word)
{
    for (; *word; word++) {
        unsigned char c = (unsigned char)*word;

        if (is_plain(c))
            put(w, "%c", c);
        else
            put(w, "%%%02X", c);
    }
}

static void
put_pad(struct writer *w, const char *sep, unsigned pad)
{
    if (pad > 0)
        put(w, "%spad=%0*d", sep, (int)pad, 0);
}

int
export_name_format(const struct export_name *e, char *buf)
{
    struct writer w = writer(buf, EXPORT_NAME_MAX + 1);
    const char *sep = "?";

    put_word(&w, e->lun);
    if (e->client[0]) {
        put(&w, "%sclient=", sep);
        put_word(&w, e->client);
        sep = "&";
    }
    if (e->generation) {
        put(&w, "%sgeneration=%" PRIu64, sep, e->generation);
        sep = "&";
    }
    if (e->id[0]) {
        put(&w, "%sid=", sep);
        put_word(&w, e->id);
        sep = "&";
    }
    for (size_t i = 0; i < e->nfence; i++) {
        if (i == 0)
            put(&w, "%sfence=", sep);
        else
            put(&w, ",");
        put_word(&w, e->fence[i]);
        sep = "&";
    }
    put_pad(&w, sep, e->pad);
    return w.full ? -ENAMETOOLONG : 0;
}

/* ---- export descriptions ------------------------------------------------ */

/* One "key=value" of a description; words without '=' may come later. */
static const char *
parse_fact(struct span word, struct export_info *i)
{
    struct span value = word;
    struct span key = cut(&value, '=');
    const char *wrong = NULL;
    uint64_t n = 0;

    if (!value.at)
        return NULL;
    if (span_is(key, "id"))
        return decode(value, i->id, sizeof(i->id));
    if (span_is(key, "state"))
        return decode(value, i->state, sizeof(i->state));
    if (span_is(key, "load"))
        return number(value, UINT64_MAX, &i->load);
    if (span_is(key, "sessions")) {
        wrong = number(value, UINT32_MAX, &n);
        i->sessions = (unsigned)n;
    }
    if (span_is(key, "slow")) {
        wrong = number(value, 1, &n);
        i->slow = n == 1;
    }
    return wrong;
}

int
export_info_parse(const char *text, struct export_info *i)
{
    struct span rest = {text, strlen(text)};

    memset(i, 0, sizeof(*i));
    if (!span_is(cut(&rest, ' '), "detour") || !rest.at)
        return -EINVAL;
    if (!span_is(cut(&rest, ' '), "1"))
        return -EINVAL;
    while (rest.at)
        if (parse_fact(cut(&rest, ' '), i))
            return -EINVAL;
    return 0;
}

int
export_info_format(const struct export_info *i, char *buf, size_t len)
{
    struct writer w = writer(buf, len);

    put(&w, "detour 1");
    if (i->id[0]) {
        put(&w, " id=");
        put_word(&w, i->id);
    }
    if (i->state[0]) {
        put(&w, " state=");
        put_word(&w, i->state);
    }
    put(&w, " load=%" PRIu64 " sessions=%u", i->load, i->sessions);
    if (i->slow)
        put(&w, " slow=1");
    put_pad(&w, " ", i->pad);
    return w.full ? -ENAMETOOLONG : 0;
}
