/* SPDX-License-Identifier: BSD-3-Clause */
/* The fuzzer's corpus and mutations of it, the same ones each time; run from
 * the top of the tree. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "../fuzz/fuzz_proxy.c"

#define CORPUS    "tests/fuzz/proxy"
#define MAX_LEN   20000
#define MUTATIONS 3000 /* of each file */

static uint32_t seed;

static uint32_t
dice(uint32_t sides)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % sides;
}

/* Exactly as large as the input, so that sanitizers see a byte too far. */
static void
try(const uint8_t *data, size_t len)
{
    uint8_t *exact = malloc(len ? len : 1);

    assert_non_null(exact);
    memcpy(exact, data, len);
    LLVMFuzzerTestOneInput(exact, len);
    free(exact);
}

static void
mutate(const uint8_t *data, size_t len)
{
    uint8_t copy[MAX_LEN];

    memcpy(copy, data, len);
    for (uint32_t i = 1 + dice(4); i > 0; i--) {
        static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff, '%', '=', '&'};
        size_t at = 1 + dice((uint32_t)len - 1);

        copy[at] = dice(2) ? edges[dice(sizeof edges)] : (uint8_t)dice(256);
    }
    try(copy, dice(4) ? len : 1 + dice((uint32_t)len));
}

static size_t
load(const char *file, uint8_t *data)
{
    char path[512];
    size_t len;
    FILE *f;

    snprintf(path, sizeof path, CORPUS "/%s", file);
    f = fopen(path, "r");
    assert_non_null(f);
    len = fread(data, 1, MAX_LEN, f);
    fclose(f);
    return len;
}

static void
test_fuzz_corpus_and_mutations_do_not_abort(void **state)
{
    DIR *dir = opendir(CORPUS);
    struct dirent *e;
    unsigned files = 0;

    (void)state;
    assert_non_null(dir);
    while ((e = readdir(dir))) {
        uint8_t data[MAX_LEN];
        size_t len;

        if (e->d_name[0] == '.')
            continue;
        files++;
        len = load(e->d_name, data);
        try(data, len);
        seed = (uint32_t)len;
        for (unsigned i = 0; len > 1 && i < MUTATIONS; i++)
            mutate(data, len);
    }
    closedir(dir);
    assert_true(files >= 10);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fuzz_corpus_and_mutations_do_not_abort),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
