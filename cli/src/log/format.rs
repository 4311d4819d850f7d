//! What the lines of a log look like, and how one is read. Formats are those of Envoy, Istio, Envoy
//! Gateway, nginx and Weir, or whatever an operator says.

use std::cell::RefCell;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use csv_core::{ReadRecordResult, Reader};

use super::json::JsonLines;
use super::text::Pieces;
use super::time::Clock;
use super::{Entry, MOST_SLOTS, Span};

/// What a value of a line is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    Method,
    Path,
    /// Method, path and protocol in one, as nginx has them.
    RequestLine,
    Authority,
    /// The client's address, as the proxy vouches for it.
    Address,
    /// `x-forwarded-for`, as it was when the line was written.
    Forwarded,
    /// Why the answer was given: Envoy's response code details.
    Details,
    /// What Weir decided, as its own log says.
    Decision,
    User,
    Tier,
    ApiKey,
    /// Any other header of the request, in lower case.
    Request(String),
    /// Any header of the response, in lower case.
    Response(String),
}

/// Where a value of a line goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Time,
    Status,
    Slot(usize),
    Nowhere,
}

#[derive(Clone, Debug)]
pub struct Format {
    /// For people: `envoy-text`.
    pub name: String,
    pub slots: Arc<[Slot]>,
    clock: Clock,
    lines: Lines,
}

#[derive(Clone, Debug)]
pub(super) enum Lines {
    Text(Pieces),
    Json(JsonLines),
    Csv(Vec<Place>),
}

/// Slots as they are asked for; each once.
#[derive(Debug, Default)]
pub(super) struct Slots(Vec<Slot>);

/// Where a line's values are written to.
pub struct Writing<'a> {
    pub(super) arena: &'a mut Vec<u8>,
    pub(super) entry: Entry,
    clock: &'a Clock,
    has_time: bool,
}

const ENVOY: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%""#;
const ISTIO: &str = r#"[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%"#;
const NGINX: &str = r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent""#;

/// Formats of text that have a name.
pub(super) const NAMED: [(&str, &str); 3] = [
    ("istio-text", ISTIO),
    ("envoy-text", ENVOY),
    ("nginx-combined", NGINX),
];

impl Format {
    /// By name, or as Envoy's or nginx's configuration has it.
    pub fn try_new(text: &str, map: &[(String, String)]) -> Result<Format> {
        if text == "json" {
            return Format::json(text.to_owned(), map);
        }
        if let Some((name, format)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Format::text(name, format);
        }
        ensure!(
            text.contains(['%', '$']),
            "--format {text:?}: is neither the name of a format (json, {}) nor a format string such as \
             '[%START_TIME%] …'",
            NAMED.map(|(name, _)| name).join(", ")
        );
        Format::text("given", text)
    }

    pub(super) fn text(name: &str, format: &str) -> Result<Format> {
        let mut slots = Slots::default();
        let (pieces, clock) = Pieces::compile(format, &mut slots)?;
        ensure!(
            pieces.has(&Place::Time),
            "the format tells no time, so nothing can be replayed: it needs %START_TIME% or $time_local"
        );
        slots.finish(name.to_owned(), clock, Lines::Text(pieces))
    }

    pub(super) fn json(name: String, map: &[(String, String)]) -> Result<Format> {
        let mut slots = Slots::default();
        let lines = JsonLines::try_new(map, &mut slots)?;
        slots.finish(name, Clock::Seen, Lines::Json(lines))
    }

    /// From the line that names the columns.
    pub(super) fn csv(header: &[String], map: &[(String, String)]) -> Result<Format> {
        let mut slots = Slots::default();
        let mut places = Vec::new();
        for column in header {
            places.push(slots.by_name(column, map)?);
        }
        if !places.contains(&Place::Time) {
            bail!("no column of the CSV is a time; name one: --map time=COLUMN");
        }
        slots.finish("csv".to_owned(), Clock::Seen, Lines::Csv(places))
    }

    /// Whether its first line names columns.
    pub fn has_header(&self) -> bool {
        matches!(self.lines, Lines::Csv(_))
    }

    /// Whether the log tells one of these.
    pub fn tells(&self, slot: &Slot) -> bool {
        self.slots.contains(slot)
    }

    /// Reads a line into an arena; why it cannot be, where it cannot.
    pub(super) fn read(&self, line: &[u8], arena: &mut Vec<u8>) -> Result<Entry, &'static str> {
        let before = arena.len();
        let mut writing = Writing {
            arena,
            entry: Entry::default(),
            clock: &self.clock,
            has_time: false,
        };
        let read = match &self.lines {
            Lines::Text(pieces) => pieces.read(line, &mut writing),
            Lines::Json(lines) => lines.read(line, &mut writing),
            Lines::Csv(places) => csv(line, places, &mut writing),
        };
        let read = read.and(match writing.has_time {
            true => Ok(writing.entry),
            false => Err("has no time"),
        });
        if read.is_err() {
            arena.truncate(before);
        }
        read
    }
}

impl Slots {
    pub fn place(&mut self, slot: Slot) -> Place {
        let known = self.0.iter().position(|own| *own == slot);
        Place::Slot(known.unwrap_or_else(|| {
            self.0.push(slot);
            self.0.len() - 1
        }))
    }

    /// What a member of JSON or a column is, by `--map` or by the names that are common.
    pub fn by_name(&mut self, name: &str, map: &[(String, String)]) -> Result<Place> {
        if let Some((what, _)) = map.iter().find(|(_, mapped)| mapped == name) {
            return self.what(what);
        }
        let lower = name.to_ascii_lowercase();
        let what = COMMON
            .iter()
            .find(|(_, names)| names.contains(&lower.as_str()));
        match what {
            // What is mapped is not guessed besides.
            Some((what, _)) if map.iter().all(|(mapped, _)| mapped != what) => self.what(what),
            _ => Ok(Place::Nowhere),
        }
    }

