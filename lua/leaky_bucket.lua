-- A queue that holds CAPACITY permits and leaks LIMIT a WINDOW; a request that would overflow it is
-- refused. (Refusing only when it is full *before* the request would overdraw it.)
--
-- State: a bucket's; the level is what has been poured in and not yet leaked. No key is an empty one.

return bucket()
