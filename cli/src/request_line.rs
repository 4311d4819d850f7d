//! A request as a person writes it: `POST https://api.example.com/login`, of which method and host may be
//! left out.

use anyhow::{Result, ensure};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLine {
    pub method: String,
    pub authority: String,
    /// With its query.
    pub path: String,
}

impl RequestLine {
    /// `[METHOD] URL`
    pub fn read(text: &str) -> Result<RequestLine> {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            [url] => RequestLine::of("GET", url),
            [method, url] => RequestLine::of(method, url),
            _ => anyhow::bail!("{text:?} is no request; write METHOD and URL, such as POST /login"),
        }
    }

    pub fn of(method: &str, url: &str) -> Result<RequestLine> {
        let is_method = !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphabetic());
        ensure!(is_method, "{method:?} is no method; write one such as POST");
        let (authority, path) = match url.split_once("://") {
            Some((_, rest)) => rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len())),
            None => ("", url),
        };
        let is_path = path.starts_with('/') || (!authority.is_empty() && !path.contains(' '));
        ensure!(
            is_path,
            "{url:?} is no URL; write a path such as /login, or a URL with https:// before it"
        );
        let slash = if path.starts_with('/') { "" } else { "/" };
        Ok(RequestLine {
            method: method.to_ascii_uppercase(),
            authority: authority.to_owned(),
            path: format!("{slash}{path}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_and_host_may_be_left_out() {
        for (text, method, authority, path) in [
            ("/a?b=c", "GET", "", "/a?b=c"),
            ("post /a", "POST", "", "/a"),
            (
                "PUT https://x.example:8443/a",
                "PUT",
                "x.example:8443",
                "/a",
            ),
            ("http://x.example", "GET", "x.example", "/"),
            ("http://x.example?q", "GET", "x.example", "/?q"),
        ] {
            let read = RequestLine::read(text).unwrap();
            let told = (&*read.method, &*read.authority, &*read.path);
            assert_eq!(told, (method, authority, path), "{text}");
        }
        for text in ["", "a", "GET", "GET a", "G3T /a", "GET /a b"] {
            assert!(RequestLine::read(text).is_err(), "{text}");
        }
    }
}
