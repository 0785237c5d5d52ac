-- Keeps one's own claim for longer, or with 0 ms gives it up.
-- KEYS: the claim. ARGV: whose it is, how long it lasts in ms.
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 0
