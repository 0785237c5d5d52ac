-- Claims the loading of a page, unless somebody else has, and tells what there is of it by now.
-- KEYS: the page, its claim. ARGV: whose claim, how long it lasts in ms.
local claimed = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
return {claimed and 1 or 0, redis.call('GET', KEYS[1])}
