//! Every example of docs/weirctl.md, as it stands there, in a shell and against a real Redis. A block
//! of `console` holds commands after `$`, what each prints (both outputs as a terminal shows them),
//! and `? 1` where it ends in another code than 0.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, iter};

use snapbox::assert::Assert;
use snapbox::{Redactions, data};
use weir_lab::redis::Redis;

/// One command of an example, and what it is said to do.
#[derive(Debug, Default, PartialEq, Eq)]
struct Example {
    line: usize,
    command: String,
    code: i32,
    printed: String,
}

fn examples(text: &str) -> Vec<Example> {
    let mut examples: Vec<Example> = Vec::new();
    let mut is_inside = false;
    for (place, line) in text.lines().enumerate() {
        match line {
            "```console" => is_inside = true,
            "```" => is_inside = false,
            _ if !is_inside => {}
            _ => match (line.strip_prefix("$ "), examples.last_mut()) {
                (Some(command), _) => examples.push(Example {
                    line: place + 1,
                    command: command.to_owned(),
                    ..Example::default()
                }),
                (None, Some(example)) => match line.strip_prefix("? ") {
                    Some(code) if example.printed.is_empty() => {
                        example.code = code.parse().unwrap();
                    }
                    _ => example.printed.extend([line, "\n"]),
                },
                (None, None) => panic!("line {}: an example begins with `$ `", place + 1),
            },
        }
    }
    examples
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn every_example_does_what_the_documentation_says() {
    let redis = Redis::start().unwrap();
    let address = redis.address().to_string();
    let tool = Path::new(env!("CARGO_BIN_EXE_weirctl"));
    let path = env::var_os("PATH").unwrap_or_default();
    let path = iter::once(tool.parent().unwrap().to_owned()).chain(env::split_paths(&path));
    let path = env::join_paths(path).unwrap();
    let mut told = Redactions::new();
    told.insert("[REDIS]", address.clone()).unwrap();
    for (name, pattern) in [
        (
            "[TIME]",
            r"version \S+  (?<redacted>20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC)",
        ),
        ("[VERSION]", r"\b1[0-9]{9}\b"),
    ] {
        told.insert(name, regex::Regex::new(pattern).unwrap())
            .unwrap();
    }
    let assert = Assert::new().redact_with(told);
    let text = fs::read_to_string(root().join("docs/weirctl.md")).unwrap();
    let examples = examples(&text);
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        let place = format!("docs/weirctl.md:{}: {}", example.line, example.command);
        let output = Command::new("sh")
            .args(["-c", &format!("{{ {}\n}} 2>&1", example.command)])
            .current_dir(root())
            .env("PATH", &path)
            .env("WEIR_REDIS_URL", &address)
            .env_remove("WEIR_NAMESPACE")
            .env_remove("WEIR_AUTHOR")
            .output()
            .unwrap();
        let printed = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            output.status.code(),
            Some(example.code),
            "{place}\n{printed}"
        );
        let expected = data::Data::text(format!("{}\n", example.printed.trim_end()));
        assert
            .try_eq(Some(&place), printed.into(), expected)
            .unwrap_or_else(|error| panic!("{error}"));
    }
}
