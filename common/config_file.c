/* SPDX-License-Identifier: BSD-3-Clause */
/* Reads an INI file through inih, keeping the lines it came from.
 *
 * inih is built in several ways.  Debian's does not pass line numbers, cuts
 * section names at 49 bytes, and silently takes the rest of a line longer
 * than its buffer for another line.  So the lines are fed to it one by one:
 * counting, sections, and over-long lines are settled here, and inih is left
 * with taking "key = value ; comment" apart.
 */
#include "common/config_file.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct feed {
    struct config_file *f;
    FILE *stream;
    char *text; /* getline()'s */
    size_t room;
    unsigned line;
    struct config_section *section; /* NULL: none yet, or a broken one */
    bool any_section;
    bool unanswered; /* inih was given a line and has called nobody */
    bool open_list;  /* the last value ended in a comma */
    bool goes_on;    /* this line is more of the last value */
};

void
config_file_mistake(struct config_file *f, unsigned line, const char *fmt, ...)
{
    va_list ap;

    f->mistakes++;
    if (line)
        fprintf(f->errors, "%s:%u: ", f->path, line);
    else
        fprintf(f->errors, "%s: ", f->path);
    va_start(ap, fmt);
    vfprintf(f->errors, fmt, ap);
    va_end(ap);
    fputc('\n', f->errors);
}

unsigned
config_file_line(const struct config_section *s, const char *key)
{
    for (size_t i = 0; i < s->nentries; i++)
        if (strcmp(s->entries[i].key, key) == 0)
            return s->entries[i].line;
    return s->line;
}

/* ---- sections ---------------------------------------------------------- */

static struct config_section *
add_section(struct feed *d, const char *kind, const char *name)
{
    struct config_file *f = d->f;
    struct config_section *grown =
        reallocarray(f->sections, f->nsections + 1, sizeof(*f->sections));
    struct config_section s = {
        .kind = strdup(kind), .name = strdup(name), .line = d->line};

    if (grown)
        f->sections = grown;
    if (!grown || !s.kind || !s.name) {
        free(s.kind);
        free(s.name);
        f->error = -ENOMEM;
        return NULL;
    }
    f->sections[f->nsections] = s;
    return &f->sections[f->nsections++];
}

/* text is "[kind name]", or was meant to be. */
static void
begin_section(struct feed *d, char *text)
{
    size_t len = strlen(text);
    char *kind, *name, *rest;

    d->section = NULL;
    d->any_section = true;
    if (text[len - 1] != ']') {
        config_file_mistake(d->f, d->line, "a section ends with ']'");
        return;
    }
    text[len - 1] = '\0';
    kind = strtok_r(text + 1, " \t", &rest);
    name = strtok_r(NULL, " \t", &rest);
    if (!kind || strtok_r(NULL, " \t", &rest)) {
        config_file_mistake(d->f, d->line,
                            "a section is [WORD] or [WORD NAME]");
        return;
    }
    d->section = add_section(d, kind, name ? name : "");
}

/* ---- keys and values ----------------------------------------------------- */

static void
add_entry(struct feed *d, const char *key, const char *value)
{
    struct config_section *s = d->section;
    struct config_entry *grown =
        reallocarray(s->entries, s->nentries + 1, sizeof(*s->entries));
    struct config_entry e = {
        .key = strdup(key), .value = strdup(value), .line = d->line};

    if (grown)
        s->entries = grown;
    if (!grown || !e.key || !e.value) {
        free(e.key);
        free(e.value);
        d->f->error = -ENOMEM;
        return;
    }
    s->entries[s->nentries++] = e;
}

static void
lengthen_entry(struct feed *d, const char *more)
{
    struct config_section *s = d->section;
    struct config_entry *e = &s->entries[s->nentries - 1];
    size_t len = strlen(e->value);
    char *grown = realloc(e->value, len + strlen(more) + 1);

    if (!grown) {
        d->f->error = -ENOMEM;
        return;
    }
    strcpy(grown + len, more);
    e->value = grown;
}

