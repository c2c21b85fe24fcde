/* SPDX-License-Identifier: BSD-3-Clause */
/* What makes a LUN the same LUN on every host. */
#include "lun/identity.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "lun/sg.h"
#include "lun/sysfs.h"

/* Linux 6.9, linux/fs.h: FS_IOC_GETFSUUID */
struct fsuuid2 {
    uint8_t len;
    uint8_t uuid[16];
};
#define GETFSUUID _IOR(0x15, 0, struct fsuuid2)

/* ---- names ------------------------------------------------------- */

static void
put_hex(char *to, size_t room, const uint8_t *bytes, size_t n)
{
    for (size_t i = 0; i < n && room > 2; i++, to += 2, room -= 2)
        snprintf(to, room, "%02x", bytes[i]);
}

static void
put_id_hex(char id[LUN_ID_MAX], const char *prefix, const uint8_t *bytes,
           size_t n)
{
    size_t len = (size_t)snprintf(id, LUN_ID_MAX, "%s", prefix);

    put_hex(id + len, LUN_ID_MAX - len, bytes, n);
}

/* "IET     00010001  " becomes "t10.IET_00010001". */
static void
put_id_t10(char id[LUN_ID_MAX], const char *text, size_t n)
{
    size_t len = (size_t)snprintf(id, LUN_ID_MAX, "t10.");
    bool blank = false;

    for (size_t i = 0; i < n && text[i] && len < LUN_ID_MAX - 2; i++) {
        if (isspace((unsigned char)text[i])) {
            blank = len > 4;
            continue;
        }
        if (blank)
            id[len++] = '_';
        blank = false;
        id[len++] = text[i] > ' ' && text[i] < 0x7f ? text[i] : '_';
    }
    id[len] = '\0';
}

static void
put_id_text(char id[LUN_ID_MAX], const char *text, size_t n)
{
    size_t len = 0;

    for (; len < n && len < LUN_ID_MAX - 1 && text[len]; len++)
        id[len] = text[len] > ' ' && text[len] < 0x7f ? text[len] : '_';
    id[len] = '\0';
    if (strncmp(id, "iqn.", 4) != 0)
        for (char *c = id; *c; c++)
            *c = (char)tolower((unsigned char)*c);
}

/* ---- VPD page 0x83 ----------------------------------------------- */

enum {
    TYPE_T10 = 1,
    TYPE_EUI64 = 2,
    TYPE_NAA = 3,
    TYPE_NAME = 8
};

/* How good a designation descriptor is; 0: of no use.  The order is that of
 * udev's scsi_id, so that hosts with and without multipathd agree. */
static unsigned
rank(const uint8_t *d, size_t len)
{
    unsigned association = d[1] >> 4 & 3, type = d[1] & 0xf, naa;

    if (association != 0 || len == 0)
        return 0;
    switch (type) {
    case TYPE_NAA:
        naa = d[4] >> 4;
        if (naa == 6)
            return len >= 16 ? 90 : 0;
        if (len < 8)
            return 0;
        return naa == 5 ? 80 : naa == 3 ? 70 : naa == 2 ? 60 : 0;
    case TYPE_EUI64:
        return len == 16 ? 52 : len == 12 ? 51 : len == 8 ? 50 : 0;
    case TYPE_NAME:
        return len >= 4 ? 40 : 0;
    case TYPE_T10:
        return 30;
    default:
        return 0;
    }
}

static void
put_descriptor(char id[LUN_ID_MAX], const uint8_t *d, size_t len)
{
    switch (d[1] & 0xf) {
    case TYPE_NAA:
        put_id_hex(id, "naa.", d + 4, d[4] >> 4 == 6 ? 16 : 8);
        break;
    case TYPE_EUI64:
        put_id_hex(id, "eui.", d + 4, len);
        break;
    case TYPE_NAME:
        put_id_text(id, (const char *)d + 4, len);
        break;
    default:
        put_id_t10(id, (const char *)d + 4, len);
    }
}

int
identity_from_vpd83(const uint8_t *page, size_t len, char id[LUN_ID_MAX])
{
    unsigned best = 0, r;
    size_t end, n;

    if (len < 4 || page[1] != 0x83)
        return -EINVAL;
    end = 4 + ((size_t)page[2] << 8 | page[3]);
    if (end > len)
        end = len;
    for (size_t at = 4; at + 4 <= end; at += 4 + n) {
        n = page[at + 3];
        if (n > end - at - 4)
            break;
        r = rank(page + at, n);
        if (r > best) {
            best = r;
            put_descriptor(id, page + at, n);
        }
    }
    return best ? 0 : -ENOENT;
}

