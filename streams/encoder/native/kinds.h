/* What a column can hold, and how a value of it is written.
 *
 * A row is measured before it is written: the room that each value may need is added up, the output
 * grows once, and the writers below write without asking again. Whatever a writer reads beyond its
 * value's fixed size it checks itself.
 */
#ifndef FEEDSVC_KINDS_H
#define FEEDSVC_KINDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct Column;

/* Writes a value at `to` and returns where it ends, NULL where the value is malformed. */
typedef char *Writer(const struct Column *column, const uint8_t *data, size_t size, char *to);

/* The most bytes that a value can come to in the column's form, MALFORMED where it is none. */
typedef size_t Room(const struct Column *column, const uint8_t *data, size_t size);

#define MALFORMED SIZE_MAX

/* Writers may store whole words at the end of what they write. */
enum { SLACK = 16 };

typedef struct {
    const char *name;
    int32_t size;   /* bytes of each value, VARIABLE where they differ */
    uint32_t width; /* the most bytes that one of fixed size comes to, quotes included */
    Room *room;     /* of those that differ */
    Writer *text;   /* bare, as in a token; NULL for what no token can hold */
    Writer *json;
    Writer *csv;
} Kind;

enum { VARIABLE = -1 };

typedef struct {
    char delimiter;
    bool guard;     /* quoted also where another delimiter would make a formula of a field */
    bool quote_all; /* NULL too */
} CsvStyle;

typedef struct Column {
    const Kind *kind;
    const Kind *element; /* of an array's items, else NULL */
    Writer *write;       /* in the plan's form; NULL for a column that is read for a token alone */
    char *lead;          /* what comes before the value, SLACK bytes longer than it says */
    size_t lead_size;
    bool is_csv;
    bool guarded; /* prefixed where a spreadsheet would run it */
    CsvStyle style;
} Column;

/* The kind of this name, NULL where there is none. An array's is `array_kind`. */
const Kind *kind_named(const char *name, size_t size);
extern const Kind array_kind;

/* All of them, ended by one without a name. */
extern const Kind scalar_kinds[];

Writer bool_text;
Writer int2_text, int4_text, int8_text, oid_text, oid_json;
Writer float4_text, float4_json, float8_text, float8_json;
Writer numeric_text, numeric_json;
Writer date_text, date_json, time_text, time_json, timetz_text, timetz_json;
Writer timestamp_text, timestamp_json, timestamptz_text, timestamptz_json;
Writer interval_text, interval_json, old_interval_text, old_interval_json;
Writer uuid_text, uuid_json, inet_text, inet_json, cidr_text, cidr_json;
Writer macaddr_text, macaddr_json, macaddr8_text, macaddr8_json;
Writer text_text, text_json, text_csv, char_text, char_json, char_csv, bytea_text, bytea_json;
Writer json_json, json_csv, jsonb_json, jsonb_csv, array_json, array_csv;
Writer quoted_csv; /* of kinds whose CSV is their bare text, which has nothing to be doubled */

Room text_room, bytea_room, json_room, numeric_room, inet_room, array_room;

/* The same text between quotes, for those that never need an escape. */
#define QUOTED(name)                                                                        \
    char *name##_json(const Column *column, const uint8_t *data, size_t size, char *to)     \
    {                                                                                       \
        *to++ = '"';                                                                        \
        to = name##_text(column, data, size, to);                                           \
        if (to == NULL)                                                                     \
            return NULL;                                                                    \
        *to++ = '"';                                                                        \
        return to;                                                                          \
    }

#endif
