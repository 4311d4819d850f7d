//! One file of a log, or the input, plain or gzipped: its requests in order, a block at a time, and what
//! could not be read of it. As much is kept as two blocks hold, whatever the file's size.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result};
use flate2::bufread::MultiGzDecoder;
use serde::Serialize;

use super::format::Format;
use super::progress::Progress;
use super::time::is_whole_second;
use super::{Block, guess};

/// Lines are written when requests end, so one that took long stands behind many that came later. Of
/// lines that are at most so far from their place all are brought into order.
const BLOCK: usize = 32_768;

/// Where lines are long, fewer are kept.
const MOST_BYTES: usize = 64 << 20;

/// A line of a log; a longer one is broken.
const LONGEST_LINE: u64 = 64 << 10;

/// How many broken lines are shown.
const SHOWN: usize = 5;

const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Lines that could not be read.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Broken {
    pub count: u64,
    /// The first of them: file, line and why.
    pub examples: Vec<String>,
}

pub struct Log {
    pub name: String,
    pub format: Format,
    lines: Box<dyn BufRead + Send>,
    /// Those that the format was seen by, and are to be read yet.
    seen: std::vec::IntoIter<(Next, Vec<u8>)>,
    line: Vec<u8>,
    number: u64,
    pending: Block,
    pub broken: Broken,
    pub read: u64,
    /// Requests that stand further from their place than is kept.
    pub late: u64,
    newest: u64,
    has_ended: bool,
    /// Whether all moments so far are whole seconds.
    whole_seconds: bool,
}

impl Log {
    pub fn open(
        file: &Path,
        format: Option<&Format>,
        map: &[(String, String)],
        progress: &Progress,
    ) -> Result<Log> {
        let is_stdin = file.as_os_str() == "-";
        let name = match is_stdin {
            true => "the input".to_owned(),
            false => file.display().to_string(),
        };
        let raw: Box<dyn Read + Send> = match is_stdin {
            true => Box::new(io::stdin()),
            false => Box::new(File::open(file).with_context(|| format!("cannot read {name}"))?),
        };
        let mut raw = BufReader::with_capacity(1 << 18, progress.counting(raw));
        let is_gzip = raw.fill_buf()?.starts_with(&GZIP);
        let lines: Box<dyn BufRead + Send> = match is_gzip {
            true => Box::new(BufReader::with_capacity(1 << 18, MultiGzDecoder::new(raw))),
            false => Box::new(raw),
        };
        let mut lines = lines;
        let mut seen = Vec::new();
        while seen.len() < guess::SAMPLE {
            let mut line = Vec::new();
            match next_line(&mut lines, &mut line).with_context(|| name.clone())? {
                Next::End => break,
                next => seen.push((next, line)),
            }
        }
        let format = match format {
            Some(format) => format.clone(),
            None => {
                let lines = seen.iter().map(|(_, line)| line.as_slice());
                let lines: Vec<&[u8]> = lines.filter(|line| !line.is_empty()).collect();
                guess::format(&lines, map).with_context(|| name.clone())?
            }
        };
        if format.has_header() && !seen.is_empty() {
            seen.remove(0);
        }
        Ok(Log {
            name,
            pending: Block::with(format.slots.clone()),
            number: u64::from(format.has_header()),
            format,
            lines,
            seen: seen.into_iter(),
            line: Vec::new(),
            broken: Broken::default(),
            read: 0,
            late: 0,
            newest: 0,
            has_ended: false,
            whole_seconds: true,
        })
    }

    /// The next requests in order; none at the end.
    pub fn next_block(&mut self) -> Result<Option<Block>> {
        while !self.has_ended
            && self.pending.entries.len() < 2 * BLOCK
            && self.pending.arena.len() < MOST_BYTES
        {
            self.read_line().with_context(|| self.name.clone())?;
        }
        if self.pending.entries.is_empty() {
            return Ok(None);
        }
        self.pending.entries.sort_by_key(|entry| entry.time);
        let count = match self.has_ended {
            true => self.pending.entries.len(),
            false => self.pending.entries.len().div_ceil(2),
        };
        let mut block = Block::with(self.format.slots.clone());
        let mut rest = Block::with(self.format.slots.clone());
        for (place, entry) in self.pending.entries.iter().enumerate() {
            let to = if place < count { &mut block } else { &mut rest };
            to.copy(entry, &self.pending);
        }
        if self.whole_seconds {
            spread(&mut block);
        }
        for entry in &mut block.entries {
            if entry.time < self.newest {
                self.late += 1;
                entry.time = self.newest;
            }
            self.newest = entry.time;
        }
        self.pending = rest;
        Ok(Some(block))
    }

    pub fn is_in_whole_seconds(&self) -> bool {
        self.whole_seconds && self.read > 0
    }

    fn read_line(&mut self) -> io::Result<()> {
        let next = match self.seen.next() {
            Some((next, line)) => {
                self.line = line;
                next
            }
            None => next_line(&mut self.lines, &mut self.line)?,
        };
        if next == Next::End {
            self.has_ended = true;
            return Ok(());
        }
        self.number += 1;
        let read = match next {
            Next::TooLong => Err("is longer than 64 KiB"),
            _ if self.line.is_empty() => return Ok(()),
            _ => self.format.read(&self.line, &mut self.pending.arena),
        };
        match read {
            Ok(entry) => {
                self.read += 1;
                self.whole_seconds &= is_whole_second(entry.time);
                self.pending.entries.push(entry);
            }
            Err(why) => {
                self.broken.count += 1;
                if self.broken.examples.len() < SHOWN {
                    let line = format!("{}:{}: {why}", self.name, self.number);
                    self.broken.examples.push(line);
                }
            }
        }
        Ok(())
    }
}

/// Requests of one second, which the log does not tell apart, evenly over that second.
fn spread(block: &mut Block) {
    let runs = block
        .entries
        .chunk_by_mut(|one, next| one.time == next.time);
    for run in runs {
        let count = run.len() as u64;
        for (place, entry) in (0..).zip(run) {
            entry.time += place * 1_000_000 / count;
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Line,
    TooLong,
    End,
}

/// Without its end.
fn next_line(lines: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Next> {
    line.clear();
    let read = lines.by_ref().take(LONGEST_LINE).read_until(b'\n', line)?;
    if read == 0 {
        return Ok(Next::End);
    }
    if line.pop_if(|byte| *byte == b'\n').is_some() {
        line.pop_if(|byte| *byte == b'\r');
        return Ok(Next::Line);
    }
    if (read as u64) < LONGEST_LINE {
        return Ok(Next::Line);
    }
    line.clear();
    lines.skip_until(b'\n')?;
    Ok(Next::TooLong)
}
