//! All that is wrong with a document, within bounds: whoever wrote it may have written a megabyte.

use std::fmt;

use super::Path;

/// What of a message or a path is kept, from its beginning and from its end, where the mend stands.
const KEPT_BEGINNING: usize = 600;
const KEPT_END: usize = 300;

/// What is wrong, where, and how to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    pub path: String,
    pub message: String,
}

/// What is wrong with a document, in the order in which it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes {
    kept: Vec<ConfigError>,
    most: usize,
    /// How many more there were.
    others: usize,
}

impl Mistakes {
    /// For a log, which is read line by line.
    pub const FEW: usize = 10;
    /// For a person who asked for all: more are none that anybody wrote by hand.
    pub const MANY: usize = 1000;

    /// Keeps the first `most`, and counts the others.
    pub fn at_most(most: usize) -> Mistakes {
        Mistakes {
            kept: Vec::new(),
            most,
            others: 0,
        }
    }

    pub fn add(&mut self, error: ConfigError) {
        if self.kept.len() == self.most {
            self.others += 1;
            return;
        }
        self.kept.push(ConfigError {
            path: shortened(error.path),
            message: shortened(error.message),
        });
    }

    /// Adds those of a part.
    pub fn extend(&mut self, part: Mistakes) {
        part.kept.into_iter().for_each(|error| self.add(error));
        self.others += part.others;
    }

    /// What was read, if nothing is wrong with it.
    pub fn note<T>(&mut self, read: Result<T, ConfigError>) -> Option<T> {
        read.map_err(|error| self.add(error)).ok()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty() && self.others == 0
    }

    /// Those that were kept.
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.kept.iter()
    }

    /// How many were found and not kept.
    pub fn others(&self) -> usize {
        self.others
    }

    pub fn into_first(self) -> Option<ConfigError> {
        self.kept.into_iter().next()
    }

    /// Whether something is wrong within the value of this path.
    pub fn touch(&self, path: &Path<'_>) -> bool {
        if self.kept.is_empty() {
            return self.others > 0;
        }
        let path = path.to_string();
        self.kept.iter().any(|error| {
            let rest = error.path.strip_prefix(path.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }
}

impl From<ConfigError> for Mistakes {
    fn from(error: ConfigError) -> Mistakes {
        let mut mistakes = Mistakes::at_most(1);
        mistakes.add(error);
        mistakes
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// In one line, as a log has it.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let ([only], 0) = (self.kept.as_slice(), self.others) {
            return write!(f, "{only}");
        }
        write!(f, "{} mistakes:", self.kept.len() + self.others)?;
        for (error, number) in self.kept.iter().zip(1..) {
            write!(f, " ({number}) {error}")?;
        }
        match self.others {
            0 => Ok(()),
            others => write!(f, " (and {others} more)"),
        }
    }
}

impl std::error::Error for ConfigError {}
impl std::error::Error for Mistakes {}

/// Without its middle, if it is too long.
fn shortened(text: String) -> String {
    if text.len() <= KEPT_BEGINNING + KEPT_END {
        return text;
    }
    let boundary = |from: usize| (from..=text.len()).find(|at| text.is_char_boundary(*at));
    let begin = boundary(KEPT_BEGINNING).and_then(|at| text.get(..at));
    let end = boundary(text.len() - KEPT_END).and_then(|at| text.get(at..));
    format!("{} … {}", begin.unwrap_or(""), end.unwrap_or(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(path: &str, message: &str) -> ConfigError {
        Path::root(path).error(message)
    }

    #[test]
    fn so_many_are_kept_and_the_others_counted() {
        let mut mistakes = Mistakes::at_most(2);
        assert!(mistakes.is_empty());
        mistakes.add(wrong("a", "is 1"));
        assert_eq!(mistakes.to_string(), "a: is 1");
        mistakes.add(wrong("b", "is 2"));
        assert_eq!(mistakes.to_string(), "2 mistakes: (1) a: is 1 (2) b: is 2");
        mistakes.add(wrong("c", "is 3"));
        let told = "3 mistakes: (1) a: is 1 (2) b: is 2 (and 1 more)";
        assert_eq!(mistakes.to_string(), told);
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_its_mend() {
        let mut mistakes = Mistakes::at_most(1);
        let long = format!("is {}; write less", "ä".repeat(100_000));
        mistakes.add(wrong(&long, &long));
        let kept = mistakes.iter().next().unwrap();
        for text in [&kept.path, &kept.message] {
            assert!(text.len() < 1000, "{}", text.len());
            assert!(text.starts_with("is ää") && text.ends_with("; write less"));
        }
    }

    #[test]
    fn a_value_is_touched_by_what_is_wrong_within_it() {
        let root = Path::root("p");
        let (rules, rule) = (root.member("rules"), root.member("rule"));
        let (first, tenth) = (rules.item(1), rules.item(10));
        let mut mistakes = Mistakes::at_most(9);
        mistakes.add(tenth.member("limit").error("is 0"));
        assert!(mistakes.touch(&root) && mistakes.touch(&rules) && mistakes.touch(&tenth));
        assert!(!mistakes.touch(&first) && !mistakes.touch(&rule));
    }
}
