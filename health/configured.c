/* SPDX-License-Identifier: BSD-3-Clause */
/* From the configuration to options, alike in plugin and proxy. */
#include "health/configured.h"

struct lun_options
configured_lun(const struct config *cfg, const struct config_lun *l,
               const char *process)
{
    return (struct lun_options){
        .name = l->name,
        .device = l->device,
        .process = process,
        .rundir = cfg->rundir,
        .statedir = cfg->statedir,
        .cluster_number = cfg->cluster_number,
        .host_number = cfg->self->number,
        .fence = l->fence == CONFIG_FENCE_PR ? LUN_FENCE_PR : LUN_FENCE_DRAIN,
        .readonly = l->readonly,
        .expected_id = l->wwid,
        .initiator = l->initiator,
        .chap_user = l->chap_user,
        .chap_secret_file = l->chap_secret_file,
        .probe_interval_ms = l->timers.probe_interval,
        .probe_timeout_ms = l->timers.probe_timeout,
    };
}

struct monitor_options
configured_monitor(const struct config_lun *l)
{
    return (struct monitor_options){
        .name = l->name,
        .probe_interval_ms = l->timers.probe_interval,
        .probe_timeout_ms = l->timers.probe_timeout,
        .io_timeout_ms = l->timers.io_timeout,
        .check_registration = l->fence == CONFIG_FENCE_PR,
        .slow = {.factor = l->slow_factor,
                 .least_ms = l->timers.slow_least,
                 .window_ms = l->timers.slow_window},
    };
}
