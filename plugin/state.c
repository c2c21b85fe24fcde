/* SPDX-License-Identifier: BSD-3-Clause */
/* Two slots in a file: "detour-state SEQUENCE CRC32\n", JSON, zero bytes.
 *
 * The file gets its name when it is complete and on disk.  From then on one
 * of its slots is good whatever happens, so that a file without a good one is
 * damaged: what was under way must not be forgotten. */
#include "plugin/state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "lun/hostlock.h"

#define SLOT 4096

struct state_file {
    int fd;
    uint64_t sequence; /* of the slot written last; its place is its parity */
};

/* CRC-32 of IEEE 802.3, bit by bit: a few hundred bytes, seldom. */
static uint32_t
crc32(const char *p, size_t n)
{
    uint32_t c = ~UINT32_C(0);

    for (; n > 0; n--, p++) {
        c ^= (uint8_t)*p;
        for (int i = 0; i < 8; i++)
            c = (c >> 1) ^ (c & 1 ? UINT32_C(0xEDB88320) : 0);
    }
    return ~c;
}

static json_t *
to_json(const struct state *s)
{
    json_t *peers = json_array();

    for (size_t i = 0; i < s->npeers; i++)
        json_array_append_new(peers, json_string(s->peers[i]));
    return json_pack("{sI sb so ss sI sI}", "generation",
                     (json_int_t)s->generation, "local", s->local, "peers",
                     peers, "id", s->id, "size", (json_int_t)s->size,
                     "block_size", (json_int_t)s->block_size);
}

static bool
copy_word(char *to, size_t room, const char *from)
{
    return from && snprintf(to, room, "%s", from) < (int)room;
}

static bool
from_json(const char *text, size_t len, struct state *s)
{
    json_t *o = json_loadb(text, len, 0, NULL), *peers, *p;
    json_int_t generation, size, block_size;
    const char *id;
    int local;
    size_t i;
    bool ok;

    ok = o &&
         json_unpack(o, "{sI sb so ss sI sI}", "generation", &generation,
                     "local", &local, "peers", &peers, "id", &id, "size", &size,
                     "block_size", &block_size) == 0 &&
         json_array_size(peers) <= STATE_HOSTS_MAX &&
         copy_word(s->id, sizeof s->id, id);
    if (ok) {
        s->generation = (uint64_t)generation;
        s->local = local;
        s->size = (uint64_t)size;
        s->block_size = (uint32_t)block_size;
        s->npeers = json_array_size(peers);
        json_array_foreach(peers, i, p) ok =
            ok && copy_word(s->peers[i], STATE_NAME_MAX, json_string_value(p));
    }
    json_decref(o);
    return ok;
}

static bool
parse_slot(const char *slot, uint64_t *sequence, struct state *s)
{
    size_t len = strnlen(slot, SLOT);
    const char *body = memchr(slot, '\n', len);
    uint32_t crc;

    if (!body ||
        sscanf(slot, "detour-state %" SCNu64 " %" SCNx32, sequence, &crc) != 2)
        return false;
    body++;
    len -= (size_t)(body - slot);
    return crc32(body, len) == crc && from_json(body, len, s);
}

/* The newer good slot; false: there is none. */
static bool
load(struct state_file *f, struct state *s)
{
    bool found = false;

    for (int i = 0; i < 2; i++) {
        char slot[SLOT + 1] = {0};
        struct state t = {0};
        uint64_t sequence;

        if (pread(f->fd, slot, SLOT, (off_t)i * SLOT) != SLOT ||
            !parse_slot(slot, &sequence, &t))
            continue;
        if (!found || sequence > f->sequence) {
            *s = t;
            f->sequence = sequence;
            found = true;
        }
    }
    return found;
}

static int
sync_folder(const char *folder)
{
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

    if (fd < 0)
        return -1;
    r = fsync(fd);
    close(fd);
    return r;
}

