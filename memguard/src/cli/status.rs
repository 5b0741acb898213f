//! `memguard status`: what `memguard top` shows, once, for scripts and for people without a terminal.

use std::{path::PathBuf, process::ExitCode};

use super::{
    output::{Output, OutputArgs, tell},
    paint::Tone,
};
use crate::{
    engine::State,
    status::{Client, socket, text},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// As given to `memguard run`.
    #[arg(long, value_name = "FOLDER", default_value = super::incidents::RUN_DIR)]
    run_dir: PathBuf,

    #[command(flatten)]
    output: OutputArgs,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let snapshot = Client::connect(&socket(&args.run_dir))?.snapshot()?;
    let answer = match args.output.get() {
        Output::Text => painted(&text(&snapshot)),
        Output::Json => serde_json::to_string_pretty(&snapshot)? + "\n",
    };
    tell(args.output.get(), &answer)?;
    Ok(ExitCode::SUCCESS)
}

/// With the state in front of each cgroup in its colour. Names can't begin a line: they are escaped, and stand behind it.
fn painted(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let (first, rest) = line.split_at(line.find([' ', '\n']).unwrap_or(line.len()));
        let tone = [
            (State::Livelock, Tone::Bad),
            (State::Suspect, Tone::Look),
            (State::Pressed, Tone::Strong),
            (State::Calm, Tone::Quiet),
        ];
        match tone.into_iter().find(|(state, _)| state.to_string() == first) {
            Some((_, tone)) => out.push_str(&tone.paint(first)),
            None => out.push_str(first),
        }
        out.push_str(rest);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_painted_and_nothing_else() {
        let text = "memguard 0.1.0 in observe mode\n  no tracer: livelock\nlivelock a suspect b\n         512\ncalm     c\nno end";
        let painted = painted(text);
        assert_eq!(anstream::adapter::strip_str(&painted).to_string(), text);
        assert_eq!(painted.matches("\x1b[0m").count(), 2, "{painted:?}");
        assert!(painted.contains("livelock\x1b[0m a suspect b"));
    }
}
