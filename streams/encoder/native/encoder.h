/* Rows in PostgreSQL's binary form, made into records one behind the other. */
#ifndef FEEDSVC_ENCODER_H
#define FEEDSVC_ENCODER_H

#include "buffer.h"
#include "plan.h"
#include "wire.h"

/* A value where it lies in the input; without `data` it is NULL. */
typedef struct {
    const uint8_t *data;
    size_t size;
} Field;

typedef enum { DONE, BROKEN, NO_MEMORY } Status;

/* Where a COPY stream is (PostgreSQL's documentation, COPY, "Binary Format"). */
typedef enum { BEFORE_HEAD, IN_EXTENSION, AT_ROWS, BEHIND_END } CopyState;

typedef struct Encoder {
    const Plan *plan;
    /* The batch that is being made. */
    Buffer records;
    Buffer ends; /* size_t: where each record ends */
    size_t rows;
    /* How many more records may be made, and whether there were rows beyond. */
    uint64_t left;
    bool more;
    /* The row at hand, and the key values of the last one that became a record. */
    Field *fields;
    Field *last;
    bool has_last;
    Buffer keys; /* their texts, one behind the other */
    size_t *key_sizes; /* NO_KEY where it is NULL */
    /* A COPY stream: what was cut off at a chunk's end, and how long it must get to be read on. */
    CopyState copy;
    Buffer carry;
    size_t needed;
    uint64_t to_skip;
    /* What was wrong, behind how many good rows, and in which column, or NO_COLUMN. */
    const char *fault;
    uint64_t row;
    size_t column;
} Encoder;

#define NO_COLUMN SIZE_MAX
#define NO_KEY SIZE_MAX
#define NO_LIMIT UINT64_MAX

bool encoder_init(Encoder *encoder, const Plan *plan, uint64_t limit);
void encoder_free(Encoder *encoder);

/* A chunk of a COPY stream, cut anywhere; whole rows become records. */
Status encode_copied(Encoder *encoder, const uint8_t *data, size_t size);

/* Behind a stream's last chunk: BROKEN where it was not whole, else ready for another stream. */
Status encode_copy_end(Encoder *encoder);

/* Rows as record_send gives them. */
Status encode_sent(Encoder *encoder, const Field *rows, size_t count);

/* Forgets the batch, once its records, ends and keys were taken over. */
void encoder_begin_batch(Encoder *encoder);

/* For the sources below. */

typedef enum { ROW_READ, ROW_CUT, ROW_BROKEN } Reading;

/* Reads a row's values into `fields` and adds up the room they may need. `sent`: each value has its
 * type's oid before it, as record_send has it. */
Reading read_fields(Encoder *encoder, Input *in, bool sent, size_t *room);

/* Makes a record of `fields`. */
Status write_record(Encoder *encoder, size_t room);

/* Makes the key texts of the last record, while its values still are where they were read. */
Status write_keys(Encoder *encoder);

Status broken(Encoder *encoder, const char *fault);
Reading broken_field(Encoder *encoder, size_t column, const char *fault);

#endif
