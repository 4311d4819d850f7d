//! The language of a suite: what its fields are, and where in the file a mistake is.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use weir_core::decide::decision::Outcome;

use super::{Case, START, Step, Suite, Want, Wanted, Who};
use crate::document::Message;
use crate::document::tree::{Member, Node, Value};
use crate::document::yaml;
use crate::request_line::RequestLine;

/// As many requests as one step may send: a suite is to take a second.
const MOST_TIMES: u64 = 1_000_000;

/// A node with the path that messages call it by.
#[derive(Clone)]
struct Here<'a> {
    text: &'a str,
    path: String,
    node: &'a Node,
}

type Read<T> = Result<T, Box<Message>>;

impl Suite {
    pub fn read(text: &str) -> Read<Suite> {
        let documents = yaml::parse(text).map_err(|error| Message::unreadable(error, text))?;
        let [root] = documents.as_slice() else {
            let end = text.len();
            let message =
                "has to be one document of YAML, with \"policy\" and \"cases\"".to_owned();
            return Err(Message::error("suite".to_owned(), message, end..end, text).into());
        };
        let root = Here {
            text,
            path: "suite".to_owned(),
            node: root,
        };
        let [policy, cases] = root.fields(["policy", "cases"])?;
        let policy = root.needed(policy, "policy")?.text()?;
        let cases = root.needed(cases, "cases")?.list()?;
        Ok(Suite {
            policy,
            cases: cases.iter().map(case).collect::<Read<_>>()?,
        })
    }
}

fn case(at: &Here<'_>) -> Read<Case> {
    let [name, start, caller, steps] = at.fields(["name", "start", "caller", "steps"])?;
    let caller = caller.map_or_else(|| Ok(Who::default()), |at| who(&at))?;
    let start = match start {
        None => START,
        Some(at) => {
            let written = at.text()?;
            let time: Option<Timestamp> = written.parse().ok();
            let micros = time.and_then(|time| u64::try_from(time.as_microsecond()).ok());
            let wrong = "is no time; write one such as 2026-12-24T18:00:00Z";
            micros.ok_or_else(|| at.error(wrong.to_owned()))?
        }
    };
    let steps = at.needed(steps, "steps")?.list()?;
    Ok(Case {
        name: at.needed(name, "name")?.text()?,
        start,
        steps: steps
            .iter()
            .map(|at| step(at, &caller))
            .collect::<Read<_>>()?,
    })
}

fn step(at: &Here<'_>, usual: &Who) -> Read<Step> {
    let names = [
        "after",
        "request",
        "times",
        "caller",
        "response",
        "want",
        "rule",
        "would_deny",
        "retry_after",
    ];
    let [
        after,
        request,
        times,
        caller,
        response,
        want,
        rule,
        would_deny,
        retry_after,
    ] = at.fields(names)?;
    let asks = request.is_some();
    let request = match request {
        None => None,
        Some(at) => {
            let line = RequestLine::read(&at.text()?);
            Some(line.map_err(|error| at.error(error.to_string()))?)
        }
    };
    if !asks && (want.is_some() || rule.is_some() || times.is_some() || after.is_none()) {
        return Err(at.error("has no \"request\" of which anything could be wanted".to_owned()));
    }
    let times = match times {
        None => 1,
        Some(at) => {
            let times = at.text()?.parse().ok();
            let times = times.filter(|times| (1..=MOST_TIMES).contains(times));
            let wrong = format!("is no number of requests; expected 1 to {MOST_TIMES}");
            times.ok_or_else(|| at.error(wrong))?
        }
    };
    let text = |at: Option<Here<'_>>| at.map(|at| at.text()).transpose();
    let line = at.text[..at.node.span.start].matches('\n').count() + 1;
    Ok(Step {
        line,
        after: after.map_or(Ok(0), |at| span(&at))?,
        request,
        times,
        caller: caller.map_or_else(|| Ok(usual.clone()), |at| who(&at))?,
        response: response.map_or_else(|| Ok(Vec::new()), |at| headers(&at))?,
        want: Want {
            outcome: want.map(|at| wanted(&at)).transpose()?,
            rule: text(rule)?,
            would_deny: text(would_deny)?,
            retry_after: retry_after.map(|at| range(&at)).transpose()?,
        },
    })
}

fn who(at: &Here<'_>) -> Read<Who> {
    let [ip, user, tier, api_key, others] =
        at.fields(["ip", "user", "tier", "api_key", "headers"])?;
    let text = |at: Option<Here<'_>>| at.map(|at| at.text()).transpose();
    Ok(Who {
        ip: match ip {
            None => String::new(),
            Some(at) => {
                let ip = at.text()?;
                let is_ip = ip.parse::<std::net::IpAddr>().is_ok();
                let wrong = "is no address; write one such as 192.0.2.7";
                is_ip
                    .then_some(ip)
                    .ok_or_else(|| at.error(wrong.to_owned()))?
            }
        },
        user: text(user)?,
        tier: text(tier)?,
        api_key: text(api_key)?,
        headers: others.map_or_else(|| Ok(Vec::new()), |at| headers(&at))?,
    })
}

