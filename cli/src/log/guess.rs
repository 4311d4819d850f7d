//! Which format a log has, by its first lines.

use anyhow::{Result, bail};

use super::format::{self, Format, NAMED};

/// More lines than this begin alike in two formats only if they are alike.
pub const SAMPLE: usize = 50;

pub fn format(lines: &[&[u8]], map: &[(String, String)]) -> Result<Format> {
    let Some(first) = lines.first() else {
        bail!("is empty, so its format cannot be seen; name it: --format");
    };
    let named = NAMED
        .iter()
        .map(|(name, format)| Format::text(name, format));
    let mut candidates = vec![Format::json(json_name(first).to_owned(), map)];
    candidates.extend(named);
    let mut best: Option<(usize, Format)> = None;
    for candidate in candidates {
        let candidate = candidate?;
        let read = |line: &&&[u8]| candidate.read(line, &mut Vec::new()).is_ok();
        let count = lines.iter().filter(read).count();
        if count > best.as_ref().map_or(0, |(count, _)| *count) {
            best = Some((count, candidate));
        }
    }
    // Some lines may be broken, most of them not.
    if let Some((count, format)) = best
        && count * 2 > lines.len()
    {
        return Ok(format);
    }
    let mut header = Vec::new();
    let _: Result<(), ()> = format::fields(first, |name| {
        header.push(String::from_utf8_lossy(name).into_owned());
        Ok(())
    });
    if header.len() > 1
        && let Ok(format) = Format::csv(&header, map)
    {
        return Ok(format);
    }
    bail!(
        "has a format that is not known here: name it (--format {} or a format string of Envoy's or \
         nginx's), or say what its members or columns are (--map time=ts,path=url,user=sub). It begins: {}",
        NAMED.map(|(name, _)| name).join(", "),
        String::from_utf8_lossy(&first[..first.len().min(120)])
    )
}

/// Whose JSON it looks like; all are read alike.
fn json_name(line: &[u8]) -> &'static str {
    let has = |member: &str| memchr::memmem::find(line, member.as_bytes()).is_some();
    if has("\"weir\":") {
        "weir-json"
    } else if has("\"x-envoy-origin-path\":") {
        "envoy-gateway-json"
    } else {
        "json"
    }
}
