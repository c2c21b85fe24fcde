/* SPDX-License-Identifier: BSD-3-Clause */
/* Builds one log line in memory and hands it to stderr in one write(). */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* No more than PIPE_BUF, so that a pipe takes it whole as well: pipe(7). */
#define LINE_MAX_BYTES 4096

/* Fixed after log_init, which runs before there are threads. */
static const char *program = "detour";
static enum log_level most = LOG_LEVEL_INFO;
static bool to_journal;

static const struct {
    const char *name;
    int priority; /* syslog(3) */
} levels[] = {
    [LOG_LEVEL_ERROR] = {"error", 3},
    [LOG_LEVEL_WARNING] = {"warning", 4},
    [LOG_LEVEL_INFO] = {"info", 6},
    [LOG_LEVEL_DEBUG] = {"debug", 7},
};

/* systemd.exec(5): JOURNAL_STREAM is "device:inode" of the stream that was
 * connected to the journal.  stderr may have been sent elsewhere since. */
static bool
stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;
    char end;

    if (!stream || sscanf(stream, "%llu:%llu%c", &device, &inode, &end) != 2)
        return false;
    return fstat(STDERR_FILENO, &st) == 0 && st.st_dev == device &&
           st.st_ino == inode;
}

void
log_init(const char *name, enum log_level upto)
{
    program = name;
    most = upto;
    to_journal = stderr_is_journal();
}

bool
log_debugging(void)
{
    return most >= LOG_LEVEL_DEBUG;
}

static void
write_all(const char *line, size_t len)
{
    while (len > 0) {
        ssize_t n = write(STDERR_FILENO, line, len);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return; /* nobody is left to be told */
        line += n;
        len -= (size_t)n;
    }
}

/* Parts of a text may come from a peer: it must not be able to begin a line
 * of its own, or to steer a terminal. */
static void
blunt(char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < ' ' || *text == 0x7f)
            *text = '?';
}

/* How much snprintf stored, whatever it would have liked to store. */
static size_t
stored(int wanted, size_t room)
{
    if (wanted < 0)
        return 0;
    return (size_t)wanted < room ? (size_t)wanted : room - 1;
}

static void __attribute__((format(printf, 2, 0)))
put(enum log_level level, const char *fmt, va_list ap)
{
    static const char cut[] = "...";
    char line[LINE_MAX_BYTES];
    const size_t room = sizeof(line) - 1; /* the newline's */
    int saved = errno;
    size_t used;
    int wanted;

    if (to_journal)
        wanted = snprintf(line, room, "<%d>", levels[level].priority);
    else
        wanted = snprintf(line, room, "%s: %s: ", program, levels[level].name);
    used = stored(wanted, room);

    errno = saved; /* for %m */
    wanted = vsnprintf(line + used, room - used, fmt, ap);
    if (wanted >= 0 && (size_t)wanted >= room - used)
        memcpy(line + room - sizeof(cut), cut, sizeof(cut));
    used += stored(wanted, room - used);

    line[used] = '\0';
    blunt(line);
    line[used] = '\n';
    write_all(line, used + 1);
    errno = saved;
}

#define LOG_AT(level)                                                          \
    do {                                                                       \
        va_list ap;                                                            \
                                                                               \
        if (most < (level))                                                    \
            return;                                                            \
        va_start(ap, fmt);                                                     \
        put(level, fmt, ap);                                                   \
        va_end(ap);                                                            \
    } while (0)

void
log_error(const char *fmt, ...)
{
    LOG_AT(LOG_LEVEL_ERROR);
}

void
log_warning(const char *fmt, ...)
{
    LOG_AT(LOG_LEVEL_WARNING);
}

void
log_info(const char *fmt, ...)
{
    LOG_AT(LOG_LEVEL_INFO);
}

void
log_debug(const char *fmt, ...)
{
    LOG_AT(LOG_LEVEL_DEBUG);
}
