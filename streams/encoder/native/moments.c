/* Dates and times in ISO 8601, as row_to_json has them in a session whose TimeZone is UTC. */
#include "digits.h"
#include "kinds.h"
#include "wire.h"

static const int64_t MICROSECONDS = 1000000;
static const int64_t MINUTE = 60 * MICROSECONDS;
static const int64_t DAY = 24 * 60 * MINUTE;

/* The calendar's ends: 4714-11-24 BC, 5874897-12-31 and 294276-12-31, in days from 2000-01-01
 * (PostgreSQL's datatype/timestamp.h). */
enum { FIRST_DAY = -2451545, BEHIND_LAST_DAY = 2145031949, BEHIND_LAST_TIMESTAMP = 106751983 };
/* The calendar repeats every 400 years. Counted from 4800-03-01 BC, as many of them before the year
 * 0 as it takes, no day is negative, and 32 bits hold them all. */
enum { ERA = 146097, ERAS_BEFORE_0 = 12, DAYS_BEFORE_2000 = 730425 + ERAS_BEFORE_0 * ERA };
enum { MOST_OFFSET = 16 * 60 * 60 };

typedef struct {
    int32_t year; /* there is a year 0, which is 1 BC */
    uint32_t month;
    uint32_t day;
} Day;

/* Of a day within the calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms",
 * civil_from_days). */
static Day day_of(int64_t days)
{
    uint32_t counted = (uint32_t)(days + DAYS_BEFORE_2000);
    uint32_t era = counted / ERA;
    uint32_t of_era = counted % ERA;
    uint32_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    uint32_t of_year = of_era - (365 * year + year / 4 - year / 100);
    uint32_t from_march = (5 * of_year + 2) / 153;
    uint32_t month = from_march < 10 ? from_march + 3 : from_march - 9;
    return (Day){
        (int32_t)(year + era * 400 + (month <= 2)) - ERAS_BEFORE_0 * 400,
        month,
        of_year - (153 * from_march + 2) / 5 + 1,
    };
}

static char *put_day(char *to, Day day)
{
    uint32_t year = (uint32_t)(day.year > 0 ? day.year : 1 - day.year);
    to = year < 10000 ? put4(to, year) : put_decimal(to, year);
    *to++ = '-';
    to = put2(to, day.month);
    *to++ = '-';
    return put2(to, day.day);
}

static inline char *put_era(char *to, Day day)
{
    return day.year > 0 ? to : PUT(to, " BC");
}

/* Of a time within a day; the fraction without its trailing zeros. */
static char *put_clock(char *to, int64_t time)
{
    uint32_t minutes = (uint32_t)(time / MINUTE);
    uint32_t rest = (uint32_t)(time % MINUTE);
    uint32_t fraction = rest % (uint32_t)MICROSECONDS;
    to = put2(to, minutes / 60);
    *to++ = ':';
    to = put2(to, minutes % 60);
    *to++ = ':';
    to = put2(to, rest / (uint32_t)MICROSECONDS);
    if (fraction == 0)
        return to;
    *to++ = '.';
    to = put2(put4(to, fraction / 100), fraction % 100);
    while (to[-1] == '0')
        to--;
    return to;
}

char *date_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    int32_t days = (int32_t)load32(data);
    if (days == INT32_MAX)
        return PUT(to, "infinity");
    if (days == INT32_MIN)
        return PUT(to, "-infinity");
    if (days < FIRST_DAY || days >= BEHIND_LAST_DAY)
        return NULL;
    Day day = day_of(days);
    return put_era(put_day(to, day), day);
}

char *time_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    int64_t time = (int64_t)load64(data);
    return time < 0 || time > DAY ? NULL : put_clock(to, time);
}

char *timetz_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    int32_t west = (int32_t)load32(data + 8);
    if (west <= -MOST_OFFSET || west >= MOST_OFFSET)
        return NULL;
    to = time_text(column, data, size, to);
    if (to == NULL)
        return NULL;
    *to++ = west <= 0 ? '+' : '-';
    uint32_t seconds = (uint32_t)(west < 0 ? -west : west);
    to = put2(to, seconds / 3600);
    if (seconds % 3600 == 0)
        return to;
    *to++ = ':';
    to = put2(to, seconds / 60 % 60);
    if (seconds % 60 == 0)
        return to;
    *to++ = ':';
    return put2(to, seconds % 60);
}

static char *put_timestamp(char *to, int64_t moment, const char *offset, size_t offset_size)
{
    if (moment == INT64_MAX)
        return PUT(to, "infinity");
    if (moment == INT64_MIN)
        return PUT(to, "-infinity");
    int64_t days = moment / DAY;
    int64_t time = moment % DAY;
    if (time < 0) {
        time += DAY;
        days--;
    }
    if (days < FIRST_DAY || days >= BEHIND_LAST_TIMESTAMP)
        return NULL;
    Day day = day_of(days);
    to = put_day(to, day);
    *to++ = 'T';
    to = put_clock(to, time);
    return put_era(put_text(to, offset, offset_size), day);
}

char *timestamp_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return put_timestamp(to, (int64_t)load64(data), "", 0);
}

char *timestamptz_text(const Column *column, const uint8_t *data, size_t size, char *to)
{
    (void)column, (void)size;
    return put_timestamp(to, (int64_t)load64(data), "+00:00", 6);
}

QUOTED(date)
QUOTED(time)
QUOTED(timetz)
QUOTED(timestamp)
QUOTED(timestamptz)