/* ---- what the kernel and multipathd call it ---------------------- */

int
identity_from_wwid(const char *wwid, char id[LUN_ID_MAX])
{
    if (!*wwid)
        return -ENOENT;
    if (strncmp(wwid, "t10.", 4) == 0)
        put_id_t10(id, wwid + 4, strlen(wwid + 4));
    else
        put_id_text(id, wwid, strlen(wwid));
    return 0;
}

int
identity_from_dm_uuid(const char *uuid, char id[LUN_ID_MAX])
{
    const char *name;

    if (strncmp(uuid, "mpath-", 6) != 0)
        return -ENOENT;
    name = uuid + 6;
    switch (name[0]) {
    case '3': /* scsi_id puts the designator's type in front */
        snprintf(id, LUN_ID_MAX, "naa.%s", name + 1);
        return 0;
    case '2':
        snprintf(id, LUN_ID_MAX, "eui.%s", name + 1);
        return 0;
    case '1':
        put_id_t10(id, name + 1, strlen(name + 1));
        return 0;
    case '8':
        put_id_text(id, name + 1, strlen(name + 1));
        return 0;
    case 'e': /* NVMe: "eui.", "nvme.", "uuid." as in sysfs */
    case 'n':
    case 'u':
        return identity_from_wwid(name, id);
    default:
        return -ENOENT;
    }
}

/* ---- files and devices ------------------------------------------- */

static int
of_file(int fd, const struct stat *st, char id[LUN_ID_MAX])
{
    static const uint8_t none[16];
    struct fsuuid2 fs = {0};
    struct statfs sfs;
    char text[33];

    if (ioctl(fd, GETFSUUID, &fs) == 0 && fs.len <= sizeof fs.uuid &&
        memcmp(fs.uuid, none, fs.len) != 0) {
        put_hex(text, sizeof text, fs.uuid, fs.len);
    } else {
        if (fstatfs(fd, &sfs) < 0)
            return -errno;
        put_hex(text, sizeof text, (const uint8_t *)&sfs.f_fsid,
                sizeof sfs.f_fsid);
    }
    snprintf(id, LUN_ID_MAX, "file.%s.%llu", text,
             (unsigned long long)st->st_ino);
    return 0;
}

static int
of_loop(const char *name, char id[LUN_ID_MAX])
{
    char file[1024];
    struct stat st;
    uint64_t offset;
    int fd, err;

    err = sysfs_read(name, "loop/backing_file", file, sizeof file);
    if (err)
        return err;
    fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    err = fstat(fd, &st) < 0 ? -errno : of_file(fd, &st, id);
    close(fd);
    offset = sysfs_read_number(name, "loop/offset");
    if (!err && offset) {
        size_t n = strlen(id);

        snprintf(id + n, LUN_ID_MAX - n, ".%llu", (unsigned long long)offset);
    }
    return err;
}

static int
of_vpd(int fd, char id[LUN_ID_MAX])
{
    const uint8_t inquiry[6] = {0x12, 1, 0x83, 0x10, 0, 0}; /* SPC-4 6.6 */
    uint8_t page[4096];
    int n = sg_read(fd, inquiry, sizeof inquiry, page, sizeof page);

    return n < 0 ? n : identity_from_vpd83(page, (size_t)n, id);
}

static int
of_disk(int fd, dev_t dev, char id[LUN_ID_MAX])
{
    char name[SYSFS_NAME_MAX], text[256];
    int err = sysfs_name(dev, name);

    if (err)
        return err;
    if (sysfs_read(name, "dm/uuid", text, sizeof text) == 0 &&
        identity_from_dm_uuid(text, id) == 0)
        return 0;
    if (of_vpd(fd, id) == 0)
        return 0;
    if (sysfs_read(name, "device/wwid", text, sizeof text) == 0 &&
        identity_from_wwid(text, id) == 0)
        return 0;
    if (sysfs_read(name, "wwid", text, sizeof text) == 0 &&
        identity_from_wwid(text, id) == 0)
        return 0;
    if (of_loop(name, id) == 0)
        return 0;
    /* Nothing that another host could compare; dm's uuid is at least lasting */
    if (sysfs_read(name, "dm/uuid", text, sizeof text) < 0 || !*text)
        snprintf(text, sizeof text, "%s", name);
    snprintf(id, LUN_ID_MAX, "block.%.100s", text);
    return 0;
}

int
identity_of_fd(int fd, char id[LUN_ID_MAX])
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (S_ISREG(st.st_mode))
        return of_file(fd, &st, id);
    return S_ISBLK(st.st_mode) ? of_disk(fd, st.st_rdev, id) : -ENOTBLK;
}
