//! The files of a layer by their paths, and how they become one: the same bytes each time, whatever
//! the clock, the user and the order in which they were added.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, write::GzEncoder};
use tar::{EntryType, Header};

use crate::blob::{Blob, digest};

pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// The folders that a distribution of today keeps below `usr`, with a link in their old place.
const MERGED: [&str; 3] = ["bin", "lib", "lib64"];

#[derive(Clone, Debug, Default)]
pub struct Tree(BTreeMap<String, Node>);

#[derive(Clone, Debug)]
enum Node {
    Folder { mode: u32 },
    File { mode: u32, bytes: Vec<u8> },
    Link { target: String },
}

/// A layer: the blob, and the digest of what it unpacks to.
#[derive(Clone, Debug)]
pub struct Layer {
    pub blob: Blob,
    pub diff_id: String,
}

impl Tree {
    /// A file that everybody may read.
    pub fn file(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.node(path, 0o444, bytes.into());
    }

    /// A file that everybody may run.
    pub fn program(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.node(path, 0o555, bytes.into());
    }

    /// A folder in which everybody may write, as in `/tmp`.
    pub fn shared_folder(&mut self, path: &str) {
        self.parents(path);
        self.0
            .insert(path.to_owned(), Node::Folder { mode: 0o1777 });
    }

    /// All files below a folder of this machine, and below what it links to.
    pub fn folder(&mut self, path: &str, from: &Path) -> Result<()> {
        let entries =
            fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_str().context("a file's name is not UTF-8")?;
            let inside = format!("{path}/{name}");
            if entry.path().is_dir() {
                self.folder(&inside, &entry.path())?;
            } else {
                self.file(&inside, read(&entry.path())?);
            }
        }
        Ok(())
    }

    /// A program of this machine as `usr/bin/NAME`, with the libraries that it loads, each where the
    /// loader looks for it.
    pub fn installed(&mut self, name: &str, program: &Path) -> Result<()> {
        for folder in MERGED {
            let target = format!("usr/{folder}");
            self.0.insert(folder.to_owned(), Node::Link { target });
        }
        self.program(&format!("usr/bin/{name}"), read(program)?);
        for library in libraries(program)? {
            let inside = library.trim_start_matches('/');
            let merged = MERGED.iter().any(|folder| {
                let rest = inside.strip_prefix(folder);
                rest.is_some_and(|rest| rest.starts_with('/'))
            });
            let inside = if merged {
                format!("usr/{inside}")
            } else {
                inside.to_owned()
            };
            self.program(&inside, read(Path::new(&library))?);
        }
        Ok(())
    }

    /// The paths of its files, with their bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().filter_map(|(path, node)| match node {
            Node::File { bytes, .. } => Some((path.as_str(), bytes.as_slice())),
            Node::Folder { .. } | Node::Link { .. } => None,
        })
    }

    pub fn layer(&self) -> Result<Layer> {
        let tar = self.tar()?;
        Ok(Layer {
            diff_id: digest(&tar),
            blob: Blob::new(LAYER, gzip(&tar)?),
        })
    }

    pub fn tar(&self) -> Result<Vec<u8>> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, node) in &self.0 {
            let mut header = Header::new_ustar();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            match node {
                Node::Folder { mode } => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    archive.append_data(&mut header, format!("{path}/"), &[][..])?;
                }
                Node::File { mode, bytes } => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(*mode);
                    header.set_size(bytes.len() as u64);
                    archive.append_data(&mut header, path, bytes.as_slice())?;
                }
                Node::Link { target } => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target)?;
                }
            }
        }
        Ok(archive.into_inner()?)
    }

    fn node(&mut self, path: &str, mode: u32, bytes: Vec<u8>) {
        self.parents(path);
        self.0.insert(path.to_owned(), Node::File { mode, bytes });
    }

    fn parents(&mut self, path: &str) {
        for (end, _) in path.match_indices('/') {
            let folder = Node::Folder { mode: 0o755 };
            self.0.entry(path[..end].to_owned()).or_insert(folder);
        }
    }
}

/// Says neither when it was packed nor on what.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(bytes)?;
    Ok(packed.finish()?)
}

pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// What the loader would load, by `ldd`, which fails where a program is linked statically.
fn libraries(program: &Path) -> Result<BTreeSet<String>> {
    let output = Command::new("ldd").arg(program).output();
    let output = output.context("cannot run ldd, which names a program's libraries")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(
        !text.contains("not found"),
        "{} lacks libraries on this machine:\n{text}",
        program.display()
    );
    let words = text.split_whitespace();
    let paths = words.filter(|word| word.starts_with('/') && !word.ends_with(':'));
    Ok(paths.map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_in_which_files_were_added_does_not_show() {
        let add = |names: [&str; 3]| {
            let mut tree = Tree::default();
            for name in names {
                tree.file(name, name);
            }
            tree.layer().unwrap()
        };
        let (one, other) = (add(["b/c", "a", "b/a"]), add(["a", "b/a", "b/c"]));
        assert_eq!(one.blob, other.blob);
        assert_eq!(one.diff_id, other.diff_id);
    }

    #[test]
    fn an_archive_holds_what_was_added_and_nothing_of_this_machine() {
        let mut tree = Tree::default();
        tree.program("usr/bin/run", "#!");
        tree.shared_folder("tmp");
        let tar = tree.tar().unwrap();
        let mut archive = tar::Archive::new(&tar[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!(
                (
                    header.uid().unwrap(),
                    header.gid().unwrap(),
                    header.mtime().unwrap()
                ),
                (0, 0, 0)
            );
            let path = entry.path().unwrap().display().to_string();
            (path, header.mode().unwrap())
        });
        let expected = [
            ("tmp/", 0o1777),
            ("usr/", 0o755),
            ("usr/bin/", 0o755),
            ("usr/bin/run", 0o555),
        ];
        let expected = expected.map(|(path, mode)| (path.to_owned(), mode));
        assert_eq!(entries.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_program_of_this_machine_comes_with_its_loader() {
        let mut tree = Tree::default();
        tree.installed("sh", Path::new("/bin/sh")).unwrap();
        let names: Vec<&str> = tree.files().map(|(path, _)| path).collect();
        assert!(names.contains(&"usr/bin/sh"), "{names:?}");
        assert!(names.iter().any(|name| name.contains("/ld-")), "{names:?}");
        assert!(
            names.iter().all(|name| name.starts_with("usr/")),
            "{names:?}"
        );
    }
}
