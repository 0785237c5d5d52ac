/* One input of the fuzzer's: a plan and rows for it, which may be anything.
 *
 * Whatever they are, the encoder must not read or write where it has no business, and must make the
 * same of a COPY stream however it is cut into chunks. Each piece that is fed lies in memory of
 * just its size, so that the sanitizers see a step beyond.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoder.h"

enum { AS_CSV = 1, GUARDED = 2, SENT = 4, LIMITED = 8, RAW_HEAD = 16, BETWEEN = 32 };
enum { MOST_COLUMNS = 8, MOST_ROWS = 64, MOST_BYTES = 1 << 16 };
enum { IS_ARRAY = 0x80, IS_HIDDEN = 0x40, KIND = 0x3f, QUOTE_ALL = 4 };

static const char copy_head[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0";

static void require(int holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzzing: %s\n", what);
    abort();
}

/* Bytes are taken off the input's front. */
typedef struct {
    const uint8_t *at;
    size_t left;
} Script;

static uint8_t next_byte(Script *script)
{
    if (script->left == 0)
        return 0;
    script->left--;
    return *script->at++;
}

static size_t kind_count(void)
{
    size_t count = 0;
    while (scalar_kinds[count].name != NULL)
        count++;
    return count;
}

static Plan *plan_of(Script *script, uint8_t flags)
{
    static const char delimiters[] = {',', ';', '\t', 'x'};
    size_t columns = 1 + next_byte(script) % MOST_COLUMNS;
    uint8_t chosen = next_byte(script);
    CsvStyle style = {delimiters[chosen % 4], flags & GUARDED, chosen & QUOTE_ALL};
    Plan *plan = plan_new(columns, columns, flags & AS_CSV, style);
    require(plan != NULL, "no memory");
    size_t keys = 0;
    for (size_t i = 0; i < columns; i++) {
        uint8_t given = next_byte(script);
        char kind[64];
        const char *scalar = scalar_kinds[(given & KIND) % kind_count()].name;
        snprintf(kind, sizeof kind, "%s%s", scalar, given & IS_ARRAY ? "[]" : "");
        const char *name = given & IS_HIDDEN ? NULL : "a \"long\" name\n";
        const char *wrong = plan_set_column(plan, i, name, name == NULL ? 0 : strlen(name), kind,
                                            strlen(kind), flags & GUARDED);
        require(wrong == NULL, "a kind was refused");
        if (plan_set_key(plan, keys, i) == NULL)
            keys++;
    }
    plan->key_count = keys;
    if (flags & BETWEEN)
        require(plan_set_between(plan, "\r\n", 2) == NULL, "no memory");
    return plan;
}

static void *exact_copy(const uint8_t *data, size_t size)
{
    void *copy = malloc(size);
    require(copy != NULL || size == 0, "no memory");
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

/* Feeds a COPY stream in chunks of up to `step` bytes. */
static Status feed_copied(Encoder *encoder, const uint8_t *data, size_t size, size_t step)
{
    Status status = DONE;
    for (size_t at = 0; at < size && status == DONE;) {
        size_t chunk = step < size - at ? step : size - at;
        uint8_t *copy = exact_copy(data + at, chunk);
        status = encode_copied(encoder, copy, chunk);
        free(copy);
        at += chunk;
        step = step * 7 % 61 + 1;
    }
    return status == DONE ? encode_copy_end(encoder) : status;
}

static Status feed_sent(Encoder *encoder, Script script)
{
    Field rows[MOST_ROWS];
    size_t count = 0;
    while (script.left > 0 && count < MOST_ROWS) {
        size_t size = next_byte(&script);
        size = size < script.left ? size : script.left;
        rows[count++] = (Field){exact_copy(script.at, size), size};
        script.at += size;
        script.left -= size;
    }
    Status status = encode_sent(encoder, rows, count);
    for (size_t i = 0; i < count; i++)
        free((void *)rows[i].data);
    return status;
}

static void check_batch(const Encoder *encoder)
{
    size_t at = 0, keys = 0;
    require(encoder->ends.size == encoder->rows * sizeof(size_t), "an end for each record");
    for (size_t i = 0; i < encoder->rows; i++) {
        size_t end;
        memcpy(&end, encoder->ends.data + i * sizeof end, sizeof end);
        at += i > 0 ? encoder->plan->between_size : 0;
        require(end >= at && end <= encoder->records.size, "ends in order");
        at = end;
    }
    require(at == encoder->records.size, "the last record ends the batch");
    for (size_t i = 0; encoder->rows > 0 && i < encoder->plan->key_count; i++)
        keys += encoder->key_sizes[i] == NO_KEY ? 0 : encoder->key_sizes[i];
    require(keys == encoder->keys.size || encoder->rows == 0, "keys add up");
}

/* A value that is read for a token alone is looked into only where a batch, or a chunk, ends with
 * its row. */
static int is_of_a_token(const Encoder *encoder)
{
    const Plan *plan = encoder->plan;
    return encoder->fault != NULL && encoder->column != NO_COLUMN &&
           plan->columns[encoder->column].write == NULL;
}

static void check_alike(const Encoder *one, Status of_one, const Encoder *other, Status of_other)
{
    if (is_of_a_token(one) || is_of_a_token(other))
        return;
    require(of_one == of_other, "chunks decide what is an error");
    require(one->rows == other->rows, "chunks decide how many rows there are");
    require(one->records.size == other->records.size &&
                (one->records.size == 0 ||
                 memcmp(one->records.data, other->records.data, one->records.size) == 0),
            "chunks decide what a record is");
}

static void run_copied(const Plan *plan, uint64_t limit, const uint8_t *data, size_t size,
                       size_t step)
{
    Encoder whole, cut;
    require(encoder_init(&whole, plan, limit) && encoder_init(&cut, plan, limit), "no memory");
    Status of_whole = feed_copied(&whole, data, size, size + 1);
    Status of_cut = feed_copied(&cut, data, size, step);
    if (of_whole == DONE)
        check_batch(&whole);
    check_alike(&whole, of_whole, &cut, of_cut);
    encoder_free(&whole);
    encoder_free(&cut);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Script script = {data, size < MOST_BYTES ? size : MOST_BYTES};
    uint8_t flags = next_byte(&script);
    size_t step = 1 + next_byte(&script);
    Plan *plan = plan_of(&script, flags);
    uint64_t limit = flags & LIMITED ? step % 4 : NO_LIMIT;
    if (flags & SENT) {
        Encoder encoder;
        require(encoder_init(&encoder, plan, limit), "no memory");
        if (feed_sent(&encoder, script) == DONE)
            check_batch(&encoder);
        encoder_free(&encoder);
    } else if (flags & RAW_HEAD) {
        run_copied(plan, limit, script.at, script.left, step);
    } else {
        size_t head = sizeof copy_head - 1;
        uint8_t *stream = malloc(head + script.left);
        require(stream != NULL, "no memory");
        memcpy(stream, copy_head, head);
        if (script.left > 0)
            memcpy(stream + head, script.at, script.left);
        run_copied(plan, limit, stream, head + script.left, step);
        free(stream);
    }
    plan_free(plan);
    return 0;
}
