//! Access logs as requests in the order of time. [`format`] reads one line, [`source`] a file, and
//! [`order`] brings what several files hold into one order. It knows no policy.

pub mod format;
mod guess;
mod json;
mod order;
mod progress;
mod source;
mod text;
mod time;

pub use format::{Format, Slot};
pub use order::{Merged, Summary};
pub use progress::Progress;
pub use source::Log;

/// What one line says, as far as it matters.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// µs since the Unix epoch: when the request came.
    pub time: u64,
    /// 0 where it is not logged.
    pub status: u16,
    block: &'a Block,
    entry: &'a Entry,
}

/// Requests in order, with their text beside them.
#[derive(Clone, Debug, Default)]
pub struct Block {
    arena: Vec<u8>,
    entries: Vec<Entry>,
    /// What the values of its entries are.
    slots: std::sync::Arc<[Slot]>,
}

/// As many values of a line as are kept.
pub const MOST_SLOTS: usize = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    time: u64,
    status: u16,
    /// In order of the slots; empty where the line has none.
    values: [Span; MOST_SLOTS],
}

#[derive(Clone, Copy, Debug, Default)]
struct Span {
    start: u32,
    len: u32,
}

impl Block {
    fn with(slots: std::sync::Arc<[Slot]>) -> Block {
        Block {
            slots,
            ..Block::default()
        }
    }

    /// Takes an entry of another block over.
    fn copy(&mut self, entry: &Entry, from: &Block) {
        let mut copy = *entry;
        for value in &mut copy.values[..self.slots.len()] {
            let start = self.arena.len() as u32;
            self.arena.extend_from_slice(from.value(*value));
            value.start = start;
        }
        self.entries.push(copy);
    }

    fn value(&self, Span { start, len }: Span) -> &[u8] {
        &self.arena[start as usize..(start + len) as usize]
    }
}

impl<'a> Request<'a> {
    /// The values that the line has.
    pub fn values(&self) -> impl Iterator<Item = (&'a Slot, &'a [u8])> + use<'a> {
        let (block, entry) = (self.block, self.entry);
        let slots = block.slots.iter().zip(&entry.values);
        slots
            .filter(|(_, value)| value.len > 0)
            .map(move |(slot, value)| (slot, block.value(*value)))
    }
}
