/* Eight bytes at a time, which most texts pass through without a special one among them. */
#ifndef FEEDSVC_WORDS_H
#define FEEDSVC_WORDS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define EACH_BYTE UINT64_C(0x0101010101010101)
#define HIGH_BITS UINT64_C(0x8080808080808080)

/* The first byte is the lowest on every machine. */
static inline uint64_t load_word(const uint8_t *at)
{
    uint64_t word;
    memcpy(&word, at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline void store_word(char *at, uint64_t word)
{
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    memcpy(at, &word, 8);
}

/* A word of fewer than eight bytes, blanks behind them. */
static inline uint64_t load_part(const uint8_t *at, size_t size)
{
    uint8_t part[8] = {' ', ' ', ' ', ' ', ' ', ' ', ' ', ' '};
    if (size >= 4) {
        memcpy(part, at, 4);
        memcpy(part + size - 4, at + size - 4, 4);
    } else if (size > 0) {
        part[0] = at[0];
        part[size / 2] = at[size / 2];
        part[size - 1] = at[size - 1];
    }
    return load_word(part);
}

/* The high bit of each byte that is zero. Of the flags only the lowest is sure: what lies above a
 * true one may be a false one (Sean Anderson, "Bit Twiddling Hacks"). */
static inline uint64_t zero_bytes(uint64_t word)
{
    return (word - EACH_BYTE) & ~word & HIGH_BITS;
}

static inline uint64_t bytes_equal(uint64_t word, uint8_t byte)
{
    return zero_bytes(word ^ EACH_BYTE * byte);
}

/* Of bytes below `limit`, which is at most 128. */
static inline uint64_t bytes_below(uint64_t word, uint8_t limit)
{
    return (word - EACH_BYTE * limit) & ~word & HIGH_BITS;
}

static inline size_t first_flag(uint64_t flags)
{
    return (size_t)__builtin_ctzll(flags) / 8;
}

#endif
