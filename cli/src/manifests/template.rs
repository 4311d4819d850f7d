//! Templates whose variables are `${NAME}`, as in envoy/, and what fills them in. It knows neither
//! YAML nor what any variable is for.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// What each variable stands for.
#[derive(Clone, Debug, Default)]
pub struct Values(BTreeMap<&'static str, String>);

impl Values {
    pub fn set(&mut self, name: &'static str, value: impl ToString) {
        self.0.insert(name, value.to_string());
    }

    /// The template with its variables filled in. A line of nothing but a variable becomes the
    /// lines of its value, as deep as the variable stood, and is gone where the value is empty.
    pub fn fill(&self, template: &str) -> Result<String> {
        let mut filled = String::new();
        for line in template.lines() {
            let text = line.trim_start();
            let depth = &line[..line.len() - text.len()];
            match text
                .strip_prefix("${")
                .and_then(|text| text.strip_suffix('}'))
            {
                Some(name) if is_name(name) => {
                    for line in self.get(name)?.lines() {
                        let depth = if line.is_empty() { "" } else { depth };
                        filled.extend([depth, line, "\n"]);
                    }
                }
                _ => filled.extend([&self.inline(line)?, "\n"]),
            }
        }
        Ok(filled)
    }

    fn inline(&self, line: &str) -> Result<String> {
        let mut pieces = line.split("${");
        let mut filled = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let Some((name, rest)) = piece.split_once('}').filter(|(name, _)| is_name(name)) else {
                filled.extend(["${", piece]);
                continue;
            };
            let value = self.get(name)?;
            if value.contains('\n') {
                bail!("{name} has more than one line, and stands in the middle of one");
            }
            filled.extend([value, rest]);
        }
        Ok(filled)
    }

    fn get(&self, name: &str) -> Result<&str> {
        match self.0.get(name) {
            Some(value) => Ok(value),
            None => bail!("a template needs {name}, which nobody set"),
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_of_name = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty() && name.bytes().all(is_of_name)
}

/// A fragment without the remarks at its head, which are for whoever reads its file.
pub fn body(text: &str) -> String {
    let lines = text.lines();
    let lines = lines.skip_while(|line| line.trim_start().starts_with('#') || line.is_empty());
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// A fragment that goes on in the middle of another file, moved to the left edge.
pub fn outdented(text: &str) -> String {
    let text = body(text);
    let depth = |line: &str| line.len() - line.trim_start().len();
    let lines = || text.lines().filter(|line| !line.is_empty());
    let least = lines().map(depth).min().unwrap_or_default();
    lines().flat_map(|line| [&line[least..], "\n"]).collect()
}

/// One block of a YAML file: the line that begins with its key, and what belongs to it.
pub fn block<'a>(text: &'a str, key: &str) -> Result<&'a str> {
    let head = format!("{key}:");
    let mut place = 0;
    let mut found = None;
    for line in text.split_inclusive('\n') {
        match found {
            None if line.trim_end() == head => found = Some(place),
            Some(start) if !line.starts_with([' ', '-', '\n']) => {
                return Ok(trimmed(&text[start..place]));
            }
            _ => {}
        }
        place += line.len();
    }
    match found {
        Some(start) => Ok(trimmed(&text[start..])),
        None => bail!("there is no {key} at the left edge of that file"),
    }
}

/// Without the empty lines at its end.
fn trimmed(block: &str) -> &str {
    let end = block.trim_end().len();
    block.get(..=end).unwrap_or(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        let mut values = Values::default();
        values.set("NAME", "weir");
        values.set("NOTHING", "");
        values.set("LINES", "a: 1\n\nb: 2");
        values
    }

    #[test]
    fn a_line_of_its_own_becomes_the_lines_of_its_value_and_none_if_it_has_none() {
        let template = "x: ${NAME}-${NAME}\ny:\n  ${LINES}\n  ${NOTHING}\nz: '$1 ${no}'\n";
        let filled = values().fill(template).unwrap();
        assert_eq!(
            filled,
            "x: weir-weir\ny:\n  a: 1\n\n  b: 2\nz: '$1 ${no}'\n"
        );
    }

    #[test]
    fn what_cannot_be_filled_in_is_told() {
        for (template, told) in [
            ("x: ${OTHER}", "needs OTHER"),
            ("  ${OTHER}", "needs OTHER"),
            ("x: ${LINES}", "LINES has more than one line"),
        ] {
            let error = values().fill(template).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn blocks_and_fragments_are_cut_out_whole() {
        let text = "# head\n\n# of a\na:\n  b: 1\n  # in a\n\n  c: 2\n\nd:\n- 3\n";
        assert_eq!(
            block(text, "a").unwrap(),
            "a:\n  b: 1\n  # in a\n\n  c: 2\n"
        );
        assert_eq!(block(text, "d").unwrap(), "d:\n- 3\n");
        assert_eq!(body(text).lines().next(), Some("a:"));
        assert_eq!(
            outdented("  # head\n    a: 1\n      b: 2\n"),
            "a: 1\n  b: 2\n"
        );
        assert!(block(text, "b").is_err());
    }
}
