//! The script as a test speaks to it: operations in, answers out, over the encoding that the filter
//! uses.

use std::ops::Range;

use redis::{Connection, ConnectionLike, RedisError, Value};
use weir_core::quota::cost::Cost;
use weir_core::quota::limit::{Algorithm, Quota};
use weir_core::quota::operation::{self, Holder, Kind};
use weir_core::quota::packed::Terms;
use weir_core::store::check::{Check, CheckRequest};
use weir_core::store::encode::Encoder;
use weir_core::store::reply::{self, Answer, ReplySchema};
use weir_core::store::script::{self, By, Script};
use weir_core::time::StoreInstant;
use weir_lab::redis::Redis;

const TEST_CLOCK: &str = include_str!("clock.lua");

/// One operation with the quotas that the memory needs and the script's are written from, each with
/// its cost.
#[derive(Clone, Debug)]
pub struct Operation {
    pub kind: Kind,
    pub limits: Vec<(String, Quota, Cost)>,
}

/// A text of a log: its head and its records.
fn fields(text: &[u8]) -> Option<([u64; 3], Vec<[u64; 3]>)> {
    let number = |bytes: &[u8]| {
        let number = f64::from_le_bytes(bytes.try_into().ok()?);
        (number.fract() == 0.0).then_some(number as u64)
    };
    let record = |bytes: &[u8]| {
        let numbers: Option<Vec<u64>> = bytes.chunks(8).map(number).collect();
        numbers?.try_into().ok()
    };
    let mut records: Vec<[u64; 3]> = text.chunks(24).map(record).collect::<Option<_>>()?;
    (!records.is_empty()).then(|| (records.remove(0), records))
}

pub struct Weir {
    pub connection: Connection,
    script: Script,
}

pub fn cost(permits: u64) -> Cost {
    Cost(permits.try_into().expect("a cost is not zero"))
}

pub fn quota(algorithm: Algorithm, limit: u64, window_seconds: u64) -> Quota {
    Quota::try_new(algorithm, limit, window_seconds, None).expect("a quota")
}

/// An operation that takes as many permits of each limit.
pub fn operation(kind: Kind, permits: u64, limits: &[(&str, Quota)]) -> Operation {
    Operation {
        kind,
        limits: limits
            .iter()
            .map(|(key, quota)| (key.to_string(), *quota, cost(permits)))
            .collect(),
    }
}

impl Weir {
    /// The script that ships.
    pub fn new(server: &Redis) -> Weir {
        Weir::with(server, Script::production())
    }

    /// The same with a clock that stands where `set_clock` puts it.
    pub fn with_test_clock(server: &Redis) -> Weir {
        Weir::with(server, Script::new(script::assemble(TEST_CLOCK)))
    }

    fn with(server: &Redis, script: Script) -> Weir {
        let mut connection = server.connection().expect("a connection");
        let _: String = redis::cmd("SCRIPT")
            .arg("LOAD")
            .arg(script.source())
            .query(&mut connection)
            .expect("a script that compiles");
        Weir { connection, script }
    }

    /// This one asks from here on.
    pub fn ask_as(&mut self, holder: Holder) {
        self.script.ask_as(holder);
    }

    pub fn set_clock(&mut self, now: StoreInstant) {
        self.redis(&["SET", "weir:test:clock", &now.0.to_string()]);
    }

    pub fn flush(&mut self) {
        self.redis(&["FLUSHALL"]);
    }

    pub fn call(&mut self, operations: &[Operation]) -> Result<Answer, RedisError> {
        self.call_by(By::Sha, operations)
    }

    pub fn call_by(&mut self, by: By, operations: &[Operation]) -> Result<Answer, RedisError> {
        let (command, schema) = self.command(by, operations);
        let reply = self.send(&command)?;
        let bytes: Vec<u8> = redis::from_redis_value(reply)?;
        let integers = reply::integers(&bytes).expect("integers");
        Ok(reply::decode(&schema, integers).expect("an answer"))
    }

    /// What is sent, and what its reply is read by.
    pub fn command(&self, by: By, operations: &[Operation]) -> (Vec<u8>, ReplySchema) {
        let mut check_request = CheckRequest::default();
        for Operation { kind, limits } in operations {
            let checks = limits.iter().map(|(key, quota, cost)| Check {
                key: key.as_bytes().to_vec(),
                terms: Terms::new(*quota),
                cost: *cost,
            });
            check_request.ask(*kind, checks);
        }
        let mut encoder = Encoder::with_room(0);
        check_request.encode(&mut encoder);
        let mut command = Vec::new();
        self.script.write_call(&mut command, by, &encoder);
        (command, encoder.into_schema())
    }

