-- What all processes know of one caller. Time is Redis's own, so no clock has to agree.
--
-- "owe": KEYS[1] holds the time at which a debt is paid off, in microseconds.
--   ARGV: "owe", the debt that is reported whatever happens, the debt that is asked for, the most
--   that is allowed. Answers whether what was asked for is granted, and the debt.
-- "lease": KEYS[1] is a sorted set of the streams that run, by the time at which each lapses.
--   ARGV: "lease", the most there may be, microseconds until a lease lapses, then their names.
--   Answers whether a new one fits, and how many there are.
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

if ARGV[1] == 'owe' then
    local debt = math.max(0, (tonumber(redis.call('GET', KEYS[1]) or 0) or 0) - now) + tonumber(ARGV[2])
    local asked = tonumber(ARGV[3])
    local granted = debt + asked <= tonumber(ARGV[4]) + 1
    if granted then
        debt = debt + asked
    end
    if debt > 0 then
        redis.call('SET', KEYS[1], string.format('%.0f', now + debt), 'PX', math.ceil(debt / 1000))
    end
    return {granted and 1 or 0, math.floor(debt)}
end

redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local running = redis.call('ZCARD', KEYS[1])
local lasts = tonumber(ARGV[3])
local granted = 1
for position = 4, #ARGV do
    local known = redis.call('ZSCORE', KEYS[1], ARGV[position])
    if known or running < tonumber(ARGV[2]) then
        redis.call('ZADD', KEYS[1], string.format('%.0f', now + lasts), ARGV[position])
        running = running + (known and 0 or 1)
    else
        granted = 0
    end
end
if running > 0 then
    redis.call('PEXPIRE', KEYS[1], math.ceil(lasts / 1000))
end
return {granted, running}
