//! The tools of this machine: Docker, and either form of compose.

use std::{
    fs::File,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Docker {
    compose: &'static [&'static str],
}

impl Docker {
    /// What is here, or why nothing can be brought up.
    pub fn find() -> Result<Self> {
        run(Command::new("docker").args(["version", "--format", "{{.Server.Os}}"]))
            .context("there is no Docker that answers")?;
        let forms: [&[&str]; 2] = [&["docker", "compose"], &["docker-compose"]];
        let works = |form: &&&[&str]| run(command(form).arg("version")).is_ok();
        let compose = forms.iter().find(works);
        Ok(Self {
            compose: compose.context("there is neither docker compose nor docker-compose")?,
        })
    }

    /// A command of compose's, yet without arguments.
    pub fn compose(&self) -> Command {
        command(self.compose)
    }

    /// What Docker knows of an image or a container; none if it does not know it.
    pub fn inspect(&self, kind: &str, name: &str) -> Option<Value> {
        let output = self.docker(&[kind, "inspect", name]).ok()?;
        let found: Value = serde_json::from_str(&output).ok()?;
        found.get(0).cloned()
    }

    /// What `docker` prints.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        run(Command::new("docker").args(arguments))
    }

    /// What `docker` prints when it is given the file.
    pub fn docker_given(&self, arguments: &[&str], file: File) -> Result<String> {
        run(Command::new("docker").args(arguments).stdin(file))
    }
}

/// What it prints, or how it failed.
pub fn run(command: &mut Command) -> Result<String> {
    let Output {
        status,
        stdout,
        stderr,
    } = command
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    if !status.success() {
        bail!("{command:?}: {status}\n{}", text(stderr));
    }
    Ok(text(stdout))
}

fn command(words: &[&str]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().unwrap_or(&"false"));
    command.args(words).stdin(Stdio::null());
    command
}
