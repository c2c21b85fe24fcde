/* SPDX-License-Identifier: BSD-3-Clause */
/* Attributes and folders of block devices in /sys. */
#ifndef DETOUR_LUN_SYSFS_H
#define DETOUR_LUN_SYSFS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define SYSFS_NAME_MAX 64 /* of a kernel device, with the NUL */

/* Where it is mounted: "/sys".  Tests set another folder, before there is a
 * second thread. */
extern const char *sysfs_root;

/* sysfs_name - the kernel's name ("dm-3") of a block device number.
 *
 * errors:  -errno; -ENOENT: no such device
 */
int sysfs_name(dev_t dev, char name[SYSFS_NAME_MAX]);

/* sysfs_read - one attribute of a device, without blanks at its end.
 *
 * shapes:  attribute as "dm/uuid", below /sys/class/block/NAME/
 * errors:  -errno; buf is "" then
 */
int sysfs_read(const char *name, const char *attribute, char *buf, size_t len);

/* sysfs_read_number - the same, as a decimal number; 0 when there is none. */
uint64_t sysfs_read_number(const char *name, const char *attribute);

/* sysfs_slaves - the devices below one ("sda" and "sdb" below "dm-3").
 *
 * returns: how many there are; names of max of them are stored
 */
size_t sysfs_slaves(const char *name, char slaves[][SYSFS_NAME_MAX],
                    size_t max);

/* sysfs_each - call visit with the name of each thing in a folder of a device
 * ("device" of "nvme0n1"); shorter than SYSFS_NAME_MAX, in no order. */
void sysfs_each(const char *name, const char *folder,
                void (*visit)(const char *entry, void *opaque), void *opaque);

#endif
