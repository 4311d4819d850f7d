//! The script that runs in Redis, and the language it is spoken to in: a batch of operations in, what
//! became of each out. The contract is `lua/README.md`. It knows bytes and integers; not whose
//! limits they are, nor how the bytes travel.

use std::fmt;
use std::fmt::Write as _;

use crate::limit::{Algorithm, Quota};
use crate::program::Program;
use crate::units::{Micros, Millis};
use crate::wire::resp::Command;

/// The production clock. Only tests assemble a script with another, and that has another SHA.
pub const CLOCK: &str = include_str!("../../lua/clock.lua");

/// Each file's body becomes a local function that builds the module, for those after it to call: a
/// batch pays for the algorithms that it uses.
const MODULES: [(&str, &str); 5] = [
    ("fixed_window", include_str!("../../lua/fixed_window.lua")),
    (
        "sliding_window",
        include_str!("../../lua/sliding_window.lua"),
    ),
    ("bucket", include_str!("../../lua/bucket.lua")),
    ("token_bucket", include_str!("../../lua/token_bucket.lua")),
    ("leaky_bucket", include_str!("../../lua/leaky_bucket.lua")),
];

const DECIDE: &str = include_str!("../../lua/decide.lua");

/// The script's source, with this clock.
pub fn assemble(clock: &str) -> String {
    let mut source = String::new();
    for (name, body) in [("clock", clock)].into_iter().chain(MODULES) {
        // Writing to a String cannot fail.
        let _ = write!(source, "local function {name}()\n{body}end\n\n");
    }
    source.push_str(DECIDE);
    source
}

/// A script and the name that Redis knows it by.
#[derive(Clone, Debug)]
pub struct Script {
    source: String,
    sha: String,
}

impl Script {
    pub fn new(source: String) -> Script {
        let sha = sha1_smol::Sha1::from(&source).digest().to_string();
        Script { source, sha }
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
    pub fn write_call(&self, out: &mut Vec<u8>, by: By, program: &Program<'_>) {
        let (command, script) = match by {
            By::Sha => ("EVALSHA", &self.sha),
            By::Source => ("EVAL", &self.source),
        };
        // Beside the program: command, script and number of keys, each with its length.
        out.reserve(program.size() + script.len() + 64);
        let command = Command::new(out, 3 + program.arguments())
            .arg(command.as_bytes())
            .arg(script.as_bytes());
        program.write(command);
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

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Consumes from every limit if every limit passes, else from none.
    Take,
    /// Tells what a take would be told before it consumed.
    Peek,
    /// Consumes whatever the limits say; may leave a debt.
    Charge,
    /// Takes as many as are free, up to the cost, to be used within this time.
    Lease { ttl: Millis },
    /// Undoes a take, charge or lease where what it counted in is still alive.
    GiveBack {
        /// `Answer::now` of the call that took.
        receipt: Micros,
    },
    /// Forgets all usage.
    Reset,
}

impl Kind {
    /// What the script knows it by, and the number that goes with it.
    pub fn code(self) -> (u32, Option<u64>) {
        match self {
            Kind::Take => (1, None),
            Kind::Peek => (2, None),
            Kind::Charge => (3, None),
            Kind::GiveBack { receipt } => (4, Some(receipt.0)),
            Kind::Reset => (5, None),
            Kind::Lease { ttl } => (6, Some(ttl.0)),
        }
    }
}

/// How a quota is told: its algorithm's number, then limit, window and capacity.
pub type PackedQuota = [u8; 1 + 3 * 8];

pub fn pack_quota(quota: &Quota) -> PackedQuota {
    let mut packed = [0; _];
    let algorithm = match quota.algorithm() {
        Algorithm::FixedWindow => 1,
        Algorithm::SlidingWindow => 2,
        Algorithm::TokenBucket => 3,
        Algorithm::LeakyBucket => 4,
    };
    let numbers = [quota.limit(), quota.window().0, quota.capacity()];
    let bytes = numbers.into_iter().flat_map(u64::to_be_bytes);
    for (place, byte) in packed.iter_mut().zip([algorithm].into_iter().chain(bytes)) {
        *place = byte;
    }
    packed
}

/// What one call told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Redis's time of the call, and the receipt of whatever it took.
    pub now: Micros,
    /// One for each operation, in order.
    pub told: Vec<Told>,
}

/// What became of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub verdict: Verdict,
    /// One for each limit, in order.
    pub limits: Vec<Reading>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    Passed,
    Refused,
    /// A key holds something that is not Weir's; nothing was done. Readings are zero, but
    /// `remaining` is −1 where the key was at fault.
    Unreadable,
}