    pub fn send(&mut self, command: &[u8]) -> Result<Value, RedisError> {
        let reply = self.connection.req_packed_command(command)?;
        reply.extract_error()
    }

    pub fn script(&self) -> &Script {
        &self.script
    }

    /// The single operation's answer.
    pub fn one(
        &mut self,
        kind: Kind,
        permits: u64,
        limits: &[(&str, Quota)],
    ) -> operation::OperationReply {
        let mut answer = self
            .call(&[operation(kind, permits, limits)])
            .expect("an answer");
        answer.told.remove(0)
    }

    pub fn redis(&mut self, arguments: &[&str]) -> Value {
        redis::cmd(arguments[0])
            .arg(&arguments[1..])
            .query(&mut self.connection)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}"))
    }

    pub fn integer(&mut self, arguments: &[&str]) -> i64 {
        redis::from_redis_value(self.redis(arguments)).expect("an integer")
    }

    pub fn strings(&mut self, arguments: &[&str]) -> Vec<String> {
        redis::from_redis_value(self.redis(arguments)).expect("strings")
    }

    /// When a key expires. (PEXPIRETIME is younger than the oldest Redis that serves.)
    fn ends_ms(&mut self, key: &str) -> u64 {
        let now: (u64, u64) = redis::from_redis_value(self.redis(&["TIME"])).expect("a time");
        let left = self.integer(&["PTTL", key]);
        (now.0 * 1000 + now.1 / 1000).saturating_add_signed(left)
    }

    /// What a key holds: its text, or all of a list's.
    fn texts(&mut self, key: &str) -> Vec<Vec<u8>> {
        if self.redis(&["TYPE", key]) == Value::SimpleString("list".into()) {
            redis::from_redis_value(self.redis(&["LRANGE", key, "0", "-1"])).expect("texts")
        } else {
            vec![redis::from_redis_value(self.redis(&["GET", key])).expect("a text")]
        }
    }

    /// All records of a log: when each was begun, its stamp, and the total.
    pub fn log(&mut self, key: &str) -> Vec<[u64; 3]> {
        let texts = self.texts(key);
        let records = |text: &Vec<u8>| fields(text).expect("a text of a log").1;
        texts.iter().flat_map(records).collect()
    }

    /// Every key with its value, to be compared.
    pub fn contents(&mut self) -> Vec<(String, Value)> {
        let mut keys = self.strings(&["KEYS", "*"]);
        keys.sort();
        keys.into_iter()
            .map(|key| (key.clone(), self.redis(&["DUMP", &key])))
            .collect()
    }

    /// What every state owes: an end, integers without an exponent, and totals that add up.
    pub fn check_keys(&mut self) -> Result<(), String> {
        for key in self.strings(&["KEYS", "weir:2:*"]) {
            if self.integer(&["PTTL", &key]) <= 0 {
                return Err(format!("{key} never expires"));
            }
            let texts = self.texts(&key);
            let (mut before, mut due_ms): (Option<[u64; 3]>, Option<Range<u64>>) = (None, None);
            for text in texts.iter().filter(|text| !text.is_ascii()) {
                let (head, records) = fields(text).ok_or(format!("{key}: {text:?}"))?;
                let mut last = [0, 0, head[2]];
                if before.is_some_and(|before| before[2] != last[2]) || records.is_empty() {
                    return Err(format!("{key}: {head:?} after {before:?}"));
                }
                last = before.unwrap_or(last);
                for record in records {
                    let grows = last
                        .iter()
                        .zip(record)
                        .all(|(before, after)| *before < after);
                    if !grows || record[1] < record[0] {
                        return Err(format!("{key}: {record:?} after {last:?}"));
                    }
                    last = record;
                }
                // Within a quarter of a window, or a second, of when the newest record expires; each
                // reading is rounded.
                let due = (last[1] + head[0]) / 1000;
                due_ms = Some(due - 2..due + 2 + 1000.max(head[0] / 4000));
                before = Some(last);
            }
            let ends_ms = self.ends_ms(&key);
            if due_ms.as_ref().is_some_and(|due| !due.contains(&ends_ms)) {
                return Err(format!("{key} ends at {ends_ms}, not in {due_ms:?}"));
            }
        }
        Ok(())
    }
}
