/* Texts, bytes and JSON, as JSON (PostgreSQL's json.c, escape_json). */
#include "texts.h"

#include "digits.h"
#include "wire.h"
#include "words.h"

/* Up to this size the worst is reserved, beyond it what a text really comes to. */
enum { MEASURED_FROM = 4096 };

/* The letter behind a backslash of a short escape; of other control characters the code. */
static const char short_escapes[32] = {
    ['\b'] = 'b', ['\t'] = 't', ['\n'] = 'n', ['\f'] = 'f', ['\r'] = 'r',
};

static inline uint64_t flagged(uint64_t word)
{
    return bytes_below(word, ' ') | bytes_equal(word, '"') | bytes_equal(word, '\\');
}

static inline char *put_escaped(char *to, uint8_t byte)
{
    *to++ = '\\';
    if (byte >= ' ') {
        *to++ = (char)byte;
        return to;
    }
    if (short_escapes[byte] != 0) {
        *to++ = short_escapes[byte];
        return to;
    }
    return put_hex(PUT(to, "u00"), byte);
}

char *put_json_string(char *to, const uint8_t *text, size_t size)
{
    const uint8_t *end = text + size;
    *to++ = '"';
    while (text < end) {
        size_t left = (size_t)(end - text);
        uint64_t word = left >= 8 ? load_word(text) : load_part(text, left);
        uint64_t flags = flagged(word);
        store_word(to, word);
        size_t plain = flags != 0 ? first_flag(flags) : left < 8 ? left : 8;
        to += plain;
        text += plain;
        if (flags != 0)
            to = put_escaped(to, *text++);
    }
    *to++ = '"';
    return to;
}

static size_t json_string_size(const uint8_t *text, size_t size)
{
    size_t more = 2;
    for (size_t i = 0; i < size; i++) {
        uint8_t byte = text[i];
        if (byte < ' ')
            more += short_escapes[byte] != 0 ? 1 : 5;
        else
            more += byte == '"' || byte == '\\';
    }
    return size + more;
}

size_t text_room(const Column *column, const uint8_t *data, size_t size)
{
    if (column->is_csv)
        return 2 * size + 3;
    return size < MEASURED_FROM ? 6 * size + 2 : json_string_size(data, size);
}

char *text_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    return put_text(to, (const char *)data, size);
}

char *text_json(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    return put_json_string(to, data, size);
}

/* The one byte of a "char": nothing for zero, an escape for what is not ASCII (char.c, charout). */
size_t char_expanded(uint8_t byte, uint8_t *text)
{
    if (byte < 0x80) {
        text[0] = byte;
        return byte != 0;
    }
    text[0] = '\\';
    text[1] = (uint8_t)('0' + (byte >> 6));
    text[2] = (uint8_t)('0' + (byte >> 3 & 7));
    text[3] = (uint8_t)('0' + (byte & 7));
    return 4;
}

char *char_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    uint8_t text[CHAR_EXPANDED];
    return put_text(to, (const char *)text, char_expanded(data[0], text));
}

char *char_json(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    uint8_t text[CHAR_EXPANDED];
    return put_json_string(to, text, char_expanded(data[0], text));
}

size_t bytea_room(const Column *column, const uint8_t *data, size_t size)
{
    (void)column, (void)data;
    return 2 * size + 5;
}

char *bytea_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    to = PUT(to, "\\x");
    for (size_t i = 0; i < size; i++)
        to = put_hex(to, data[i]);
    return to;
}

char *bytea_json(const Column *column, const uint8_t *data, size_t size, char *to)
{
    to = PUT(to, "\"\\");
    to = bytea_text(column, data, size, to);
    *to++ = '"';
    return to;
}

size_t json_room(const Column *column, const uint8_t *data, size_t size)
{
    (void)data;
    return column->is_csv ? 2 * size + 2 : size;
}

/* A raw line break, which only white space can be in JSON, becomes a blank. */
char *json_json(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    for (size_t i = 0; i < size; i++)
        to[i] = data[i] == '\n' || data[i] == '\r' ? ' ' : (char)data[i];
    return to + size;
}

/* Its text behind the number of its form, which has been 1 since it began (jsonb.c, jsonb_send). */
char *jsonb_json(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column;
    if (size < 1 || data[0] != 1)
        return NULL;
    return put_text(to, (const char *)data + 1, size - 1);
}
