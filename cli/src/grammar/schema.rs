use serde_json::{Map, Value, json};
use weir_core::policy::document::{About, Ends, Field, Object, Policy, Presence, Shape};

/// As a JSON Schema (2020-12).
pub fn schema() -> Value {
    let objects = Policy::about().all();
    let Some((policy, others)) = objects.split_first() else {
        return Value::Null;
    };
    let definitions: Map<String, Value> = others
        .iter()
        .map(|about| (about.name.to_owned(), object(about)))
        .collect();
    let mut schema = object(policy);
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "A policy of Weir".into();
    schema["$defs"] = definitions.into();
    schema
}

fn object(about: &About) -> Value {
    let mut properties: Map<String, Value> = about
        .fields
        .iter()
        .map(|field| (field.name.to_owned(), property(field)))
        .collect();
    let why = json!({ "type": "string", "maxLength": 1024, "description": "Why it is so." });
    properties.insert("description".to_owned(), why);
    let required = about
        .fields
        .iter()
        .filter(|field| field.presence == Presence::Required);
    let required: Vec<&str> = required.map(|field| field.name).collect();
    json!({
        "type": "object",
        "description": about.about,
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(field: &Field) -> Value {
    let mut schema = shape(&field.shape);
    let about = match field.unit {
        Some(unit) => format!("{} In {unit}.", field.about),
        None => field.about.clone(),
    };
    schema["description"] = about.into();
    if let Presence::Default(default) = field.presence {
        schema["default"] = parsed(default);
    }
    schema["examples"] = json!([parsed(field.example)]);
    schema
}

/// The declarations' JSON is held to be JSON by the core's tests.
fn parsed(json: &str) -> Value {
    serde_json::from_str(json).unwrap_or(Value::Null)
}

fn shape(of: &Shape) -> Value {
    match of {
        Shape::Whole { least, most } => match *most {
            u64::MAX => json!({ "type": "integer", "minimum": least }),
            most => json!({ "type": "integer", "minimum": least, "maximum": most }),
        },
        Shape::Number { least, most, ends } => match ends {
            Ends::Within => json!({ "type": "number", "minimum": least, "maximum": most }),
            Ends::Outside => {
                json!({ "type": "number", "exclusiveMinimum": least, "exclusiveMaximum": most })
            }
        },
        Shape::Flag => json!({ "type": "boolean" }),
        Shape::Words(words) => {
            let mut values: Vec<Value> = words.iter().map(|word| word.word.into()).collect();
            // YAML's `off`.
            if words.iter().any(|word| word.word == "off") {
                values.push(false.into());
            }
            json!({ "enum": values })
        }
        Shape::Text { pattern, .. } => match pattern {
            Some(pattern) => json!({ "type": "string", "pattern": pattern }),
            None => json!({ "type": "string" }),
        },
        Shape::List { of, least } => {
            json!({ "type": "array", "items": shape(of), "minItems": least })
        }
        Shape::OneOrMore(of) => {
            let one = shape(of);
            json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
        }
        Shape::Map { of, .. } => {
            let why = json!({ "type": "string", "maxLength": 1024 });
            json!({
                "type": "object",
                "properties": { "description": why },
                "additionalProperties": shape(of),
            })
        }
        Shape::Object(about) => json!({ "$ref": format!("#/$defs/{}", about().name) }),
        Shape::Either(shapes) => {
            let shapes: Vec<Value> = shapes.iter().map(shape).collect();
            json!({ "anyOf": shapes })
        }
    }
}
