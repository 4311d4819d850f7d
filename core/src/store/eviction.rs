//! Whether the store may forget counters when its memory is full, by its own word. It knows what INFO
//! tells of memory; not who asks, nor how often.

/// What asks for it, with one reply.
pub const COMMAND: [&[u8]; 2] = [b"INFO", b"memory"];

/// The policy by which keys are evicted, if any can be. All keys of Weir's expire, so a policy for
/// those that do (`volatile-…`) is one for all of them. Without a limit (`maxmemory` 0) nothing is.
pub fn policy(info: &str) -> Option<&str> {
    let field = |name: &str| {
        let lines = info.lines().filter_map(|line| line.trim().split_once(':'));
        let mut found = lines.filter(|(own, _)| *own == name);
        found.next().map(|(_, value)| value)
    };
    let is_limited = field("maxmemory").is_some_and(|bytes| bytes != "0");
    field("maxmemory_policy").filter(|policy| is_limited && *policy != "noeviction")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_and_a_policy_together_evict() {
        for (info, evicts) in [
            ("maxmemory:0\r\nmaxmemory_policy:noeviction\r\n", None),
            ("maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n", None),
            ("maxmemory:1000\r\nmaxmemory_policy:noeviction\r\n", None),
            (
                "# Memory\r\nmaxmemory:1000\r\nmaxmemory_human:1K\r\nmaxmemory_policy:allkeys-lru\r\n",
                Some("allkeys-lru"),
            ),
            (
                "maxmemory:1\nmaxmemory_policy:volatile-ttl",
                Some("volatile-ttl"),
            ),
            ("maxmemory_policy:allkeys-lru\r\n", None),
            ("", None),
        ] {
            assert_eq!(policy(info), evicts, "{info}");
        }
    }
}
