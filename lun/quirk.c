/* SPDX-License-Identifier: BSD-3-Clause */
/* What targets are known to do otherwise than the standard says. */
#include "lun/quirk.h"

#include <string.h>

#define VENDOR_AT  8
#define VENDOR_LEN 8

bool
quirk_partial_abort(const uint8_t *inquiry, size_t len)
{
    return len >= VENDOR_AT + VENDOR_LEN &&
           memcmp(inquiry + VENDOR_AT, "LIO-ORG ", VENDOR_LEN) == 0;
}
