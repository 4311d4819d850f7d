//! The live page: what [`crate::observe::report`] tells, drawn in an operator's browser. The page itself holds
//! nothing that is not in this file's HTML, so it is handed to whoever asks; what it shows it fetches
//! as the operator that it is told to be. One file, no outside assets.

use crate::decide::answer::{self, Answer};
use crate::policy::Status;

const HTML: &str = include_str!("page.html");
/// Stands in the script where the name of the operators' header goes.
const HEADER: &str = "/*OPERATOR_HEADER*/null";
/// Nothing from elsewhere, nothing to elsewhere, and in nobody's frame.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
     script-src 'unsafe-inline'; connect-src 'self'; form-action 'none'; base-uri 'none'; \
     frame-ancestors 'none'";

/// The page, for a browser. Where nobody can be an operator there is nothing that it could show.
pub fn page(status: &Status) -> Answer {
    let header = status.operator_header.as_ref().map(|header| &header.name);
    if header.is_none() && status.operator_tier.is_none() {
        return answer::operators_only();
    }
    // A header's name is a token: it holds nothing that would end the string.
    let header = header.map_or("null".to_string(), |name| format!("'{name}'"));
    answer::html(HTML.replace(HEADER, &header), CONTENT_SECURITY_POLICY)
}

#[cfg(test)]
mod tests;