/// A limit after the operation; before it, if that was refused or a peek.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reading {
    /// Capacity − used, in whole permits; negative for a debt.
    pub remaining: i64,
    /// When this limit alone would let its cost pass.
    pub retry: Retry,
    /// Until nothing of the limit is used any more.
    pub reset: Millis,
}

impl Reading {
    /// What a lease told: how many permits it took stands where other operations tell the wait.
    pub fn leased(remaining: i64, granted: u64, reset: Millis) -> Reading {
        let retry = match granted {
            0 => Retry::Now,
            granted => Retry::After(Millis(granted)),
        };
        Reading {
            remaining,
            retry,
            reset,
        }
    }

    /// How many permits a lease took.
    pub fn granted(&self) -> u64 {
        match self.retry {
            Retry::After(Millis(granted)) => granted,
            Retry::Now | Retry::Never => 0,
        }
    }
}

/// In order of the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Retry {
    Now,
    After(Millis),
    /// The cost exceeds what the limit can ever hold.
    Never,
}

/// Why integers are not an answer to the operations they came for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerError {
    /// It ended within the operation of this index, or before it.
    TooShort { operation: usize },
    /// It went on after the last operation.
    TooLong,
    /// A value that its place does not allow; `field` as in the contract.
    OutOfRange { field: &'static str, value: i64 },
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::TooShort { operation } => {
                write!(f, "the script's answer ends in operation {operation}")
            }
            AnswerError::TooLong => {
                write!(f, "the script's answer goes on after the last operation")
            }
            AnswerError::OutOfRange { field, value } => {
                write!(f, "{value} is no {field}: is this Weir's script?")
            }
        }
    }
}

impl std::error::Error for AnswerError {}

/// The integers of a reply: doubles, for Lua has no other numbers, their last byte first. None if
/// there is something else.
pub fn integers(reply: &[u8]) -> Option<Vec<i64>> {
    let (doubles, []) = reply.as_chunks() else {
        return None;
    };
    let mut integers = Vec::with_capacity(doubles.len());
    for double in doubles {
        let double = f64::from_le_bytes(*double);
        let integer = double as i64;
        // Beyond 2^53 a double stands for more than one integer.
        if integer as f64 != double || integer.unsigned_abs() > 1 << 53 {
            return None;
        }
        integers.push(integer);
    }
    Some(integers)
}

/// Reads the reply to operations with so many limits each.
pub fn decode(
    limits: impl IntoIterator<Item = usize>,
    reply: impl IntoIterator<Item = i64>,
) -> Result<Answer, AnswerError> {
    let mut reply = reply.into_iter();
    let mut next = |operation| reply.next().ok_or(AnswerError::TooShort { operation });

    let now = Micros(natural("now", next(0)?)?);
    let mut told = Vec::new();
    for (operation, limits) in limits.into_iter().enumerate() {
        let verdict = match next(operation)? {
            1 => Verdict::Passed,
            0 => Verdict::Refused,
            -1 => Verdict::Unreadable,
            value => return Err(out_of_range("verdict", value)),
        };
        let mut readings = Vec::with_capacity(limits);
        for _ in 0..limits {
            readings.push(Reading {
                remaining: next(operation)?,
                retry: match next(operation)? {
                    -1 => Retry::Never,
                    0 => Retry::Now,
                    wait => Retry::After(Millis(natural("retry", wait)?)),
                },
                reset: Millis(natural("reset", next(operation)?)?),
            });
        }
        told.push(Told {
            verdict,
            limits: readings,
        });
    }
    match reply.next() {
        None => Ok(Answer { now, told }),
        Some(_) => Err(AnswerError::TooLong),
    }
}

fn natural(field: &'static str, value: i64) -> Result<u64, AnswerError> {
    u64::try_from(value).map_err(|_| out_of_range(field, value))
}

