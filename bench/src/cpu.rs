//! What the system says a process has used: processor time, memory, and who its children are.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result};
use nix::{
    time::{ClockId, clock_getcpuclockid, clock_gettime},
    unistd::{Pid, SysconfVar, sysconf},
};

/// One line of `/proc/PID/stat`, as far as it is needed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stat {
    pub pid: u32,
    /// The program's name, at most 15 bytes of it.
    pub program: String,
    pub parent: u32,
    /// A zombie has used what it has used, and its clock is gone.
    pub is_zombie: bool,
}

/// Processor time of a process, all its threads, by user and kernel together. It is what `utime` and
/// `stime` of `/proc/PID/stat` sum up to, but in nanoseconds; a tick of those is 10 ms, which is 1 %
/// of a round.
pub fn time(pid: u32) -> Result<Duration> {
    let pid = Pid::from_raw(i32::try_from(pid)?);
    let clock = clock_getcpuclockid(pid).with_context(|| format!("process {pid} is gone"))?;
    Ok(clock_gettime(clock)?.into())
}

/// Processor time of this thread.
pub fn own_thread() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Processor time of this process.
pub fn own_process() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into())
}

/// Processor time of the whole machine, whoever used it, what a hypervisor took included. It is counted
/// in ticks.
pub fn machine() -> Result<Duration> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("this system has no clock ticks")?;
    let stat = fs::read_to_string("/proc/stat")?;
    let busy = parse_busy(&stat).context("cannot read /proc/stat")?;
    Ok(Duration::from_secs_f64(busy as f64 / ticks as f64))
}

/// Memory that a process holds now, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_resident(&status).with_context(|| format!("process {pid} tells no VmRSS"))
}

/// A process and all that it started, directly or not, in order of their ids.
pub fn family(root: u32) -> Result<Vec<Stat>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let is_process = entry.file_name().to_string_lossy().parse::<u32>().is_ok();
        // A process that ended since is nobody's.
        if let Some(line) = is_process
            .then(|| fs::read_to_string(entry.path().join("stat")).ok())
            .flatten()
        {
            let stat = Stat::parse(&line).with_context(|| format!("cannot read: {line}"))?;
            all.insert(stat.pid, stat);
        }
    }
    let family = descendants(root, &all);
    Ok(family.into_iter().filter(|stat| !stat.is_zombie).collect())
}

fn descendants(root: u32, all: &BTreeMap<u32, Stat>) -> Vec<Stat> {
    let is_of_family = |stat: &Stat| {
        let mut pid = stat.pid;
        // Longer than any line of ancestors: one that has changed while it was read may be a circle.
        for _ in 0..64 {
            if pid == root {
                return true;
            }
            let Some(stat) = all.get(&pid) else { break };
            pid = stat.parent;
        }
        false
    };
    all.values()
        .filter(|&stat| is_of_family(stat))
        .cloned()
        .collect()
}

impl Stat {
    /// The program's name stands in parentheses, and may hold spaces and parentheses itself.
    pub fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(" (")?;
        let (program, rest) = rest.rsplit_once(") ")?;
        let mut fields = rest.split(' ');
        let is_zombie = matches!(fields.next()?, "Z" | "X");
        Some(Self {
            pid: pid.parse().ok()?,
            program: program.to_owned(),
            parent: fields.next()?.parse().ok()?,
            is_zombie,
        })
    }
}

/// `cpu user nice system idle iowait irq softirq steal …`; the two in the middle are nobody's work.
fn parse_busy(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line
        .split_whitespace()
        .map_while(|field| field.parse().ok())
        .collect();
    let busy = fields.get(..3)?.iter().chain(fields.get(5..8)?);
    Some(busy.sum())
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_program_is_called() {
        let table = [
            (
                "7 (redis-server) S 1 7 7 0 -1 4194560 1",
                7,
                "redis-server",
                1,
                false,
            ),
            ("42 (a (b) c) d) R 7 1", 42, "a (b) c) d", 7, false),
            ("9 (gone) Z 42 1", 9, "gone", 42, true),
        ];
        for (line, pid, program, parent, is_zombie) in table {
            let program = program.to_owned();
            let stat = Stat {
                pid,
                program,
                parent,
                is_zombie,
            };
            assert_eq!(Stat::parse(line), Some(stat), "{line}");
        }
        for line in ["", "7 redis S 1", "x (a) S 1", "7 (a) S", "7 (a) S x"] {
            assert_eq!(Stat::parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_family_is_a_process_with_its_children_and_theirs() {
        let stat = |(pid, parent)| {
            let program = String::new();
            (
                pid,
                Stat {
                    pid,
                    program,
                    parent,
                    is_zombie: false,
                },
            )
        };
        let all = [(1, 0), (5, 1), (6, 5), (7, 6), (8, 1), (9, 10), (10, 9)];
        let all = all.into_iter().map(stat).collect();
        let pids = |root| {
            descendants(root, &all)
                .iter()
                .map(|s| s.pid)
                .collect::<Vec<_>>()
        };
        assert_eq!(pids(5), [5, 6, 7]);
        assert_eq!(pids(8), [8]);
        assert_eq!(pids(99), [0; 0]);
    }

    #[test]
    fn resident_memory_is_read_in_bytes() {
        assert_eq!(
            parse_resident("Name:\tx\nVmRSS:\t    12 kB\n"),
            Some(12 << 10)
        );
        assert_eq!(parse_resident("Name:\tx\n"), None);
    }

    #[test]
    fn a_machine_is_busy_with_all_but_waiting() {
        let stat = "cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 1 1 1 1 1 1 1 1\n";
        assert_eq!(parse_busy(stat), Some(63));
        assert_eq!(parse_busy("cpu 1 2 3\n"), None);
        assert!(machine().unwrap() > Duration::ZERO);
    }

    #[test]
    fn this_process_is_seen_at_work() {
        let before = time(process::id()).unwrap();
        let mut number = 1_u64;
        while time(process::id()).unwrap() < before + Duration::from_millis(5) {
            number = number.wrapping_mul(3);
        }
        assert!(number != 0 && own_process().unwrap() >= own_thread().unwrap());
        assert!(resident(process::id()).unwrap() > 1 << 20);
        let family = family(process::id()).unwrap();
        assert!(family.iter().any(|stat| stat.pid == process::id()));
    }
}
