//! Holds manifests to what a cluster's API takes, strictly: an unknown field is an error.
//! Kubernetes' own kinds are held to its published schemas; custom resources to those in
//! `schemas/`, which say of each only what these manifests use. Who has the CRDs themselves names
//! their folder: WEIR_CRDS=…

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use serde_json::{Map, Value, json};
use weir_lab::{parts, place};

use crate::manifest::{kind, name};
use crate::yaml;

/// Brings Kubernetes' schemas, in the strict form.
const PACKAGE: (&str, &str) = ("kubernetes-validate", "1.37.0");
const DEFINITIONS: &str =
    "kubernetes_validate/kubernetes-json-schema/v1.35.0-local-strict/_definitions.json";

type Schemas = BTreeMap<(String, String), Value>;

/// What is wrong with the object, if anything.
pub fn defects(object: &Value) -> Vec<String> {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    let group = version.split('/').next().unwrap_or_default();
    let schema = match group.contains('.') && !group.ends_with(".k8s.io") {
        true => {
            let key = (version.to_owned(), kind(object).to_owned());
            let Some(schema) = custom().get(&key) else {
                return vec![format!("{version} {} is of no known kind", kind(object))];
            };
            schema.clone()
        }
        false => match of_kubernetes(version, kind(object)) {
            Some(schema) => schema,
            None => return vec![],
        },
    };
    let validator = jsonschema::validator_for(&schema).unwrap();
    let defect = |error: jsonschema::ValidationError<'_>| {
        format!(
            "{} {}: {} at {}",
            kind(object),
            name(object),
            error,
            error.instance_path()
        )
    };
    validator.iter_errors(object).map(defect).collect()
}

/// Of a custom resource: ours, or the CRD's own.
fn custom() -> &'static Schemas {
    static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let mut schemas = Schemas::new();
        for file in fs::read_dir(place::project().join("tests/platforms/schemas")).unwrap() {
            let schema: Value =
                serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
            let of = |field: &str| {
                schema["properties"][field]["const"]
                    .as_str()
                    .unwrap()
                    .to_owned()
            };
            schemas.insert((of("apiVersion"), of("kind")), schema.clone());
        }
        if let Some(folder) = std::env::var_os("WEIR_CRDS") {
            read_crds(Path::new(&folder), &mut schemas);
        }
        schemas
    })
}

fn read_crds(folder: &Path, schemas: &mut Schemas) {
    for file in fs::read_dir(folder).unwrap() {
        for crd in yaml::documents(&fs::read_to_string(file.unwrap().path()).unwrap()) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            for version in crd["spec"]["versions"].as_array().into_iter().flatten() {
                let api = format!("{}/{}", text(&crd["spec"]["group"]), text(&version["name"]));
                let mut schema = version["schema"]["openAPIV3Schema"].clone();
                strict(&mut schema);
                let fields = schema["properties"].as_object_mut().unwrap();
                for (field, of) in [
                    ("apiVersion", "string"),
                    ("kind", "string"),
                    ("metadata", "object"),
                ] {
                    fields.insert(field.to_owned(), json!({ "type": of }));
                }
                schemas.insert((api, text(&crd["spec"]["names"]["kind"])), schema);
            }
        }
    }
}

/// What an API server adds to a CRD's schema: unknown fields are refused, and two words of its own.
fn strict(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else {
        return;
    };
    if fields.remove("nullable") == Some(json!(true))
        && let Some(of) = fields.get("type").cloned()
    {
        fields.insert("type".to_owned(), json!([of, "null"]));
    }
    if fields.get("x-kubernetes-int-or-string") == Some(&json!(true)) {
        fields.remove("type");
        fields.insert(
            "anyOf".to_owned(),
            json!([{ "type": "integer" }, { "type": "string" }]),
        );
    }
    let takes_others = fields.contains_key("x-kubernetes-preserve-unknown-fields")
        || fields.contains_key("additionalProperties");
    if fields.contains_key("properties") && !takes_others {
        fields.insert("additionalProperties".to_owned(), json!(false));
    }
    // What "anyOf" and its like hold only narrows; it must not forbid what stands beside it.
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(strict);
    }
    for within in ["items", "additionalProperties"] {
        fields.get_mut(within).into_iter().for_each(strict);
    }
}

/// None where its schemas cannot be had, which is said once.
fn of_kubernetes(version: &str, kind: &str) -> Option<Value> {
    static DEFINITIONS_READ: OnceLock<Option<Value>> = OnceLock::new();
    let definitions = DEFINITIONS_READ.get_or_init(|| match parts::package(PACKAGE.0, PACKAGE.1) {
        Ok(folder) => {
            Some(serde_json::from_slice(&fs::read(folder.join(DEFINITIONS)).unwrap()).unwrap())
        }
        Err(error) => {
            eprintln!("SKIPPED: objects of Kubernetes' own kinds are held to no schema: {error:#}");
            None
        }
    });
    let definitions = definitions.as_ref()?;
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let wanted = json!({ "group": group, "kind": kind, "version": version });
    let is_wanted = |definition: &&Value| {
        let kinds = definition["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| kinds.contains(&wanted))
    };
    let all: &Map<String, Value> = definitions["$defs"].as_object().unwrap();
    let (name, _) = all
        .iter()
        .find(|(_, definition)| is_wanted(definition))
        .unwrap_or_else(|| panic!("Kubernetes has no {wanted}"));
    Some(json!({ "$ref": format!("#/$defs/{name}"), "$defs": all }))
}
