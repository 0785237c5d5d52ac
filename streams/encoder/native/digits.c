#include "digits.h"

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
