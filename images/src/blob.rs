//! Bytes with a media type, named by their digest: what layouts and registries are made of. It knows
//! nothing of what they hold.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::Result;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Blob {
    pub media_type: String,
    pub bytes: Vec<u8>,
    /// What a manifest says of it.
    pub annotations: BTreeMap<String, String>,
}

impl Blob {
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self {
            media_type: media_type.to_owned(),
            bytes,
            annotations: BTreeMap::new(),
        }
    }

    pub fn json(media_type: &str, value: Value) -> Result<Self> {
        Ok(Self::new(media_type, canonical(value)?))
    }

    #[must_use]
    pub fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    pub fn digest(&self) -> String {
        digest(&self.bytes)
    }

    /// How a manifest or an index refers to it.
    pub fn descriptor(&self) -> Value {
        let mut descriptor = json!({
            "mediaType": self.media_type,
            "digest": self.digest(),
            "size": self.bytes.len(),
        });
        if !self.annotations.is_empty() {
            descriptor["annotations"] = json!(self.annotations);
        }
        descriptor
    }
}

/// `sha256:` and 64 hexadecimal digits.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            // A String takes all that it is given.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// JSON with its keys in order, so that equal values are equal bytes whatever serde_json was built with.
pub fn canonical(mut value: Value) -> Result<Vec<u8>> {
    value.sort_all_objects();
    Ok(serde_json::to_vec(&value)?)
}
