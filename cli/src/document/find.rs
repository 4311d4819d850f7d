//! The policy in a file that holds more than it: a filter's configuration, Envoy's, a manifest of
//! Kubernetes. It is a member `policy` that has `rules`, at any depth, or the text of a string.

use super::tree::{Node, Span, Value};
use super::{json, yaml};

/// A policy that was found, and where.
#[derive(Clone, Debug)]
pub struct Found {
    pub policy: Node,
    /// What stands beside it in the filter's configuration: who is believed to be whom.
    pub identity: Option<Node>,
    pub is_whole_file: bool,
}

/// All policies of a file, in the order in which they are written.
pub fn policies(documents: &[Node], text: &str) -> Vec<Found> {
    let mut found = Vec::new();
    for document in documents {
        if is_policy(document) && document.get("apiVersion").is_none() {
            found.push(Found {
                policy: document.clone(),
                identity: None,
                is_whole_file: documents.len() == 1,
            });
        } else {
            look(document, text, &mut found);
        }
    }
    found
}

fn is_policy(node: &Node) -> bool {
    let rules = node.get("rules").map(|rules| &rules.value);
    matches!(rules, Some(Value::List(_)))
}

fn look(node: &Node, text: &str, found: &mut Vec<Found>) {
    if let Some(policy) = node.get("policy").filter(|policy| is_policy(policy)) {
        found.push(Found {
            policy: policy.clone(),
            identity: node.get("identity").cloned(),
            is_whole_file: false,
        });
        return;
    }
    match &node.value {
        Value::List(list) => {
            for node in list {
                look(node, text, found);
            }
        }
        Value::Object(members) => {
            for member in members {
                look(&member.node, text, found);
            }
        }
        Value::Text(inner) if inner.contains("rules") => {
            let Some(documents) = embedded(node, inner, text) else {
                return;
            };
            for document in &documents {
                if is_policy(document) {
                    found.push(Found {
                        policy: document.clone(),
                        identity: None,
                        is_whole_file: false,
                    });
                } else {
                    look(document, text, found);
                }
            }
        }
        _ => {}
    }
}

/// A string's own documents, if it holds any, with their places in the file.
fn embedded(node: &Node, inner: &str, text: &str) -> Option<Vec<Node>> {
    let documents = match inner.trim_start().starts_with('{') {
        true => vec![json::parse(inner).ok()?],
        false => yaml::parse(inner).ok()?,
    };
    let whole = node.span.clone();
    let lines = Lines::of(&whole, inner, text);
    let place = |span: &Span| match &lines {
        Some(lines) => lines.outer(span.start)..lines.outer(span.end),
        // Escapes and folding: only the whole is known.
        None => whole.clone(),
    };
    let documents = documents.into_iter().map(|node| node.moved(&place));
    Some(documents.collect())
}

/// The lines of a literal block, in the file and in its text.
struct Lines {
    /// For each line, where it begins in the text and in the file.
    starts: Vec<(usize, usize)>,
}

impl Lines {
    fn of(span: &Span, inner: &str, text: &str) -> Option<Lines> {
        let mut starts = Vec::new();
        let mut inner_start = 0;
        // The first line of a block is behind the line of its `|`.
        let first = text
            .get(span.start..)?
            .find(inner.lines().next()?.trim_start())?
            + span.start;
        let mut line = text.get(..first)?.rfind('\n').map_or(0, |end| end + 1);
        for content in inner.split_inclusive('\n') {
            let written = text.get(line..)?.split_inclusive('\n').next().unwrap_or("");
            let (bare, own) = (content.trim_end(), written.trim_end());
            if !own.ends_with(bare) {
                return None;
            }
            starts.push((inner_start, line + own.len() - bare.len()));
            inner_start += content.len();
            line += written.len();
        }
        Some(Lines { starts })
    }

    fn outer(&self, inner: usize) -> usize {
        let place = self.starts.partition_point(|(start, _)| *start <= inner);
        let (start, outer) = self.starts[place.saturating_sub(1)];
        outer + (inner - start)
    }
}
