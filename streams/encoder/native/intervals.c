/* interval with IntervalStyle postgres (PostgreSQL's datetime.c, EncodeInterval). */
#include "digits.h"
#include "kinds.h"
#include "wire.h"

static const int64_t MICROSECONDS = 1000000;
static const int64_t MINUTE = 60 * MICROSECONDS;

/* What was written so far: whether anything, and whether its last part was negative. */
typedef struct {
    char *to;
    bool begun;
    bool after_negative;
} Parts;

static void put_part(Parts *parts, int64_t value, const char *unit, size_t unit_size)
{
    if (value == 0)
        return;
    if (parts->begun)
        *parts->to++ = ' ';
    if (parts->after_negative && value > 0)
        *parts->to++ = '+';
    parts->to = put_signed(parts->to, value);
    parts->to = put_text(parts->to, unit, unit_size);
    if (value != 1)
        *parts->to++ = 's';
    parts->after_negative = value < 0;
    parts->begun = true;
}

static void put_time(Parts *parts, int64_t time)
{
    if (parts->begun)
        *parts->to++ = ' ';
    if (time < 0)
        *parts->to++ = '-';
    else if (parts->after_negative)
        *parts->to++ = '+';
    uint64_t rest = time < 0 ? 0 - (uint64_t)time : (uint64_t)time;
    uint64_t minutes = rest / (uint64_t)MINUTE;
    uint32_t fraction = (uint32_t)(rest % (uint64_t)MICROSECONDS);
    char *to = parts->to;
    to = minutes / 60 < 100 ? put2(to, (uint32_t)(minutes / 60)) : put_decimal(to, minutes / 60);
    *to++ = ':';
    to = put2(to, (uint32_t)(minutes % 60));
    *to++ = ':';
    to = put2(to, (uint32_t)(rest % (uint64_t)MINUTE / (uint64_t)MICROSECONDS));
    if (fraction != 0) {
        *to++ = '.';
        to = put2(put4(to, fraction / 100), fraction % 100);
        while (to[-1] == '0')
            to--;
    }
    parts->to = to;
}

char *old_interval_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    int64_t time = (int64_t)load64(data);
    int32_t days = (int32_t)load32(data + 8);
    int32_t months = (int32_t)load32(data + 12);
    Parts parts = {to, false, false};
    put_part(&parts, months / 12, " year", 5);
    put_part(&parts, months % 12, " mon", 4);
    put_part(&parts, days, " day", 4);
    if (!parts.begun || time != 0)
        put_time(&parts, time);
    return parts.to;
}

char *interval_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    int64_t time = (int64_t)load64(data);
    int32_t days = (int32_t)load32(data + 8);
    int32_t months = (int32_t)load32(data + 12);
    if (time == INT64_MAX && days == INT32_MAX && months == INT32_MAX)
        return PUT(to, "infinity");
    if (time == INT64_MIN && days == INT32_MIN && months == INT32_MIN)
        return PUT(to, "-infinity");
    return old_interval_text(column, data, size, to);
}

QUOTED(interval)
QUOTED(old_interval)
