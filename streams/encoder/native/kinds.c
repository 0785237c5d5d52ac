#include "kinds.h"

#include <string.h>

#define FIXED(name, size, width, text, json) {name, size, width, NULL, text, json, text}
#define TEXT(name) {name, VARIABLE, 0, text_room, text_text, text_json, text_csv}

const Kind scalar_kinds[] = {
    FIXED("bool", 1, 5, bool_text, bool_text),
    FIXED("int2", 2, 6, int2_text, int2_text),
    FIXED("int4", 4, 11, int4_text, int4_text),
    FIXED("int8", 8, 20, int8_text, int8_text),
    FIXED("oid", 4, 12, oid_text, oid_json),
    FIXED("float4", 4, 32, float4_text, float4_json),
    FIXED("float8", 8, 32, float8_text, float8_json),
    {"numeric", VARIABLE, 0, numeric_room, numeric_text, numeric_json, numeric_text},
    FIXED("date", 4, 24, date_text, date_json),
    FIXED("time", 8, 24, time_text, time_json),
    FIXED("timetz", 12, 32, timetz_text, timetz_json),
    FIXED("timestamp", 8, 40, timestamp_text, timestamp_json),
    FIXED("timestamptz", 8, 48, timestamptz_text, timestamptz_json),
    FIXED("interval", 16, 96, interval_text, interval_json),
    /* PostgreSQL 15 and 16 know no infinite ones. */
    FIXED("interval_before_17", 16, 96, old_interval_text, old_interval_json),
    FIXED("uuid", 16, 38, uuid_text, uuid_json),
    {"inet", VARIABLE, 0, inet_room, inet_text, inet_json, inet_text},
    {"cidr", VARIABLE, 0, inet_room, cidr_text, cidr_json, cidr_text},
    FIXED("macaddr", 6, 19, macaddr_text, macaddr_json),
    FIXED("macaddr8", 8, 25, macaddr8_text, macaddr8_json),
    TEXT("text"),
    TEXT("varchar"),
    TEXT("bpchar"),
    TEXT("name"),
    TEXT("enum"),
    {"char", 1, 16, NULL, char_text, char_json, char_csv},
    {"bytea", VARIABLE, 0, bytea_room, bytea_text, bytea_json, bytea_text},
    {"json", VARIABLE, 0, json_room, NULL, json_json, json_csv},
    {"jsonb", VARIABLE, 0, json_room, NULL, jsonb_json, jsonb_csv},
    {NULL, 0, 0, NULL, NULL, NULL, NULL},
};

const Kind array_kind = {"array", VARIABLE, 0, array_room, NULL, array_json, array_csv};

const Kind *kind_named(const char *name, size_t size)
{
    for (const Kind *kind = scalar_kinds; kind->name != NULL; kind++)
        if (strlen(kind->name) == size && memcmp(kind->name, name, size) == 0)
            return kind;
    return NULL;
}
