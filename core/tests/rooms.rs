//! The house: which room may use which. An arrow that is not in the table is a type in the wrong room.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room, and the rooms that it may use besides itself.
const ROOMS: [(&str, &[&str]); 11] = [
    ("time", &[]),
    ("quota", &["time"]),
    ("codec", &[]),
    ("request", &["codec"]),
    ("store", &["quota", "codec", "time"]),
    ("policy", &["request", "quota", "codec", "time"]),
    (
        "local",
        &["policy", "store", "request", "quota", "codec", "time"],
    ),
    ("live", &["policy", "store", "codec", "time"]),
    (
        "decide",
        &[
            "local", "live", "policy", "store", "request", "quota", "codec", "time",
        ],
    ),
    (
        "observe",
        &[
            "decide", "live", "policy", "store", "request", "quota", "codec", "time",
        ],
    ),
    (
        "worker",
        &[
            "observe", "decide", "local", "live", "policy", "store", "request", "quota", "codec",
            "time",
        ],
    ),
];

/// The room's door says what is in it: it must fit on a screen.
const LONGEST_DOOR: usize = 60;

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// What of a file ends up in the program: neither comments nor tests.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn every_arrow_is_in_the_table() {
    // cargo runs tests in their package's folder.
    let root = Path::new("src");
    let mut files = Vec::new();
    sources(root, &mut files);
    assert!(files.len() > 50, "{}", files.len());
    let mut wrong = Vec::new();
    let mut rooms_seen = BTreeSet::new();
    for file in files {
        let inside = file.strip_prefix(root).unwrap();
        let first = inside.components().next().unwrap().as_os_str();
        let room = first.to_str().unwrap().trim_end_matches(".rs");
        if room == "lib" {
            continue;
        }
        let Some((_, may_use)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            panic!("{} is in no room", file.display());
        };
        rooms_seen.insert(room.to_string());
        let is_test = ["tests.rs", "fake_host.rs"]
            .iter()
            .any(|name| inside.ends_with(name));
        for path in code(&file).split("crate::").skip(1) {
            let other = path
                .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .next();
            let other = other.unwrap();
            if !is_test && other != room && !may_use.contains(&other) {
                wrong.push(format!("{} uses {other}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(rooms_seen.len(), ROOMS.len());
}

#[test]
fn no_room_uses_one_that_stands_above_it() {
    for (place, (room, may_use)) in ROOMS.iter().enumerate() {
        for other in *may_use {
            let below = ROOMS[..place].iter().any(|(name, _)| name == other);
            assert!(below, "{room} and {other} would be a circle");
        }
    }
}

#[test]
fn every_door_fits_on_a_screen() {
    for (room, _) in ROOMS.iter().filter(|(room, _)| *room != "time") {
        let door = fs::read_to_string(format!("src/{room}/mod.rs")).unwrap();
        assert!(door.starts_with("//!"), "{room}");
        assert!(door.lines().count() <= LONGEST_DOOR, "{room}");
    }
}
