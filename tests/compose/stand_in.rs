//! Images for where those of docker-compose.yml are not, and cannot be fetched: the same names, with
//! Envoy and Redis as the other tests run them, our sidecar, and the few programs of a shell that
//! the configurations call, copied from this machine with the libraries they load.
//!
//! A stand-in is labelled, replaces no image that is here, and is removed in the end. One that was
//! left by a test that was killed is found by its label and replaced. What stand-ins cannot show is
//! that the real images hold what is asked of them: the list of programs is kept to what Envoy's
//! (Ubuntu), Redis's (Alpine) and the sidecar's (Debian) do have. sidecar/Dockerfile is not built.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

use anyhow::{Result, bail};
use nix::fcntl::{Flock, FlockArg};
use weir_images::tree::Tree;
use weir_lab::{artifact, parts, scratch::Scratch};

use crate::docker::{Docker, run};

const LABEL: &str = "weir.stand-in=true";

/// What start.sh, render.sh and probe.sh call.
const SHELL: [&str; 7] = ["bash", "cat", "dirname", "mktemp", "sed", "sh", "tr"];

/// The one answer that the health check of Redis asks for. Valkey's package has no client.
const REDIS_CLI: &str = "#!/bin/bash\n\
    exec 3<>/dev/tcp/127.0.0.1/6379 && echo PING >&3 && read -r reply <&3 && [[ $reply == +PONG* ]]\n";

const ACCOUNTS: &str = "root:x:0:0::/:/bin/sh\n\
    envoy:x:101:101::/:/bin/sh\n\
    redis:x:999:1000::/data:/bin/sh\n";

#[derive(Debug, Default)]
pub struct StandIns(Mutex<Option<Made>>);

/// Held until dropped: the names are the same for all who test on this machine.
#[derive(Debug)]
struct Made {
    docker: Docker,
    names: Vec<String>,
    _lock: Flock<File>,
}

impl StandIns {
    /// Sees to it that there is an image of this name.
    pub fn bring(&self, docker: &Docker, name: &str) -> Result<()> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let made = match &mut *made {
            Some(made) => made,
            none => none.insert(Made::begin(docker)?),
        };
        if made.docker.inspect("image", name).is_none() {
            make(docker, name)?;
            made.names.push(name.to_owned());
        }
        Ok(())
    }

    /// Removes those that were made.
    pub fn remove(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Made {
    fn begin(docker: &Docker) -> Result<Self> {
        let file = File::create(env::temp_dir().join("weir-compose-test.lock"))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, errno)| std::io::Error::from(errno))?;
        clear(docker)?;
        Ok(Self {
            docker: docker.clone(),
            names: Vec::new(),
            _lock: lock,
        })
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = self.docker.docker(&["image", "rm", name]) {
                eprintln!("the stand-in {name} is left: {error:#}");
            }
        }
    }
}

/// Removes what a test that was killed has left. Containers carry the labels of their images.
fn clear(docker: &Docker) -> Result<()> {
    let filter = format!("label={LABEL}");
    let project = "{{.Label \"com.docker.compose.project\"}}";
    let stood_in = ["container", "ls", "--all", "--filter", &filter, "--format"];
    let projects = docker.docker(&[&stood_in[..], &[project]].concat())?;
    let ids = docker.docker(&[&stood_in[..], &["{{.ID}}"]].concat())?;
    for id in ids.split_whitespace() {
        docker.docker(&["container", "rm", "--force", "--volumes", id])?;
    }
    for project in projects.split_whitespace().collect::<BTreeSet<_>>() {
        docker.docker(&["network", "rm", &format!("{project}_default")])?;
    }
    let images = docker.docker(&["image", "ls", "--quiet", "--filter", &filter])?;
    for image in images.split_whitespace().collect::<BTreeSet<_>>() {
        // One image may have several names.
        docker.docker(&["image", "rm", "--force", image])?;
    }
    Ok(())
}

fn make(docker: &Docker, name: &str) -> Result<()> {
    let mut root = Tree::default();
    for name in SHELL {
        let path = run(Command::new("sh").args(["-c", "command -v \"$0\"", name]))?;
        root.installed(name, Path::new(&path))?;
    }
    root.file("etc/passwd", ACCOUNTS);
    let mut settings = vec![format!("LABEL {LABEL}"), "ENV PATH=/usr/bin".to_owned()];
    let repository = name.split(':').next().unwrap_or(name);
    match repository {
        "envoyproxy/envoy" => root.installed("envoy", &parts::envoy()?)?,
        "redis" => {
            root.installed("redis-server", &parts::redis_server()?)?;
            root.program("usr/bin/redis-cli", REDIS_CLI);
        }
        _ if repository.ends_with("weir-sidecar") => {
            root.installed("weir-sidecar", &artifact::sidecar()?)?;
            settings.push("ENTRYPOINT [\"weir-sidecar\"]".to_owned());
            settings.push("USER 65532:65532".to_owned());
        }
        other => bail!("nothing is known of {other}"),
    }
    let scratch = Scratch::try_new("stand-in")?;
    let tar = scratch.file("root.tar");
    fs::write(&tar, root.tar()?)?;
    let mut arguments = vec!["image", "import"];
    for setting in &settings {
        arguments.extend(["--change", setting]);
    }
    arguments.extend(["-", name]);
    docker.docker_given(&arguments, File::open(tar)?)?;
    Ok(())
}
