/* SPDX-License-Identifier: BSD-3-Clause */
/* Opens libnbd connections; libnbd alone would wait for ever. */
#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "tests/blockcheck/conn.h"
#include "tests/blockcheck/stamp.h"

uint64_t
conn_now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

void
conn_nap(unsigned ms)
{
    const struct timespec nap = {.tv_sec = ms / 1000,
                                 .tv_nsec = (long)(ms % 1000) * 1000000};

    nanosleep(&nap, NULL);
}

bool
conn_lost(struct nbd_handle *nbd)
{
    return nbd_aio_is_dead(nbd) == 1 || nbd_aio_is_closed(nbd) == 1;
}

struct nbd_handle *
conn_open(const char *uri, uint64_t deadline_ns, char *why, size_t why_size)
{
    struct nbd_handle *nbd = nbd_create();

    if (!nbd || nbd_set_uri_allow_local_file(nbd, true) == -1 ||
        nbd_aio_connect_uri(nbd, uri) == -1)
        goto fail;
    while (nbd_aio_is_ready(nbd) != 1) {
        if (conn_lost(nbd) || nbd_poll(nbd, 50) == -1)
            goto fail;
        if (conn_now_ns() > deadline_ns) {
            snprintf(why, why_size, "no answer from %s", uri);
            nbd_close(nbd);
            return NULL;
        }
    }
    return nbd;
fail:
    snprintf(why, why_size, "%s",
             nbd_get_error() ? nbd_get_error() : "the connection was closed");
    nbd_close(nbd);
    return NULL;
}

int
conn_ask(struct nbd_handle *nbd, struct conn_info *info)
{
    int64_t size = nbd_get_size(nbd);
    int64_t least = nbd_get_block_size(nbd, LIBNBD_SIZE_MINIMUM);

    if (size <= 0 || least > 65536)
        return -EIO;
    info->size = (uint64_t)size;
    info->unit = least > UNIT_MIN ? (uint32_t)least : UNIT_MIN;
    info->flush = nbd_can_flush(nbd) == 1;
    info->fua = nbd_can_fua(nbd) == 1;
    info->zero = nbd_can_zero(nbd) == 1;
    info->trim = nbd_can_trim(nbd) == 1;
    info->multi = nbd_can_multi_conn(nbd) == 1;
    info->read_only = nbd_is_read_only(nbd) == 1;
    return 0;
}

void
conn_part(struct nbd_handle *nbd)
{
    uint64_t deadline = conn_now_ns() + UINT64_C(1000000000);

    if (conn_lost(nbd) || nbd_aio_disconnect(nbd, 0) == -1)
        return;
    while (!conn_lost(nbd) && conn_now_ns() < deadline)
        if (nbd_poll(nbd, 50) == -1)
            return;
}
