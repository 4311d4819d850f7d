//! The live page: what [`crate::gateway`] tells, drawn in an operator's browser. The page itself holds
//! nothing that is not in this file's HTML, so it is handed to whoever asks; what it shows it fetches
//! as the operator that it is told to be. One file, no outside assets.

use crate::answer::{self, Answer};
use crate::policy::Status;

/// Where the filter hands it out; with the method of the status call.
pub const PATH: &[u8] = b"/api/v1/rate-limits/status/page";

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
mod tests {
    use super::*;
    use crate::json::{At, Json};
    use crate::policy::Policy;

    fn page_of(status: &str) -> Answer {
        let text = format!("{{ \"status\": {status}, \"rules\": [] }}");
        let json = Json::parse(&text, "policy").unwrap();
        page(&Policy::try_new(&At::new(&json, "policy")).unwrap().status)
    }

    fn body(answer: &Answer) -> String {
        String::from_utf8(answer.body.clone()).unwrap()
    }

    #[test]
    fn it_knows_the_operators_header_by_name_and_never_by_value() {
        let header =
            r#"{ "operator_header": { "name": "X-Op", "value": "a-long-enough-secret" } }"#;
        let answer = page_of(header);
        let body = body(&answer);
        assert_eq!(answer.status, 200);
        assert!(body.contains("const HEADER = 'x-op';") && !body.contains("a-long-enough-secret"));
    }

    #[test]
    fn it_asks_for_no_secret_where_operators_have_a_tier() {
        let body = body(&page_of(r#"{ "operator_tier": "ops" }"#));
        assert!(body.contains("const HEADER = null;"));
    }

    #[test]
    fn it_is_for_nobody_where_there_are_no_operators() {
        assert_eq!(page_of("{}").status, 403);
    }

    #[test]
    fn it_brings_everything_along() {
        let outside = ["src=", "href=", "@import", "url(", "http://", "https://"];
        let own = HTML.replace("http://www.w3.org/2000/svg", "");
        for word in outside {
            assert!(!own.contains(word), "{word}");
        }
        assert_eq!(HTML.matches(HEADER).count(), 1);
    }
}
