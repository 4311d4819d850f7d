//! What is wrong with a plugin configuration outside of its policy, and the message that says so: in
//! `tests/config/plugin`, a document for each subject, because a case is a line. `WEIR_BLESS=1` writes the
//! messages anew; read what it changed.

#![allow(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use weir_core::worker::config::Config;

const FOLDER: &str = "../tests/config/plugin";

/// Documents, with what stands around a case of theirs.
const SUBJECTS: [(&str, &str, &str); 3] = [
    ("role.md", "", ""),
    (
        "identity.md",
        r#"{"role": "limiter", "policy": {"rules": []}, "identity": "#,
        "}",
    ),
    (
        "store.md",
        r#"{"role": "limiter", "policy": {"rules": []}, "identity": {"trust": "never"}, "store": "#,
        "}",
    ),
];

/// One chapter of a document.
struct Case<'a> {
    title: &'a str,
    defect: &'a str,
    message: &'a str,
}

/// A document's introduction, and its chapters.
fn read(document: &str) -> (&str, Vec<Case<'_>>) {
    let mut chapters = document.split("\n## ");
    let introduction = chapters.next().unwrap();
    let cases = chapters.map(|chapter| {
        let (title, rest) = chapter.split_once("\n\n```json\n").unwrap();
        let (defect, rest) = rest.split_once("\n```\n\n```text\n").unwrap();
        let (message, rest) = rest.split_once("\n```\n").unwrap();
        assert_eq!(rest, "", "{title}");
        Case {
            title,
            defect,
            message,
        }
    });
    (introduction, cases.collect())
}

fn written(introduction: &str, cases: &[Case<'_>]) -> String {
    let chapters = cases.iter().map(|case| {
        let Case {
            title,
            defect,
            message,
        } = case;
        format!("\n## {title}\n\n```json\n{defect}\n```\n\n```text\n{message}\n```\n")
    });
    [introduction.to_string()]
        .into_iter()
        .chain(chapters)
        .collect()
}

#[test]
fn every_defect_is_refused_with_its_message() {
    let mut wrong = Vec::new();
    for (name, before, after) in SUBJECTS {
        let file = Path::new(FOLDER).join(name);
        let document = fs::read_to_string(&file).unwrap();
        let (introduction, mut cases) = read(&document);
        assert!(cases.len() > 8, "{name} has {} cases", cases.len());
        assert_eq!(written(introduction, &cases), document);
        let told: Vec<String> = cases
            .iter()
            .map(|case| {
                let configuration = format!("{before}{}{after}", case.defect);
                Config::parse(&configuration)
                    .map_or_else(|error| error.to_string(), |_| "accepted".to_string())
            })
            .collect();
        for (case, told) in cases.iter_mut().zip(&told) {
            if case.message != told {
                wrong.push(format!(
                    "{name}: {}\n  told     {told}\n  expected {}",
                    case.title, case.message
                ));
                case.message = told;
            }
        }
        if std::env::var_os("WEIR_BLESS").is_some() {
            fs::write(&file, written(introduction, &cases)).unwrap();
            wrong.clear();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Messages of every golden case, each with where it stands.
fn messages() -> Vec<(String, String)> {
    let mut messages = Vec::new();
    let mut folders = vec![PathBuf::from("../tests/config")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.display().to_string();
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(".txt") {
                messages.push((name, fs::read_to_string(&path).unwrap()));
            } else if name.ends_with(".md") {
                let document = fs::read_to_string(&path).unwrap();
                let (_, cases) = read(&document);
                let own = cases
                    .iter()
                    .map(|case| (format!("{name}: {}", case.title), case.message.to_string()));
                messages.extend(own);
            }
        }
    }
    messages
}

/// A text that goes on in the next line of its source once lost the mark that takes the blanks away.
#[test]
fn no_message_has_two_blanks_in_a_row() {
    let messages = messages();
    assert!(messages.len() > 150, "{}", messages.len());
    for (place, message) in messages {
        // What somebody else wrote is quoted as it is.
        let own: Vec<&str> = message.split('`').step_by(2).collect();
        let own = own.join("`");
        assert!(!own.contains("  "), "{place}: {message}");
        assert!(message.trim_end() != "accepted", "{place}");
    }
}
