//! `lab/needs.sh`: what a newcomer is told whose machine lacks something.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use weir_lab::{place, scratch::Scratch};

/// A machine with these programs only, each a line of shell, in a checkout that holds nothing yet.
fn told(programs: &[(&str, &str)], argument: &[&str]) -> Result<(), String> {
    let machine = Scratch::try_new("machine").unwrap();
    let [bin, lab] = ["bin", "lab"].map(|name| machine.file(name));
    fs::create_dir(&bin).unwrap();
    fs::create_dir(&lab).unwrap();
    let script = place::project().join("lab/needs.sh");
    fs::copy(script, lab.join("needs.sh")).unwrap();
    fs::write(machine.file("Cargo.toml"), "rust-version = \"1.88\"\n").unwrap();
    let all = [
        ("sed", "exec /usr/bin/env -i PATH=/usr/bin:/bin sed \"$@\""),
        ("dirname", "echo lab"),
    ];
    for (name, line) in all.iter().chain(programs) {
        program(&bin.join(name), line);
    }
    let output = Command::new("/bin/sh")
        .arg("lab/needs.sh")
        .args(argument)
        .current_dir(machine.path())
        .env_clear()
        .env("PATH", &bin)
        .env("HOME", machine.path())
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

fn program(path: &Path, line: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, format!("#!/bin/sh\n{line}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

const CARGO: (&str, &str) = ("cargo", "echo cargo 1.100.2 '(abc 2026-01-01)'");
const CC: (&str, &str) = ("cc", "exit 0");
const PYTHON: (&str, &str) = ("python3", "exit 0");

#[test]
fn what_is_missing_is_told_with_the_way_to_get_it() {
    let old = |version| ("cargo", version);
    let no_linker = ("cc", "exit 1");
    let no_venv = ("python3", "exit 1");
    let python: &[&str] = &["python"];
    for (programs, argument, words) in [
        (
            &[][..],
            &[][..],
            &["cargo is missing", "https://rustup.rs"][..],
        ),
        (
            &[old("echo cargo 1.63.0"), CC],
            &[],
            &[
                "cargo is 1.63, and Weir needs 1.88 or newer",
                "rustup update",
            ],
        ),
        (&[old("echo cargo 0.99.0"), CC], &[], &["Weir needs 1.88"]),
        (
            &[old("echo no default toolchain >&2; exit 1"), CC],
            &[],
            &["no default toolchain", "rustup default stable"],
        ),
        (
            &[CARGO],
            &[],
            &["a C compiler (cc) is missing", "build-essential"],
        ),
        (&[CARGO, no_linker], &[], &["cannot link"]),
        (
            &[CARGO, CC],
            python,
            &["python3 is missing", "python3-venv", "WEIR_ENVOY="],
        ),
        (
            &[CARGO, CC, no_venv],
            python,
            &["lacks venv", "python3-venv"],
        ),
    ] {
        let error = told(programs, argument).unwrap_err();
        for words in words {
            assert!(error.contains(words), "{words} is not in {error}");
        }
    }
}

#[test]
fn where_nothing_is_missing_nothing_is_told() {
    assert_eq!(told(&[CARGO, CC], &[]), Ok(()));
    assert_eq!(
        told(&[("cargo", "echo cargo 2.0.0"), CC, PYTHON], &["python"]),
        Ok(())
    );
}
