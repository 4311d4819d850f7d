//! Where a command's results go: as a table for people or as JSON for scripts, on the output; what is
//! said besides goes to the error output. Colour is for terminals, and `NO_COLOR` is heeded.

use std::io::{self, Write};

use anstream::{AutoStream, eprintln};
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    Json,
}

pub struct Console {
    pub output: Output,
    out: AutoStream<io::StdoutLock<'static>>,
}

pub const RED: Style = AnsiColor::Red.on_default().bold();
pub const GREEN: Style = AnsiColor::Green.on_default();
pub const YELLOW: Style = AnsiColor::Yellow.on_default().bold();
pub const DIM: Style = Style::new().dimmed();

impl Console {
    pub fn new(output: Output) -> Console {
        Console {
            output,
            out: AutoStream::auto(io::stdout().lock()),
        }
    }

    /// One result for scripts, under the name and version of its schema.
    pub fn json(&mut self, schema: &str, result: &impl Serialize) -> io::Result<()> {
        #[derive(Serialize)]
        struct Named<'a, T> {
            schema: &'a str,
            #[serde(flatten)]
            result: &'a T,
        }
        serde_json::to_writer_pretty(&mut self.out, &Named { schema, result })?;
        writeln!(self.out)
    }

    /// Not a result: which Redis it is, that something is probably not meant.
    pub fn note(&self, note: &str) {
        eprintln!("{DIM}{note}{DIM:#}");
    }

    /// What brings its own colours.
    pub fn note_as_is(&self, note: &str) {
        eprintln!("{note}");
    }

    pub fn warning(&self, warning: &str) {
        eprintln!("{YELLOW}warning{YELLOW:#}: {warning}");
    }

    pub fn error(&self, error: &str) {
        eprintln!("{RED}error{RED:#}: {error}");
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
