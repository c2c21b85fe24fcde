/* SPDX-License-Identifier: BSD-3-Clause */
/* Colour for the words that tell good from bad, on terminals only. */
#ifndef DETOUR_HEALTH_CTL_COLOUR_H
#define DETOUR_HEALTH_CTL_COLOUR_H

#include <stddef.h>
#include <stdio.h>

/* ctl_colour_choose - from now on colour, if f is a terminal that can do it
 * and the user did not say NO_COLOR (https://no-color.org).
 *
 * threads: call it before there are others
 */
void ctl_colour_choose(FILE *f);

/* ctl_colour - the word, with the colour of what it means around it: green,
 * nothing need be done; yellow, somebody should look; red, VMs wait or
 * nobody knows.  A word without such a meaning is as it was.
 *
 * returns: word, or to, which holds at most room bytes
 */
const char *ctl_colour(const char *word, char *to, size_t room);

#endif
