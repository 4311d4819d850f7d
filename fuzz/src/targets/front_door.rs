//! The sidecar's front door: whatever the body, only calls of Weir's script on Weir's keys pass, as
//! the bytes that came.

use bytes::Bytes;
use weir_core::codec::namespace::Namespace;
use weir_core::codec::resp::{Reader, Token};
use weir_core::store::slot::Slot;
use weir_core::store::wire::MAX_COMMANDS;
use weir_sidecar::screen::{CheckRequest, Screened, Script, Served, screen};

use crate::Target;

pub const TARGET: Target = Target {
    name: "front_door",
    run,
    words: &[
        "\r\n",
        "*4\r\n",
        "*5\r\n",
        "$4\r\nEVAL\r\n",
        "$7\r\nEVALSHA\r\n",
        "$8\r\nreturn 1\r\n",
        "$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n",
        "$1\r\n1\r\n",
        "$1\r\n2\r\n",
        "$6\r\nweir:a\r\n",
        "$5\r\nother\r\n",
        "$2\r\n+1\r\n",
        "$0\r\n\r\n",
        "$8\r\nFLUSHALL\r\n",
    ],
};

const SOURCE: &[u8] = b"return 1";
const SHA: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";

fn run(data: &[u8]) {
    let script = Script {
        source: Bytes::from_static(SOURCE),
        sha: SHA.to_owned(),
    };
    let body = Bytes::copy_from_slice(data);
    let served = Served::new(script, Namespace::default());
    let Ok(commands) = screen(&body, &served) else {
        return;
    };
    assert!((1..=MAX_COMMANDS).contains(&commands.len()));
    let mut from = 0;
    for command in commands {
        match command {
            Screened::Passes(check_request) => from = check(&check_request, &body, from),
            Screened::Refused(refusal) => {
                let reply = refusal.reply();
                assert!(reply.starts_with(b"-") && reply.ends_with(b"\r\n"));
            }
        }
    }
}

/// Where the command ends in the body; it lies behind `from`.
fn check(check_request: &CheckRequest, body: &Bytes, from: usize) -> usize {
    let start = check_request.command.as_ptr() as usize - body.as_ptr() as usize;
    assert!(start >= from, "commands pass in their order");
    let mut reader = Reader::new(&check_request.command);
    let mut words = Vec::new();
    assert!(matches!(reader.token(), Ok(Some(Token::Array(_)))));
    while let Ok(Some(Token::Bulk(Some(word)))) = reader.token() {
        words.push(word);
    }
    assert!(
        reader.rest().is_empty(),
        "one command, and nothing after it"
    );
    match words[..2] {
        [b"EVAL", source] => assert_eq!(source, SOURCE),
        [b"EVALSHA", sha] => assert_eq!(sha, SHA.as_bytes()),
        _ => panic!("{words:?}"),
    }
    let keys: usize = String::from_utf8_lossy(words[2]).parse().expect("a number");
    let keys = &words[3..3 + keys];
    assert!(keys.iter().all(|key| key.starts_with(b"weir:")));
    assert_eq!(check_request.slot, Slot::of(keys[0]));
    start + check_request.command.len()
}
