use std::fmt::Debug;

use serde_json::{Map, Value};

use super::*;

/// An object's members by name.
type Members = Map<String, Value>;

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What it is read as, or what is wrong with it.
fn read<T: Object + Debug>(members: Members) -> Result<String, Mistakes> {
    let json = Json::parse(&Value::Object(members).to_string(), "it").unwrap();
    let mut mistakes = Mistakes::at_most(9);
    let read = T::read(&At::new(&json, "it"), &mut mistakes);
    match read {
        Some(read) if mistakes.is_empty() => Ok(format!("{read:?}")),
        _ => Err(mistakes),
    }
}

/// The examples of all required fields.
fn least(about: &About) -> Members {
    let required = about
        .fields
        .iter()
        .filter(|field| field.presence == Presence::Required);
    required
        .map(|field| (field.name.to_string(), json(field.example)))
        .collect()
}

fn is_as_it_says<T: Object + Debug>() {
    let about = T::about();
    assert!(about.about.ends_with('.'), "{}", about.name);
    let least = least(&about);
    for field in &about.fields {
        let named = format!("{}.{}", about.name, field.name);
        assert!(
            field.about.ends_with('.') && field.about.len() > 4,
            "{named}"
        );
        assert_ne!(field.name, "description", "{named}: any object has it");
        let mut shown = least.clone();
        shown.extend(match json(&format!("{{{}}}", field.beside)) {
            Value::Object(beside) => beside,
            other => panic!("{named}: {other}"),
        });
        shown.insert(field.name.to_string(), json(field.example));
        let example = read::<T>(shown);
        assert!(example.is_ok(), "{named}: {example:?}");
        match field.presence {
            Presence::Required => {
                let mut others = least.clone();
                others.remove(field.name);
                let told = read::<T>(others).unwrap_err().to_string();
                assert_eq!(told, format!("it: lacks the field {:?}", field.name));
            }
            Presence::Optional(_) => assert_ne!(read::<T>(least.clone()), example, "{named}"),
            Presence::Default(default) => {
                let mut written = least.clone();
                written.insert(field.name.to_string(), json(default));
                assert_eq!(read::<T>(written), read::<T>(least.clone()), "{named}");
                if field.example != default {
                    let differs = read::<T>(least.clone()) != example;
                    assert!(differs || field.example.starts_with(['[', '{']), "{named}");
                }
            }
        }
    }
}

#[test]
fn every_field_is_as_its_declaration_says() {
    is_as_it_says::<Policy>();
    is_as_it_says::<Rule>();
    is_as_it_says::<Respond>();
    is_as_it_says::<Condition>();
    is_as_it_says::<Limits>();
    is_as_it_says::<Limit>();
    is_as_it_says::<Lease>();
    is_as_it_says::<ToldCost>();
    is_as_it_says::<KeyedLimit>();
    is_as_it_says::<Override>();
    is_as_it_says::<KeySource>();
    is_as_it_says::<Experiment>();
    is_as_it_says::<Variant>();
    is_as_it_says::<Callers>();
    is_as_it_says::<Assignment>();
    is_as_it_says::<Status>();
    is_as_it_says::<OperatorHeader>();
    // None is forgotten here but the one whose fields stand among a rule's and a variant's.
    let names: Vec<&str> = Policy::about()
        .all()
        .iter()
        .map(|about| about.name)
        .collect();
    let expected = [
        "Policy",
        "Rule",
        "Experiment",
        "Callers",
        "Assignment",
        "Status",
        "ToldCost",
        "Respond",
        "Condition",
        "Limit",
        "KeyedLimit",
        "Variant",
        "OperatorHeader",
        "Lease",
        "KeySource",
        "Override",
        "Limits",
    ];
    assert_eq!(names, expected);
}

#[test]
fn whatever_is_wrong_is_told_and_what_is_right_is_kept() {
    let text = r#"{"rulez": [], "body": "xml", "rules": [
        {"name": "a", "pattern": "/a", "prio": 1, "global_limit": {"type": "fixed_window", "limit": 0}},
        {"name": "b", "pattern": "/b", "methods": ["GET", 5, "PUT"]},
        7,
        {"name": "c", "pattern": "c"}
    ]}"#;
    let source = Json::parse(text, "policy").unwrap();
    let mut mistakes = Mistakes::at_most(99);
    let policy = Policy::read(&At::new(&source, "policy"), &mut mistakes).unwrap();
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let begin = [
        "policy.rules[0].global_limit.limit: is 0; expected",
        "policy.rules[0].global_limit: lacks the field \"window\"",
        "policy.rules[0].prio: is not a field here; the fields are name,",
        "policy.rules[1].methods[1]: is 5; expected a string",
        "policy.rules[2]: is 7; expected an object",
        "policy.rules[3].pattern: \"c\" can match no path",
        "policy.body: is \"xml\"; expected one of",
        "policy.rulez: is not a field here; the fields are match,",
    ];
    assert_eq!(told.len(), begin.len(), "{told:#?}");
    for (told, begin) in told.iter().zip(begin) {
        assert!(told.starts_with(begin), "{told}\nis not\n{begin}");
    }
    let names: Vec<&str> = policy.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert!(!policy.rules.is_whole());
}
