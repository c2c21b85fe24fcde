/* SPDX-License-Identifier: BSD-3-Clause */
/* multipath.conf: what makes the kernel queue I/O, or touch reservations. */
#include <ctype.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

#include "health/check.h"

#define TOKEN_MAX 256
#define FAIL_ADVICE                                                            \
    "overrides { no_path_retry fail }, then multipathd reconfigure"

/* Which section decides, the strongest last: multipath.conf(5). */
enum scope {
    DEFAULTS,
    DEVICES,
    OVERRIDES,
    MULTIPATHS,
    NSCOPES
};

static const char *const scopes[NSCOPES] = {"defaults", "devices", "overrides",
                                            "multipaths"};

/* What the files say of one LUN; "" where nothing. */
struct settings {
    char retry[NSCOPES][TOKEN_MAX], features[NSCOPES][TOKEN_MAX];
    char fast_io_fail[NSCOPES][TOKEN_MAX], key[NSCOPES][TOKEN_MAX];
};

struct reader {
    FILE *f;
    const struct check_lun *lun;
    struct settings *all;
    struct settings own; /* of the multipath { } being read */
    bool applies;        /* and it is lun's */
    int scope;           /* -1: none that we know */
};

/* ---- words --------------------------------------------------------------- */

static void
skip_blanks(FILE *f)
{
    int c;

    while ((c = getc(f)) != EOF) {
        if (c == '#' || c == '!')
            while ((c = getc(f)) != EOF && c != '\n')
                ;
        else if (!isspace(c)) {
            ungetc(c, f);
            return;
        }
    }
}

/* A word, what is between quotes, "{" or "}"; false: the end. */
static bool
next_token(FILE *f, char *to)
{
    size_t n = 0;
    bool quoted;
    int c;

    skip_blanks(f);
    c = getc(f);
    if (c == EOF)
        return false;
    quoted = c == '"';
    if (!quoted)
        to[n++] = (char)c;
    if (c != '{' && c != '}') {
        while ((c = getc(f)) != EOF) {
            if (quoted ? c == '"' : isspace(c) || c == '{' || c == '}')
                break;
            if (n < TOKEN_MAX - 1)
                to[n++] = (char)c;
        }
        if (!quoted && c != EOF)
            ungetc(c, f);
    }
    to[n] = '\0';
    return true;
}

/* ---- sections ------------------------------------------------------------ */

static void
set(struct settings *s, int scope, const char *key, const char *value)
{
    const struct {
        const char *key;
        char *to;
    } known[] = {
        {"no_path_retry", s->retry[scope]},
        {"features", s->features[scope]},
        {"fast_io_fail_tmo", s->fast_io_fail[scope]},
        {"reservation_key", s->key[scope]},
    };

    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(known[i].key, key) == 0)
            snprintf(known[i].to, TOKEN_MAX, "%s", value);
}

static void
merge(struct settings *to, const struct settings *from)
{
    set(to, MULTIPATHS, "no_path_retry", from->retry[MULTIPATHS]);
    set(to, MULTIPATHS, "features", from->features[MULTIPATHS]);
    set(to, MULTIPATHS, "fast_io_fail_tmo", from->fast_io_fail[MULTIPATHS]);
    set(to, MULTIPATHS, "reservation_key", from->key[MULTIPATHS]);
}

/* multipath's WWIDs are udev's: one digit for the type, then the name. */
static bool
is_lun(const struct check_lun *l, const char *key, const char *value)
{
    const char *id = l->config->wwid, *dot;

    if (strcmp(key, "alias") == 0) {
        const char *slash = strrchr(l->config->device, '/');

        return slash && strcmp(slash + 1, value) == 0;
    }
    dot = id ? strchr(id, '.') : NULL;
    return strcmp(key, "wwid") == 0 && dot && value[0] &&
           strcasecmp(dot + 1, value + 1) == 0;
}

static void
begin_section(struct reader *r, unsigned depth, const char *name)
{
    if (depth == 0) {
        r->scope = -1;
        for (int i = 0; i < NSCOPES; i++)
            if (strcmp(scopes[i], name) == 0)
                r->scope = i;
    }
    memset(&r->own, 0, sizeof r->own);
    r->applies = false;
}

static void
take(struct reader *r, const char *key, const char *value)
{
    if (r->scope == MULTIPATHS) {
        r->applies |= is_lun(r->lun, key, value);
        set(&r->own, MULTIPATHS, key, value);
    } else if (r->scope >= 0)
        set(r->all, r->scope, key, value);
}

