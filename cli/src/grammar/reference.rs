use std::fmt::Write as _;

use weir_core::policy::document::{About, Ends, Field, Object, Policy, Presence, Shape};

const HEAD: &str = "\
# The fields of a policy

<!-- Written by `make schema` from core/src/policy/document. -->

[README](../README.md#the-policy) says how these work together. Any object may have a `description`, a text of up to
1,024 bytes that says why. [`policy.schema.json`](policy.schema.json) says the same to editors; begin a policy in
YAML with `# yaml-language-server: $schema=…/policy.schema.json`.
";

/// As a page of the documentation.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for about in Policy::about().all() {
        section(&mut page, &about);
    }
    page
}

// Writing to a String cannot fail.
fn section(page: &mut String, about: &About) {
    let _ = write!(page, "\n## {}\n\n{}\n\n", about.name, about.about);
    page.push_str("| field | what it may be | without it | what it means |\n|---|---|---|---|\n");
    for field in &about.fields {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} | {} |",
            field.name,
            cell(&values(field)),
            cell(&absence(field)),
            cell(&field.about)
        );
    }
    for field in &about.fields {
        let words = words(&field.shape);
        if words.is_empty() {
            continue;
        }
        let _ = write!(page, "\n| `{}` | what it says |\n|---|---|\n", field.name);
        for (word, about) in words {
            let _ = writeln!(page, "| `{word}` | {} |", cell(about));
        }
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn absence(field: &Field) -> String {
    match field.presence {
        Presence::Required => "must be there".to_owned(),
        Presence::Optional("") => "–".to_owned(),
        Presence::Optional(without) => without.to_owned(),
        Presence::Default("\"\"") => "none".to_owned(),
        Presence::Default(default) => format!("`{default}`"),
    }
}

fn values(field: &Field) -> String {
    let values = shape(&field.shape);
    match field.unit {
        Some(unit) => format!("{values} ({unit})"),
        None => values,
    }
}

fn shape(of: &Shape) -> String {
    match of {
        Shape::Whole { least, most } if *most >= 1 << 53 => format!("a whole number from {least}"),
        Shape::Whole { least, most } => format!("a whole number, {least} to {most}"),
        Shape::Number { least, most, ends } => match ends {
            Ends::Within => format!("a number, {least} to {most}"),
            Ends::Outside => format!("a number above {least} and below {most}"),
        },
        Shape::Flag => "`true` or `false`".to_owned(),
        Shape::Words(words) => {
            let words: Vec<String> = words
                .iter()
                .map(|word| format!("`{}`", word.word))
                .collect();
            words.join(", ")
        }
        Shape::Text { kind, .. } => (*kind).to_owned(),
        Shape::List { of, .. } => format!("a list: {}", shape(of)),
        Shape::OneOrMore(of) => format!("{}, or a list of them", shape(of)),
        Shape::Map { name, of } => format!("by {name}: {}", shape(of)),
        Shape::Object(about) => {
            let name = about().name;
            format!("[{name}](#{})", name.to_ascii_lowercase())
        }
        Shape::Either(shapes) => {
            let shapes: Vec<String> = shapes.iter().map(shape).collect();
            shapes.join(", or ")
        }
    }
}

fn words(of: &Shape) -> Vec<(&str, &str)> {
    match of {
        Shape::Words(words) => words.iter().map(|word| (word.word, word.about)).collect(),
        Shape::List { of, .. } | Shape::OneOrMore(of) => words(of),
        _ => Vec::new(),
    }
}
