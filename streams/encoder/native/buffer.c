#include "buffer.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { SMALLEST = 4096 };

bool buffer_grow(Buffer *buffer, size_t more)
{
    if (more > SIZE_MAX / 4 - buffer->size)
        return false;
    size_t wanted = buffer->size + more;
    size_t capacity = buffer->capacity * 2;
    if (capacity < wanted)
        capacity = wanted;
    if (capacity < SMALLEST)
        capacity = SMALLEST;
    char *data = realloc(buffer->data, capacity);
    if (data == NULL)
        return false;
    buffer->data = data;
    buffer->capacity = capacity;
    return true;
}

void buffer_fit(Buffer *buffer)
{
    size_t unused = buffer->capacity - buffer->size;
    if (unused <= buffer->size / 8 || unused <= SMALLEST)
        return;
    char *data = realloc(buffer->data, buffer->size > 0 ? buffer->size : 1);
    if (data == NULL)
        return;
    buffer->data = data;
    buffer->capacity = buffer->size;
}

bool buffer_append(Buffer *buffer, const void *data, size_t size)
{
    if (size == 0)
        return true;
    if (!buffer_reserve(buffer, size))
        return false;
    memcpy(buffer->data + buffer->size, data, size);
    buffer->size += size;
    return true;
}

void buffer_free(Buffer *buffer)
{
    free(buffer->data);
    *buffer = (Buffer){0};
}
