/* Arrays as JSON (PostgreSQL's arrayfuncs.c, array_send; json.c, array_to_json_internal). */
#include "digits.h"
#include "kinds.h"
#include "wire.h"

enum { MOST_DIMENSIONS = 6 };

typedef struct {
    int dimensions;
    int32_t sizes[MOST_DIMENSIONS];
    size_t items;
    Input rest;
} Array;

/* Reads the head; every item has at least a length, so there can't be more than those that fit. */
static bool array_parse(const uint8_t *data, size_t size, Array *array)
{
    Input in = {data, data + size};
    int32_t dimensions, flags, type, lower;
    if (!input_int32(&in, &dimensions) || !input_int32(&in, &flags) || !input_int32(&in, &type))
        return false;
    if (dimensions < 0 || dimensions > MOST_DIMENSIONS || (flags & ~1) != 0)
        return false;
    array->dimensions = dimensions;
    uint64_t items = dimensions > 0;
    for (int i = 0; i < dimensions; i++) {
        if (!input_int32(&in, &array->sizes[i]) || !input_int32(&in, &lower) || array->sizes[i] < 0)
            return false;
        items *= (uint32_t)array->sizes[i];
        if (items > size)
            return false;
    }
    array->items = (size_t)items;
    array->rest = in;
    return items <= input_left(&in) / 4;
}

/* The next item, without its bytes where it is NULL; false where it is malformed. */
static bool next_item(const Column *column, Input *in, const uint8_t **data, size_t *size)
{
    int32_t given;
    if (!input_int32(in, &given) || given < -1)
        return false;
    if (given == -1) {
        *data = NULL;
        return true;
    }
    *size = (size_t)given;
    *data = input_take(in, *size);
    int32_t fixed = column->element->size;
    return *data != NULL && (fixed == VARIABLE || fixed == given);
}

size_t array_room(const Column *column, const uint8_t *data, size_t size)
{
    Array array;
    if (!array_parse(data, size, &array))
        return MALFORMED;
    const Kind *kind = column->element;
    /* An array's items are JSON in CSV too, where all of it may have to be quoted. */
    Column item = {.kind = kind};
    size_t room = 2 + array.items * (size_t)(2 * array.dimensions + 1);
    for (size_t i = 0; i < array.items; i++) {
        const uint8_t *at;
        size_t item_size;
        if (!next_item(column, &array.rest, &at, &item_size))
            return MALFORMED;
        size_t more = 4;
        if (at != NULL)
            more = kind->size == VARIABLE ? kind->room(&item, at, item_size) : kind->width;
        if (more == MALFORMED)
            return MALFORMED;
        room += more;
    }
    if (input_left(&array.rest) != 0)
        return MALFORMED;
    return column->is_csv ? 2 * room + 2 : room;
}

static char *put_item(const Column *column, Input *in, char *to)
{
    const uint8_t *data;
    size_t size;
    if (!next_item(column, in, &data, &size))
        return NULL;
    return data == NULL ? PUT(to, "null") : column->element->json(column, data, size, to);
}

static char *put_dimension(const Column *column, Array *array, int dimension, char *to)
{
    *to++ = '[';
    for (int32_t i = 0; i < array->sizes[dimension]; i++) {
        if (i > 0)
            *to++ = ',';
        int inner = dimension + 1;
        to = inner < array->dimensions && inner < MOST_DIMENSIONS
                 ? put_dimension(column, array, inner, to)
                 : put_item(column, &array->rest, to);
        if (to == NULL)
            return NULL;
    }
    *to++ = ']';
    return to;
}

char *array_json(const Column *column, const uint8_t *data, size_t size, char *to)
{
    Array array;
    if (!array_parse(data, size, &array))
        return NULL;
    return array.items == 0 ? PUT(to, "[]") : put_dimension(column, &array, 0, to);
}
