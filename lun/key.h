/* SPDX-License-Identifier: BSD-3-Clause */
/* Reservation keys: who registered, and which time it was. */
#ifndef DETOUR_LUN_KEY_H
#define DETOUR_LUN_KEY_H

#include <stdbool.h>
#include <stdint.h>

/* 64 bits, from the top: 16 magic, 12 cluster, 12 host, 24 epoch. */
#define KEY_MAGIC     0xDE70u
#define KEY_EPOCH_MAX 0xFFFFFFu

struct key {
    unsigned cluster; /* 0 to 4095 */
    unsigned host;    /* 1 to 4095 */
    uint32_t epoch;   /* 1 to KEY_EPOCH_MAX, then 1 again */
};

/* key_pack - the key as the LUN stores it (host byte order). */
uint64_t key_pack(struct key k);

/* key_unpack - false when raw is no key of detour's; k is unchanged then. */
bool key_unpack(uint64_t raw, struct key *k);

/* key_next_epoch - the one after epoch; 0 gives 1; never 0. */
uint32_t key_next_epoch(uint32_t epoch);

#endif
