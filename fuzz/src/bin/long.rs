//! libFuzzer over the target that WEIR_FUZZ_TARGET names. `make fuzz` runs it.

#![no_main]

use std::env;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use weir_fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("WEIR_FUZZ_TARGET").unwrap_or_default();
    weir_fuzz::target(&name).unwrap_or_else(|| panic!("WEIR_FUZZ_TARGET={name:?} is no target"))
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
