/* SPDX-License-Identifier: BSD-3-Clause */
/* From the text of one value to a field of struct config. */
#ifndef DETOUR_CONFIG_VALUE_H
#define DETOUR_CONFIG_VALUE_H

#include "common/config_parts.h"

struct config_key;

/* config_value_* - read e into what k describes.
 *
 * object is the struct that k->offset counts from; it is unchanged, but for
 * the memory of lists, after a mistake (which is told).
 *
 * owns:    strings and lists belong to object then
 */
typedef void config_value(struct config_draft *d, const struct config_entry *e,
                          const struct config_key *k, void *object);

struct config_key {
    const char *name;
    config_value *read;
    size_t offset;     /* of the field; lists know their fields themselves */
    unsigned min, max; /* of numbers, and of times in ms */
    bool required;
};

config_value config_value_word;      /* char *: no blanks */
config_value config_value_path;      /* char *: begins with '/' */
config_value config_value_device;    /* char * */
config_value config_value_initiator; /* char * */
config_value config_value_number;    /* unsigned */
config_value config_value_port;      /* uint16_t */
config_value config_value_time;      /* unsigned, ms */
config_value config_value_bool;      /* bool */
config_value config_value_fence;     /* enum config_fence */
config_value config_value_self;      /* object is a struct config */
config_value config_value_addresses; /* object is a struct config_host */
config_value config_value_hosts;     /* object is a struct config_lun */

/* config_value_is_name - may a cluster, host or LUN have this name? */
bool config_value_is_name(const char *name);

#endif
