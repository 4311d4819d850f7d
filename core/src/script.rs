//! The script that runs in Redis, and the language it is spoken to in: a batch of operations in, what
//! became of each out. The contract is `lua/README.md`. It knows bytes and integers; not whose
//! limits they are, nor how the bytes travel.

use std::fmt;
use std::fmt::Write as _;

use crate::limit::{Algorithm, Quota};
use crate::program::Program;
use crate::units::{Cost, Micros, Millis};
use crate::wire::resp::Command;

/// The production clock. Only tests assemble a script with another, and that has another SHA.
pub const CLOCK: &str = include_str!("../../lua/clock.lua");

/// The name of a local function, its parameters, and its body: a file.
type Module = (&'static str, &'static str, &'static str);

/// In order, for those that follow to call: a batch pays for what it uses.
const MODULES: [Module; 10] = [
    ("ask", "...", include_str!("../../lua/ask.lua")),
    (
        "fixed_window",
        "",
        include_str!("../../lua/fixed_window.lua"),
    ),
    (
        "sliding_window",
        "",
        include_str!("../../lua/sliding_window.lua"),
    ),
    ("bucket", "", include_str!("../../lua/bucket.lua")),
    (
        "token_bucket",
        "",
        include_str!("../../lua/token_bucket.lua"),
    ),
    (
        "leaky_bucket",
        "",
        include_str!("../../lua/leaky_bucket.lua"),
    ),
    (
        "integers",
        "text, MOST_VALUES",
        include_str!("../../lua/integers.lua"),
    ),
    (
        "missing",
        "algorithm, key",
        include_str!("../../lua/missing.lua"),
    ),
    ("together", GIVEN, include_str!("../../lua/together.lua")),
    (
        "one_by_one",
        GIVEN_AGAIN,
        include_str!("../../lua/one_by_one.lua"),
    ),
];

/// What both ways to decide are given.
const GIVEN: &str = "now, quotas, held, MOST_VALUES";
const GIVEN_AGAIN: &str = "now, quotas, held, MOST_VALUES, faults";

const DECIDE: &str = include_str!("../../lua/decide.lua");

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
    /// Takes as many as are free, up to the cost, to be used within this time: a day at most.
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
    /// The longest lease that the script grants.
    pub const LONGEST_LEASE: Millis = Millis(24 * 60 * 60 * 1000);

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

/// What a reply is read by: how many limits each operation has, and of each limit the place of its key
/// in the call, and its cost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    operations: Vec<usize>,
    limits: Vec<(usize, Cost)>,
}

/// Stands where a reply begins that tells of keys, not of operations.
const TOGETHER: i64 = 2;

/// What one call told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Redis's time of the call, and the receipt of whatever it took.
    pub now: Micros,
    /// Whether it told of keys, as the last operation left them, and not of operations: resets are of
    /// then.
    pub together: bool,
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
    /// The operation or one of its keys is at fault: it holds something that is not Weir's, or numbers
    /// are out of range. Nothing was done. Readings are zero, but `remaining` is −1 where the key
    /// could not be read.
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
    /// What stands where the time must is none.
    Now(i64),
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
            AnswerError::Now(value) => {
                write!(f, "{value} is no time: is this Weir's script?")
            }
        }
    }
}

impl std::error::Error for AnswerError {}

/// Beyond this a double stands for more than one integer.
const MOST: u64 = 1 << 53;

/// Stands for a double that is no integer, or that stands for more than one.
const NO_INTEGER: i64 = i64::MIN;

/// The integers of a reply: doubles, for Lua has no other numbers, their last byte first. What is no
/// integer spoils the operation that it is told of, once it is decoded. None if it is no doubles.
pub fn integers(reply: &[u8]) -> Option<Vec<i64>> {
    let (doubles, []) = reply.as_chunks() else {
        return None;
    };
    let mut integers = Vec::with_capacity(doubles.len());
    for double in doubles {
        let double = f64::from_le_bytes(*double);
        let integer = double as i64;
        let exact = integer as f64 == double && integer.unsigned_abs() <= MOST;
        integers.push(if exact { integer } else { NO_INTEGER });
    }
    Some(integers)
}

