//! What Redis says of the published policy, whoever wrote it there: a poller never goes wrong over
//! it, adopts only what the parser takes, and is back in step at the next look.
//!
//! An input is the replies to one look, divided by NUL.

use weir_core::codec::namespace::Namespace;
use weir_core::live::poller::{Document, News, Published, Query, Watch};
use weir_core::time::{Span, WorkerInstant};

use crate::Target;

pub const TARGET: Target = Target {
    name: "published",
    run,
    words: &[
        "*2\r\n",
        "*3\r\n",
        "$1\r\n7\r\n",
        "$13\r\n1795559766942\r\n",
        "$-1\r\n",
        "$12\r\n\"configured\"\r\n",
        "$13\r\n{\"rules\": []}\r\n",
        ":13\r\n",
        ":524289\r\n",
        ":-1\r\n",
        "-WRONGTYPE\r\n",
        "\0",
    ],
};

fn run(data: &[u8]) {
    let mut watch = Watch::new(
        &Namespace::default(),
        Span::millis(2000),
        Span::millis(50),
        7,
        WorkerInstant(0),
    );
    let mut replies = data.split(|byte| *byte == 0);
    let asked = look(&mut watch, WorkerInstant(1_000_000), &mut replies);
    assert!(asked <= 3, "a look, a measure and a fetch");
    // As if nothing had been: the document that is there now is adopted.
    let fine = [
        &b"*2\r\n$1\r\n9\r\n$1\r\n9\r\n"[..],
        b":13\r\n",
        b"*3\r\n$1\r\n9\r\n$1\r\n9\r\n$13\r\n{\"rules\": []}\r\n",
    ];
    let asked = look(&mut watch, WorkerInstant(9_000_000), &mut fine.into_iter());
    let is_known = data.starts_with(fine[0]);
    assert!(asked == 3 || is_known, "{asked}");
}

/// How many calls one look took.
fn look<'a>(
    watch: &mut Watch,
    now: WorkerInstant,
    replies: &mut impl Iterator<Item = &'a [u8]>,
) -> u32 {
    let mut query = watch.tick(now).expect("it is time");
    for calls in 1.. {
        let id = weir_core::store::call::CallId(calls);
        assert!(!query.command(&Namespace::default()).is_empty());
        watch.sent(now, id, query);
        let news = watch.answered(id, replies.next());
        match news.expect("the answer to its call") {
            News::Ask(next) => {
                assert_ne!(next, Query::Version);
                query = next;
            }
            News::Adopt(adoption) => {
                assert!(adoption.version.0 > 0);
                let bytes = adoption.published.to_bytes();
                // A time of publication with a line end in it is not kept as it is.
                if bytes.iter().filter(|byte| **byte == b'\n').count() == 2 {
                    assert_eq!(Published::from_bytes(&bytes), Some(adoption.published));
                }
                if let Document::Policy(policy) = adoption.document {
                    for rule in policy.rules() {
                        assert!(rule.describe(&policy).to_string().starts_with("rule "));
                    }
                }
                return calls;
            }
            News::Refuse { version, reason } => {
                for error in reason.iter() {
                    let line = format!("{version} {}", error.path);
                    assert!(!line.contains(char::is_control), "one line in the log");
                }
                return calls;
            }
            News::Unreadable(words) => {
                assert!(!words.contains(char::is_control), "one line in the log");
                return calls;
            }
            News::NoReply | News::None | News::Gone => return calls,
        }
    }
    0
}
