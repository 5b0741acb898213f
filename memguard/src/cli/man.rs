//! `memguard man`: manual pages, made from what `--help` says.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Command;
use clap_mangen::Man;

use super::help::{self, Example, Exit};
use crate::telemetry::{escaped, shown};

/// Programs for who administers a machine.
const SECTION: &str = "8";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Whose page, as `config check`; memguard's own without it.
    command: Vec<String>,

    /// Write the pages of all commands into this folder. It is made if it is not there.
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut whole = super::command().disable_help_subcommand(true);
    // Only then does each know its full name.
    whole.build();
    if let Some(folder) = &args.out {
        fs::create_dir_all(folder).with_context(|| format!("can't make the folder {}", shown(folder)))?;
        write_all(&whole, "", folder)?;
    } else {
        let mut command = &whole;
        for name in &args.command {
            let below = command.get_subcommands().find(|command| command.get_name() == name && !command.is_hide_set());
            let Some(below) = below else {
                bail!("there is no command {} (`memguard help` lists them)", escaped(&args.command.join(" ")));
            };
            command = below;
        }
        super::print(&page(command, &args.command.join(" "))?)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn write_all(command: &Command, path: &str, folder: &Path) -> anyhow::Result<()> {
    let file =
        folder.join(format!("memguard{}{path}.{SECTION}", if path.is_empty() { "" } else { "-" }).replace(' ', "-"));
    fs::write(&file, page(command, path)?).with_context(|| format!("can't write to {}", file.display()))?;
    for below in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = below.get_name();
        write_all(below, &if path.is_empty() { name.to_owned() } else { format!("{path} {name}") }, folder)?;
    }
    Ok(())
}

/// A page, with examples and exit statuses in sections of their own.
fn page(command: &Command, path: &str) -> anyhow::Result<String> {
    let version = env!("CARGO_PKG_VERSION");
    let man = Man::new(command.clone()).section(SECTION).source(format!("memguard {version}"));
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.get_subcommands().any(|command| !command.is_hide_set()) {
        man.render_subcommands_section(&mut page)?;
    }
    let mut page = String::from_utf8_lossy(&page).into_owned();
    if let Some(lesson) = help::lesson(path) {
        page.push_str(".SH EXAMPLES\n");
        for Example { line, does } in lesson.examples {
            // Writing to a string does not fail.
            let _ = writeln!(page, ".TP\n\\fB{}\\fR\n{}", roff(line), roff(does));
        }
        page.push_str(".SH \"EXIT STATUS\"\n");
        for Exit { status, when } in lesson.exits() {
            let _ = writeln!(page, ".TP\n{status}\n{}", roff(when));
        }
    }
    Ok(page)
}

/// Text in which nothing is a command of roff's.
fn roff(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq");
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(command: &[&str], out: Option<&Path>) -> Args {
        Args { command: command.iter().map(|&name| name.to_owned()).collect(), out: out.map(Path::to_owned) }
    }

    #[test]
    fn there_is_a_page_for_each_command_that_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        // As on a machine that had no such pages.
        let folder = dir.path().join("share/man/man8");
        run(&args(&[], Some(&folder))).unwrap();
        let mut found: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        found.sort();
        let mut expected: Vec<_> = help::LESSONS
            .iter()
            .map(|lesson| format!("memguard {}", lesson.command).trim().replace(' ', "-") + ".8")
            .collect();
        expected.sort();
        assert_eq!(found, expected);
        let page = fs::read_to_string(folder.join("memguard-config-check.8")).unwrap();
        for part in
            [".TH memguard-config-check 8", "memguard config check", ".SH \"EXIT STATUS\"", "it has no mistakes"]
        {
            assert!(page.contains(part), "{part}: {page}");
        }
        let below_a_file = folder.join("memguard.8/man8");
        let error = run(&args(&[], Some(&below_a_file))).unwrap_err().to_string();
        assert!(error.contains("memguard.8/man8"), "{error}");
    }

    #[test]
    fn a_command_that_there_is_not_is_named() {
        let error = run(&args(&["config", "shew"], None)).unwrap_err().to_string();
        assert!(error.contains("config shew"), "{error}");
    }

    #[test]
    fn nothing_in_a_text_is_a_command() {
        assert_eq!(roff(".TH 'a' -x \\"), "\\&.TH \\(aqa\\(aq \\-x \\e");
    }
}
