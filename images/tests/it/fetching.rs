use std::fs;

use anyhow::Result;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use weir_images::{
    VERSION,
    blob::Blob,
    contents::{Contents, Packed},
    image::{Image, Name},
    layout,
    registry::{Credentials, Pushed, Registry},
    tree::Tree,
};
use weir_lab::{artifact, scratch::Scratch};

use crate::{
    agent::Agent,
    served::{Login, PASSWORD, Referrers, Served, USERNAME},
};

fn login(password: &str) -> Option<Credentials> {
    Some(Credentials {
        username: USERNAME.to_owned(),
        password: password.to_owned(),
    })
}

fn push(served: &Served, credentials: Option<Credentials>, packed: &Packed) -> Result<Pushed> {
    let place = format!("{}/org/weir", served.address());
    Registry::try_new(&place, credentials)?.push(&packed.image, &packed.sbom)
}

/// An image of one small file.
fn small() -> Packed {
    let mut tree = Tree::default();
    tree.file("a", "b");
    let name = Name {
        repository: "small".to_owned(),
        tag: "1".to_owned(),
    };
    let layers = vec![tree.layer().unwrap()];
    Packed {
        image: Image::container(name, "a test", &json!({}), layers).unwrap(),
        sbom: b"[]".to_vec(),
    }
}

#[test]
fn both_forms_of_the_filter_are_fetched_as_they_were_built() {
    let served = Served::start(Login::Nobody, Referrers::Known);
    let built = fs::read(artifact::wasm().unwrap()).unwrap();
    let forms = [
        (Contents::Filter, VERSION.to_owned()),
        (Contents::FilterArtifact, format!("{VERSION}-artifact")),
    ];
    for (contents, tag) in forms {
        let pushed = push(&served, None, &contents.pack(VERSION).unwrap()).unwrap();
        let agent = Agent::of(served.address());
        let pin = pushed.digest.strip_prefix("sha256:").unwrap();
        let ways = [
            (tag.as_str(), None),
            (tag.as_str(), Some(pin)),
            (pushed.digest.as_str(), None),
        ];
        for (reference, sha256) in ways {
            let fetched = agent.fetch("org/weir/filter", reference, sha256).unwrap();
            assert!(
                fetched == built,
                "{contents:?} by {reference}, pinned: {sha256:?}"
            );
        }
        let other = "0".repeat(64);
        let refused = agent
            .fetch("org/weir/filter", &tag, Some(&other))
            .unwrap_err();
        assert!(refused.to_string().contains("does not match"), "{refused}");
        let place = format!("{}/org/weir/filter@{}", served.address(), pushed.digest);
        assert_eq!(pushed.image, place);
    }
}

#[test]
fn a_registry_that_asks_who_one_is_is_told() {
    let packed = Contents::Filter.pack(VERSION).unwrap();
    let basic = STANDARD.encode(format!("{USERNAME}:{PASSWORD}"));
    let ways = [
        (Login::Basic, format!("Basic {basic}")),
        (Login::Bearer, "Bearer the-token".to_owned()),
    ];
    for (way, authorization) in ways {
        let served = Served::start(way, Referrers::Known);
        push(&served, login(PASSWORD), &packed).unwrap();
        let agent = Agent::of(served.address());
        assert!(
            agent.fetch("org/weir/filter", VERSION, None).is_err(),
            "{way:?}"
        );
        let agent = agent.authorized(&authorization);
        agent.fetch("org/weir/filter", VERSION, None).unwrap();
    }
}

#[test]
fn a_wrong_login_is_refused_with_what_to_do() {
    let packed = small();
    for way in [Login::Basic, Login::Bearer] {
        let served = Served::start(way, Referrers::Known);
        let refused = push(&served, login("wrong"), &packed).unwrap_err();
        let refused = format!("{refused:#}");
        assert!(
            refused.contains("refuses the user weir") || refused.contains("401"),
            "{refused}"
        );
        assert_eq!(served.uploads(), 0);
    }
    let served = Served::start(Login::Basic, Referrers::Known);
    let refused = push(&served, None, &packed).unwrap_err().to_string();
    assert!(refused.contains("WEIR_REGISTRY_USERNAME"), "{refused}");
}

#[test]
fn what_a_registry_has_is_not_sent_again() {
    let served = Served::start(Login::Nobody, Referrers::Known);
    let packed = small();
    push(&served, None, &packed).unwrap();
    // The layer, the configuration, the list and the empty configuration of its manifest.
    assert_eq!(served.uploads(), 4);
    push(&served, None, &packed).unwrap();
    assert_eq!(served.uploads(), 4);
}

#[test]
fn the_list_of_crates_refers_to_its_image() {
    for referrers in [Referrers::Known, Referrers::Unknown] {
        let served = Served::start(Login::Nobody, referrers);
        let packed = Contents::Filter.pack(VERSION).unwrap();
        let pushed = push(&served, None, &packed).unwrap();
        // Twice, and there is one all the same.
        push(&served, None, &packed).unwrap();
        let [manifest] = served.referring_to(&pushed.digest).try_into().unwrap();
        let manifest: Value = manifest;
        assert_eq!(manifest["artifactType"], "application/vnd.cyclonedx+json");
        let list = manifest["layers"][0]["digest"].as_str().unwrap();
        assert_eq!(served.blob("org/weir/filter", list).unwrap(), packed.sbom);
        let list: Value = serde_json::from_slice(&packed.sbom).unwrap();
        let whole = &list["metadata"]["component"];
        assert_eq!(whole["purl"], format!("pkg:oci/filter@{}", pushed.digest));

        let by_tag = served.manifest("org/weir/filter", &pushed.digest.replace(':', "-"));
        match referrers {
            Referrers::Known => assert_eq!(by_tag, None),
            Referrers::Unknown => {
                let entries = by_tag.unwrap()["manifests"].as_array().unwrap().clone();
                assert_eq!(entries.len(), 1, "{entries:?}");
                assert_eq!(entries[0]["artifactType"], "application/vnd.cyclonedx+json");
            }
        }
    }
}

#[test]
fn a_layout_that_was_changed_is_not_read() {
    let scratch = Scratch::try_new("layout").unwrap();
    let image = small().image;
    let folder = scratch.file("small");
    layout::write(&folder, &image).unwrap();
    assert_eq!(layout::open(&folder).unwrap(), image);

    let layer: &Blob = &image.layers[0];
    let path = folder.join("blobs").join(layer.digest().replace(':', "/"));
    fs::write(path, "something else").unwrap();
    let refused = layout::open(&folder).unwrap_err().to_string();
    assert!(refused.contains(&layer.digest()), "{refused}");
}
