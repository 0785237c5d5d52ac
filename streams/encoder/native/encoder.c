#include "encoder.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "digits.h"

bool encoder_init(Encoder *encoder, const Plan *plan, uint64_t limit)
{
    *encoder = (Encoder){.plan = plan, .left = limit, .column = NO_COLUMN};
    encoder->fields = calloc(plan->column_count + 1, sizeof *encoder->fields);
    encoder->last = calloc(plan->key_count + 1, sizeof *encoder->last);
    encoder->key_sizes = calloc(plan->key_count + 1, sizeof *encoder->key_sizes);
    if (encoder->fields != NULL && encoder->last != NULL && encoder->key_sizes != NULL)
        return true;
    encoder_free(encoder);
    return false;
}

void encoder_free(Encoder *encoder)
{
    buffer_free(&encoder->records);
    buffer_free(&encoder->ends);
    buffer_free(&encoder->keys);
    buffer_free(&encoder->carry);
    free(encoder->fields);
    free(encoder->last);
    free(encoder->key_sizes);
    *encoder = (Encoder){0};
}

void encoder_begin_batch(Encoder *encoder)
{
    encoder->records.size = 0;
    encoder->ends.size = 0;
    encoder->rows = 0;
}

Status broken(Encoder *encoder, const char *fault)
{
    encoder->fault = fault;
    return BROKEN;
}

Reading broken_field(Encoder *encoder, size_t column, const char *fault)
{
    encoder->column = column;
    encoder->fault = fault;
    return ROW_BROKEN;
}

Reading read_fields(Encoder *encoder, Input *in, bool sent, size_t *room)
{
    const Plan *plan = encoder->plan;
    size_t head = sent ? 8 : 4;
    *room = plan->room;
    for (size_t i = 0; i < plan->column_count; i++) {
        const Column *column = &plan->columns[i];
        Field *field = &encoder->fields[i];
        const uint8_t *at = input_take(in, head);
        if (at == NULL)
            return ROW_CUT;
        int32_t size = (int32_t)load32(at + head - 4);
        if (size < 0) {
            if (size != -1)
                return broken_field(encoder, i, "a negative length");
            *field = (Field){NULL, 0};
            continue;
        }
        field->size = (size_t)size;
        field->data = input_take(in, field->size);
        if (field->data == NULL)
            return ROW_CUT;
        if (column->kind->size != VARIABLE) {
            if (column->kind->size != size)
                return broken_field(encoder, i, "a length that its type can't have");
            continue;
        }
        size_t more = column->kind->room(column, field->data, field->size);
        if (more == MALFORMED)
            return broken_field(encoder, i, "a malformed value");
        *room += more;
    }
    return ROW_READ;
}

/* In steps of SLACK, for most of what is copied so is shorter than that. */
static inline char *put_padded(char *to, const char *from, size_t size)
{
    for (size_t i = 0; i < size; i += SLACK)
        memcpy(to + i, from + i, SLACK);
    return to + size;
}

static char *put_fields(Encoder *encoder, char *to)
{
    const Plan *plan = encoder->plan;
    for (size_t i = 0; i < plan->column_count; i++) {
        const Column *column = &plan->columns[i];
        const Field *field = &encoder->fields[i];
        if (column->write == NULL)
            continue;
        to = put_padded(to, column->lead, column->lead_size);
        if (field->data != NULL)
            to = column->write(column, field->data, field->size, to);
        else if (!plan->is_csv)
            to = PUT(to, "null");
        else if (plan->style.quote_all)
            to = PUT(to, "\"\"");
        if (to == NULL) {
            encoder->column = i;
            return NULL;
        }
    }
    return to;
}

Status write_record(Encoder *encoder, size_t room)
{
    const Plan *plan = encoder->plan;
    if (encoder->left == 0) {
        encoder->more = true;
        encoder->row++;
        return DONE;
    }
    Buffer *records = &encoder->records;
    if (!buffer_reserve(records, room) || !buffer_reserve(&encoder->ends, sizeof(size_t)))
        return NO_MEMORY;
    char *to = records->data + records->size;
    if (encoder->rows > 0)
        to = put_padded(to, plan->between, plan->between_size);
    to = put_fields(encoder, to);
    if (to == NULL)
        return broken(encoder, "a malformed value");
    if (!plan->is_csv)
        *to++ = '}';
    assert((size_t)(to - records->data) <= records->size + room - SLACK);
    records->size = (size_t)(to - records->data);
    memcpy(encoder->ends.data + encoder->ends.size, &records->size, sizeof(size_t));
    encoder->ends.size += sizeof(size_t);
    for (size_t i = 0; i < plan->key_count; i++)
        encoder->last[i] = encoder->fields[plan->keys[i]];
    encoder->has_last = true;
    encoder->rows++;
    encoder->row++;
    if (encoder->left != NO_LIMIT)
        encoder->left--;
    return DONE;
}

Status write_keys(Encoder *encoder)
{
    const Plan *plan = encoder->plan;
    if (!encoder->has_last)
        return DONE;
    encoder->has_last = false;
    encoder->keys.size = 0;
    for (size_t i = 0; i < plan->key_count; i++) {
        const Column *column = &plan->columns[plan->keys[i]];
        const Kind *kind = column->kind;
        Field field = encoder->last[i];
        encoder->key_sizes[i] = NO_KEY;
        if (field.data == NULL)
            continue;
        size_t room = kind->width;
        if (kind->size == VARIABLE)
            room = kind->room(column, field.data, field.size);
        if (!buffer_reserve(&encoder->keys, room + SLACK))
            return NO_MEMORY;
        char *from = encoder->keys.data + encoder->keys.size;
        char *to = kind->text(column, field.data, field.size, from);
        if (to == NULL) {
            encoder->column = plan->keys[i];
            return broken(encoder, "a malformed value");
        }
        encoder->key_sizes[i] = (size_t)(to - from);
        encoder->keys.size += encoder->key_sizes[i];
    }
    return DONE;
}

static Status encode_one_sent(Encoder *encoder, Field row)
{
    Input in = {row.data, row.data + row.size};
    int32_t columns;
    if (!input_int32(&in, &columns) || columns < 0 ||
        (size_t)columns != encoder->plan->column_count)
        return broken(encoder, "another number of columns");
    size_t room;
    switch (read_fields(encoder, &in, true, &room)) {
    case ROW_READ:
        break;
    case ROW_CUT:
        return broken(encoder, "an end too early");
    case ROW_BROKEN:
        return BROKEN;
    }
    if (input_left(&in) != 0)
        return broken(encoder, "bytes behind its last column");
    return write_record(encoder, room);
}

Status encode_sent(Encoder *encoder, const Field *rows, size_t count)
{
    if (encoder->fault != NULL)
        return BROKEN;
    for (size_t i = 0; i < count; i++) {
        Status status = encode_one_sent(encoder, rows[i]);
        if (status != DONE)
            return status;
    }
    return write_keys(encoder);
}
