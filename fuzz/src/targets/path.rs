//! Path normalisation: a path's normal form is one, however the path is written. That Envoy has the
//! same one is for `tests/paths` to show.

use weir_core::request::path::normalise;

use crate::Target;
use crate::input::Input;

pub const TARGET: Target = Target {
    name: "path",
    run,
    words: &[
        "/../", "/./", "//", "\\", "%2e", "%2E%2e", "%2F", "%5c", "%%32e", "%25", "%00", "..;x",
        "?", "#", "%c3%a9", "\"", "/%7e/", "/..",
    ],
};

fn run(data: &[u8]) {
    let mut input = Input(data);
    let (at, noise) = (input.below(64), input.below(5));
    let target = input.0;
    let once = normalise(target);
    assert_eq!(normalise(&once), once, "to normalise again changes nothing");
    if !target.starts_with(b"/") {
        return;
    }
    assert!(once.starts_with(b"/"));
    let segments = || once[1..].split(|byte| *byte == b'/');
    assert!(!segments().any(|segment| matches!(segment, b"." | b"..")));
    assert!(!once.windows(2).any(|two| two == b"//"));
    assert!(!once.iter().any(|byte| b"?#\\".contains(byte)));

    // Another spelling of a normal path is that path.
    let before = once.iter().take(at).rposition(|byte| *byte == b'/');
    let (before, after) = once.split_at(before.unwrap_or(0));
    let other: &[u8] = match noise {
        0 => b"/",
        1 => b"/.",
        2 => b"/x/..",
        3 => b"\\",
        _ => b"/%2E",
    };
    let noisy = [before, other, after].concat();
    assert_eq!(normalise(&noisy), once);
}
