//! Lines of text by a format string: Envoy's `%…%`, nginx's `$…`. A value ends where the text that
//! follows it in the format begins.

use anyhow::{Context, Result, ensure};

use super::format::{Place, Slot, Slots, Writing};
use super::time::Clock;

#[derive(Clone, Debug)]
pub struct Pieces {
    /// Before the first value.
    prefix: Vec<u8>,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug)]
struct Piece {
    place: Place,
    /// What stands behind the value.
    until: Vec<u8>,
}

impl Pieces {
    pub fn compile(format: &str, slots: &mut Slots) -> Result<(Pieces, Clock)> {
        let mut compiled = Pieces {
            prefix: Vec::new(),
            pieces: Vec::new(),
        };
        let mut clock = Clock::Seen;
        let mut rest = format
            .strip_suffix("\\n")
            .unwrap_or(format)
            .trim_end_matches('\n');
        while !rest.is_empty() {
            let special = rest.find(['%', '$']).unwrap_or(rest.len());
            let (literal, behind) = rest.split_at(special);
            compiled.text().extend_from_slice(literal.as_bytes());
            rest = behind;
            if let Some(behind) = rest.strip_prefix("%%") {
                compiled.text().push(b'%');
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix('%') {
                let (operator, behind) = operator(behind).with_context(|| {
                    format!("--format: {rest:?} begins an operator that does not end")
                })?;
                let place = envoy(operator, slots, &mut clock);
                compiled.push(place, operator)?;
                rest = behind;
            } else if let Some(behind) = rest.strip_prefix('$') {
                let is_name = |char: char| char.is_ascii_alphanumeric() || char == '_';
                let end = behind.find(|char| !is_name(char)).unwrap_or(behind.len());
                let (name, behind) = behind.split_at(end);
                compiled.push(nginx(name, slots), name)?;
                rest = behind;
            }
        }
        Ok((compiled, clock))
    }

    fn text(&mut self) -> &mut Vec<u8> {
        match self.pieces.last_mut() {
            Some(piece) => &mut piece.until,
            None => &mut self.prefix,
        }
    }

    fn push(&mut self, place: Place, name: &str) -> Result<()> {
        let touches = self.pieces.last().is_some_and(|last| last.until.is_empty());
        ensure!(
            !touches,
            "--format: nothing stands between {name:?} and the value before it, so they cannot be told apart"
        );
        self.pieces.push(Piece {
            place,
            until: Vec::new(),
        });
        Ok(())
    }

    pub fn has(&self, place: &Place) -> bool {
        self.pieces.iter().any(|piece| piece.place == *place)
    }

    pub fn read(&self, line: &[u8], writing: &mut Writing<'_>) -> Result<(), &'static str> {
        let mut rest = line
            .strip_prefix(self.prefix.as_slice())
            .ok_or("begins otherwise")?;
        for piece in &self.pieces {
            let end = match piece.until.as_slice() {
                [] => rest.len(),
                until => find(rest, until).ok_or("ends before its last value")?,
            };
            writing.put(&piece.place, &rest[..end])?;
            rest = &rest[end + piece.until.len()..];
        }
        match rest {
            [] => Ok(()),
            _ => Err("goes on behind its last value"),
        }
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    match wanted {
        [byte] => memchr::memchr(*byte, text),
        _ => memchr::memmem::find(text, wanted),
    }
}

/// What stands before the `%` that ends an operator; one in parentheses ends nothing.
fn operator(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    for (place, char) in text.char_indices() {
        match char {
            '(' => depth += 1,
            ')' => depth -= 1,
            '%' if depth <= 0 => return Some((&text[..place], &text[place + 1..])),
            _ => {}
        }
    }
    None
}

fn envoy(operator: &str, slots: &mut Slots, clock: &mut Clock) -> Place {
    let (name, argument) = match operator.split_once('(') {
        Some((name, rest)) => (
            name,
            rest.rsplit_once(')').map_or(rest, |(argument, _)| argument),
        ),
        None => (operator, ""),
    };
    match name {
        "START_TIME" => {
            // `%s.%3f` and the like are numbers, which are seen.
            if !argument.is_empty() && !argument.starts_with("%s") {
                *clock = Clock::Written(argument.replace("%3f", "%f").replace("%6f", "%f"));
            }
            Place::Time
        }
        "RESPONSE_CODE" => Place::Status,
        "RESPONSE_CODE_DETAILS" => slots.place(Slot::Details),
        "DOWNSTREAM_REMOTE_ADDRESS" | "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => {
            slots.place(Slot::Address)
        }
        "FILTER_STATE" if argument.starts_with("wasm.weir") => slots.place(Slot::Decision),
        "PATH" => slots.place(Slot::Path),
        "REQ" => header(argument, slots),
        "RESP" if !argument.is_empty() => match argument.to_ascii_lowercase() {
            // Nobody counts by it.
            name if name.starts_with("x-envoy-") => Place::Nowhere,
            name => slots.place(Slot::Response(name)),
        },
        _ => Place::Nowhere,
    }
}

/// `A?B:100` is A, or else B, and at most 100 bytes of it.
fn header(argument: &str, slots: &mut Slots) -> Place {
    let names: Vec<String> = argument.split('?').map(str::to_ascii_lowercase).collect();
    let last = names.last().map_or("", String::as_str);
    match last {
        name if name.starts_with(":path") => slots.place(Slot::Path),
        name if name.starts_with(":method") => slots.place(Slot::Method),
        name if name.starts_with(":authority") || name == "host" => slots.place(Slot::Authority),
        "x-forwarded-for" => slots.place(Slot::Forwarded),
        "user-agent" | "x-request-id" | "" | "referer" => Place::Nowhere,
        name => slots.place(Slot::Request(name.to_owned())),
    }
}

fn nginx(name: &str, slots: &mut Slots) -> Place {
    match name {
        "time_local" | "time_iso8601" | "msec" => Place::Time,
        "status" => Place::Status,
        "request" => slots.place(Slot::RequestLine),
        "request_method" => slots.place(Slot::Method),
        "request_uri" | "uri" => slots.place(Slot::Path),
        "remote_addr" => slots.place(Slot::Address),
        "remote_user" => slots.place(Slot::User),
        "host" | "http_host" => slots.place(Slot::Authority),
        "http_x_forwarded_for" => slots.place(Slot::Forwarded),
        "http_user_agent" | "http_referer" => Place::Nowhere,
        _ => match (name.strip_prefix("http_"), name.strip_prefix("sent_http_")) {
            (_, Some(header)) => slots.place(Slot::Response(header.replace('_', "-"))),
            (Some(header), _) => slots.place(Slot::Request(header.replace('_', "-"))),
            _ => Place::Nowhere,
        },
    }
}
