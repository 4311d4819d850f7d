//! Patterns: which paths they meet is what a slow matcher says, and a loose one meets every spelling of a
//! path that it meets. An input is a pattern, a line's end, and a path.

use serde_json::json;
use weir_core::codec::json::{At, Json};
use weir_core::policy::{Policy, Target as Request};
use weir_core::request::path::normalise;

use crate::input::Input;
use crate::{Target, glob};

pub const TARGET: Target = Target {
    name: "pattern",
    run,
    words: &[
        "*",
        "**",
        "/**/",
        "?",
        "[a-c]",
        "[!a]",
        "[^A-Z]",
        "[;x]",
        "{a,b}",
        "{,/x}",
        "{a,{b,c}}",
        "\\*",
        "%2F",
        "%2f",
        "%41",
        ";x",
        "/../",
        "//",
        "/A",
        "/a",
        "api",
        "\n/",
        "\u{e9}",
        ".json",
        "{id}",
        ":id",
    ],
};

/// The slow matcher tries every way.
const MOST_STARS: usize = 5;
const LONGEST: usize = 48;

fn run(data: &[u8]) {
    let mut input = Input(data);
    let noise = input.piece();
    let text = String::from_utf8_lossy(input.0);
    let Some((pattern, path)) = text.split_once('\n') else {
        return;
    };
    let path = normalise(path.as_bytes());
    let stars = pattern.matches(['*', '{']).count();
    if path.len() > LONGEST || pattern.len() > LONGEST || stars > MOST_STARS {
        return;
    }
    let exact = match policy(pattern, "exact") {
        Ok(policy) => policy,
        Err(refused) => {
            let is_path = path.starts_with(b"/") && path.iter().all(u8::is_ascii_graphic);
            if refused.contains(" can match no path: ")
                && is_path
                && !refused.contains("alternative")
            {
                assert!(
                    !glob::matches(pattern, &path),
                    "{refused}: {}",
                    path.escape_ascii()
                );
            }
            return;
        }
    };
    let is_met = meets(&exact, &path);
    let has_double_in_braces = pattern.contains('{') && pattern.contains("**");
    if !has_double_in_braces {
        assert_eq!(
            is_met,
            glob::matches(pattern, &path),
            "{}",
            path.escape_ascii()
        );
    }
    let loose = policy(pattern, "loose").expect("what is accepted as exact");
    if is_met {
        assert!(meets(&loose, &path), "{}", path.escape_ascii());
        let other = spelled(&path, noise);
        assert!(
            meets(&loose, &normalise(&other)),
            "{}",
            other.escape_ascii()
        );
    }
}

fn policy(pattern: &str, matching: &str) -> Result<Policy, String> {
    let limit = json!({ "type": "fixed_window", "limit": 1, "window": 1 });
    let rule = json!({ "name": "r", "pattern": pattern, "match": matching, "global_limit": limit });
    let text = json!({ "rules": [rule] }).to_string();
    let json = Json::parse(&text, "policy").expect("JSON");
    Policy::try_new(&At::new(&json, "policy")).map_err(|error| error.to_string())
}

fn meets(policy: &Policy, path: &[u8]) -> bool {
    let request = Request {
        path,
        method: b"GET",
        authority: b"",
    };
    policy.matching(request).next().is_some()
}

/// Another way to write a path that the most lenient server takes for the same.
fn spelled(path: &[u8], noise: &[u8]) -> Vec<u8> {
    let mut noise = Input(noise);
    // Escapes and parameters that are there mean something to patterns, as they are written.
    let is_simple = !path.iter().any(|byte| matches!(byte, b'%' | b';'));
    let mut out = Vec::new();
    for (place, &byte) in path.iter().enumerate() {
        match noise.below(6) {
            1 => out.push(byte.to_ascii_uppercase()),
            2 => out.push(byte.to_ascii_lowercase()),
            3 if is_simple && place > 0 => out.extend(format!("%{byte:02x}").bytes()),
            4 if is_simple && place > 0 && byte == b'/' => out.extend(b";x=1/"),
            _ => out.push(byte),
        }
    }
    if noise.below(2) == 1 {
        out.push(b'/');
    }
    out
}
