/* SPDX-License-Identifier: BSD-3-Clause */
/* What blockcheck writes into a unit, and what it recognises in one. */
#ifndef BLOCKCHECK_STAMP_H
#define BLOCKCHECK_STAMP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A unit is what the LUN writes whole or not at all: a logical block.  Its
 * content is one 64-bit value:
 *
 *   0                     all zeroes
 *   writer << 32 | seq    a whole stamp, at the place it was made for
 *   STRANGE << 32 | hash  anything else; equal content has an equal value
 *
 * A writer is one run of blockcheck, seq counts its requests from 1. */
#define VALUE_ZERO     UINT64_C(0)
#define WRITER_STRANGE UINT32_C(0xffffffff)

#define UNIT_MIN 512u

/* value_make - the value of request seq of writer. */
static inline uint64_t
value_make(uint32_t writer, uint32_t seq)
{
    return (uint64_t)writer << 32 | seq;
}

static inline uint32_t
value_writer(uint64_t value)
{
    return (uint32_t)(value >> 32);
}

static inline uint32_t
value_seq(uint64_t value)
{
    return (uint32_t)value;
}

static inline bool
value_is_strange(uint64_t value)
{
    return value_writer(value) == WRITER_STRANGE;
}

/* stamp_mix - a number that looks random, from another one (splitmix64). */
uint64_t stamp_mix(uint64_t x);

/* stamp_fill - make the unit that belongs to offset hold value.
 *
 * shapes:  unit has size bytes, a multiple of 8, at least UNIT_MIN; value is
 *          neither zero nor strange
 * units:   offset bytes from the begin of the LUN; time_ns CLOCK_MONOTONIC
 */
void stamp_fill(void *unit, size_t size, uint64_t value, uint64_t offset,
                uint64_t time_ns);

/* stamp_read - the value of a unit that was read at offset.
 *
 * note:    for a strange value, what can be told of it for people; it begins
 *          with "torn", "elsewhere" or "damaged" and is empty when nothing in
 *          the unit was ever a stamp.  May be NULL.
 */
uint64_t stamp_read(const void *unit, size_t size, uint64_t offset, char *note,
                    size_t note_size);

#endif
