/* Addresses and UUIDs. */
#include "digits.h"
#include "kinds.h"
#include "wire.h"

/* inet_send's families (PostgreSQL's utils/inet.h). */
enum { IPV4 = 2, IPV6 = 3 };
enum { HEAD = 4, IPV4_BYTES = 4, IPV6_BYTES = 16, WORDS = 8 };

char *uuid_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    for (size_t i = 0; i < size; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        to = put_hex(to, data[i]);
    }
    return to;
}

char *macaddr_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    for (size_t i = 0; i < size; i++) {
        if (i > 0)
            *to++ = ':';
        to = put_hex(to, data[i]);
    }
    return to;
}

char *macaddr8_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    return macaddr_text(column, data, size, to);
}

typedef struct {
    const uint8_t *bytes;
    unsigned bits;
    bool is_ipv6;
} Address;

static bool address_parse(const uint8_t *data, size_t size, Address *address)
{
    if (size < HEAD || (data[0] != IPV4 && data[0] != IPV6))
        return false;
    address->is_ipv6 = data[0] == IPV6;
    address->bits = data[1];
    address->bytes = data + HEAD;
    size_t bytes = address->is_ipv6 ? IPV6_BYTES : IPV4_BYTES;
    return data[3] == bytes && size == HEAD + bytes && address->bits <= 8 * bytes;
}

size_t inet_room(const Column *column, const uint8_t *data, size_t size)
{
    (void)column;
    Address address;
    return address_parse(data, size, &address) ? 64 : MALFORMED;
}

static char *put_ipv4(char *to, const uint8_t *bytes)
{
    for (int i = 0; i < IPV4_BYTES; i++) {
        if (i > 0)
            *to++ = '.';
        to = put_decimal(to, bytes[i]);
    }
    return to;
}

static char *put_group(char *to, unsigned group)
{
    bool begun = false;
    for (int shift = 12; shift >= 0; shift -= 4) {
        unsigned digit = group >> shift & 15;
        begun = begun || digit != 0 || shift == 0;
        if (begun)
            *to++ = hex_digits[digit];
    }
    return to;
}

/* The first of the longest runs of at least two groups of zeros. */
static void longest_run(const uint8_t *bytes, int *first, int *length)
{
    *first = 0;
    *length = 1;
    for (int i = 0, run = 0; i < WORDS; i++) {
        run = load16(bytes + 2 * i) == 0 ? run + 1 : 0;
        if (run > *length) {
            *length = run;
            *first = i - run + 1;
        }
    }
    if (*length < 2)
        *length = 0;
}

/* PostgreSQL's inet_net_ntop.c: "::" for the longest run, and what embeds an IPv4 address ends as
 * one. */
static char *put_ipv6(char *to, const uint8_t *bytes)
{
    int first, length;
    longest_run(bytes, &first, &length);
    bool embeds = length > 0 && first == 0 &&
                  (length == 6 || (length == 5 && load16(bytes + 10) == 0xffff));
    for (int i = 0; i < WORDS; i++) {
        if (length > 0 && i >= first && i < first + length) {
            if (i == first)
                *to++ = ':';
            continue;
        }
        if (i > 0)
            *to++ = ':';
        if (i == 6 && embeds)
            return put_ipv4(to, bytes + 12);
        to = put_group(to, load16(bytes + 2 * i));
    }
    if (length > 0 && first + length == WORDS)
        *to++ = ':';
    return to;
}

static char *put_address(const uint8_t *data, size_t size, bool always_bits, char *to)
{
    Address address;
    if (!address_parse(data, size, &address))
        return NULL;
    to = address.is_ipv6 ? put_ipv6(to, address.bytes) : put_ipv4(to, address.bytes);
    if (!always_bits && address.bits == (address.is_ipv6 ? 128 : 32))
        return to;
    *to++ = '/';
    return put_decimal(to, address.bits);
}

char *inet_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    return put_address(data, size, false, to);
}

char *cidr_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    return put_address(data, size, true, to);
}

QUOTED(uuid)
QUOTED(macaddr)
QUOTED(macaddr8)
QUOTED(inet)
QUOTED(cidr)
