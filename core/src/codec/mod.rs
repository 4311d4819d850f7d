//! Bytes without meaning: RESP, JSON that is read strictly, values as bytes, secrets. It knows neither
//! what a command does nor what a field is for.

pub(crate) mod fnv;
pub mod json;
pub mod namespace;
pub mod packed;
pub mod protobuf;
pub mod resp;
pub mod secret;
