/* A COPY stream, which comes in chunks that know nothing of rows. */
#include <string.h>

#include "encoder.h"

enum { SIGNATURE = 11, HEAD = SIGNATURE + 8, ROW_HEAD = 2, FIELD_HEAD = 4, STEP = 4096 };
enum { LAST_ROW = 0xffff };

/* PostgreSQL sends a row as one message, none of which is larger (MaxAllocSize). */
#define LARGEST_ROW UINT64_C(0x3fffffff)

static const char other_columns[] = "another number of columns";
static const char signature[SIGNATURE] = "PGCOPY\n\377\r\n";

/* Whether the bytes at hand hold a whole row, or how many it takes to tell more. `size` is the
 * row's, or what it needs at least. */
static Reading row_extent(Encoder *encoder, Input in, size_t *size)
{
    const uint8_t *begin = in.at;
    *size = ROW_HEAD;
    const uint8_t *at = input_take(&in, ROW_HEAD);
    if (at == NULL)
        return ROW_CUT;
    if (load16(at) == LAST_ROW)
        return ROW_READ;
    if (load16(at) != encoder->plan->column_count) {
        encoder->fault = other_columns;
        return ROW_BROKEN;
    }
    for (size_t i = 0; i < encoder->plan->column_count; i++) {
        *size = (size_t)(in.at - begin) + FIELD_HEAD;
        at = input_take(&in, FIELD_HEAD);
        if (at == NULL)
            return ROW_CUT;
        int32_t field = (int32_t)load32(at);
        if (field < -1)
            return broken_field(encoder, i, "a negative length");
        *size += field > 0 ? (size_t)field : 0;
        if (*size > LARGEST_ROW) {
            encoder->fault = "a length that no row can have";
            return ROW_BROKEN;
        }
        if (input_take(&in, field > 0 ? (size_t)field : 0) == NULL)
            return ROW_CUT;
    }
    return ROW_READ;
}

/* Reads one row, or the stream's end. ROW_CUT leaves `in` where it was. */
static Reading copied_row(Encoder *encoder, Input *in, Status *status)
{
    Input rest = *in;
    const uint8_t *head = input_take(&rest, ROW_HEAD);
    if (head == NULL)
        return ROW_CUT;
    size_t room;
    Reading reading = ROW_READ;
    *status = DONE;
    if (load16(head) == LAST_ROW) {
        encoder->copy = BEHIND_END;
    } else if (load16(head) != encoder->plan->column_count) {
        encoder->fault = other_columns;
        reading = ROW_BROKEN;
    } else {
        reading = read_fields(encoder, &rest, false, &room);
        if (reading == ROW_READ)
            *status = write_record(encoder, room);
    }
    if (reading == ROW_BROKEN)
        *status = BROKEN;
    if (reading == ROW_READ)
        *in = rest;
    return reading;
}

/* Every whole row of the input. What is left of it then is the beginning of one. */
static Status copied_rows(Encoder *encoder, Input *in)
{
    Status status = DONE;
    while (status == DONE && encoder->copy == AT_ROWS && input_left(in) > 0)
        if (copied_row(encoder, in, &status) == ROW_CUT)
            break;
    return status;
}

/* Adds to the carry until it has what it needs, and some more, so that it is looked at seldom. */
static Status fill_carry(Encoder *encoder, Input *in)
{
    size_t missing = encoder->needed - encoder->carry.size;
    size_t more = missing < STEP ? STEP : missing;
    if (more > input_left(in))
        more = input_left(in);
    if (!buffer_append(&encoder->carry, in->at, more))
        return NO_MEMORY;
    in->at += more;
    return DONE;
}

