//! `weirctl completion`: what a shell reads to complete commands and options.

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use crate::console::Console;
use crate::exit::Exit;

/// Print completions for a shell
///
/// For bash: weirctl completion bash > ~/.local/share/bash-completion/completions/weirctl
#[derive(Args)]
pub struct Completion {
    shell: Shell,
}

impl Completion {
    pub fn run(self, console: &mut Console, mut command: clap::Command) -> Result<Exit> {
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, console);
        Ok(Exit::Done)
    }
}
