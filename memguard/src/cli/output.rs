//! How an answer looks: `--output`, the same in every command that has one.

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

/// Where `--json` was there before `--output json`.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(super) struct OldOutputArgs {
    #[command(flatten)]
    output: OutputArgs,

    /// What `--output json` was called.
    #[arg(long, hide = true, conflicts_with = "output")]
    json: bool,
}

impl OldOutputArgs {
    pub(super) const fn get(self) -> Output {
        if self.json { Output::Json } else { self.output.output }
    }
}

/// Writes text that may be painted, or JSON, which is not.
pub(super) fn tell(output: Output, text: &str) -> anyhow::Result<()> {
    match output {
        Output::Text => paint::print(text),
        Output::Json => super::print(text),
    }
}
