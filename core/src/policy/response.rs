//! What a rule answers in the place of Weir's own words. It knows neither limit nor caller: what tells of
//! them, and keeps an answer out of caches, Weir adds to it.

use super::document;
use crate::codec::json::{Mistakes, Path};

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub body: Option<Body>,
    /// In lower case, as Envoy has them.
    pub headers: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct Body {
    pub content_type: String,
    pub bytes: Vec<u8>,
}

impl Response {
    pub(super) fn compile(
        written: document::Respond,
        at: &Path<'_>,
        mistakes: &mut Mistakes,
    ) -> Response {
        let document::Respond {
            status,
            body,
            content_type,
            headers,
        } = written;
        if body.is_none() && content_type.is_some() && !mistakes.touch(&at.member("body")) {
            let content_type = at.member("content_type");
            mistakes
                .add(content_type.error("stands there without a \"body\"; add one or take it out"));
        }
        let content_type = content_type.unwrap_or_else(|| "text/plain; charset=utf-8".to_string());
        let lower = |(name, value): (String, String)| (name.to_ascii_lowercase(), value);
        Response {
            // Its reader knows it for one of three digits.
            status: u16::try_from(status).unwrap_or(429),
            body: body.map(|text| Body {
                content_type,
                bytes: text.into_bytes(),
            }),
            headers: headers.into_iter().map(lower).collect(),
        }
    }
}