impl Shape {
    /// With room for so many limits.
    pub fn with_room(limits: usize) -> Shape {
        Shape {
            operations: Vec::new(),
            limits: Vec::with_capacity(limits),
        }
    }

    /// One more limit, of the operation that will be told next.
    pub fn limit(&mut self, key: usize, cost: Cost) {
        self.limits.push((key, cost));
    }

    /// An operation has that many limits, the last ones.
    pub fn operation(&mut self, limits: usize) {
        self.operations.push(limits);
    }

    /// How many keys there are.
    fn keys(&self) -> usize {
        let last = self.limits.iter().map(|(key, _)| *key).max();
        last.map_or(0, |last| last + 1)
    }

    /// Each operation's limits.
    fn operations(&self) -> impl Iterator<Item = &[(usize, Cost)]> {
        let mut rest = self.limits.as_slice();
        self.operations.iter().map(move |limits| {
            let (own, others) = rest.split_at_checked(*limits).unwrap_or((rest, &[]));
            rest = others;
            own
        })
    }
}

/// Reads the reply to operations of this shape. A number that is out of range spoils its operation;
/// only where all begins, and where one operation ends, must be certain.
pub fn decode(shape: &Shape, reply: impl IntoIterator<Item = i64>) -> Result<Answer, AnswerError> {
    let mut reply = reply.into_iter().peekable();
    let now = reply.next().ok_or(AnswerError::TooShort { operation: 0 })?;
    let now = natural(now).map(Micros).ok_or(AnswerError::Now(now))?;
    let together = reply.next_if_eq(&TOGETHER).is_some();
    let told = match together {
        true => decode_together(shape, &mut reply)?,
        false => decode_each(shape, &mut reply)?,
    };
    match reply.next() {
        None => Ok(Answer {
            now,
            together,
            told,
        }),
        Some(_) => Err(AnswerError::TooLong),
    }
}

/// Each operation was told of.
fn decode_each(
    shape: &Shape,
    reply: &mut impl Iterator<Item = i64>,
) -> Result<Vec<Told>, AnswerError> {
    let mut told = Vec::with_capacity(shape.operations.len());
    for (operation, limits) in shape.operations.iter().enumerate() {
        let mut next = || reply.next().ok_or(AnswerError::TooShort { operation });
        let verdict = match next()? {
            1 => Some(Verdict::Passed),
            0 => Some(Verdict::Refused),
            -1 => Some(Verdict::Unreadable),
            _ => None,
        };
        let mut readings = Vec::with_capacity(*limits);
        let mut sound = true;
        for _ in 0..*limits {
            let reading = reading(next()?, next()?, next()?);
            sound &= reading.is_some();
            readings.push(reading.unwrap_or(NOTHING));
        }
        told.push(match verdict.filter(|_| sound) {
            Some(verdict) => Told {
                verdict,
                limits: readings,
            },
            None => Told::unreadable(*limits),
        });
    }
    Ok(told)
}

/// All passed, and each key was told of as the last of them left it. Those before found more: what the
/// later ones took.
fn decode_together(
    shape: &Shape,
    reply: &mut impl Iterator<Item = i64>,
) -> Result<Vec<Told>, AnswerError> {
    let mut next = || reply.next().ok_or(AnswerError::TooShort { operation: 0 });
    let mut keys = Vec::with_capacity(shape.limits.len());
    for _ in 0..shape.keys() {
        keys.push(reading(next()?, 0, next()?));
    }
    let mut take = |key: usize, cost: i64| {
        let reading = keys.get_mut(key)?.as_mut()?;
        reading.remaining = reading.remaining.saturating_sub(cost);
        Some(*reading)
    };
    for (key, cost) in &shape.limits {
        take(*key, -signed(*cost));
    }
    let told = shape.operations().map(|limits| {
        // Of all, though one cannot be told: what they took is to be seen by those that follow.
        let mut readings = Vec::with_capacity(limits.len());
        readings.extend(
            limits
                .iter()
                .filter_map(|(key, cost)| take(*key, signed(*cost))),
        );
        if readings.len() < limits.len() {
            return Told::unreadable(limits.len());
        }
        Told {
            verdict: Verdict::Passed,
            limits: readings,
        }
    });
    Ok(told.collect())
}

