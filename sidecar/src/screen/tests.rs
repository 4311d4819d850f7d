use weir_core::codec::resp::command;

use super::*;

fn served() -> Served {
    of_namespace("")
}

fn of_namespace(name: &str) -> Served {
    let script = Script {
        source: Bytes::from_static(b"return 1"),
        sha: SHA.to_owned(),
    };
    Served::new(script, name.parse().unwrap())
}

const SHA: &str = "e0e1f9fabfc9d4800c877a703b823ac0578ff8db";

/// Commands written as `NAME|ARG|…`, where `SHA` stands for the script's.
fn pipeline(lines: &[&str]) -> Bytes {
    let mut out = Vec::new();
    for line in lines {
        let args: Vec<&str> = line.split('|').collect();
        let args = args.iter().map(|arg| if *arg == "SHA" { SHA } else { arg });
        command(&mut out, args.map(str::as_bytes));
    }
    out.into()
}

#[test]
fn only_calls_of_the_script_on_its_keys_pass() {
    use Refusal::*;
    let table = [
        ("EVALSHA|SHA|1|weir:a", None),
        ("EVALSHA|SHA|2|weir:a|weir:b|take|1", None),
        ("EVALSHA|SHA|1|weir:a|not a key", None),
        ("EVAL|return 1|1|weir:a", None),
        ("HMGET|weir:policy|version|published_at", None),
        ("HMGET|weir:policy|version|published_at|policy", None),
        ("HSTRLEN|weir:policy|policy", None),
        ("HMGET|weir:policy|version", Some(Command)),
        (
            "HMGET|weir:policy|version|published_at|comment",
            Some(Command),
        ),
        ("HMGET|weir:policy2|version|published_at", Some(Command)),
        ("HMGET|weir:a|version|published_at|policy", Some(Command)),
        ("hmget|weir:policy|version|published_at", Some(Command)),
        ("HSTRLEN|weir:policy|version", Some(Command)),
        ("HGETALL|weir:policy", Some(Command)),
        ("HSET|weir:policy|version|2", Some(Command)),
        ("DEL|weir:policy", Some(Command)),
        ("EVALSHA|SHA|1|weir:policy", Some(Key)),
        ("EVALSHA|SHA|2|weir:a|weir:policy", Some(Key)),
        ("EVAL|return 1|2|weir:a|{weir:policy}:history", Some(Key)),
        ("GET|weir:a", Some(Command)),
        ("FLUSHALL", Some(Command)),
        ("evalsha|SHA|1|weir:a", Some(Command)),
        ("EVALSHA", Some(KeyCount)),
        ("EVALSHA|SHA", Some(KeyCount)),
        ("EVALSHA|SHA|1", Some(KeyCount)),
        ("EVALSHA|SHA|0|weir:a", Some(KeyCount)),
        ("EVALSHA|SHA|2|weir:a", Some(KeyCount)),
        ("EVALSHA|SHA|+1|weir:a", Some(KeyCount)),
        ("EVALSHA|SHA|-1|weir:a", Some(KeyCount)),
        ("EVALSHA|SHA||weir:a", Some(KeyCount)),
        ("EVALSHA|SHA|99999999999999999999|weir:a", Some(KeyCount)),
        ("EVALSHA|SHA|1|session:a", Some(Key)),
        ("EVALSHA|SHA|2|weir:a|session:a", Some(Key)),
        ("EVALSHA|return 1|1|weir:a", Some(Script)),
        ("EVALSHA||1|weir:a", Some(Script)),
        ("EVAL|return 2|1|weir:a", Some(Script)),
        ("EVAL|SHA|1|weir:a", Some(Script)),
    ];
    check(&served(), &table);
}

