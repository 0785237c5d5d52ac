/* Reading PostgreSQL's binary form: big-endian throughout, and trusted in nothing. */
#ifndef FEEDSVC_WIRE_H
#define FEEDSVC_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if SIZE_MAX < UINT64_MAX || !defined(__SIZEOF_INT128__)
#error "the encoder wants a 64-bit machine and a compiler with 128-bit integers"
#endif

/* What has not been read yet. */
typedef struct {
    const uint8_t *at;
    const uint8_t *end;
} Input;

static inline uint16_t load16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static inline uint32_t load32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline uint64_t load64(const uint8_t *at)
{
    return (uint64_t)load32(at) << 32 | load32(at + 4);
}

static inline size_t input_left(const Input *in)
{
    return (size_t)(in->end - in->at);
}

/* The next bytes, NULL where there are not so many. */
static inline const uint8_t *input_take(Input *in, size_t size)
{
    if (input_left(in) < size)
        return NULL;
    const uint8_t *taken = in->at;
    in->at += size;
    return taken;
}

static inline bool input_int32(Input *in, int32_t *value)
{
    const uint8_t *at = input_take(in, 4);
    if (at == NULL)
        return false;
    *value = (int32_t)load32(at);
    return true;
}

#endif
