use super::*;
use crate::codec::json::{At, Json};
use crate::policy::document::Object;

/// A rule's `cost`, compiled.
fn compile(text: &str) -> Result<Tariff, String> {
    let json = Json::parse(text, "cost").unwrap();
    let at = At::new(&json, "cost");
    let mut mistakes = Mistakes::at_most(9);
    let told = document::ToldCost::read(&at, &mut mistakes);
    let told = told.map(document::Cost::Told);
    let rule = told.and_then(|told| CostRule::compile(told, &at.path, &mut mistakes));
    match rule {
        Some(CostRule::Later(tariff)) if mistakes.is_empty() => Ok((*tariff).clone()),
        other => Err(format!("{other:?} {mistakes}")),
    }
}

fn tariff(text: &str) -> Tariff {
    compile(text).unwrap_or_else(|mistakes| panic!("{mistakes}"))
}

fn at_response(tariff: &Tariff, headers: &[(&str, &str)]) -> Option<u64> {
    let headers = headers
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    tariff.at_response(headers)
}

/// How a stream ended, and what was noted of it.
struct Ended(bool, Option<&'static [u8]>);

impl Ending for Ended {
    fn is_finished(&self) -> bool {
        self.0
    }

    fn metadata(&self, path: &[String]) -> Option<Vec<u8>> {
        assert_eq!(path, ["ns", "tokens"]);
        self.1.map(<[u8]>::to_vec)
    }
}

#[test]
fn a_status_counts_before_its_class_and_what_is_not_listed_by_default() {
    let logins = tariff(r#"{"response_status": {"4xx": 2, "401": 1, "5xx": 9}, "default": 0}"#);
    for (status, cost) in [
        ("401", 1),
        ("403", 2),
        ("500", 9),
        ("599", 9),
        ("200", 0),
        ("40", 0),
        ("", 0),
    ] {
        assert_eq!(
            at_response(&logins, &[(":status", status)]),
            Some(cost),
            "{status}"
        );
    }
    assert_eq!(
        (logins.unfinished, logins.held(), logins.taken()),
        (9, 1, Cost::ONE)
    );
}

#[test]
fn a_grpc_status_in_the_head_is_known_then_and_another_at_the_end() {
    let by_name = r#"{"grpc_status": {"UNAUTHENTICATED": 3, "7": 1}, "default": 0}"#;
    let tariff = tariff(by_name);
    for (status, cost) in [("16", 3), ("7", 1), ("0", 0), ("many", 0)] {
        let told = at_response(&tariff, &[("grpc-status", status)]);
        assert_eq!(told, Some(cost), "{status}");
    }
    assert_eq!(
        at_response(&tariff, &[("content-type", "application/grpc")]),
        None
    );
    assert_eq!(tariff.at_end(&Ended(true, None)), 0);
    assert_eq!(tariff.at_end(&Ended(false, None)), 3);
}

#[test]
fn what_was_noted_is_a_double_or_digits_and_nothing_else() {
    let tokens = tariff(r#"{"metadata": ["ns", "tokens"], "default": 200, "max": 100000}"#);
    assert_eq!(at_response(&tokens, &[("tokens", "5")]), None);
    let double = |number: f64| number.to_le_bytes().to_vec().leak();
    for (noted, cost) in [
        (&*double(1234.0), 1234),
        (double(0.0), 0),
        (double(-0.0), 0),
        (double(0.2), 1),
        (double(1e300), 100_000),
        (double(-1.0), 200),
        (double(f64::NAN), 200),
        (double(f64::INFINITY), 200),
        (b"77", 77),
        // Eight bytes too.
        (b"00004321", 4321),
        (b"99999999", 100_000),
        (b"4.5", 200),
        (b"-1", 200),
        (b"", 200),
        (b"\x01", 200),
        (b"plenty", 200),
        // Eight bytes that are text are no double.
        (b"12345.67", 200),
        (b"a lot of", 200),
    ] {
        // Whoever leaves after it is known pays what it is.
        for is_finished in [true, false] {
            let cost = match (cost, is_finished) {
                (200, false) => 100_000,
                (cost, _) => cost,
            };
            let told = tokens.at_end(&Ended(is_finished, Some(noted)));
            assert_eq!(told, cost, "{noted:?} {is_finished}");
        }
    }
    assert_eq!(tokens.at_end(&Ended(true, None)), 200);
    assert_eq!(tokens.at_end(&Ended(false, None)), 100_000);
    assert_eq!(tokens.held(), 200);
}

#[test]
fn what_is_held_and_what_a_broken_stream_costs_can_be_chosen() {
    let chosen =
        r#"{"response_header": "x-used", "default": 3, "max": 50, "unfinished": 7, "hold": 0}"#;
    let chosen = tariff(chosen);
    assert_eq!((chosen.held(), chosen.taken()), (0, Cost::ONE));
    assert_eq!(at_response(&chosen, &[("x-used", "99")]), Some(50));
    assert_eq!(
        at_response(&chosen, &[("x-used", "9"), ("x-used", "9")]),
        Some(3)
    );
    assert_eq!(at_response(&chosen, &[]), Some(3));
    assert_eq!(chosen.at_end(&Ended(false, None)), 7);
}

#[test]
fn the_log_tells_what_is_not_usual() {
    for (written, told) in [
        (
            r#"{"response_status": {"5xx": 1, "401": 2}, "default": 0}"#,
            "status 401=2 5xx=1 default 0",
        ),
        (
            r#"{"grpc_status": {"16": 1}, "default": 0, "hold": 0}"#,
            "grpc status UNAUTHENTICATED=1 default 0 hold 0",
        ),
        (
            r#"{"metadata": ["ns", "tokens"], "default": 2, "max": 9, "unfinished": 4}"#,
            "metadata ns tokens default 2 max 9 unfinished 4",
        ),
    ] {
        assert_eq!(tariff(written).to_string(), told);
    }
}
