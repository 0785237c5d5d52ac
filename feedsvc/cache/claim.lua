-- Claims the loading of a page, unless it is claimed already, and returns its state.
-- KEYS: the page, its claim. ARGV: whose claim, how long it lasts in ms.
local claimed = redis.call('SET', KEYS[2], ARGV[1], 'NX', 'PX', ARGV[2])
local found = redis.pcall('GET', KEYS[1])
if type(found) == 'table' then
    found = false -- an error: it is no text, so what is kept next will replace it
end
return {claimed and 1 or 0, found}
