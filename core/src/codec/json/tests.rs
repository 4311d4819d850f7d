use super::*;

#[test]
fn an_unknown_field_is_named_with_its_path_and_the_known_ones() {
    let json = Json::parse(r#"{"a": 1, "b": 2}"#, "doc").unwrap();
    let at = At::new(&json, "doc");
    let mut fields = at.fields().unwrap();
    assert_eq!(fields.required("a").unwrap().whole(), Ok(1));
    let error = fields.finish().unwrap_err();
    assert_eq!(
        error.to_string(),
        "doc.b: is not a field here; the fields are a, description"
    );
}

#[test]
fn every_object_may_be_described_in_text() {
    let long = "x".repeat(LONGEST_DESCRIPTION + 1);
    let read = |text: &str| {
        let json = Json::parse(text, "doc").unwrap();
        let at = At::new(&json, "doc");
        let mut mistakes = Mistakes::at_most(1);
        let entries = at.entries(&mut mistakes).unwrap();
        let names: Vec<String> = entries.iter().map(|(name, _)| name.to_string()).collect();
        let mut fields = at.fields()?;
        fields.optional("a");
        fields.finish().map(|()| names)
    };
    let good = read(r#"{"a": 1, "description": "why"}"#);
    assert_eq!(good, Ok(vec!["a".to_string()]));
    for (text, told) in [
        (
            r#"{"description": 5}"#.to_string(),
            "is 5; expected a string",
        ),
        (
            r#"{"description": {}}"#.to_string(),
            "is an object; expected a string",
        ),
        (
            format!(r#"{{"description": "{long}"}}"#),
            "is 1025 bytes long; keep it to 1024",
        ),
    ] {
        let error = read(&text).unwrap_err().to_string();
        assert_eq!(error, format!("doc.description: {told}"));
    }
}

/// The message showed a line in which nothing was wrong to see.
#[test]
fn a_byte_order_mark_is_told_wherever_it_stands() {
    for text in ["\u{feff}{}", "{\n  \"a\":\n  \u{feff}{}\n}"] {
        let error = Json::parse(text, "doc").unwrap_err();
        assert!(error.message.contains("byte order mark"), "{error}");
    }
    let error = Json::parse("{\"a\u{feff}\": x}", "doc").unwrap_err();
    assert!(!error.message.contains("byte order mark"), "{error}");
}

#[test]
fn a_duplicate_member_is_refused() {
    let json = Json::parse(r#"{"a": 1, "a": 2}"#, "doc").unwrap();
    let error = At::new(&json, "doc").fields().unwrap_err();
    assert_eq!(
        error.to_string(),
        "doc: \"a\" stands here twice; keep one of them"
    );
}

#[test]
fn numbers_that_are_not_whole_are_refused_as_written() {
    for (text, told) in [
        ("-1", "-1"),
        ("1.5", "1.5"),
        ("1e30", "1e30"),
        ("\"1\"", "\"1\""),
    ] {
        let json = Json::parse(text, "n").unwrap();
        let error = At::new(&json, "n").whole().unwrap_err();
        assert!(
            error.message.contains("expected a whole number below 2^64"),
            "{error} for {told}"
        );
    }
}

#[test]
fn a_whole_number_is_one_however_it_is_written() {
    for (text, number) in [
        ("10.0", 10),
        ("1e3", 1000),
        ("1.5e1", 15),
        ("-0.0", 0),
        ("1125899906842623.0", 1_125_899_906_842_623),
        ("18446744073709551615", u64::MAX),
    ] {
        let json = Json::parse(text, "n").unwrap();
        assert_eq!(At::new(&json, "n").whole(), Ok(number), "{text}");
    }
    // Which one was written a double no longer tells.
    for text in [
        "9007199254740992.0",
        "1e16",
        "-1.0",
        "0.5",
        "18446744073709551616",
    ] {
        let json = Json::parse(text, "n").unwrap();
        assert!(At::new(&json, "n").whole().is_err(), "{text}");
    }
}

#[test]
fn what_yaml_makes_of_off_and_on_is_a_choice() {
    let choices = [("enforce", 1), ("off", 2)];
    for (text, choice) in [
        ("\"off\"", Some(2)),
        ("false", Some(2)),
        ("true", None),
        ("0", None),
    ] {
        let json = Json::parse(text, "mode").unwrap();
        assert_eq!(
            At::new(&json, "mode").choice(&choices).ok(),
            choice,
            "{text}"
        );
    }
}

#[test]
fn names_that_read_like_paths_are_quoted() {
    let ip = Path::root("ip");
    assert_eq!(ip.member("default").to_string(), "ip.default");
    let network = ip.member("10.0.0.0/8");
    assert_eq!(network.item(1).to_string(), "ip[\"10.0.0.0/8\"][1]");
}

#[test]
fn a_misspelled_field_is_told_once_with_the_one_that_was_meant() {
    for (text, told) in [
        (
            r#"{"windw": 1}"#,
            "doc.windw: is not a field here; did you mean \"window\"?",
        ),
        (
            r#"{"Window": 1}"#,
            "doc.Window: is not a field here; did you mean \"window\"?",
        ),
        (
            r#"{"win": 1, "window": 2}"#,
            "doc.win: is not a field here; the fields are window, limit, description",
        ),
        (
            r#"{"limt": 1}"#,
            "2 mistakes: (1) doc.limt: is not a field here; did you mean \"limit\"? (2) doc: lacks the field \
             \"window\"",
        ),
    ] {
        let json = Json::parse(text, "doc").unwrap();
        let mut mistakes = Mistakes::at_most(9);
        let at = At::new(&json, "doc");
        let mut fields = at.members(&mut mistakes).unwrap();
        fields.needed("window");
        fields.optional("limit");
        fields.close(&mut mistakes);
        assert_eq!(mistakes.to_string(), told, "{text}");
    }
}

#[test]
fn a_document_that_is_not_json_shows_the_line() {
    let error = Json::parse("{\n  rules: []\n}", "doc").unwrap_err();
    assert!(error.message.contains("in the line `rules: []`"), "{error}");
}

/// The log had all of a policy that was written without a line break.
#[test]
fn of_a_long_line_what_is_around_the_mistake_is_shown() {
    let list = |words: usize| "\"ä\",".repeat(words);
    for (before, after, shown) in [
        (0, 500, "`[oops"),
        (500, 500, "\"ä\",oops"),
        (500, 0, "oops]`"),
    ] {
        let text = format!("[{}oops,{}1]", list(before), list(after));
        let text = if after == 0 {
            text.replace(",1]", "]")
        } else {
            text
        };
        let error = Json::parse(&text, "doc").unwrap_err();
        assert!(error.message.contains(shown), "{error}");
        assert!(error.message.len() < 250, "{error}");
    }
}
