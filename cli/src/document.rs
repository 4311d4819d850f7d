//! A policy's file, judged as the gateways will judge it. What is wrong with it is a value, to be told
//! as text or as JSON; it knows no command.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;
use weir_core::codec::json::ConfigError;
use weir_core::live::poller::Document;

/// The file that stands for the input.
const STDIN: &str = "-";

/// What was read, before anybody judged it.
pub struct Source {
    /// As messages call it.
    pub name: String,
    pub text: Vec<u8>,
}

/// Something that is wrong, or probably not meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    pub severity: Severity,
    /// Where in the document: `policy.rules[2].pattern`. Empty where it is about the whole.
    pub path: String,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Error,
    Warning,
}

impl Source {
    pub fn read(file: &Path) -> Result<Source> {
        let is_stdin = file.as_os_str() == STDIN;
        let name = match is_stdin {
            true => "the input".to_owned(),
            false => file.display().to_string(),
        };
        let text = match is_stdin {
            true => {
                let mut text = Vec::new();
                io::stdin().read_to_end(&mut text).map(|_| text)
            }
            false => fs::read(file),
        };
        let text = text.with_context(|| format!("cannot read {name}"))?;
        Ok(Source { name, text })
    }

    /// The document, or each mistake in it.
    pub fn judge(&self) -> Result<Document, Vec<Message>> {
        Document::read(&self.text).map_err(|defect| vec![Message::from(defect)])
    }
}

/// What is legal in a policy and probably not meant.
pub fn warnings(document: &Document) -> Vec<Message> {
    let Document::Policy(policy) = document else {
        return Vec::new();
    };
    let mut warnings = policy.warnings.clone();
    let header = policy.status.operator_header.as_ref();
    if header.is_some_and(|header| header.is_written_out) {
        warnings.push(
            "the operators' secret is in this policy: whoever reads Redis reads it, and whoever reaches a \
             sidecar that has no --secret-file; instead of \"value\" write its \"sha256\", which `printf %s \
             SECRET | sha256sum` prints"
                .into(),
        );
    }
    let warning = |message| Message {
        severity: Severity::Warning,
        path: String::new(),
        message,
    };
    warnings.into_iter().map(warning).collect()
}

impl From<ConfigError> for Message {
    fn from(ConfigError { path, message }: ConfigError) -> Message {
        Message {
            severity: Severity::Error,
            path,
            message,
        }
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.path.as_str() {
            "" => write!(f, "{}", self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}