fn headers(at: &Here<'_>) -> Read<Vec<(String, String)>> {
    let members = at.members()?.iter();
    let header = |member: &Member| {
        let value = at.member(member).text()?;
        Ok((member.name.to_ascii_lowercase(), value))
    };
    members.map(header).collect()
}

fn wanted(at: &Here<'_>) -> Read<Wanted> {
    let text = at.text()?;
    if text == "allowed" {
        return Ok(Wanted::Allowed);
    }
    if text == "bad" {
        return Ok(Wanted::Bad);
    }
    let outcome = Outcome::ALL.into_iter().find(|one| one.name() == text);
    outcome.map(Wanted::Exactly).ok_or_else(|| {
        at.error(format!(
            "{text:?} is no outcome; expected allowed, denied, delayed, exempt, blocked, unmatched or bad"
        ))
    })
}

/// `300s`, `1.5h`; µs.
fn span(at: &Here<'_>) -> Read<u64> {
    let text = at.text()?;
    let end = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let micros = match unit {
        "ms" => Some(1e3),
        "s" => Some(1e6),
        "m" | "min" => Some(60e6),
        "h" => Some(3600e6),
        "d" => Some(86_400e6),
        _ => None,
    };
    let number = number.trim().parse::<f64>().ok();
    let span = number.zip(micros).map(|(number, unit)| number * unit);
    let span = span.filter(|span| (0.0..=3.2e14).contains(span));
    let wrong = || {
        at.error(format!(
            "{text:?} is no span of time; write one such as 300s, 5m or 2h"
        ))
    };
    span.map(|span| span.round() as u64).ok_or_else(wrong)
}

/// `60..300`, or one number; seconds.
fn range(at: &Here<'_>) -> Read<RangeInclusive<u64>> {
    let text = at.text()?;
    let (low, high) = text.split_once("..").unwrap_or((&text, &text));
    match (low.trim().parse(), high.trim().parse()) {
        (Ok(low), Ok(high)) if low <= high => Ok(low..=high),
        _ => Err(at.error(format!(
            "{text:?} is no range of seconds; write one such as 60..300"
        ))),
    }
}

impl<'a> Here<'a> {
    fn error(&self, message: String) -> Box<Message> {
        let span = self.node.span.clone();
        Message::error(self.path.clone(), message, span, self.text).into()
    }

    fn at(&self, path: String, node: &'a Node) -> Here<'a> {
        Here {
            text: self.text,
            path,
            node,
        }
    }

    fn member(&self, member: &'a Member) -> Here<'a> {
        self.at(format!("{}.{}", self.path, member.name), &member.node)
    }

    fn members(&self) -> Read<&'a [Member]> {
        match &self.node.value {
            Value::Object(members) => Ok(members),
            _ => Err(self.error("has to be fields with their values".to_owned())),
        }
    }

    /// Those fields, of which each may be missing and no other be there.
    fn fields<const N: usize>(&self, names: [&str; N]) -> Read<[Option<Here<'a>>; N]> {
        let mut found: [Option<Here<'a>>; N] = std::array::from_fn(|_| None);
        for member in self.members()? {
            let at = self.member(member);
            match names.iter().position(|name| *name == member.name) {
                None => {
                    let known = names.join(", ");
                    return Err(at.error(format!("is not a field; the fields are {known}")));
                }
                Some(place) if found[place].is_some() => {
                    return Err(at.error("is there twice".to_owned()));
                }
                Some(place) => found[place] = Some(at),
            }
        }
        Ok(found)
    }

    fn needed(&self, field: Option<Here<'a>>, name: &str) -> Read<Here<'a>> {
        field.ok_or_else(|| self.error(format!("lacks \"{name}\"")))
    }

    fn list(&self) -> Read<Vec<Here<'a>>> {
        let Value::List(list) = &self.node.value else {
            return Err(self.error("has to be a list".to_owned()));
        };
        let nodes = list.iter().enumerate();
        Ok(nodes
            .map(|(place, node)| self.at(format!("{}[{place}]", self.path), node))
            .collect())
    }

    /// A scalar as text: an id may look like a number.
    fn text(&self) -> Read<String> {
        match &self.node.value {
            Value::Text(text) => Ok(text.clone()),
            Value::Number(number) => Ok(number.to_string()),
            Value::Bool(value) => Ok(value.to_string()),
            Value::Null | Value::List(_) | Value::Object(_) => {
                Err(self.error("has to be a text".to_owned()))
            }
        }
    }
}
