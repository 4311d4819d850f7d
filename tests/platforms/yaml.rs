//! YAML as values of JSON: what a Kubernetes API server makes of a manifest.

use std::collections::BTreeMap;

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Value, json};

/// Every document that is not empty.
pub fn documents(text: &str) -> Vec<Value> {
    let documents = Yaml::load_from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let values = documents.iter().map(value);
    values.filter(|value| !value.is_null()).collect()
}

/// The only document.
pub fn document(text: &str) -> Value {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "{text}");
    documents.remove(0)
}

fn value(yaml: &Yaml<'_>) -> Value {
    match yaml {
        Yaml::Value(Scalar::Null) => Value::Null,
        Yaml::Value(Scalar::Boolean(flag)) => json!(flag),
        Yaml::Value(Scalar::Integer(number)) => json!(number),
        Yaml::Value(Scalar::FloatingPoint(number)) => json!(number.into_inner()),
        Yaml::Value(Scalar::String(text)) => json!(text),
        Yaml::Sequence(items) => items.iter().map(value).collect(),
        Yaml::Mapping(fields) => {
            let field = |(key, of): (&Yaml<'_>, &Yaml<'_>)| {
                let key = key
                    .as_str()
                    .unwrap_or_else(|| panic!("{key:?} is no name of a field"));
                (key.to_owned(), value(of))
            };
            let fields: BTreeMap<String, Value> = fields.iter().map(field).collect();
            json!(fields)
        }
        other => panic!("{other:?} has no place in a manifest"),
    }
}
