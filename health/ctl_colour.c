/* SPDX-License-Identifier: BSD-3-Clause */
/* Colour for the words that tell good from bad, on terminals only. */
#include "health/ctl_colour.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool wanted;

enum colour {
    PLAIN,
    GREEN,
    YELLOW,
    RED
};

static const struct {
    const char *word;
    enum colour colour;
} meanings[] = {
    {"good", GREEN},          {"local", GREEN},      {"pass", GREEN},
    {"ready", GREEN},         {"registered", GREEN}, {"serving", GREEN},
    {"open to peers", GREEN}, {"closing", YELLOW},   {"degraded", YELLOW},
    {"drained", YELLOW},      {"draining", YELLOW},  {"note", YELLOW},
    {"off", YELLOW},          {"opening", YELLOW},   {"redirected", YELLOW},
    {"registering", YELLOW},  {"returning", YELLOW}, {"slow", YELLOW},
    {"unregistered", YELLOW}, {"waiting", YELLOW},   {"warn", YELLOW},
    {"warning", YELLOW},      {"fail", RED},         {"failed", RED},
    {"fenced", RED},          {"lost", RED},         {"not ready", RED},
    {"problem", RED},         {"queueing", RED},     {"silent", RED},
    {"unknown", RED},
};

void
ctl_colour_choose(FILE *f)
{
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");

    wanted = isatty(fileno(f)) && !(no && *no) && term && *term &&
             strcmp(term, "dumb") != 0;
}

static enum colour
meaning(const char *word)
{
    for (size_t i = 0; i < sizeof meanings / sizeof meanings[0]; i++)
        if (strcmp(meanings[i].word, word) == 0)
            return meanings[i].colour;
    return PLAIN;
}

const char *
ctl_colour(const char *word, char *to, size_t room)
{
    static const unsigned codes[] = {[GREEN] = 32, [YELLOW] = 33, [RED] = 31};
    enum colour colour = wanted ? meaning(word) : PLAIN;

    if (colour == PLAIN)
        return word;
    snprintf(to, room, "\033[%um%s\033[0m", codes[colour], word);
    return to;
}
