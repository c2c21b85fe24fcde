/* SPDX-License-Identifier: BSD-3-Clause */
/* Packs and unpacks reservation keys. */
#include "lun/key.h"

#define MAGIC_SHIFT   48
#define CLUSTER_SHIFT 36
#define HOST_SHIFT    24
#define NUMBER_MASK   0xFFFu

uint64_t
key_pack(struct key k)
{
    return (uint64_t)KEY_MAGIC << MAGIC_SHIFT |
           (uint64_t)(k.cluster & NUMBER_MASK) << CLUSTER_SHIFT |
           (uint64_t)(k.host & NUMBER_MASK) << HOST_SHIFT |
           (k.epoch & KEY_EPOCH_MAX);
}

bool
key_unpack(uint64_t raw, struct key *k)
{
    struct key got = {
        .cluster = (unsigned)(raw >> CLUSTER_SHIFT) & NUMBER_MASK,
        .host = (unsigned)(raw >> HOST_SHIFT) & NUMBER_MASK,
        .epoch = (uint32_t)raw & KEY_EPOCH_MAX,
    };

    if (raw >> MAGIC_SHIFT != KEY_MAGIC || got.host == 0 || got.epoch == 0)
        return false;
    *k = got;
    return true;
}

uint32_t
key_next_epoch(uint32_t epoch)
{
    return epoch >= KEY_EPOCH_MAX ? 1 : epoch + 1;
}
