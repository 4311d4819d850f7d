//! The requests of several logs in one order of time.

use anyhow::Result;
use serde::Serialize;

use super::source::{Broken, Log};
use super::{Block, Request, Slot};

/// All logs as one.
pub struct Merged {
    sources: Vec<Source>,
}

struct Source {
    log: Log,
    block: Block,
    next: usize,
}

/// What is to be said of logs once they are read.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub files: Vec<String>,
    pub formats: Vec<String>,
    /// Lines that are requests.
    pub read: u64,
    pub broken: Broken,
    /// Requests that stand too far from their place in time, and were replayed where they stand.
    pub late: u64,
}

impl Merged {
    pub fn of(logs: Vec<Log>) -> Merged {
        let sources = logs.into_iter().map(|log| Source {
            log,
            block: Block::default(),
            next: 0,
        });
        Merged {
            sources: sources.collect(),
        }
    }

    /// Hands every request over, the earliest first.
    pub fn each(&mut self, mut each: impl FnMut(Request<'_>)) -> Result<()> {
        let mut open: Vec<usize> = Vec::new();
        for (place, source) in self.sources.iter_mut().enumerate() {
            if source.fill()? {
                open.push(place);
            }
        }
        while let [first, others @ ..] = open.as_slice() {
            // The source that has the earliest, up to where another has an earlier one.
            let time = |place: &usize| self.sources[*place].time();
            let mut earliest = *first;
            for other in others {
                if time(other) < time(&earliest) {
                    earliest = *other;
                }
            }
            let until = open
                .iter()
                .filter(|place| **place != earliest)
                .map(time)
                .min();
            let source = &mut self.sources[earliest];
            let mut is_open = true;
            while is_open && until.is_none_or(|until| source.time() <= until) {
                each(source.request());
                source.next += 1;
                is_open = source.fill()?;
            }
            if !is_open {
                open.retain(|place| *place != earliest);
            }
        }
        Ok(())
    }

    /// Whether any of the logs tells this.
    pub fn tells(&self, slot: &Slot) -> bool {
        self.sources
            .iter()
            .any(|source| source.log.format.tells(slot))
    }

    /// Whether any of them does not tell requests of one second apart.
    pub fn is_in_whole_seconds(&self) -> bool {
        self.sources
            .iter()
            .any(|source| source.log.is_in_whole_seconds())
    }

    pub fn summary(&self) -> Summary {
        let mut summary = Summary {
            files: Vec::new(),
            formats: Vec::new(),
            read: 0,
            broken: Broken::default(),
            late: 0,
        };
        for Source { log, .. } in &self.sources {
            summary.files.push(log.name.clone());
            if !summary.formats.contains(&log.format.name) {
                summary.formats.push(log.format.name.clone());
            }
            summary.read += log.read;
            summary.late += log.late;
            summary.broken.count += log.broken.count;
            summary
                .broken
                .examples
                .extend(log.broken.examples.iter().cloned());
        }
        summary
    }
}

impl Source {
    /// Whether there is a next request.
    fn fill(&mut self) -> Result<bool> {
        while self.next >= self.block.entries.len() {
            match self.log.next_block()? {
                None => return Ok(false),
                Some(block) => {
                    self.block = block;
                    self.next = 0;
                }
            }
        }
        Ok(true)
    }

    fn time(&self) -> u64 {
        self.block.entries[self.next].time
    }

    fn request(&self) -> Request<'_> {
        let entry = &self.block.entries[self.next];
        Request {
            time: entry.time,
            status: entry.status,
            block: &self.block,
            entry,
        }
    }
}