#[test]
fn a_namespace_serves_its_own_keys_and_no_others() {
    use Refusal::*;
    let table = [
        ("EVALSHA|SHA|1|weir@staging:2:{u:ann}:r:user:fw60s", None),
        ("EVAL|return 1|2|weir@staging:a|weir@staging:b", None),
        ("HMGET|weir@staging:policy|version|published_at", None),
        ("HSTRLEN|weir@staging:policy|policy", None),
        ("EVALSHA|SHA|1|weir@staging:policy", Some(Key)),
        ("EVALSHA|SHA|1|weir:2:{u:ann}:r:user:fw60s", Some(Key)),
        ("EVALSHA|SHA|2|weir@staging:a|weir:a", Some(Key)),
        ("EVALSHA|SHA|1|weir@stag:a", Some(Key)),
        ("EVALSHA|SHA|1|weir@staging2:a", Some(Key)),
        ("EVALSHA|SHA|1|weir@staging", Some(Key)),
        ("HMGET|weir:policy|version|published_at", Some(Command)),
        (
            "HMGET|weir@other:policy|version|published_at",
            Some(Command),
        ),
    ];
    check(&of_namespace("staging"), &table);
    let foreign = [
        ("EVALSHA|SHA|1|weir@staging:a", Some(Key)),
        (
            "HMGET|weir@staging:policy|version|published_at",
            Some(Command),
        ),
    ];
    check(&served(), &foreign);
}

fn check(served: &Served, table: &[(&str, Option<Refusal>)]) {
    for &(line, expected) in table {
        let body = pipeline(&[line]);
        let screened = screen(&body, served).unwrap();
        let refusal = match &screened[..] {
            [Screened::Passes(check_request)] => {
                assert_eq!(check_request.command, body, "{line}");
                None
            }
            [Screened::Refused(refusal)] => Some(*refusal),
            _ => panic!("{line}: {screened:?}"),
        };
        assert_eq!(refusal, expected, "{line}");
    }
}

#[test]
fn a_refused_command_leaves_the_others_alone() {
    let body = pipeline(&["EVALSHA|SHA|1|weir:a", "PING", "EVALSHA|SHA|1|weir:b"]);
    let screened = screen(&body, &served()).unwrap();
    let passing: Vec<&[u8]> = screened
        .iter()
        .filter_map(|command| match command {
            Screened::Passes(check_request) => Some(&check_request.command[..]),
            Screened::Refused(_) => None,
        })
        .collect();
    let expected = pipeline(&["EVALSHA|SHA|1|weir:a", "EVALSHA|SHA|1|weir:b"]);
    assert_eq!(screened.len(), 3);
    assert_eq!(passing.concat(), expected);
}

#[test]
fn a_body_that_is_no_pipeline_is_refused_whole() {
    let good = pipeline(&["EVALSHA|SHA|1|weir:a"]);
    let after_good = |bytes: &[u8]| Bytes::from([&good, bytes].concat());
    let table = [
        (Bytes::new(), BadBody::Empty),
        (after_good(b"PING\r\n"), BadBody::Malformed(Malformed::Kind)),
        (after_good(b"+PING\r\n"), BadBody::NotACommand),
        (after_good(b"*0\r\n"), BadBody::NotACommand),
        (after_good(b"*-1\r\n"), BadBody::NotACommand),
        (after_good(b"*1\r\n:1\r\n"), BadBody::NotACommand),
        (after_good(b"*1\r\n$-1\r\n"), BadBody::NotACommand),
        (after_good(b"*1\r\n*1\r\n$1\r\nx\r\n"), BadBody::NotACommand),
        (after_good(b"*1\r\n"), BadBody::Incomplete),
        (after_good(b"*1\r\n$4\r\nPING"), BadBody::Incomplete),
        (after_good(b"*"), BadBody::Incomplete),
        (
            pipeline(&["PING"; MAX_COMMANDS + 1]),
            BadBody::TooManyCommands,
        ),
    ];
    for (body, expected) in table {
        let refusal = screen(&body, &served()).unwrap_err();
        assert_eq!(refusal, expected, "{}", body.escape_ascii());
    }
    assert!(screen(&pipeline(&["PING"; MAX_COMMANDS]), &served()).is_ok());
}
