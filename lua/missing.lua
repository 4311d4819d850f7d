-- What stands under a key of which MGET tells nothing: false if nothing does, or what the algorithm makes of
-- a key of another type. Nil if that is not Weir's.
--
-- Given: the algorithm, and the key.

if algorithm.load then
  return algorithm.load(key)
elseif ask('EXISTS', key) == 0 then
  return false
end
