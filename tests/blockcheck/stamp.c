/* SPDX-License-Identifier: BSD-3-Clause */
/* Stamps: who wrote a unit, with which request, for which place, and when.
 *
 *   word 0   magic
 *        1   value
 *        2   offset
 *        3   time
 *        4.. noise made from the three above
 *        -1  value again
 *
 * The noise makes each bit count; the value at both ends names the two writes
 * of which a torn unit is made.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/blockcheck/stamp.h"

#define MAGIC UINT64_C(0x6b636f6c42206b63) /* "ck Block" */
#define STEP  UINT64_C(0x9E3779B97F4A7C15)

uint64_t
stamp_mix(uint64_t x)
{
    /* splitmix64, Steele et al. 2014 */
    x += STEP;
    x = (x ^ (x >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94D049BB133111EB);
    return x ^ (x >> 31);
}

static uint64_t
word_at(const unsigned char *unit, size_t i)
{
    uint64_t word;

    memcpy(&word, unit + i * 8, 8);
    return word;
}

/* The word that belongs at index i of a unit of n words. */
static uint64_t
word_of(size_t i, size_t n, const uint64_t head[4], uint64_t noise)
{
    if (i < 4)
        return head[i];
    if (i == n - 1)
        return head[1];
    noise += i * STEP;
    return noise ^ (noise >> 29);
}

static uint64_t
noise_of(const uint64_t head[4])
{
    return stamp_mix(head[1] ^ stamp_mix(head[2] ^ stamp_mix(head[3])));
}

void
stamp_fill(void *unit, size_t size, uint64_t value, uint64_t offset,
           uint64_t time_ns)
{
    const uint64_t head[4] = {MAGIC, value, offset, time_ns};
    uint64_t noise = noise_of(head);
    unsigned char *to = unit;
    size_t n = size / 8;

    for (size_t i = 0; i < n; i++) {
        uint64_t word = word_of(i, n, head, noise);

        memcpy(to + i * 8, &word, 8);
    }
}

static bool
is_zero(const unsigned char *unit, size_t size)
{
    return unit[0] == 0 && memcmp(unit, unit + 1, size - 1) == 0;
}

/* How many words from the begin on are those of the stamp in the head. */
static size_t
words_right(const unsigned char *unit, size_t n)
{
    const uint64_t head[4] = {MAGIC, word_at(unit, 1), word_at(unit, 2),
                              word_at(unit, 3)};
    uint64_t noise = noise_of(head);
    size_t i = 0;

    while (i < n && word_at(unit, i) == word_of(i, n, head, noise))
        i++;
    return i;
}

static uint64_t
strange_value(const unsigned char *unit, size_t n)
{
    uint64_t hash = n;

    for (size_t i = 0; i < n; i++)
        hash = stamp_mix(hash ^ word_at(unit, i));
    return (uint64_t)WRITER_STRANGE << 32 | (hash >> 32);
}

static void
describe(const unsigned char *unit, size_t n, size_t right, char *note,
         size_t note_size)
{
    uint64_t first = word_at(unit, 1), last = word_at(unit, n - 1);
    size_t zeroes = 0;

    while (zeroes < n && word_at(unit, zeroes) == 0)
        zeroes++;
    if (zeroes * 8 >= UNIT_MIN)
        snprintf(note, note_size, "torn: zeroes up to byte %zu", zeroes * 8);
    else if (right == n)
        snprintf(note, note_size, "elsewhere: %x:%" PRIu32 " as at %" PRIu64,
                 value_writer(first), value_seq(first), word_at(unit, 2));
    else if (right >= 4 && right < n - 1 && last != first)
        snprintf(note, note_size, "torn: %x:%u up to byte %zu, ends as %x:%u",
                 value_writer(first), value_seq(first), right * 8,
                 value_writer(last), value_seq(last));
    else if (right >= 4)
        snprintf(note, note_size, "damaged: %x:%u but for byte %zu",
                 value_writer(first), value_seq(first), right * 8);
}

uint64_t
stamp_read(const void *unit, size_t size, uint64_t offset, char *note,
           size_t note_size)
{
    const unsigned char *from = unit;
    size_t n = size / 8, right;

    if (is_zero(from, size))
        return VALUE_ZERO;
    right = words_right(from, n);
    if (right == n && word_at(from, 2) == offset)
        return word_at(from, 1);
    if (note && note_size > 0) {
        note[0] = '\0';
        describe(from, n, right, note, note_size);
    }
    return strange_value(from, n);
}