fn signed(cost: Cost) -> i64 {
    i64::try_from(cost.get()).unwrap_or(i64::MAX)
}

/// What is told where nothing can be.
const NOTHING: Reading = Reading {
    remaining: 0,
    retry: Retry::Now,
    reset: Millis(0),
};

impl Told {
    fn unreadable(limits: usize) -> Told {
        Told {
            verdict: Verdict::Unreadable,
            limits: vec![NOTHING; limits],
        }
    }
}

/// Nothing if a number is out of range.
fn reading(remaining: i64, retry: i64, reset: i64) -> Option<Reading> {
    Some(Reading {
        remaining: (remaining.unsigned_abs() <= MOST).then_some(remaining)?,
        retry: match retry {
            -1 => Retry::Never,
            0 => Retry::Now,
            wait => Retry::After(Millis(natural(wait)?)),
        },
        reset: Millis(natural(reset)?),
    })
}

fn natural(value: i64) -> Option<u64> {
    u64::try_from(value).ok().filter(|value| *value <= MOST)
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
            let mut program = Program::with_room(0);
            question.encode(&mut program);
            let mut out = Vec::new();
            script.write_call(&mut out, by, &program);
            out
        };
        let quota = br"\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x03\xe8\x00\x00\x00\x00\x00\x00\x00\x05";
        assert_eq!(
            call(By::Source).escape_ascii().to_string(),
            [
                r"*10\r\n$4\r\nEVAL\r\n$8\r\nreturn 1\r\n$1\r\n2\r\n",
                r"$4\r\na\r\n\xff\r\n$1\r\nb\r\n",
                &format!(r"$25\r\n{}\r\n", String::from_utf8_lossy(quota)),
                r"$11\r\n\x01\x01\x02\x01\x01\x02\x01h\x01\x02\x01\r\n$0\r\n\r\n",
                r"$1\r\n7\r\n$1\r\n3\r\n",
            ]
            .concat()
        );
        assert!(call(By::Sha).starts_with(
            b"*10\r\n$7\r\nEVALSHA\r\n$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n"
        ));
    }

    #[test]
    fn a_reply_is_doubles_and_what_is_no_integer_is_marked() {
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
            let told = integers(&bytes(&[1.0, strange, 2.0]));
            assert_eq!(told, Some(vec![1, NO_INTEGER, 2]), "{strange}");
        }
        assert_eq!(integers(b"1234567"), None);
    }

    /// Operations of limits, each with its key's place and its cost.
    fn shape(operations: &[&[(usize, u64)]]) -> Shape {
        let mut shape = Shape::default();
        for limits in operations {
            for (key, cost) in *limits {
                shape.limit(*key, Cost::try_new(*cost).unwrap());
            }
            shape.operation(limits.len());
        }
        shape
    }

    #[test]
    fn an_answer_is_read_to_its_last_integer() {
        let answer = decode(
            &shape(&[&[(0, 1), (1, 1)], &[(0, 1)]]),
            [9, 0, 0, 30, 40, -2, -1, 50, 1, 3, 0, 0],
        )
        .unwrap();
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
    fn what_was_decided_together_is_told_one_by_one() {
        let asked = shape(&[&[(0, 1), (1, 3)], &[(1, 2)], &[(0, 1), (2, 1)]]);
        let whole = [9, 2, 10, 40, 100, 50, 7, 60];
        let answer = decode(&asked, whole).unwrap();
        let passed = |limits: &[(i64, u64)]| Told {
            verdict: Verdict::Passed,
            limits: limits
                .iter()
                .map(|(remaining, reset)| Reading {
                    remaining: *remaining,
                    retry: Retry::Now,
                    reset: Millis(*reset),
                })
                .collect(),
        };
        let told = [
            passed(&[(11, 40), (102, 50)]),
            passed(&[(100, 50)]),
            passed(&[(10, 40), (7, 60)]),
        ];
        assert_eq!((answer.now, answer.told.as_slice()), (Micros(9), &told[..]));
        for length in 2..whole.len() {
            let short = decode(&asked, whole[..length].iter().copied());
            assert_eq!(
                short,
                Err(AnswerError::TooShort { operation: 0 }),
                "{length}"
            );
        }
        let long = whole.into_iter().chain([0]);
        assert_eq!(decode(&asked, long), Err(AnswerError::TooLong));
    }

    #[test]
    fn what_is_not_an_answer_is_refused() {
        let two = shape(&[&[(0, 1)], &[(0, 1)]]);
        let whole = [9, 1, 3, 0, 0, -1, 0, 0, 0];
        for length in 0..whole.len() {
            assert!(
                matches!(
                    decode(&two, whole[..length].iter().copied()),
                    Err(AnswerError::TooShort { .. })
                ),
                "{length} integers"
            );
        }
        let one = shape(&[&[(0, 1)]]);
        assert_eq!(decode(&one, whole), Err(AnswerError::TooLong));
        for strange in [-1, NO_INTEGER] {
            let mut reply = whole;
            reply[0] = strange;
            assert_eq!(decode(&two, reply), Err(AnswerError::Now(strange)));
        }
    }

    #[test]
    fn a_number_out_of_range_spoils_its_operation_and_no_other() {
        let asked = shape(&[&[(0, 1)], &[(1, 1), (2, 1)], &[(0, 1)]]);
        let whole = [9, 1, 3, 0, 0, 1, 5, 0, 7, 0, 70, 80, 1, 2, 0, 0];
        let sound = decode(&asked, whole).unwrap().told;
        let spoiled = [sound[0].clone(), Told::unreadable(2), sound[2].clone()];
        for (at, value) in [
            (5, 3),
            (5, NO_INTEGER),
            (6, NO_INTEGER),
            (6, (1 << 53) + 1),
            (7, -2),
            (8, -1),
            (10, NO_INTEGER),
            (11, i64::MAX),
        ] {
            let mut reply = whole;
            reply[at] = value;
            assert_eq!(
                decode(&asked, reply).unwrap().told,
                spoiled,
                "{at}: {value}"
            );
        }
        // Of a key that takes were decided of together it spoils those that name it.
        let asked = shape(&[&[(0, 1)], &[(0, 1), (1, 1)], &[(1, 2)]]);
        for (at, spoiled) in [(2, [0, 1]), (3, [0, 1]), (4, [1, 2]), (5, [1, 2])] {
            let mut reply = [9, 2, 10, 40, 100, 50];
            reply[at] = NO_INTEGER;
            let told = decode(&asked, reply).unwrap().told;
            for (operation, told) in told.iter().enumerate() {
                let expected = match spoiled.contains(&operation) {
                    true => Verdict::Unreadable,
                    false => Verdict::Passed,
                };
                assert_eq!(told.verdict, expected, "{operation} by {at}");
            }
        }
    }

    /// What the way to the script needs besides: the calls themselves, the reads of the policy, and what
    /// keeps a connection.
    const AROUND: [&str; 7] = [
        "evalsha",
        "eval",
        "hmget",
        "hstrlen",
        "ping",
        "client|reply",
        "info",
    ];
    /// Words in capitals that are no commands.
    const OPTIONS: [&str; 3] = ["PXAT", "KEEPTTL", "WRONGTYPE"];

    #[test]
    fn the_user_that_is_shipped_may_do_what_weir_does_and_nothing_else() {
        let acl = include_str!("../../envoy/redis-user.acl");
        let mut granted: Vec<&str> = acl
            .split_whitespace()
            .filter_map(|rule| rule.strip_prefix('+'))
            .collect();
        let script = Script::production();
        // An apostrophe of a comment opens nothing.
        let code = script.source().lines();
        let code = code.map(|line| line.split("--").next().unwrap());
        let quoted = code.flat_map(|line| line.split('\'').skip(1).step_by(2));
        let is_command =
            |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        let called = quoted
            .filter(is_command)
            .filter(|word| !OPTIONS.contains(word));
        let called = called.map(str::to_lowercase);
        let mut used: Vec<String> = called.chain(AROUND.map(str::to_owned)).collect();
        granted.sort_unstable();
        used.sort_unstable();
        used.dedup();
        assert_eq!(granted, used);
        assert_eq!(acl.lines().count(), 1, "an ACL file has no comments");
    }
}
