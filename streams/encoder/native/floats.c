/* Floating point numbers as PostgreSQL writes them with extra_float_digits at 1: the fewest digits
 * that lie strictly between the halves to both neighbours, the nearest of those.
 *
 * The algorithm is Raffaello Giulietti's ("The Schubfach way to render doubles", 2020), with the
 * bounds of the interval left out always, for PostgreSQL does not rely on a reader that rounds to
 * even. The form is that of its documentation, section 8.1.3, and of printf's %g: an exponent below
 * -4, or from 15 (float8) or 6 (float4) on, is written as one.
 */
#include "digits.h"
#include "kinds.h"
#include "powers.h"
#include "wire.h"

__extension__ typedef unsigned __int128 Wide;

typedef struct {
    uint64_t digits;
    int exponent;
} Decimal;

/* floor(x * log10(2)), floor(x * log10(2) + log10(3/4)), floor(x * log2(10)), for |x| < 1,234. */
static inline int log10_of_pow2(int x)
{
    return (x * 1262611) >> 22;
}

static inline int log10_of_three_quarters_pow2(int x)
{
    return (x * 1262611 - 524031) >> 22;
}

static inline int log2_of_pow10(int x)
{
    return (x * 1741647) >> 19;
}

/* The product's upper 64 bits, the last of them set where anything was cut off. */
static inline uint64_t rounded_to_odd(const uint64_t power[2], uint64_t factor)
{
    Wide lower = (Wide)power[1] * factor;
    Wide upper = (Wide)power[0] * factor + (uint64_t)(lower >> 64);
    return (uint64_t)(upper >> 64) | ((uint64_t)upper > 1);
}

/* Of significand * 2^exponent; `lone` where the neighbour below is only half as far away. */
static Decimal shortest(uint64_t significand, int exponent, bool lone)
{
    int k = lone ? log10_of_three_quarters_pow2(exponent) : log10_of_pow2(exponent);
    int shift = exponent + log2_of_pow10(-k) + 1;
    const uint64_t *power = powers_of_ten[-k - LEAST_POWER_OF_TEN];
    uint64_t quadruple = 4 * significand;
    /* Four times the value and its bounds, in units of 10^k. */
    uint64_t value = rounded_to_odd(power, quadruple << shift);
    uint64_t least = rounded_to_odd(power, (quadruple - 2 + lone) << shift) + 1;
    uint64_t most = rounded_to_odd(power, (quadruple + 2) << shift) - 1;
    uint64_t whole = value / 4;
    if (whole >= 10) {
        uint64_t tens = whole / 10;
        bool below = least <= 40 * tens;
        bool above = 40 * tens + 40 <= most;
        if (below != above)
            return (Decimal){tens + above, k + 1};
    }
    bool below = least <= 4 * whole;
    bool above = 4 * whole + 4 <= most;
    if (below != above)
        return (Decimal){whole + above, k};
    uint64_t middle = 4 * whole + 2;
    bool up = value > middle || (value == middle && (whole & 1));
    return (Decimal){whole + up, k};
}

/* Digits with a point among them, or with an exponent. */
static char *put_float(char *to, Decimal number, int most_exponent)
{
    while (number.digits % 10 == 0) {
        number.digits /= 10;
        number.exponent++;
    }
    char digits[20];
    int count = (int)(put_decimal(digits, number.digits) - digits);
    int exponent = number.exponent + count - 1;
    if (exponent < -4 || exponent >= most_exponent) {
        *to++ = digits[0];
        if (count > 1) {
            *to++ = '.';
            to = put_text(to, digits + 1, (size_t)count - 1);
        }
        *to++ = 'e';
        *to++ = exponent < 0 ? '-' : '+';
        uint32_t size = (uint32_t)(exponent < 0 ? -exponent : exponent);
        return size < 100 ? put2(to, size) : put_decimal(to, size);
    }
    if (exponent < 0) {
        to = put_text(to, "0.000", (size_t)(1 - exponent));
        return put_text(to, digits, (size_t)count);
    }
    int whole = exponent + 1;
    if (whole < count) {
        to = put_text(to, digits, (size_t)whole);
        *to++ = '.';
        return put_text(to, digits + whole, (size_t)(count - whole));
    }
    to = put_text(to, digits, (size_t)count);
    memset(to, '0', (size_t)(whole - count));
    return to + (whole - count);
}

/* The layout of a binary floating point number (IEEE 754). */
typedef struct {
    int fraction_bits;
    int exponent_bits;
    int most_exponent;
} Layout;

static const Layout single = {23, 8, 6};
static const Layout doubled = {52, 11, 15};

static inline bool is_finite(uint64_t bits, const Layout *layout)
{
    uint64_t all_ones = (UINT64_C(1) << layout->exponent_bits) - 1;
    return (bits >> layout->fraction_bits & all_ones) != all_ones;
}

static char *float_text(uint64_t bits, const Layout *layout, char *to)
{
    uint64_t fraction = bits & ((UINT64_C(1) << layout->fraction_bits) - 1);
    uint32_t all_ones = (UINT32_C(1) << layout->exponent_bits) - 1;
    uint32_t exponent = (uint32_t)(bits >> layout->fraction_bits) & all_ones;
    bool negative = bits >> (layout->fraction_bits + layout->exponent_bits);
    if (exponent == all_ones && fraction != 0)
        return PUT(to, "NaN");
    if (negative)
        *to++ = '-';
    if (exponent == all_ones)
        return PUT(to, "Infinity");
    if (exponent == 0 && fraction == 0)
        return PUT(to, "0");
    int least = 2 - (1 << (layout->exponent_bits - 1)) - layout->fraction_bits;
    Decimal number =
        exponent == 0
            ? shortest(fraction, least, false)
            : shortest(fraction | UINT64_C(1) << layout->fraction_bits, least + (int)exponent - 1,
                       fraction == 0 && exponent > 1);
    return put_float(to, number, layout->most_exponent);
}

static char *float_json(uint64_t bits, const Layout *layout, char *to)
{
    if (is_finite(bits, layout))
        return float_text(bits, layout, to);
    *to++ = '"';
    to = float_text(bits, layout, to);
    *to++ = '"';
    return to;
}

char *float4_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return float_text(load32(data), &single, to);
}

char *float4_json(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return float_json(load32(data), &single, to);
}

char *float8_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return float_text(load64(data), &doubled, to);
}

char *float8_json(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return float_json(load64(data), &doubled, to);
}
