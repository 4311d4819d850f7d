//! What travels between the limiter and its store: a pipeline of RESP2 commands, answered by their
//! replies in the same order. It is the body of an HTTP POST and of its response, which the bridge inside
//! Envoy and the sidecar both speak, or a message on a stream to the bridge. Nothing here knows a
//! socket, a host call or what a command means.

/// Where the limiter posts to.
pub const PATH: &str = "/";

/// The request header that says how many commands the body holds.
pub const REPLIES_HEADER: &str = "x-weir-replies";

/// The request header that proves the limiter to a sidecar which asks for it.
pub const SECRET_HEADER: &str = "x-weir-secret";

/// The most commands in one request. A batch ends at 64 requests, each of which can touch a few
/// subjects: an order of magnitude above that, something is broken.
pub const MAX_COMMANDS: usize = 1024;

/// The longest body, in bytes, either way. The worst the limiter makes is a full batch for as many
/// slots, each as EVAL with the whole script (about 20 KB) after a Redis lost its scripts.
pub const MAX_BODY: usize = 4 << 20;
