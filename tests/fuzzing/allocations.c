/* The encoder where memory runs out: at its first allocation, at its second, and so on.
 *
 * Whichever it is, the encoder must say so, or have done without, and must leave nothing behind,
 * which the sanitizers watch. The linker puts the three functions below in the allocator's place.
 *
 * usage: allocations STREAM-FILE (a COPY stream of the columns below)
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "encoder.h"

enum { MOST_BYTES = 1 << 20, CHUNK = 5000 };

static const char *const kinds[] = {"int8", "text", "numeric", "int4[]", "jsonb"};
enum { COLUMNS = sizeof kinds / sizeof *kinds };

static size_t countdown; /* the allocation that fails; 0 where none does */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *data, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *data, size_t size);

static bool fails(void)
{
    return countdown > 0 && --countdown == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *data, size_t size)
{
    return fails() ? NULL : __real_realloc(data, size);
}

static void require(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "allocations: %s\n", what);
    abort();
}

static Plan *plan_of(bool is_csv)
{
    Plan *plan = plan_new(COLUMNS, 2, is_csv, (CsvStyle){',', true, false});
    if (plan == NULL)
        return NULL;
    const char *wrong = plan_set_between(plan, "\r\n", 2);
    for (size_t i = 0; wrong == NULL && i < COLUMNS; i++)
        wrong = plan_set_column(plan, i, "name", 4, kinds[i], strlen(kinds[i]), true);
    for (size_t i = 0; wrong == NULL && i < 2; i++)
        wrong = plan_set_key(plan, i, i);
    if (wrong == NULL)
        return plan;
    require(wrong == no_memory, wrong);
    plan_free(plan);
    return NULL;
}

static Status feed(Encoder *encoder, const uint8_t *stream, size_t size)
{
    Status status = DONE;
    for (size_t at = 0; at < size && status == DONE; at += CHUNK)
        status = encode_copied(encoder, stream + at, CHUNK < size - at ? CHUNK : size - at);
    if (status == DONE)
        status = encode_copy_end(encoder);
    buffer_fit(&encoder->records);
    return status;
}

/* How many bytes of records there are, 0 where memory ran out. */
static size_t encoded(bool is_csv, const uint8_t *stream, size_t size)
{
    Plan *plan = plan_of(is_csv);
    if (plan == NULL)
        return 0;
    Encoder encoder;
    size_t made = 0;
    if (encoder_init(&encoder, plan, NO_LIMIT)) {
        Status status = feed(&encoder, stream, size);
        require(status != BROKEN, "what memory lacks is no fault of the rows");
        made = status == DONE ? encoder.records.size : 0;
        encoder_free(&encoder);
    }
    plan_free(plan);
    return made;
}

int main(int count, char **arguments)
{
    static uint8_t stream[MOST_BYTES];
    FILE *file = count == 2 ? fopen(arguments[1], "rb") : NULL;
    if (file == NULL) {
        fputs("usage: allocations STREAM-FILE\n", stderr);
        return 2;
    }
    size_t size = fread(stream, 1, sizeof stream, file), failed = 0;
    fclose(file);
    for (int is_csv = 0; is_csv < 2; is_csv++) {
        countdown = 0;
        size_t whole = encoded(is_csv, stream, size);
        require(whole > 0, "no records");
        for (size_t nth = 1;; nth++) {
            countdown = nth;
            size_t made = encoded(is_csv, stream, size);
            require(made == 0 || made == whole, "fewer records and no word of it");
            failed += made == 0;
            if (countdown > 0)
                break; /* there is no such allocation any more */
        }
    }
    printf("allocations: %zu failed\n", failed);
    return 0;
}
