//! What a wasm module exports, and a module with fewer exports. Envoy enters the VM for each callback
//! that a module exports, and the SDK exports all there are; an entry costs some 1,800 instructions.
//!
//! It knows the export section of
//! <https://webassembly.github.io/spec/core/binary/modules.html> and nothing else of a module.

use anyhow::{Context, Result, ensure};

const EXPORTS: u8 = 7;
/// `\0asm` and the version.
const PREAMBLE: usize = 8;

/// The names of a module's exports, as they stand there.
pub fn names(module: &[u8]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for (id, body) in sections(module)? {
        if id == EXPORTS {
            names.extend(entries(body)?.into_iter().map(|(name, _)| name.to_string()));
        }
    }
    Ok(names)
}

/// The module with these exports only, all of which it must have.
pub fn keep(module: &[u8], wanted: &[&str]) -> Result<Vec<u8>> {
    let has = names(module)?;
    for name in wanted {
        ensure!(
            has.iter().any(|own| own == name),
            "the filter exports no {name}, which Envoy is to call"
        );
    }
    let mut out = module.get(..PREAMBLE).context("too short")?.to_vec();
    for (id, body) in sections(module)? {
        let kept;
        let body = if id == EXPORTS {
            let entries = entries(body)?;
            let entries = entries.iter().filter(|(name, _)| wanted.contains(name));
            let bytes: Vec<&[u8]> = entries.map(|(_, bytes)| *bytes).collect();
            kept = [leb128(bytes.len()), bytes.concat()].concat();
            &kept
        } else {
            body
        };
        out.push(id);
        out.extend(leb128(body.len()));
        out.extend(body);
    }
    Ok(out)
}

fn sections(module: &[u8]) -> Result<Vec<(u8, &[u8])>> {
    let mut rest = module.get(PREAMBLE..).context("too short")?;
    let mut sections = Vec::new();
    while let [id, tail @ ..] = rest {
        let (size, tail) = number(tail)?;
        let (body, tail) = tail.split_at_checked(size).context("a section is cut")?;
        sections.push((*id, body));
        rest = tail;
    }
    Ok(sections)
}

/// Each export's name, and all of its bytes.
fn entries(section: &[u8]) -> Result<Vec<(&str, &[u8])>> {
    let (count, mut rest) = number(section)?;
    let mut entries = Vec::new();
    for _ in 0..count {
        let begun = rest;
        let (len, tail) = number(rest)?;
        let (name, tail) = tail.split_at_checked(len).context("a name is cut")?;
        // A kind, then an index.
        rest = number(tail.get(1..).context("an export is cut")?)?.1;
        let bytes = &begun[..begun.len() - rest.len()];
        entries.push((std::str::from_utf8(name)?, bytes));
    }
    Ok(entries)
}

/// LEB128, and what follows it.
fn number(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let len = 1 + bytes.iter().take_while(|byte| **byte >= 0x80).count();
    let (digits, rest) = bytes.split_at_checked(len).context("a number is cut")?;
    let digits = digits.iter().rev();
    let value = digits.fold(0, |value, digit| value << 7 | usize::from(digit & 0x7f));
    Ok((value, rest))
}

fn leb128(mut number: usize) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two exports of functions, between two sections that are nobody's business.
    const MODULE: &[u8] =
        b"\0asm\x01\0\0\0\x01\x01\0\x07\x0d\x02\x03one\0\x00\x02to\0\x80\x01\x0b\x01\0";

    #[test]
    fn a_module_keeps_the_exports_that_are_wanted_and_all_else() {
        assert_eq!(names(MODULE).unwrap(), ["one", "to"]);
        let fewer = keep(MODULE, &["to"]).unwrap();
        assert_eq!(names(&fewer).unwrap(), ["to"]);
        assert_eq!(
            fewer,
            b"\0asm\x01\0\0\0\x01\x01\0\x07\x07\x01\x02to\0\x80\x01\x0b\x01\0"
        );
        assert_eq!(keep(MODULE, &["one", "to"]).unwrap(), MODULE);
    }

    #[test]
    fn an_export_that_is_missing_is_an_error() {
        let error = keep(MODULE, &["two"]).unwrap_err().to_string();
        assert!(error.contains("no two"), "{error}");
        for length in 0..MODULE.len() {
            let _ = names(&MODULE[..length]);
        }
    }
}