static int
write_slot(int fd, const struct state *s, uint64_t sequence)
{
    char slot[SLOT] = {0};
    json_t *o = to_json(s);
    char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
    int n, e = 0;

    json_decref(o);
    if (!text)
        return -ENOMEM;
    n = snprintf(slot, sizeof slot,
                 "detour-state %" PRIu64 " %08" PRIx32 "\n%s", sequence,
                 crc32(text, strlen(text)), text);
    free(text);
    if (n < 0 || n >= SLOT)
        return -EOVERFLOW;
    errno = 0;
    if (pwrite(fd, slot, SLOT, (off_t)(sequence % 2) * SLOT) != SLOT ||
        fdatasync(fd) < 0)
        e = errno ? -errno : -EIO;
    return e;
}

/* Make path, with both slots filled.  That it is there already is fine. */
static int
create(const char *path, const char *folder)
{
    const struct state nothing = {0};
    char draft[PATH_MAX];
    int fd, e;

    if (snprintf(draft, sizeof draft, "%s.XXXXXX", path) >= (int)sizeof draft)
        return -ENAMETOOLONG;
    fd = mkostemp(draft, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    e = write_slot(fd, &nothing, 0);
    if (e == 0)
        e = write_slot(fd, &nothing, 1);
    if (e == 0 && (fsync(fd) < 0 || (link(draft, path) < 0 && errno != EEXIST)))
        e = -errno;
    unlink(draft);
    close(fd);
    if (e == 0 && sync_folder(folder) < 0)
        e = -errno;
    return e;
}

/* A process that was killed holds its lock until the kernel has given back
 * the I/O that one of its threads waits for. */
static int
take_lock(int fd, const char *path, uint64_t deadline_ms)
{
    uint64_t now_ms = clock_ms();
    int e = hostlock_exclusive(fd, 0);

    if (e == -ETIMEDOUT && now_ms < deadline_ms) {
        log_warning("%s: another process holds it, perhaps one that was "
                    "killed and whose I/O has not come back: waiting for up "
                    "to %llu s",
                    path, (unsigned long long)(deadline_ms - now_ms) / 1000);
        e = hostlock_exclusive(fd, deadline_ms);
    }
    return e == -ETIMEDOUT ? -EBUSY : e;
}

/* A descriptor, or -errno. */
static int
open_locked(const char *path, const char *folder, uint64_t deadline_ms)
{
    int fd = open(path, O_RDWR | O_CLOEXEC), e;

    if (fd < 0 && errno == ENOENT) {
        e = create(path, folder);
        if (e < 0)
            return e;
        fd = open(path, O_RDWR | O_CLOEXEC);
    }
    if (fd < 0)
        return -errno;
    e = take_lock(fd, path, deadline_ms);
    if (e == 0)
        return fd;
    close(fd);
    return e;
}

struct state_file *
state_open(const char *statedir, const char *lun, const char *client,
           uint64_t deadline_ms, struct state *s, char *err, size_t errlen)
{
    struct state_file *f = calloc(1, sizeof *f);
    char path[PATH_MAX];
    int e;

    memset(s, 0, sizeof *s);
    if (!f)
        return NULL;
    snprintf(path, sizeof path, "%s/%s.%s", statedir, lun, client);
    f->fd = open_locked(path, statedir, deadline_ms);
    e = f->fd < 0 ? -f->fd : load(f, s) ? 0 : EINVAL;
    if (e == 0)
        return f;
    if (e == EBUSY)
        snprintf(err, errlen,
                 "%s: another process serves LUN %s as client %s, or was "
                 "killed and its I/O has not come back: give each process a "
                 "client=NAME of its own",
                 path, lun, client);
    else if (e == EINVAL)
        snprintf(err, errlen,
                 "%s: the saved state is damaged; remove the file only when "
                 "no write of this client can be under way any more",
                 path);
    else
        snprintf(err, errlen, "%s: cannot open the saved state: %s", path,
                 strerror(e));
    state_close(f);
    errno = e;
    return NULL;
}

int
state_save(struct state_file *f, const struct state *s)
{
    int e = write_slot(f->fd, s, f->sequence + 1);

    if (e == 0)
        f->sequence++;
    return e;
}

void
state_close(struct state_file *f)
{
    if (!f)
        return;
    if (f->fd >= 0)
        close(f->fd);
    free(f);
}
