//! What is wrong with a policy, or probably not meant, with its place in the file.

use std::fmt::Write as _;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;
use weir_core::codec::json::{ConfigError, Mistakes};

use super::tree::{Places, Span, Unreadable};

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    pub severity: Severity,
    /// Where in the document: `policy.rules[2].pattern`. Empty where it is about the whole.
    pub path: String,
    pub message: String,
    /// From 1; none where the place is not known.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    #[serde(skip)]
    span: Option<Span>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

impl Message {
    fn new(severity: Severity, path: String, message: String) -> Message {
        Message {
            severity,
            path,
            message,
            line: None,
            column: None,
            span: None,
        }
    }

    pub fn all(mistakes: &Mistakes) -> Vec<Message> {
        let errors = mistakes.iter().map(|ConfigError { path, message }| {
            Message::new(Severity::Error, path.clone(), message.clone())
        });
        let others = match mistakes.others() {
            0 => None,
            others => Some(Message::new(
                Severity::Error,
                String::new(),
                format!("there are {others} more mistakes, which are not shown"),
            )),
        };
        errors.chain(others).collect()
    }

    pub fn warning(message: String) -> Message {
        Message::new(Severity::Warning, String::new(), message)
    }

    /// A mistake at a place that is known.
    pub fn error(path: String, message: String, span: Span, text: &str) -> Message {
        let mut message = Message::new(Severity::Error, path, message);
        message.place(span, text);
        message
    }

    pub fn unreadable(error: Unreadable, text: &str) -> Message {
        let mut message = Message::new(Severity::Error, "policy".to_owned(), error.message);
        message.place(error.span, text);
        message
    }

    /// Of a file with several documents, none of which is a policy.
    pub fn none(text: &str) -> Message {
        let mut message = Message::new(
            Severity::Error,
            "policy".to_owned(),
            "is nowhere here: no document has \"rules\", and no member \"policy\" that has"
                .to_owned(),
        );
        message.place(0..0, text);
        message
    }

    pub fn several(starts: &[usize], text: &str) -> Message {
        let lines: Vec<String> = starts
            .iter()
            .map(|start| line_and_column(text, *start).0.to_string())
            .collect();
        let told = format!(
            "stands here {} times, at lines {}; put the one that is meant into a file of its own",
            starts.len(),
            lines.join(", ")
        );
        let mut message = Message::new(Severity::Error, "policy".to_owned(), told);
        message.place(starts[0]..starts[0], text);
        message
    }

    /// Finds the place by the path.
    pub fn find(&mut self, places: &Places, text: &[u8]) {
        let (Ok(text), false) = (std::str::from_utf8(text), self.path.is_empty()) else {
            return;
        };
        if let Some(place) = places.find(&self.path) {
            // A list of forty lines says less than its name.
            let is_about_name = !place.is_scalar || self.message.starts_with("is not a field");
            let span = match (&place.name, is_about_name) {
                (Some(name), true) => name.clone(),
                _ => place.value.clone(),
            };
            self.place(span, text);
        }
    }

    fn place(&mut self, span: Span, text: &str) {
        // A block ends where the next begins; what is meant is how it begins.
        let first_line = text[span.start..span.end].lines().next().unwrap_or("");
        let span = span.start..span.start + first_line.trim_end().len();
        let (line, column) = line_and_column(text, span.start);
        (self.line, self.column) = (Some(line), Some(column));
        self.span = Some(span);
    }

    /// As a terminal shows it, with the line of the file where it is known.
    pub fn render(&self, file: &str, text: &[u8]) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let (Ok(text), Some(span)) = (std::str::from_utf8(text), self.span.clone()) else {
            let mut told = String::new();
            if self.severity == Severity::Error {
                let _ = write!(told, "{file}: ");
            }
            let _ = write!(told, "{self}");
            let title = level.primary_title(told);
            return Renderer::styled().render(&[Group::with_title(title)]);
        };
        let title = level.primary_title(self.to_string());
        let annotation = AnnotationKind::Primary.span(span);
        let snippet = Snippet::source(text).path(file).annotation(annotation);
        let renderer = Renderer::styled().decor_style(DecorStyle::Ascii);
        renderer.render(&[title.element(snippet)])
    }
}

fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..byte.min(text.len())];
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    (
        before.matches('\n').count() + 1,
        before[start..].chars().count() + 1,
    )
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}", self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}
