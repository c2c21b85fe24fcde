/* SPDX-License-Identifier: BSD-3-Clause */
/* Text that is cut where UTF-8 may be cut. */
#include "health/fields.h"

#include <stdarg.h>
#include <stdio.h>

void
field_print(char *to, size_t room, const char *fmt, ...)
{
    va_list ap;
    size_t n;
    int len;

    va_start(ap, fmt);
    len = vsnprintf(to, room, fmt, ap);
    va_end(ap);
    if (len < 0)
        to[0] = '\0';
    if (len < 0 || (size_t)len < room)
        return;
    /* back over what may be the beginning of a character */
    n = room - 1;
    while (n > 0 && (to[n - 1] & 0xc0) == 0x80)
        n--;
    if (n > 0 && (to[n - 1] & 0x80))
        n--;
    to[n] = '\0';
}