/* Completes the row in the carry. What was carried and is none of it goes back to the input. */
static Status carried_row(Encoder *encoder, Input *in)
{
    Buffer *carry = &encoder->carry;
    while (carry->size > 0 && input_left(in) > 0) {
        Status status = fill_carry(encoder, in);
        if (status != DONE)
            return status;
        if (carry->size < encoder->needed)
            return DONE;
        const uint8_t *begin = (const uint8_t *)carry->data;
        size_t size;
        switch (row_extent(encoder, (Input){begin, begin + carry->size}, &size)) {
        case ROW_BROKEN:
            return BROKEN;
        case ROW_CUT:
            encoder->needed = size;
            continue;
        case ROW_READ:
            break;
        }
        in->at -= carry->size - size;
        Input row = {begin, begin + size};
        status = DONE;
        if (copied_row(encoder, &row, &status) == ROW_CUT)
            return broken(encoder, "a length that no row can have");
        carry->size = 0; /* its bytes stay where they are until `keep` */
        return status;
    }
    return DONE;
}

/* Keeps the beginning of a row for when there is more of it. */
static Status keep(Encoder *encoder, Input *in)
{
    switch (row_extent(encoder, *in, &encoder->needed)) {
    case ROW_BROKEN:
        return BROKEN;
    case ROW_READ: /* can't be: whole rows were read */
    case ROW_CUT:
        break;
    }
    bool kept = buffer_append(&encoder->carry, in->at, input_left(in));
    in->at = in->end;
    return kept ? DONE : NO_MEMORY;
}

static Status copy_head(Encoder *encoder, Input *in)
{
    Buffer *carry = &encoder->carry;
    size_t missing = HEAD - carry->size;
    size_t taken = missing < input_left(in) ? missing : input_left(in);
    if (!buffer_append(carry, in->at, taken))
        return NO_MEMORY;
    in->at += taken;
    size_t known = carry->size < SIGNATURE ? carry->size : SIGNATURE;
    if (memcmp(carry->data, signature, known) != 0)
        return broken(encoder, "another signature than COPY's");
    if (carry->size < HEAD)
        return DONE;
    const uint8_t *rest = (const uint8_t *)carry->data + SIGNATURE;
    uint32_t flags = load32(rest), extension = load32(rest + 4);
    if (flags >> 16 != 0)
        return broken(encoder, "a form of COPY that is not known");
    if (extension > INT32_MAX)
        return broken(encoder, "a negative length");
    encoder->to_skip = extension;
    encoder->copy = IN_EXTENSION;
    carry->size = 0;
    return DONE;
}

static void skip_extension(Encoder *encoder, Input *in)
{
    size_t left = input_left(in);
    size_t skipped = encoder->to_skip < left ? (size_t)encoder->to_skip : left;
    in->at += skipped;
    encoder->to_skip -= skipped;
    if (encoder->to_skip == 0)
        encoder->copy = AT_ROWS;
}

Status encode_copied(Encoder *encoder, const uint8_t *data, size_t size)
{
    if (encoder->fault != NULL)
        return BROKEN;
    if (size == 0)
        return DONE;
    Input in = {data, data + size};
    Status status = DONE;
    if (encoder->copy == BEFORE_HEAD)
        status = copy_head(encoder, &in);
    if (status == DONE && encoder->copy == IN_EXTENSION)
        skip_extension(encoder, &in);
    if (status == DONE && encoder->copy == AT_ROWS)
        status = carried_row(encoder, &in);
    if (status == DONE)
        status = copied_rows(encoder, &in);
    if (status == DONE)
        status = write_keys(encoder); /* before `keep` takes the place of what was carried */
    if (status != DONE || input_left(&in) == 0)
        return status;
    if (encoder->copy == BEHIND_END)
        return broken(encoder, "bytes behind the end of COPY");
    return keep(encoder, &in);
}

Status encode_copy_end(Encoder *encoder)
{
    if (encoder->fault != NULL)
        return BROKEN;
    if (encoder->copy != BEHIND_END)
        return broken(encoder, "an end too early");
    encoder->copy = BEFORE_HEAD;
    return DONE;
}
