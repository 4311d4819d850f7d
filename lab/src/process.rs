//! A child process with a log. It ends when its value is dropped, and when this process dies, by
//! whatever means.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        mpsc::{self, Sender},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{self, Signal},
    },
    unistd::{self, Pid},
};

use crate::deadline;

/// What a part says when it fails is at the end of its log.
const LAST_LINES: usize = 15;

#[derive(Debug)]
pub struct Process {
    name: String,
    child: Mutex<Child>,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts `command` with both its outputs going to the file `log`, which begins empty.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = nursery_spawn(command).with_context(|| format!("cannot run {program}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid fits in 31 bits")?);
        Ok(Self {
            name: name.to_owned(),
            child: Mutex::new(child),
            pid,
            log: log.to_owned(),
        })
    }

    pub fn pid(&self) -> u32 {
        self.pid.as_raw().unsigned_abs()
    }

    /// All that it has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    /// The error to report if it has ended: that it did, and the end of its log.
    pub fn death(&self) -> Option<anyhow::Error> {
        let status = self.exited()?;
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let end = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        Some(anyhow!(
            "{} ended ({status}). The end of its log:\n{end}",
            self.name
        ))
    }

    /// Polls until `ready` holds; fails at once when the process ends first.
    pub fn wait_ready(&self, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        deadline::poll(limit, &format!("answer from {}", self.name), || {
            if ready() {
                return Ok(Some(()));
            }
            self.death().map_or(Ok(None), Err)
        })
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Under the lock, and only while it lives: a pid that was waited for may be another's.
        let mut child = self.child();
        match child.try_wait()? {
            None => signal::kill(self.pid, signal)
                .with_context(|| format!("cannot signal {}", self.name)),
            Some(status) => Err(anyhow!("{} has ended ({status})", self.name)),
        }
    }

    /// Holds it still: connections stay open and nothing answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    /// Kills it, even where it is stopped, and waits for its end.
    pub fn kill(&self) {
        let mut child = self.child();
        let _ = child.kill();
        let _ = child.wait();
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One request to the nursery: what to run, and where to send what became of it.
type Birth = (Command, Sender<io::Result<Child>>);

/// Spawns from a thread that lives as long as this process: the kernel sends the parent-death signal
/// when the spawning *thread* ends, and a test's thread ends with the test.
fn nursery_spawn(command: Command) -> io::Result<Child> {
    static NURSERY: OnceLock<Sender<Birth>> = OnceLock::new();
    let nursery = NURSERY.get_or_init(|| {
        let (births, orders) = mpsc::channel::<Birth>();
        thread::spawn(move || {
            for (mut command, reply) in orders {
                let _ = reply.send(bind_to_parent(&mut command).spawn());
            }
        });
        births
    });
    let (reply, child) = mpsc::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    nursery.send((command, reply)).map_err(|_| gone())?;
    child.recv().map_err(|_| gone())?
}

fn bind_to_parent(command: &mut Command) -> &mut Command {
    let parent = unistd::getpid();
    let die_with_parent = move || {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // The parent may have died before the line above.
        if unistd::getppid() == parent {
            Ok(())
        } else {
            Err(Errno::ESRCH.into())
        }
    };
    // A group of its own: a Ctrl-C at the terminal is for us, and we stop the parts.
    command.process_group(0);
    // SAFETY: between fork and exec the closure makes two system calls and nothing else.
    unsafe { command.pre_exec(die_with_parent) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn shell(script: &str, scratch: &Scratch) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::spawn("the shell", command, &scratch.file("log")).unwrap()
    }

    fn is_alive(pid: &str) -> bool {
        let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // A zombie is dead: whoever inherited it has only not yet asked.
        !state.is_empty() && !state.contains(") Z ")
    }

    #[test]
    fn a_process_that_ends_says_so_with_the_end_of_its_log() {
        let scratch = Scratch::try_new("process").unwrap();
        let process = shell("echo the reason; exit 3", &scratch);
        let error = process
            .wait_ready(Duration::from_secs(5), || false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 3") && error.ends_with("the reason"),
            "{error}"
        );
    }

    #[test]
    fn a_dropped_process_is_dead_even_if_it_was_stopped() {
        let scratch = Scratch::try_new("process").unwrap();
        let process = shell("exec sleep 600", &scratch);
        let pid = process.pid().to_string();
        process.pause().unwrap();
        assert!(is_alive(&pid));
        drop(process);
        assert!(!is_alive(&pid));
    }

    /// Not a test of its own: the parent that the next one kills.
    #[test]
    #[ignore = "run by children_die_with_a_killed_parent"]
    fn a_parent() {
        let scratch = Scratch::try_new("parent").unwrap();
        // The thread that asked for the child is gone long before the parent is.
        let child = thread::spawn(move || shell("exec sleep 600", &scratch))
            .join()
            .unwrap();
        eprintln!("child {}", child.pid());
        loop {
            thread::park();
        }
    }

    #[test]
    fn children_die_with_a_killed_parent_and_not_with_the_thread_that_asked() {
        let scratch = Scratch::try_new("process").unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--ignored",
            "--exact",
            "--nocapture",
            "process::tests::a_parent",
        ]);
        let parent = Process::spawn("the parent", command, &scratch.file("log")).unwrap();
        let limit = Duration::from_secs(10);
        let child = deadline::poll(limit, "child", || {
            let log = parent.log();
            let pid = log.lines().find_map(|line| line.strip_prefix("child "));
            Ok(pid.map(str::to_owned))
        })
        .unwrap();
        assert!(is_alive(&child));
        parent.kill();
        deadline::poll(limit, "death", || Ok((!is_alive(&child)).then_some(()))).unwrap();
    }
}