/* inih calls this for each line it could take apart; 0 would mean an error. */
static int
handle(void *opaque, const char *section, const char *key, const char *value
#if INI_HANDLER_LINENO
       ,
       int line
#endif
)
{
    struct feed *d = opaque;
    size_t len = strlen(value);

    (void)section;
#if INI_HANDLER_LINENO
    (void)line;
#endif
    d->unanswered = false;
    d->open_list = false;
    if (!d->any_section)
        config_file_mistake(d->f, d->line, "'%s' stands before any section",
                            key);
    else if (!*key || !len)
        config_file_mistake(d->f, d->line, "'%s' has no value", key);
    if (!d->section || !*key || !len)
        return 1;
    if (d->goes_on)
        lengthen_entry(d, value);
    else
        add_entry(d, key, value);
    d->open_list = value[len - 1] == ',';
    return 1;
}

/* ---- lines --------------------------------------------------------------- */

static char *
strip(struct feed *d, size_t len)
{
    static const char mark[] =
        "\xEF\xBB\xBF"; /* UTF-8, some editors write it */
    char *text = d->text;

    while (len > 0 && isspace((unsigned char)text[len - 1]))
        len--;
    text[len] = '\0';
    if (d->line == 1 && strncmp(text, mark, 3) == 0)
        text += 3;
    return text;
}

/* Was the last line that inih got of any use to it? */
static void
check_answered(struct feed *d)
{
    if (d->unanswered)
        config_file_mistake(d->f, d->line, "neither [SECTION] nor KEY = VALUE");
    d->unanswered = false;
}

/* inih ends a line at " ;" but not at " #", which would become part of the
 * value. */
static void
check_comment(struct feed *d, char *word)
{
    char *hash = strstr(word, " #");

    if (!hash)
        hash = strstr(word, "\t#");
    if (!hash)
        return;
    config_file_mistake(d->f, d->line, "a '#' comment needs a line of its own");
    *hash = '\0';
}

/* Leave in d->text what inih shall see; NULL: nothing in this line. */
static const char *
digest(struct feed *d, size_t len, size_t room)
{
    char *text, *word;

    if (strlen(d->text) != len) {
        config_file_mistake(d->f, d->line, "holds a NUL character");
        return NULL;
    }
    text = strip(d, len);
    word = text + strspn(text, " \t");
    if (!*word || *word == ';' || *word == '#')
        return NULL;
    check_comment(d, word);
    if (*word == '[') {
        begin_section(d, word);
        d->open_list = false;
        return NULL;
    }
    /* a blank, the text, a newline, the final NUL */
    if (strlen(word) + 3 > room) {
        config_file_mistake(d->f, d->line,
                            "longer than %zu characters: break it after a "
                            "comma and indent the rest",
                            room - 3);
        return NULL;
    }
    d->goes_on = d->open_list && word > text;
    d->unanswered = true;
    return word;
}

/* inih's idea of fgets(). */
static char *
next_line(char *buf, int size, void *opaque)
{
    struct feed *d = opaque;
    const char *word;
    ssize_t len;

    check_answered(d);
    if (d->f->error)
        return NULL;
    errno = 0;
    len = getline(&d->text, &d->room, d->stream);
    if (len < 0) {
        if (!feof(d->stream))
            d->f->error = errno ? -errno : -EIO;
        return NULL;
    }
    d->line++;
    word = digest(d, (size_t)len, (size_t)size);
    if (word)
        snprintf(buf, (size_t)size, "%s%s\n", d->goes_on ? " " : "", word);
    else
        snprintf(buf, (size_t)size, "\n");
    return buf;
}

int
config_file_read(struct config_file *f, FILE *stream)
{
    struct feed d = {.f = f, .stream = stream};
    int r;

    /* A positive answer is the first line that inih did not understand,
     * which next_line has told already. */
    r = ini_parse_stream(next_line, &d, handle, &d);
    check_answered(&d);
    free(d.text);
    if (r == -2)
        f->error = -ENOMEM;
    return f->error;
}

void
config_file_fini(struct config_file *f)
{
    for (size_t i = 0; i < f->nsections; i++) {
        struct config_section *s = &f->sections[i];

        for (size_t j = 0; j < s->nentries; j++) {
            free(s->entries[j].key);
            free(s->entries[j].value);
        }
        free(s->entries);
        free(s->kind);
        free(s->name);
    }
    free(f->sections);
    f->sections = NULL;
    f->nsections = 0;
}
