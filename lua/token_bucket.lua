-- CAPACITY tokens, refilled at LIMIT a WINDOW; a request takes its cost or is refused.
--
-- State: a bucket's; the level is the tokens that are *gone*, so that a new bucket, which is no key
-- at all, is a full one, and a policy that raises CAPACITY hands out the difference at once.

return bucket()
