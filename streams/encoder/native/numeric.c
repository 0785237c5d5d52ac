/* numeric: its digits are kept by fours (PostgreSQL's numeric.c, numeric_send and numeric_out). */
#include "digits.h"
#include "kinds.h"
#include "wire.h"

enum { HEAD = 8, BASE = 10000, MOST_SCALE = 0x3fff };
enum { POSITIVE = 0x0000, NEGATIVE = 0x4000, NOT_A_NUMBER = 0xc000, PLUS_INFINITY = 0xd000,
       MINUS_INFINITY = 0xf000 };

/* Words of four digits, of which the first stands for its value times 10,000^weight. */
typedef struct {
    const uint8_t *words;
    int count;
    int weight;
    unsigned sign;
    int scale;
} Numeric;

static bool numeric_parse(const uint8_t *data, size_t size, Numeric *number)
{
    if (size < HEAD)
        return false;
    number->count = load16(data);
    number->weight = (int16_t)load16(data + 2);
    number->sign = load16(data + 4);
    number->scale = load16(data + 6);
    number->words = data + HEAD;
    if (size != HEAD + 2 * (size_t)number->count || number->scale > MOST_SCALE)
        return false;
    for (int i = 0; i < number->count; i++)
        if (load16(number->words + 2 * i) >= BASE)
            return false;
    switch (number->sign) {
    case POSITIVE:
    case NEGATIVE:
    case NOT_A_NUMBER:
    case PLUS_INFINITY:
    case MINUS_INFINITY:
        return true;
    default:
        return false;
    }
}

size_t numeric_room(const Column *column, const uint8_t *data, size_t size)
{
    (void)column;
    Numeric number;
    if (!numeric_parse(data, size, &number))
        return MALFORMED;
    int whole = number.weight < 0 ? 1 : 4 * (number.weight + 1);
    return (size_t)whole + (size_t)number.scale + 16;
}

static inline uint32_t word_at(const Numeric *number, int position)
{
    return position >= 0 && position < number->count ? load16(number->words + 2 * position) : 0;
}

char *numeric_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    Numeric number;
    if (!numeric_parse(data, size, &number))
        return NULL;
    switch (number.sign) {
    case NOT_A_NUMBER:
        return PUT(to, "NaN");
    case PLUS_INFINITY:
        return PUT(to, "Infinity");
    case MINUS_INFINITY:
        return PUT(to, "-Infinity");
    case NEGATIVE:
        *to++ = '-';
        break;
    default:
        break;
    }
    int position = number.weight < 0 ? number.weight + 1 : 1;
    to = put_decimal(to, number.weight < 0 ? 0 : word_at(&number, 0));
    for (; position <= number.weight; position++)
        to = put4(to, word_at(&number, position));
    if (number.scale == 0)
        return to;
    *to++ = '.';
    char *end = to + number.scale;
    for (; to < end; position++)
        to = put4(to, word_at(&number, position));
    return end;
}

char *numeric_json(const Column *column, const uint8_t *data, size_t size, char *to)
{
    if (size < HEAD)
        return NULL;
    unsigned sign = load16(data + 4);
    if (sign == POSITIVE || sign == NEGATIVE)
        return numeric_text(column, data, size, to);
    *to++ = '"';
    to = numeric_text(column, data, size, to);
    if (to == NULL)
        return NULL;
    *to++ = '"';
    return to;
}
