/* Integers, oids and booleans. */
#include "digits.h"
#include "kinds.h"
#include "wire.h"

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
