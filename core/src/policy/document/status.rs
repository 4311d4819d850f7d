//! Statuses as costs are listed by: HTTP's by number or class, gRPC's by name or number.

use std::fmt;

/// A status, or all of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusSet {
    One(u16),
    /// By the hundreds.
    Class(u8),
}

/// A gRPC status, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrpcStatus(pub u8);

/// In order of their numbers.
const GRPC_NAMES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl StatusSet {
    pub fn try_new(text: &str) -> Result<StatusSet, String> {
        let read = match text.as_bytes() {
            [class @ b'1'..=b'5', b'x', b'x'] => Some(StatusSet::Class(class.wrapping_sub(b'0'))),
            [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9'] => text.parse().ok().map(StatusSet::One),
            _ => None,
        };
        read.ok_or_else(|| {
            format!("{text:?} is no status; write one such as \"401\", or a class such as \"5xx\"")
        })
    }

    pub fn is_class(self) -> bool {
        matches!(self, StatusSet::Class(_))
    }

    pub fn has(self, status: u64) -> bool {
        match self {
            StatusSet::One(own) => u64::from(own) == status,
            StatusSet::Class(own) => u64::from(own) == status / 100,
        }
    }
}

impl GrpcStatus {
    pub fn try_new(text: &str) -> Result<GrpcStatus, String> {
        let by_name = GRPC_NAMES.iter().position(|name| *name == text);
        // Only as it is usually written: no sign, no 0 before it.
        let by_number = || (0..GRPC_NAMES.len()).find(|number| number.to_string() == text);
        let number = by_name.or_else(by_number);
        let status = number.and_then(|number| u8::try_from(number).ok());
        status.map(GrpcStatus).ok_or_else(|| {
            format!(
                "{text:?} is no gRPC status; write one such as \"UNAUTHENTICATED\", or its number"
            )
        })
    }
}

impl fmt::Display for StatusSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StatusSet::One(status) => write!(f, "{status}"),
            StatusSet::Class(class) => write!(f, "{class}xx"),
        }
    }
}

impl fmt::Display for GrpcStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = GRPC_NAMES.get(usize::from(self.0));
        f.write_str(name.copied().unwrap_or("UNKNOWN"))
    }
}
