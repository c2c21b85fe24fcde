/* SPDX-License-Identifier: BSD-3-Clause */
/* The paths of an NVMe namespace that the kernel itself multipaths. */
#include "lun/nvme.h"

#include <stdio.h>
#include <string.h>

/* sysfs, for namespace 1 of subsystem 0 and its controllers 0 and 1:
 *
 *   class/block/nvme0n1/device          the subsystem
 *                       device/iopolicy attribute of subsystems only
 *                       device/nvme1    a controller: state, transport
 *                       device/nvme1/nvme0c1n1/ana_state
 *
 * A path's name holds subsystem, controller and namespace; its device is
 * hidden, so that nothing but sysfs shows it. */

bool
nvme_is_head(const char *name)
{
    char policy[32];

    return strncmp(name, "nvme", 4) == 0 &&
           sysfs_read(name, "device/iopolicy", policy, sizeof policy) == 0;
}

/* "nvme1", and not "nvme0n1" or "nvme0c1n1" */
static bool
is_controller(const char *name)
{
    return strncmp(name, "nvme", 4) == 0 && name[4] &&
           name[4 + strspn(name + 4, "0123456789")] == '\0';
}

/* Is path one of head?  "nvme0c1n12" of "nvme0n12" */
static bool
is_path_of(const char *path, const char *head)
{
    unsigned subsystem, namespace, s, c, n;
    int end = 0;

    return sscanf(head, "nvme%un%u", &subsystem, &namespace) == 2 &&
           sscanf(path, "nvme%uc%un%u%n", &s, &c, &n, &end) == 3 &&
           path[end] == '\0' && s == subsystem && n == namespace;
}

static void
read_path(const char *head, struct nvme_path *p)
{
    char attribute[2 * SYSFS_NAME_MAX + 32];

    snprintf(attribute, sizeof attribute, "device/%s/state", p->controller);
    sysfs_read(head, attribute, p->state, sizeof p->state);
    snprintf(attribute, sizeof attribute, "device/%s/transport", p->controller);
    sysfs_read(head, attribute, p->transport, sizeof p->transport);
    snprintf(attribute, sizeof attribute, "device/%s/address", p->controller);
    sysfs_read(head, attribute, p->address, sizeof p->address);
    snprintf(attribute, sizeof attribute, "device/%s/%s/ana_state",
             p->controller, p->name);
    sysfs_read(head, attribute, p->ana, sizeof p->ana);
}

/* The paths of head that were found so far, and the one looked for now. */
struct found {
    const char *head;
    struct nvme_path *paths, *now;
    size_t max, n;
};

static void
take_path(const char *entry, void *opaque)
{
    struct found *f = opaque;

    if (is_path_of(entry, f->head))
        strcpy(f->now->name, entry);
}

/* A subsystem and its controllers may have any number of namespaces, which
 * stand in the same folders. */
static void
take_controller(const char *entry, void *opaque)
{
    struct found *f = opaque;
    struct nvme_path p = {.name = ""};
    char folder[SYSFS_NAME_MAX + 16];

    if (!is_controller(entry))
        return;
    strcpy(p.controller, entry);
    snprintf(folder, sizeof folder, "device/%s", entry);
    f->now = &p;
    sysfs_each(f->head, folder, take_path, f);
    if (!p.name[0])
        return;
    if (f->n < f->max) {
        read_path(f->head, &p);
        f->paths[f->n] = p;
    }
    f->n++;
}

size_t
nvme_paths(const char *name, struct nvme_path *paths, size_t max)
{
    struct found f = {.head = name, .paths = paths, .max = max};

    sysfs_each(name, "device", take_controller, &f);
    return f.n;
}

bool
nvme_path_usable(const struct nvme_path *p)
{
    return strcmp(p->state, "live") == 0 &&
           (p->ana[0] == '\0' || strcmp(p->ana, "optimized") == 0 ||
            strcmp(p->ana, "non-optimized") == 0);
}
