//! What an operator has to know of the store though no call has failed for it, or before any has. The
//! log says it, and the live page for as long as it is so.

use std::fmt;

/// Something about the store that only an operator can mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The proxy has no cluster of the name that `store.cluster` gives.
    UnknownCluster(String),
    /// The store may forget counters, by the `maxmemory-policy` of this name.
    Evicts(String),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Evicts(policy) => write!(
                f,
                "this Redis evicts keys when its memory is full (maxmemory-policy {policy}): who \
                 was counted there begins anew, and nobody is told. Set maxmemory-policy to \
                 noeviction, or give Weir a Redis of its own"
            ),
            Notice::UnknownCluster(cluster) => write!(
                f,
                "this Envoy knows no cluster {cluster:?}, which is store.cluster of the \
                 configuration: Redis is not asked, and every limit does what its on_store_failure \
                 says. Add the cluster, or mend the name"
            ),
        }
    }
}
