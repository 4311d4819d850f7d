//! The paths that a rule leaves out. A pattern holds for whatever some server takes for such a path; what
//! is left out has to be so for every server, or a rule is walked around by writing a path differently.

use super::{Index, IndexBuilder, Matching, Pattern};
use crate::request::reading;

#[derive(Debug)]
pub struct Exceptions {
    written: Vec<Pattern>,
    exact: Index,
    loose: Index,
}

impl Exceptions {
    /// Nothing where nothing is left out.
    pub fn of(patterns: Vec<Pattern>) -> Option<Exceptions> {
        if patterns.is_empty() {
            return None;
        }
        let index = |matching| {
            let mut index = IndexBuilder::default();
            index.add(&patterns, matching);
            index.build()
        };
        Some(Exceptions {
            exact: index(Matching::Exact),
            loose: index(Matching::Loose),
            written: patterns,
        })
    }

    pub fn patterns(&self) -> &[Pattern] {
        &self.written
    }

    /// Whether a path is left out: by what it says, and by every other reading of it.
    pub fn hold(&self, path: &[u8]) -> bool {
        self.exact.is_met(path)
            && reading::others(path)
                .iter()
                .all(|other| self.loose.is_met(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves_out(patterns: &[&str], path: &str) -> bool {
        let patterns = patterns.iter().map(|text| Pattern::try_new(text).unwrap());
        Exceptions::of(patterns.collect()).is_some_and(|except| except.hold(path.as_bytes()))
    }

    #[test]
    fn what_every_server_takes_for_an_exception_is_left_out() {
        for (pattern, path) in [
            ("/v1/health", "/v1/health"),
            ("/v1/health/", "/v1/health/"),
            ("/v1/Health", "/v1/Health"),
            ("/v1/export/*", "/v1/export/aBc"),
            ("/v1/a%20b", "/v1/a%20b"),
            ("/v1/health*", "/v1/health;x"),
            ("*.css", "/a/b.css"),
            ("/", "/"),
        ] {
            assert!(leaves_out(&[pattern], path), "{pattern} {path}");
        }
        assert!(leaves_out(&["/a", "/b"], "/b"));
    }

    /// Each is another path to the gateway or to some server, and maybe one that is limited.
    #[test]
    fn no_spelling_of_a_limited_path_is_left_out() {
        for (pattern, path) in [
            ("/v1/health", "/v1/health;x"),
            ("/v1/health", "/V1/HEALTH"),
            ("/v1/health", "/v1/health/"),
            ("/v1/health", "/v1/expensive%2f..%2fhealth"),
            ("/v1/health*", "/v1/health/..;/admin"),
            ("/v1/health*", "/v1/health/..%2fadmin"),
            ("/v1/health*", "/v1/health%2f..%2f..%2fadmin"),
            ("/v1/health*", "/v1/health/x;/../../..;/admin"),
            ("/v1/health/*", "/v1/health/..%5cadmin"),
            ("/v1/*.css", "/v1/admin;.css"),
            ("/v1/*.css", "/v1/admin%3b.css"),
            ("/v1/[A-Z]*", "/v1/"),
        ] {
            assert!(!leaves_out(&[pattern], path), "{pattern} {path}");
        }
    }

    /// It is not looked at, so that it meets every rule; it must not be left out of one.
    #[test]
    fn a_path_beyond_the_bound_is_never_left_out() {
        let path = "/a".repeat(super::super::LONGEST_PATH);
        assert!(!leaves_out(&["/a*", "*"], &path));
    }
}