static void
read_file(struct reader *r)
{
    char word[TOKEN_MAX] = "", token[TOKEN_MAX];
    unsigned depth = 0;

    r->scope = -1;
    while (next_token(r->f, token)) {
        if (strcmp(token, "{") == 0) {
            begin_section(r, depth++, word);
            word[0] = '\0';
        } else if (strcmp(token, "}") == 0) {
            if (r->scope == MULTIPATHS && r->applies)
                merge(r->all, &r->own);
            r->applies = false;
            depth -= depth > 0;
            word[0] = '\0';
        } else if (word[0]) {
            take(r, word, token);
            word[0] = '\0';
        } else
            strcpy(word, token);
    }
}

/* ---- judging ------------------------------------------------------------- */

static const char *
strongest(char values[NSCOPES][TOKEN_MAX], int *scope)
{
    for (*scope = NSCOPES - 1; *scope > 0; --*scope)
        if (values[*scope][0])
            break;
    return values[*scope];
}

static void
judge_queueing(struct check *k, const char *lun, struct settings *s)
{
    int scope, fscope;
    const char *retry = strongest(s->retry, &scope);
    const char *features = strongest(s->features, &fscope);

    if (strcmp(retry, "queue") == 0)
        check_add(k, CHECK_PROBLEM, lun, FAIL_ADVICE,
                  "multipath.conf: no_path_retry queue in %s: without paths "
                  "I/O waits in the kernel until detour has it failed",
                  scopes[scope]);
    else if (!retry[0] && strstr(features, "queue_if_no_path"))
        check_add(k, CHECK_PROBLEM, lun, FAIL_ADVICE,
                  "multipath.conf: features \"%s\" in %s: without paths I/O "
                  "waits in the kernel until detour has it failed",
                  features, scopes[fscope]);
    else if (atoi(retry) > 0)
        check_add(k, CHECK_WARNING, lun, FAIL_ADVICE,
                  "multipath.conf: no_path_retry %s in %s: so many polling "
                  "intervals long I/O waits in the kernel",
                  retry, scopes[scope]);
    else if (scope < OVERRIDES)
        check_add(k, CHECK_WARNING, lun, FAIL_ADVICE,
                  "multipath.conf: neither overrides nor this LUN's own "
                  "section set no_path_retry: a built-in entry for the array "
                  "may make it queue");
}

static void
judge(struct check *k, const char *lun, struct settings *s)
{
    int scope;
    const char *key = strongest(s->key, &scope), *tmo;

    judge_queueing(k, lun, s);
    if (key[0])
        check_add(k, CHECK_PROBLEM, lun, "take reservation_key out",
                  "multipath.conf: reservation_key in %s: multipathd puts its "
                  "key back on each path that returns, beside detour's: a "
                  "host that was fenced can write again",
                  scopes[scope]);
    tmo = strongest(s->fast_io_fail, &scope);
    if (strcmp(tmo, "off") == 0 || atoi(tmo) * 1000L > CHECK_GUEST_MS)
        check_add(k, CHECK_WARNING, lun, "set fast_io_fail_tmo to 5 or less",
                  "multipath.conf: fast_io_fail_tmo %s in %s: I/O on a path "
                  "that is gone is not failed while a Linux guest waits",
                  tmo, scopes[scope]);
}

static bool
read_matching(struct reader *r, const char *sysroot, const char *pattern)
{
    char path[4096];
    bool found = false;
    glob_t g;

    snprintf(path, sizeof path, "%s%s", sysroot, pattern);
    if (glob(path, 0, NULL, &g) != 0)
        return false;
    for (size_t i = 0; i < g.gl_pathc; i++) {
        r->f = fopen(g.gl_pathv[i], "re");
        if (!r->f)
            continue;
        found = true;
        read_file(r);
        fclose(r->f);
    }
    globfree(&g);
    return found;
}

void
check_multipath(struct check *k)
{
    for (size_t i = 0; i < k->nluns; i++) {
        const struct check_lun *l = &k->luns[i];
        struct settings s = {.retry = {""}};
        struct reader r = {.lun = l, .all = &s};

        /* other block devices have no map, or it is found by its table */
        if (strncmp(l->config->device, "/dev/mapper/", 12) != 0)
            continue;
        if (!read_matching(&r, k->sysroot, "/etc/multipath.conf"))
            check_add(k, CHECK_WARNING, l->config->name,
                      "install the example that comes with detour",
                      "there is no /etc/multipath.conf: a built-in entry for "
                      "the array may make it queue");
        else {
            read_matching(&r, k->sysroot, "/etc/multipath/conf.d/*.conf");
            judge(k, l->config->name, &s);
        }
    }
}