fn out_of_range(field: &'static str, value: i64) -> AnswerError {
    AnswerError::OutOfRange { field, value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::question::{Check, Question, Terms};
    use crate::units::Cost;

    #[test]
    fn a_call_is_one_resp_command() {
        let script = Script::new("return 1".into());
        let key = |key: &[u8], permits: u64| Check {
            key: key.to_vec(),
            terms: Terms::new(Quota::try_new(Algorithm::FixedWindow, 5, 1, None).unwrap()),
            cost: Cost(permits.try_into().unwrap()),
        };
        let mut question = Question::default();
        question.ask(Kind::Take, [key(b"a\r\n\xff", 1), key(b"b", 1)]);
        question.ask(Kind::GiveBack { receipt: Micros(7) }, [key(b"b", 3)]);

        let call = |by| {
            let mut program = Program::default();
            question.encode(&mut program);
            let mut out = Vec::new();
            script.write_call(&mut out, by, &program);
            out
        };
        let quota = br"\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x03\xe8\x00\x00\x00\x00\x00\x00\x00\x05";
        assert_eq!(
            call(By::Source).escape_ascii().to_string(),
            [
                r"*9\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n2\r\n",
                r"$4\r\na\r\n\xff\r\n$1\r\nb\r\n",
                &format!(r"$25\r\n{}\r\n", String::from_utf8_lossy(quota)),
                r"$11\r\n\x01\x01\x02\x01\x01\x02\x01h\x01\x02\x01\r\n",
                r"$1\r\n7\r\n$1\r\n3\r\n",
            ]
            .concat()
        );
        assert!(call(By::Sha).starts_with(
            b"*9\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n"
        ));
    }

    #[test]
    fn a_reply_is_whole_doubles_and_nothing_else() {
        let bytes = |doubles: &[f64]| -> Vec<u8> {
            doubles
                .iter()
                .flat_map(|double| double.to_le_bytes())
                .collect()
        };
        let most = 9_007_199_254_740_991.0;
        assert_eq!(
            integers(&bytes(&[1.0, -0.0, -3.0, most])),
            Some(vec![1, 0, -3, (1 << 53) - 1])
        );
        assert_eq!(integers(b""), Some(Vec::new()));
        for strange in [0.5, f64::NAN, f64::INFINITY, 1e16] {
            assert_eq!(integers(&bytes(&[1.0, strange])), None, "{strange}");
        }
        assert_eq!(integers(b"1234567"), None);
    }

    #[test]
    fn an_answer_is_read_to_its_last_integer() {
        let answer = decode([2, 1], [9, 0, 0, 30, 40, -2, -1, 50, 1, 3, 0, 0]).unwrap();
        let reading = |remaining, retry, reset| Reading {
            remaining,
            retry,
            reset: Millis(reset),
        };
        assert_eq!(answer.now, Micros(9));
        assert_eq!(
            answer.told,
            [
                Told {
                    verdict: Verdict::Refused,
                    limits: vec![
                        reading(0, Retry::After(Millis(30)), 40),
                        reading(-2, Retry::Never, 50)
                    ],
                },
                Told {
                    verdict: Verdict::Passed,
                    limits: vec![reading(3, Retry::Now, 0)],
                },
            ]
        );
    }

    #[test]
    fn what_is_not_an_answer_is_refused() {
        let whole = [9, 1, 3, 0, 0, -1, 0, 0, 0];
        for length in 0..whole.len() {
            assert!(
                matches!(
                    decode([1, 1], whole[..length].iter().copied()),
                    Err(AnswerError::TooShort { .. })
                ),
                "{length} integers"
            );
        }
        assert_eq!(decode([1], whole), Err(AnswerError::TooLong));
        for (at, value, field) in [
            (0, -1, "now"),
            (1, 2, "verdict"),
            (1, -2, "verdict"),
            (3, -2, "retry"),
            (4, -1, "reset"),
            (8, i64::MIN, "reset"),
        ] {
            let mut reply = whole;
            reply[at] = value;
            assert_eq!(
                decode([1, 1], reply),
                Err(AnswerError::OutOfRange { field, value })
            );
        }
    }
}
