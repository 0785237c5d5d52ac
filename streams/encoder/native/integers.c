/* Integers, oids and booleans. */
#include "digits.h"
#include "kinds.h"
#include "wire.h"

const char two_digits[200] =
    "00010203040506070809101112131415161718192021222324"
    "25262728293031323334353637383940414243444546474849"
    "50515253545556575859606162636465666768697071727374"
    "75767778798081828384858687888990919293949596979899";
const char hex_digits[16] = "0123456789abcdef";

char *put_decimal(char *to, uint64_t value)
{
    char digits[20];
    char *at = digits + sizeof digits;
    while (value >= 100) {
        at -= 2;
        put2(at, (uint32_t)(value % 100));
        value /= 100;
    }
    if (value >= 10)
        put2(at -= 2, (uint32_t)value);
    else
        *--at = (char)('0' + value);
    return put_text(to, at, (size_t)(digits + sizeof digits - at));
}

char *bool_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    switch (data[0]) {
    case 0:
        return PUT(to, "false");
    case 1:
        return PUT(to, "true");
    default:
        return NULL;
    }
}

char *int2_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return put_signed(to, (int16_t)load16(data));
}

char *int4_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return put_signed(to, (int32_t)load32(data));
}

char *int8_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return put_signed(to, (int64_t)load64(data));
}

char *oid_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return put_decimal(to, load32(data));
}

QUOTED(oid)
