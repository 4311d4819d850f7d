//! An HTTP filter that lets every request pass without a look. It is the floor under every wasm
//! filter: Envoy enters and leaves the VM for each event, and nothing happens in between.

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::LogLevel;

struct Nothing;

impl Context for Nothing {}
impl HttpContext for Nothing {}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Warn);
    proxy_wasm::set_http_context(|_, _| Box::new(Nothing));
}}
