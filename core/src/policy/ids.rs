//! What names a part of a policy: ids that hold within one policy and no longer.

/// A variant of an experiment: its place among all variants of its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VariantId(pub u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LimitId(pub(super) u32);

impl LimitId {
    /// Its place among all limits of its policy.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    /// The limit of that place in some policy.
    #[cfg(test)]
    pub fn nth(place: usize) -> LimitId {
        LimitId(place as u32)
    }
}

/// Whose usage a limit counts. The order is the one limits are checked and reported in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everybody together.
    Global,
    /// The subject: a user, an API key, or the address of somebody with neither.
    User,
    /// The client's address.
    Ip,
    /// Whatever the limit's `key` names.
    Key,
}

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Scope::Global => "global",
            Scope::User => "user",
            Scope::Ip => "ip",
            Scope::Key => "key",
        }
    }
}
