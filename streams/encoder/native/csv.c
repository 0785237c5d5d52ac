/* CSV fields: RFC 4180, guarded against spreadsheets (contract, "CSV formula guard"). */
#include "digits.h"
#include "kinds.h"
#include "texts.h"
#include "words.h"

static inline uint64_t flagged(uint64_t word, uint8_t delimiter)
{
    return bytes_equal(word, delimiter) | bytes_equal(word, '"') | bytes_equal(word, '\n') |
           bytes_equal(word, '\r');
}

static bool holds_special(const uint8_t *text, size_t size, uint8_t delimiter)
{
    for (; size >= 8; text += 8, size -= 8)
        if (flagged(load_word(text), delimiter))
            return true;
    return size > 0 && flagged(load_part(text, size), delimiter);
}

/* The full-width forms of = + - @ (U+FF1D, U+FF0B, U+FF0D, U+FF20) end in these bytes. */
static bool is_full_width(const uint8_t *text, size_t size)
{
    return size >= 3 && text[0] == 0xef && text[1] == 0xbc &&
           (text[2] == 0x9d || text[2] == 0x8b || text[2] == 0x8d || text[2] == 0xa0);
}

/* How many bytes of byte order marks (U+FEFF) a text begins with: readers drop them. */
static size_t marks(const uint8_t *text, size_t size)
{
    size_t at = 0;
    while (size - at >= 3 && text[at] == 0xef && text[at + 1] == 0xbb && text[at + 2] == 0xbf)
        at += 3;
    return at;
}

/* Whether a cell that begins so may be a formula. */
static bool begins_formula(const uint8_t *text, size_t size)
{
    size_t skipped = marks(text, size);
    if (skipped == size)
        return false;
    switch (text[skipped]) {
    case '=':
    case '@':
    case '+':
    case '-':
    case '\t':
    case '\r':
    case '\n':
        return true;
    default:
        return is_full_width(text + skipped, size - skipped);
    }
}

static inline uint64_t delimiters(uint64_t word)
{
    return bytes_equal(word, ',') | bytes_equal(word, ';') | bytes_equal(word, '\t') |
           bytes_equal(word, '|');
}

/* Whether a reader that splits at another delimiter could find a formula behind it. */
static bool holds_formula(const uint8_t *text, size_t size)
{
    const uint8_t *end = text + size;
    while (text < end) {
        size_t left = (size_t)(end - text);
        uint64_t flags = delimiters(left >= 8 ? load_word(text) : load_part(text, left));
        if (flags == 0) {
            text += left < 8 ? left : 8;
            continue;
        }
        text += first_flag(flags) + 1;
        if (begins_formula(text, (size_t)(end - text)))
            return true;
    }
    return false;
}

/* Whether a field must be quoted for what it holds. */
static bool must_be_quoted(const Column *column, const uint8_t *text, size_t size)
{
    const CsvStyle *style = &column->style;
    return style->quote_all || holds_special(text, size, (uint8_t)style->delimiter) ||
           (style->guard && holds_formula(text, size));
}

/* The text with its quotes doubled. */
static char *put_doubled(char *to, const uint8_t *text, size_t size)
{
    const uint8_t *end = text + size;
    while (text < end) {
        size_t left = (size_t)(end - text);
        uint64_t word = left >= 8 ? load_word(text) : load_part(text, left);
        uint64_t quotes = bytes_equal(word, '"');
        store_word(to, word);
        size_t plain = quotes != 0 ? first_flag(quotes) + 1 : left < 8 ? left : 8;
        to += plain;
        text += plain;
        if (quotes != 0)
            *to++ = '"';
    }
    return to;
}

static char *put_field(const Column *column, const uint8_t *text, size_t size, char *to,
                       bool apostrophe)
{
    if (size > 0 && !must_be_quoted(column, text, size)) {
        if (apostrophe)
            *to++ = '\'';
        return put_text(to, (const char *)text, size);
    }
    *to++ = '"';
    if (apostrophe)
        *to++ = '\'';
    to = put_doubled(to, text, size);
    *to++ = '"';
    return to;
}

static const bool in_phone_numbers[256] = {
    ['0'] = true, ['1'] = true, ['2'] = true, ['3'] = true, ['4'] = true, ['5'] = true,
    ['6'] = true, ['7'] = true, ['8'] = true, ['9'] = true, [' '] = true, ['('] = true,
    [')'] = true, ['.'] = true, [','] = true, ['/'] = true, ['-'] = true,
};

/* A sign followed by nothing but what phone numbers are written with. */
static bool is_phone_number(const uint8_t *text, size_t size)
{
    for (size_t i = 1; i < size; i++) {
        if (!in_phone_numbers[text[i]])
            return false;
    }
    return true;
}

/* Whether a spreadsheet would run it (OWASP, "CSV Injection"). */
static bool runs(const uint8_t *text, size_t size)
{
    if (!begins_formula(text, size))
        return false;
    size_t skipped = marks(text, size);
    uint8_t first = text[skipped];
    return (first != '+' && first != '-') || !is_phone_number(text + skipped, size - skipped);
}

char *quoted_csv(const Column *column, const uint8_t *data, size_t size, char *to)
{
    *to++ = '"';
    to = column->kind->csv(column, data, size, to);
    if (to == NULL)
        return NULL;
    *to++ = '"';
    return to;
}

char *text_csv(const Column *column, const uint8_t *data, size_t size, char *to)
{
    bool apostrophe = column->guarded && runs(data, size);
    return put_field(column, data, size, to, apostrophe);
}

char *char_csv(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)size;
    uint8_t text[CHAR_EXPANDED];
    return text_csv(column, text, char_expanded(data[0], text), to);
}

/* Quotes the field that was just written, where it must be; there is room for twice its bytes. */
static char *quoted_in_place(const Column *column, char *from, char *to)
{
    size_t size = (size_t)(to - from);
    if (!must_be_quoted(column, (const uint8_t *)from, size))
        return to;
    size_t quotes = 2;
    for (const char *at = from; at < to; at++)
        quotes += *at == '"';
    char *end = to + quotes;
    char *behind = end;
    *--behind = '"';
    while (to > from) {
        *--behind = *--to;
        if (*to == '"')
            *--behind = '"';
    }
    *--behind = '"';
    return end;
}

char *json_csv(const Column *column, const uint8_t *data, size_t size, char *to)
{
    return quoted_in_place(column, to, json_json(column, data, size, to));
}

char *jsonb_csv(const Column *column, const uint8_t *data, size_t size, char *to)
{
    if (size < 1 || data[0] != 1)
        return NULL;
    return put_field(column, data + 1, size - 1, to, false);
}

char *array_csv(const Column *column, const uint8_t *data, size_t size, char *to)
{
    char *end = array_json(column, data, size, to);
    return end == NULL ? NULL : quoted_in_place(column, to, end);
}
