//! The script that runs in Redis, and the language it is spoken to in: a batch of operations in, what
//! became of each out. The contract is `lua/README.md`. It knows bytes and integers; not whose
//! limits they are, nor how the bytes travel.

use std::fmt::Write as _;

use crate::codec::resp::Command;
use crate::quota::operation::Holder;
use crate::store::encode::Encoder;

/// The production clock. Only tests assemble a script with another, and that has another SHA.
pub const CLOCK: &str = include_str!("../../../lua/clock.lua");

/// The name of a local function, its parameters, and its body: a file.
type Module = (&'static str, &'static str, &'static str);

/// In order, for those that follow to call: a batch pays for what it uses.
const MODULES: [Module; 10] = [
    ("ask", "...", include_str!("../../../lua/ask.lua")),
    (
        "end_of",
        "t, window, calendar",
        include_str!("../../../lua/end_of.lua"),
    ),
    (
        "fixed_window",
        "",
        include_str!("../../../lua/fixed_window.lua"),
    ),
    (
        "sliding_window",
        "",
        include_str!("../../../lua/sliding_window.lua"),
    ),
    ("bucket", "", include_str!("../../../lua/bucket.lua")),
    (
        "concurrency",
        "now",
        include_str!("../../../lua/concurrency.lua"),
    ),
    (
        "integers",
        "text, MOST_VALUES",
        include_str!("../../../lua/integers.lua"),
    ),
    (
        "missing",
        "algorithm, key",
        include_str!("../../../lua/missing.lua"),
    ),
    ("together", GIVEN, include_str!("../../../lua/together.lua")),
    (
        "one_by_one",
        GIVEN_AGAIN,
        include_str!("../../../lua/one_by_one.lua"),
    ),
];

/// What both ways to decide are given.
const GIVEN: &str = "now, quotas, held, MOST_VALUES";
const GIVEN_AGAIN: &str = "now, quotas, held, MOST_VALUES, faults";

const DECIDE: &str = include_str!("../../../lua/decide.lua");

/// The script's source, with this clock.
pub fn assemble(clock: &str) -> String {
    let mut source = String::new();
    for (name, given, body) in [("clock", "", clock)].into_iter().chain(MODULES) {
        // Writing to a String cannot fail.
        let _ = write!(source, "local function {name}({given})\n{body}end\n\n");
    }
    source.push_str(DECIDE);
    source
}

/// A script and the name that Redis knows it by.
#[derive(Clone, Debug)]
pub struct Script {
    source: String,
    sha: String,
    holder: Holder,
}

impl Script {
    pub fn new(source: String) -> Script {
        let sha = sha1_smol::Sha1::from(&source).digest().to_string();
        let holder = Holder::default();
        Script {
            source,
            sha,
            holder,
        }
    }

    /// This one asks from here on.
    pub fn ask_as(&mut self, holder: Holder) {
        self.holder = holder;
    }

    pub fn production() -> Script {
        Script::new(assemble(CLOCK))
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// 40 lower-case hexadecimal digits.
    pub fn sha(&self) -> &str {
        &self.sha
    }

    /// Appends the RESP command that runs a program.
    pub fn write_call(&self, out: &mut Vec<u8>, by: By, encoder: &Encoder<'_>) {
        let (command, script) = match by {
            By::Sha => ("EVALSHA", &self.sha),
            By::Source => ("EVAL", &self.source),
        };
        // Beside the program: command, script and number of keys, each with its length.
        out.reserve(encoder.size() + script.len() + 64);
        let command = Command::new(out, 3 + encoder.arguments())
            .arg(command.as_bytes())
            .arg(script.as_bytes());
        encoder.write(command, self.holder);
    }
}

/// How a call names its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// EVALSHA: 40 bytes; NOSCRIPT where Redis does not know it.
    Sha,
    /// EVAL: the whole source, once, after a NOSCRIPT.
    Source,
}

#[cfg(test)]
mod tests;
