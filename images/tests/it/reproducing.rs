use std::{
    collections::BTreeMap,
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use weir_images::{VERSION, contents::Contents, release, tree::read};
use weir_lab::{artifact, place, scratch::Scratch};

/// What a build wrote, by its path.
fn written(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(inside) = folders.pop() {
        for entry in fs::read_dir(inside).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_owned();
                files.insert(name, read(&path).unwrap());
            }
        }
    }
    files
}

fn assert_equal(one: &Path, other: &Path) {
    let (one, other) = (written(one), written(other));
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&one), names(&other));
    for (name, bytes) in &one {
        assert!(*bytes == other[name], "{} differs", name.display());
    }
    assert!(!one.is_empty());
}

#[test]
fn two_builds_of_the_filters_images_are_equal() {
    let scratch = Scratch::try_new("twice").unwrap();
    let folders = ["one", "other"].map(|name| scratch.file(name));
    for folder in &folders {
        fs::create_dir(folder).unwrap();
        for contents in [Contents::Filter, Contents::FilterArtifact] {
            let packed = contents.pack(VERSION).unwrap();
            release::image(folder, contents, &packed).unwrap();
        }
    }
    assert_equal(&folders[0], &folders[1]);
}

#[test]
#[ignore = "builds all programs of the images: make test-images"]
fn two_releases_are_equal() {
    let scratch = Scratch::try_new("release").unwrap();
    let folders = ["one", "other"].map(|name| scratch.file(name));
    for folder in &folders {
        release::release(folder).unwrap();
        let checked = Command::new("sha256sum")
            .args(["--check", "--quiet", release::CHECKSUMS])
            .current_dir(folder)
            .status()
            .unwrap();
        assert!(checked.success());
    }
    assert_equal(&folders[0], &folders[1]);
}

/// Neither the project's folder nor cargo's shows in what is built.
#[test]
#[ignore = "compiles everything once more, some minutes: make test-images"]
fn another_checkout_of_another_user_gives_the_same_bytes() {
    let scratch = Scratch::try_new("elsewhere").unwrap();
    let checkout = scratch.file("another checkout");
    let listed = Command::new("git")
        .args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ])
        .current_dir(place::project())
        .output()
        .unwrap();
    assert!(listed.status.success(), "this is no checkout of git");
    for name in listed
        .stdout
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = str::from_utf8(name).unwrap();
        let to = checkout.join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let from = place::project().join(name);
        if let Ok(target) = fs::read_link(&from) {
            symlink(target, to).unwrap();
        } else if from.exists() {
            // What is deleted and not yet committed is listed all the same.
            fs::copy(from, to).unwrap();
        }
    }
    // The same crates under another path.
    let home = scratch.file("cargo");
    fs::create_dir(&home).unwrap();
    let own = env::var_os("CARGO_HOME").map(PathBuf::from);
    let own = own.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cargo"));
    for name in fs::read_dir(&own).unwrap() {
        let name = name.unwrap().file_name();
        symlink(own.join(&name), home.join(&name)).unwrap();
    }

    let images = ["filter", "filter-artifact", "sidecar", "weirctl"];
    let build = |project: &Path, to: &Path, home: &Path| {
        let built = artifact::cargo()
            .current_dir(project)
            .args(["run", "--quiet", "--package", "weir-images", "--", "build"])
            .args(images)
            .arg("--to")
            .arg(to)
            .env("CARGO_HOME", home)
            .env_remove("CARGO_TARGET_DIR")
            .status()
            .unwrap();
        assert!(built.success());
    };
    let (here, there) = (scratch.file("here"), scratch.file("there"));
    build(&place::project(), &here, &own);
    build(&checkout, &there, &home);
    assert_equal(&here, &there);
}
