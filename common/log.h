/* SPDX-License-Identifier: BSD-3-Clause */
/* Log lines for people: to stderr, or to the journal under systemd. */
#ifndef DETOUR_LOG_H
#define DETOUR_LOG_H

#include <stdbool.h>

/* error: an operator must act; warning: degraded but serving; info: a state
 * changed; debug: one request's story. */
enum log_level {
    LOG_LEVEL_ERROR,
    LOG_LEVEL_WARNING,
    LOG_LEVEL_INFO,
    LOG_LEVEL_DEBUG,
};

/* log_init - name the program and choose where lines go.
 *
 * Lines go to stderr as "program: level: text".  When stderr is the systemd
 * journal (JOURNAL_STREAM names its device and inode) each line begins with
 * its "<N>" priority instead of the level: sd-daemon(3).
 *
 * owns:    program stays the caller's and must outlive all logging
 * threads: call before other threads exist; without it "detour" and
 *          LOG_LEVEL_INFO hold
 */
void log_init(const char *program, enum log_level most);

/* log_debugging - would a log_debug line be written?  For costly arguments. */
bool log_debugging(void);

/* log_error, log_warning, log_info, log_debug - write one line.
 *
 * Begin the text with the object's id ("lun vm1: ..."); no newline, no
 * secrets, no payload.  errno is kept.
 *
 * threads: any; a line is written with one write() and is never mixed with
 *          another
 */
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
