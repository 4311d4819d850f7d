//! The schema and the reference in docs/ are what the language's declaration says, and every field of it stands in
//! a golden case and in a seed of the fuzzer. `WEIR_BLESS=1` (`make schema`) writes the first two anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use weir_cli::grammar;
use weir_core::policy::document::{Object, Policy};

fn project() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn is_up_to_date(file: &str, expected: &str) {
    let file = project().join(file);
    if std::env::var_os("WEIR_BLESS").is_some() {
        fs::write(&file, expected).unwrap();
    }
    let written = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        written == expected,
        "{} is old: make schema",
        file.display()
    );
}

#[test]
fn the_schema_and_the_reference_are_up_to_date() {
    let schema = serde_json::to_string_pretty(&grammar::schema()).unwrap();
    is_up_to_date("docs/policy.schema.json", &format!("{schema}\n"));
    is_up_to_date("docs/policy.md", &grammar::reference());
}

fn names(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                names.insert(name.clone());
                self::names(value, names);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| self::names(item, names)),
        _ => {}
    }
}

/// Of all members in the files of a folder that are JSON.
fn names_in(folder: &str) -> BTreeSet<String> {
    let files = fs::read_dir(project().join(folder)).unwrap();
    let files = files.map(|entry| entry.unwrap().path());
    let mut all = BTreeSet::new();
    for file in files.filter(|file| file.extension().is_some_and(|it| it == "json")) {
        if let Ok(value) = serde_json::from_str(&fs::read_to_string(&file).unwrap()) {
            names(&value, &mut all);
        }
    }
    all
}

#[test]
fn every_field_stands_in_a_golden_case_and_in_the_seed() {
    let golden = names_in("tests/config");
    let seeds = names_in("fuzz/corpus/policy");
    let mut missing = Vec::new();
    let mut fields = 0;
    for about in Policy::about().all() {
        for field in about.fields {
            fields += 1;
            for (place, names) in [("a golden case", &golden), ("a seed of the fuzzer", &seeds)] {
                if !names.contains(field.name) {
                    missing.push(format!("{}.{} is not in {place}", about.name, field.name));
                }
            }
        }
    }
    assert!(fields > 50, "{fields}");
    assert!(missing.is_empty(), "{missing:#?}");
}
