//! How far logs are read, on a terminal: no minute is silent.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

pub struct Progress(ProgressBar);

impl Progress {
    /// By the bytes of the files; of the input nobody knows how many come.
    pub fn over(files: &[PathBuf]) -> Progress {
        let size = |file: &Path| {
            let file = fs::metadata(file).ok();
            file.filter(|file| file.is_file()).map(|file| file.len())
        };
        let sizes: Option<Vec<u64>> = files.iter().map(|file| size(file)).collect();
        let (bar, template) = match sizes {
            Some(sizes) => (
                ProgressBar::new(sizes.iter().sum()),
                "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {eta} left",
            ),
            None => (ProgressBar::new_spinner(), "{spinner} {bytes}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Progress(bar)
    }

    /// For whoever shows nothing.
    pub fn hidden() -> Progress {
        Progress(ProgressBar::hidden())
    }

    pub fn finish(&self) {
        self.0.finish_and_clear();
    }

    pub(super) fn counting(&self, read: Box<dyn Read + Send>) -> impl Read + Send + use<> {
        self.0.wrap_read(read)
    }
}
