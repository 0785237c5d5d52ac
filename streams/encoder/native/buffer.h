/* Bytes that grow. */
#ifndef FEEDSVC_BUFFER_H
#define FEEDSVC_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *data;
    size_t size;
    size_t capacity;
} Buffer;

/* Makes room for so many more bytes; false where there is no memory, and nothing is lost then. */
bool buffer_grow(Buffer *buffer, size_t more);

static inline bool buffer_reserve(Buffer *buffer, size_t more)
{
    return buffer->capacity - buffer->size >= more || buffer_grow(buffer, more);
}

/* Gives back what is not used, where that is much. */
void buffer_fit(Buffer *buffer);

bool buffer_append(Buffer *buffer, const void *data, size_t size);

void buffer_free(Buffer *buffer);

#endif
