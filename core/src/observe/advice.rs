//! What an operator does about a store that is not asked, by the words of the call that failed last.

use crate::store::error::ErrorClass;

/// One sentence.
pub fn on(last_error: &str) -> &'static str {
    match ErrorClass::of(last_error.as_bytes()) {
        ErrorClass::ReadOnly | ErrorClass::MasterDown => {
            "The address leads to a replica; it has to lead to the primary."
        }
        ErrorClass::NoAuth | ErrorClass::WrongPass => {
            "Redis wants another user name or password than this gateway has."
        }
        ErrorClass::NoPerm => "Redis does not let this gateway's user do what Weir needs.",
        ErrorClass::Misconf => {
            "Redis cannot save and so takes no writes; see its log and its disk."
        }
        ErrorClass::NoReplicas => "Too few replicas follow the primary, so it takes no writes.",
        ErrorClass::Loading => "Redis reads its data from disk; it comes back by itself.",
        ErrorClass::OutOfMemory => "Redis is full; raise its maxmemory.",
        ErrorClass::Busy => "A script of somebody else's blocks Redis; see SCRIPT KILL.",
        ErrorClass::Elsewhere => "A part of the Redis Cluster is down or moves; see CLUSTER INFO.",
        ErrorClass::NoScript | ErrorClass::Other => {
            "See whether Redis is up, and whether this gateway reaches it at the address in its \
             configuration."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_done_goes_by_what_redis_said() {
        for (last_error, advice) in [
            (
                "READONLY You can't write against a read only replica.",
                "primary",
            ),
            ("NOAUTH Authentication required.", "password"),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                "maxmemory",
            ),
            ("upstream failure", "is up"),
            ("no answer in time", "is up"),
        ] {
            assert!(
                on(last_error).contains(advice),
                "{last_error}: {}",
                on(last_error)
            );
        }
    }
}
