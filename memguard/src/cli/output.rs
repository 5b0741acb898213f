//! How an answer looks: `--output`, the same in every command that has one.

use std::ffi::OsString;

use clap::ValueEnum;

use super::paint;

/// For people or for scripts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people; in colour on a terminal, unless `NO_COLOR` is set.
    #[default]
    Text,
    /// For scripts. Never in colour.
    Json,
}

#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct OutputArgs {
    /// How the answer looks.
    #[arg(long, value_enum, value_name = "FORM", default_value_t)]
    output: Output,
}

impl OutputArgs {
    pub(super) const fn get(self) -> Output {
        self.output
    }
}

/// Writes text that may be painted, or JSON, which is not.
pub(super) fn tell(output: Output, text: &str) -> anyhow::Result<()> {
    match output {
        Output::Text => paint::print(text),
        Output::Json => super::print(text),
    }
}

/// Arguments in which `--json` is what it is called today. `doctor` and `replay` had that before there was `--output`, and
/// scripts have it still; it is in no help, manual or completion.
pub(super) fn of_today(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut all: Vec<OsString> = arguments.collect();
    if all.get(1).is_some_and(|command| command == "doctor" || command == "replay") {
        let end = all.iter().position(|argument| argument == "--").unwrap_or(all.len());
        for argument in all.iter_mut().take(end).filter(|argument| *argument == "--json") {
            *argument = "--output=json".into();
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_old_name_of_output_json() {
        for (old, new) in [
            ("memguard doctor --json", "memguard doctor --output=json"),
            ("memguard replay --json x -- --json", "memguard replay --output=json x -- --json"),
            ("memguard incidents --json", "memguard incidents --json"),
            ("memguard", "memguard"),
        ] {
            let read = of_today(old.split(' ').map(Into::into));
            assert_eq!(read, new.split(' ').map(OsString::from).collect::<Vec<_>>());
        }
    }
}