    /// By the words of `--map`.
    pub fn what(&mut self, what: &str) -> Result<Place> {
        let header = |kind: &str| what.strip_prefix(kind).map(str::to_ascii_lowercase);
        Ok(match what {
            "time" => Place::Time,
            "status" => Place::Status,
            "method" => self.place(Slot::Method),
            "path" => self.place(Slot::Path),
            "request" => self.place(Slot::RequestLine),
            "host" => self.place(Slot::Authority),
            "address" => self.place(Slot::Address),
            "forwarded" => self.place(Slot::Forwarded),
            "details" => self.place(Slot::Details),
            "weir" => self.place(Slot::Decision),
            "user" => self.place(Slot::User),
            "tier" => self.place(Slot::Tier),
            "api_key" => self.place(Slot::ApiKey),
            _ => match (header("header:"), header("response:")) {
                (Some(name), _) => self.place(Slot::Request(name)),
                (_, Some(name)) => self.place(Slot::Response(name)),
                _ => bail!(
                    "--map {what}=…: is not known; map time, method, path, request, host, status, address, \
                     forwarded, user, tier, api_key, details, weir, header:NAME or response:NAME"
                ),
            },
        })
    }

    fn finish(self, name: String, clock: Clock, lines: Lines) -> Result<Format> {
        ensure!(
            self.0.len() <= MOST_SLOTS,
            "the format has {} values that matter; at most {MOST_SLOTS} are kept",
            self.0.len()
        );
        Ok(Format {
            name,
            slots: self.0.into(),
            clock,
            lines,
        })
    }
}

/// Names that logs have for things.
pub(super) const COMMON: [(&str, &[&str]); 13] = [
    (
        "time",
        &[
            "time",
            "start_time",
            "timestamp",
            "@timestamp",
            "ts",
            "time_iso8601",
            "time_local",
            "msec",
        ],
    ),
    (
        "method",
        &["method", "request_method", ":method", "http_method"],
    ),
    (
        "path",
        &[
            "path",
            "x-envoy-origin-path",
            "x-envoy-original-path",
            "uri",
            "request_uri",
            "url",
            ":path",
            "request_path",
        ],
    ),
    ("request", &["request"]),
    ("host", &[":authority", "authority", "host", "http_host"]),
    (
        "status",
        &[
            "status",
            "response_code",
            "code",
            "status_code",
            "http_status",
        ],
    ),
    (
        "address",
        &[
            "client",
            "downstream_remote_address",
            "remote_addr",
            "client_ip",
            "ip",
            "address",
            "remote_ip",
        ],
    ),
    (
        "forwarded",
        &["x-forwarded-for", "x_forwarded_for", "http_x_forwarded_for"],
    ),
    (
        "user",
        &["user", "user_id", "x-user-id", "remote_user", "sub"],
    ),
    ("tier", &["tier", "x-user-tier", "plan"]),
    ("api_key", &["api_key", "x-api-key"]),
    ("details", &["details", "response_code_details"]),
    ("weir", &["weir"]),
];

impl Writing<'_> {
    /// Puts a value where it belongs. `-` is nothing, as Envoy and nginx have it.
    pub fn put(&mut self, place: &Place, value: &[u8]) -> Result<(), &'static str> {
        match place {
            Place::Nowhere => {}
            Place::Time => {
                self.entry.time = self.clock.read(value).ok_or("has a time that is none")?;
                self.has_time = true;
            }
            Place::Status => {
                let text = std::str::from_utf8(value).ok();
                self.entry.status = match text.and_then(|text| text.parse().ok()) {
                    Some(status) => status,
                    None if matches!(value, b"-" | b"") => 0,
                    None => return Err("has a status that is none"),
                };
            }
            Place::Slot(slot) => {
                if value.is_empty() || value == b"-" || self.entry.values[*slot].len > 0 {
                    return Ok(());
                }
                self.entry.values[*slot] = Span {
                    start: self.arena.len() as u32,
                    len: value.len() as u32,
                };
                self.arena.extend_from_slice(value);
            }
        }
        Ok(())
    }
}

fn csv(line: &[u8], places: &[Place], writing: &mut Writing<'_>) -> Result<(), &'static str> {
    let mut columns = places.iter();
    fields(line, |value| match columns.next() {
        Some(place) => writing.put(place, value),
        None => Err("has more columns than the header"),
    })?;
    match columns.next() {
        None => Ok(()),
        Some(_) => Err("has fewer columns than the header"),
    }
}

/// The fields of a line of CSV.
pub(super) fn fields<E>(
    line: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    // Making one costs more than a line.
    thread_local! {
        static READER: RefCell<Reader> = RefCell::new(Reader::new());
    }
    let (mut output, mut ends) = ([0; 8192], [0; 256]);
    let count = READER.with_borrow_mut(|reader| {
        reader.reset();
        let (result, read, written, count) = reader.read_record(line, &mut output, &mut ends);
        match result {
            // The line is over, and with it the record.
            ReadRecordResult::InputEmpty if read == line.len() => {
                let rest = (&mut output[written..], &mut ends[count..]);
                let (_, _, _, more) = reader.read_record(b"\n", rest.0, rest.1);
                count + more
            }
            _ => 0,
        }
    });
    let mut start = 0;
    for end in &ends[..count] {
        each(&output[start..*end])?;
        start = *end;
    }
    Ok(())
}
