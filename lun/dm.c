/* SPDX-License-Identifier: BSD-3-Clause */
/* A dm-multipath map as the kernel has it: its paths, and whether it queues. */
#include "lun/dm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define CONTROL "/dev/mapper/control"
#define ROOM    16384 /* a path takes some 40 bytes of it */

/* ---- the two lines ----------------------------------------------- */

/* What is left of a line; text is NULL once it was not as it should be. */
struct words {
    const char *text;
};

/* The next word's length; 0: there is none. */
static size_t
next_word(struct words *w)
{
    if (!w->text)
        return 0;
    w->text += strspn(w->text, " ");
    return strcspn(w->text, " ");
}

static bool
skip_words(struct words *w, unsigned n)
{
    while (n-- > 0) {
        size_t len = next_word(w);

        if (len == 0)
            w->text = NULL;
        if (!w->text)
            return false;
        w->text += len;
    }
    return w->text;
}

static unsigned
take_number(struct words *w)
{
    size_t len = next_word(w);
    unsigned long n;
    char *end;

    if (len == 0 || w->text[0] < '0' || w->text[0] > '9') {
        w->text = NULL;
        return 0;
    }
    n = strtoul(w->text, &end, 10);
    w->text = (size_t)(end - w->text) == len && n < 65536 ? end : NULL;
    return w->text ? (unsigned)n : 0;
}

/* A letter by itself, one of those allowed. */
static char
take_letter(struct words *w, const char *allowed)
{
    size_t len = next_word(w);
    char c = len == 1 ? w->text[0] : '\0';

    if (c == '\0' || !strchr(allowed, c)) {
        w->text = NULL;
        return '\0';
    }
    w->text++;
    return c;
}

/* "8:16" */
static dev_t
take_dev(struct words *w)
{
    size_t len = next_word(w);
    unsigned ma, mi;
    int used = 0;

    if (len == 0 || sscanf(w->text, "%u:%u%n", &ma, &mi, &used) != 2 ||
        (size_t)used != len) {
        w->text = NULL;
        return 0;
    }
    w->text += len;
    return makedev(ma, mi);
}

/* "8:16 A 3", and what the selector says of it. */
static void
take_path(struct words *w, unsigned group, unsigned nargs, struct dm_map *m)
{
    struct dm_path p = {.group = group};

    p.dev = take_dev(w);
    p.active = take_letter(w, "AF") == 'A';
    p.failures = take_number(w);
    if (skip_words(w, nargs) && m->npaths < LUN_PATH_MAX)
        m->paths[m->npaths++] = p;
}

/* "A 0 2 1": state, what the selector says of the group, paths, and words
 * for each of them. */
static void
take_group(struct words *w, unsigned group, struct dm_map *m)
{
    unsigned npaths, nargs;

    take_letter(w, "ADE");
    skip_words(w, take_number(w));
    npaths = take_number(w);
    nargs = take_number(w);
    while (w->text && npaths-- > 0)
        take_path(w, group, nargs, m);
}

int
dm_parse_status(const char *text, struct dm_map *m)
{
    struct words w = {text};
    unsigned groups;

    m->npaths = 0;
    skip_words(&w, take_number(&w)); /* features */
    skip_words(&w, take_number(&w)); /* hardware handler */
    groups = take_number(&w);
    take_number(&w); /* the group in use */
    for (unsigned g = 1; w.text && g <= groups; g++)
        take_group(&w, g, m);
    if (w.text)
        return 0;
    m->npaths = 0;
    return -EBADMSG;
}

int
dm_parse_table(const char *text, struct dm_map *m)
{
    static const char word[] = "queue_if_no_path";
    struct words w = {text};
    unsigned features = take_number(&w);

    m->queues = false;
    while (w.text && features-- > 0) {
        size_t len = next_word(&w);

        m->queues |= len == sizeof word - 1 && memcmp(w.text, word, len) == 0;
        skip_words(&w, 1);
    }
    if (!w.text)
        m->queues = false;
    return w.text ? 0 : -EBADMSG;
}

/* ---- ioctls ------------------------------------------------------ */

union message {
    struct dm_ioctl io;
    char room[ROOM];
};

static int
talk(union message *u, dev_t dev, unsigned long request, unsigned flags)
{
    int fd = open(CONTROL, O_RDWR | O_CLOEXEC), err;

    if (fd < 0)
        return -errno;
    u->io.version[0] = DM_VERSION_MAJOR;
    u->io.data_size = sizeof *u;
    u->io.data_start = sizeof u->io;
    u->io.flags = flags;
    u->io.dev = dev; /* glibc's numbers are the kernel's "huge" ones */
    err = ioctl(fd, request, u) < 0 ? -errno : 0;
    close(fd);
    if (!err && (u->io.flags & DM_BUFFER_FULL_FLAG))
        err = -EMSGSIZE;
    return err;
}

/* The line of the map's one target, a multipath. */
static int
read_line(dev_t dev, unsigned flags, union message *u, const char **line)
{
    const struct dm_target_spec *t;
    int err;

    memset(u, 0, sizeof *u);
    err = talk(u, dev, DM_TABLE_STATUS, flags | DM_NOFLUSH_FLAG);
    if (err)
        return err;
    if (u->io.target_count != 1 || u->io.data_start + sizeof *t >= sizeof *u)
        return -ENODEV;
    u->room[sizeof *u - 1] = '\0';
    t = (const void *)(u->room + u->io.data_start);
    if (strncmp(t->target_type, "multipath", sizeof t->target_type) != 0)
        return -ENODEV;
    *line = (const char *)(t + 1);
    return 0;
}

int
dm_read(dev_t dev, struct dm_map *m)
{
    const char *line;
    union message u;
    int err;

    *m = (struct dm_map){.npaths = 0};
    err = read_line(dev, DM_STATUS_TABLE_FLAG, &u, &line);
    if (!err)
        err = dm_parse_table(line, m);
    if (!err)
        err = read_line(dev, 0, &u, &line);
    if (!err)
        err = dm_parse_status(line, m);
    if (!err)
        snprintf(m->name, sizeof m->name, "%.*s", DM_NAME_LEN - 1, u.io.name);
    return err;
}

int
dm_fail_queued(dev_t dev)
{
    static const char order[] = "fail_if_no_path";
    union message u;

    memset(&u, 0, sizeof u);
    memcpy(u.room + sizeof u.io + offsetof(struct dm_target_msg, message),
           order, sizeof order);
    return talk(&u, dev, DM_TARGET_MSG, 0);
}
