/* Decimal digits, two at a time. */
#ifndef FEEDSVC_DIGITS_H
#define FEEDSVC_DIGITS_H

#include <stdint.h>
#include <string.h>

extern const char two_digits[200];
extern const char hex_digits[16];

/* Exactly two digits of a number below 100. */
static inline char *put2(char *to, uint32_t value)
{
    memcpy(to, two_digits + 2 * value, 2);
    return to + 2;
}

/* Exactly four digits of a number below 10,000. */
static inline char *put4(char *to, uint32_t value)
{
    return put2(put2(to, value / 100), value % 100);
}

/* As many digits as it takes. */
char *put_decimal(char *to, uint64_t value);

static inline char *put_signed(char *to, int64_t value)
{
    if (value >= 0)
        return put_decimal(to, (uint64_t)value);
    *to = '-';
    return put_decimal(to + 1, 0 - (uint64_t)value);
}

static inline char *put_text(char *to, const char *text, size_t size)
{
    memcpy(to, text, size);
    return to + size;
}

#define PUT(to, literal) put_text(to, literal, sizeof(literal) - 1)

static inline char *put_hex(char *to, uint8_t byte)
{
    *to++ = hex_digits[byte >> 4];
    *to++ = hex_digits[byte & 15];
    return to;
}

#endif
