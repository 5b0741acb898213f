//! What each command's help and manual page teach beside its options: examples, and exit statuses.

use std::fmt::Write as _;

use anstyle::Style;
use clap::Command;

/// A command's examples and exit statuses.
#[derive(Clone, Copy, Debug)]
pub struct Lesson {
    /// Without `memguard`; empty for memguard itself.
    pub command: &'static str,
    pub examples: &'static [Example],
    /// Beside [`WRONG_USAGE`], which each command has.
    pub exits: &'static [Exit],
}

/// A command line, and what it does.
#[derive(Clone, Copy, Debug)]
pub struct Example {
    pub line: &'static str,
    pub does: &'static str,
}

/// An exit status, and when it comes.
#[derive(Clone, Copy, Debug)]
pub struct Exit {
    pub status: u8,
    pub when: &'static str,
}

/// Of every command.
pub const WRONG_USAGE: Exit =
    Exit { status: 2, when: "wrong usage: an option or a value that there is not, or some that do not go together" };

const fn example(line: &'static str, does: &'static str) -> Example {
    Example { line, does }
}

const fn exit(status: u8, when: &'static str) -> Exit {
    Exit { status, when }
}

/// Of every command that is shown.
pub const LESSONS: &[Lesson] = &[
    Lesson {
        command: "",
        examples: &[
            example("memguard doctor", "What this machine offers, and what is missing."),
            example("memguard run", "Observe: livelocks are told, nothing is ended."),
            example("memguard config show", "All that can be set, with reasons."),
        ],
        exits: &[
            exit(0, "success"),
            exit(1, "failure; the reason is on standard error"),
            exit(3, "`doctor`: it works, with less than it could have; `replay`: the engine decides otherwise now"),
        ],
    },
    Lesson {
        command: "run",
        examples: &[
            example("memguard run --duration 60", "Observe for a minute, then a summary."),
            example(
                "memguard run --mode enforce --only 'kubepods.slice/**'",
                "End livelocks in pods, and nowhere else.",
            ),
            example(
                "memguard run --config /etc/memguard/memguard.toml --log-format json",
                "As the file says, with a log for machines.",
            ),
        ],
        exits: &[
            exit(0, "ended by SIGTERM or SIGINT, or after --duration"),
            exit(1, "could not start: a configuration with mistakes, another memguard at work, no cgroup v2"),
        ],
    },
    Lesson {
        command: "record",
        examples: &[example(
            "memguard record job.mgtrace --duration 600",
            "Ten minutes of this machine, beside a memguard that is at work or without one.",
        )],
        exits: &[
            exit(0, "ended by SIGTERM or SIGINT, or after --duration"),
            exit(1, "could not start: no cgroup v2, or a file that can't be written to"),
        ],
    },
    Lesson {
        command: "replay",
        examples: &[
            example("memguard replay job.mgtrace", "What was decided, and why."),
            example(
                "memguard replay job.mgtrace --profile careful --plot job.svg",
                "What another profile would have made of it, with a plot.",
            ),
            example(
                "memguard replay job.mgtrace --rule all --output json",
                "Beside other people's rules, for a script.",
            ),
        ],
        exits: &[
            exit(0, "the recordings were judged"),
            exit(1, "a file can't be read, is no recording, or has no samples; the others are judged all the same"),
            exit(3, "the engine decides otherwise now than then: another state or verdict, not only other figures"),
        ],
    },
    Lesson {
        command: "top",
        examples: &[
            example("memguard top", "Live, from the memguard that runs here."),
            example("memguard top --replay job.mgtrace --speed 4", "A recording, four times as fast."),
        ],
        exits: &[exit(0, "quit"), exit(1, "no terminal, or no such recording")],
    },
    Lesson {
        command: "status",
        examples: &[
            example("memguard status", "A few lines about this moment."),
            example("memguard status --output json", "All figures, for a script."),
        ],
        exits: &[exit(0, "memguard answered"), exit(1, "no memguard answers here")],
    },
    Lesson {
        command: "incidents",
        examples: &[
            example("memguard incidents", "One line each, the latest at the end."),
            example("memguard incidents show mg-1764000000-4711", "All of one."),
        ],
        exits: &[
            exit(0, "told, be it that there are none"),
            exit(
                1,
                "there is no such incident; or the folder that --state-dir names is not there, the journal can't be read, \
                 or its disk does not answer within five seconds: then what the run folder has is told all the same",
            ),
        ],
    },
    Lesson {
        command: "incidents list",
        examples: &[example("memguard incidents list --output json", "All of them, for a script.")],
        exits: &[exit(0, "as of `memguard incidents`"), exit(1, "as of `memguard incidents`")],
    },
    Lesson {
        command: "incidents show",
        examples: &[
            example("memguard incidents show mg-1764000000-4711", "All of one."),
            example("memguard incidents show mg-1764000000-4711 --output json", "The same, for a script."),
        ],
        exits: &[exit(0, "as of `memguard incidents`"), exit(1, "as of `memguard incidents`")],
    },
    Lesson {
        command: "report",
        examples: &[
            example("memguard report", "Which reports there are."),
            example("memguard report latest", "The latest, as text."),
            example("memguard report mg-1764000000-4711 --out report.html", "One as a page for a browser."),
        ],
        exits: &[
            exit(0, "told or written"),
            exit(1, "there is no such report, it can't be read or written, or its disk does not answer"),
        ],
    },
    Lesson {
        command: "config",
        examples: &[
            example("memguard config show", "All settings at their defaults, as a file."),
            example("memguard config check /etc/memguard/memguard.toml", "Every mistake in it."),
        ],
        exits: &[exit(0, "success"), exit(1, "`check`: the file has mistakes, or can't be read")],
    },
    Lesson {
        command: "config show",
        examples: &[
            example("memguard config show > memguard.toml", "A file to begin with."),
            example("memguard config show careful --output json", "Another profile, for a script."),
        ],
        exits: &[exit(0, "written"), exit(1, "standard output can't be written to")],
    },
    Lesson {
        command: "config check",
        examples: &[
            example("memguard config check /etc/memguard/memguard.toml", "What is in force with it, or every mistake."),
            example(
                "memguard config check memguard.toml --output json",
                "An object with `mistakes`, empty if there are none, and `in_force`.",
            ),
        ],
        exits: &[exit(0, "it has no mistakes"), exit(1, "it has mistakes, or can't be read")],
    },
    Lesson {
        command: "config reference",
        examples: &[
            example("memguard config reference > docs/configuration.md", "As Markdown."),
            example("memguard config reference --output json", "Sections and keys, for a script."),
        ],
        exits: &[exit(0, "written"), exit(1, "standard output can't be written to")],
    },
    Lesson {
        command: "doctor",
        examples: &[
            example(
                "memguard doctor",
                "Facts, what they mean, and remedies; with /etc/memguard/memguard.toml and the GitHub that it names, if it is there.",
            ),
            example(
                "memguard doctor --config memguard.toml --output json",
                "With another configuration, for a script.",
            ),
        ],
        exits: &[
            exit(0, "all is well"),
            exit(1, "something that was asked for does not work"),
            exit(3, "it works, with less than it could have"),
        ],
    },
    Lesson {
        command: "completions",
        examples: &[
            example("memguard completions bash > /etc/bash_completion.d/memguard", "For everybody's bash."),
            example("memguard completions fish > ~/.config/fish/completions/memguard.fish", "For your own fish."),
        ],
        exits: &[exit(0, "written"), exit(1, "standard output can't be written to")],
    },
    Lesson {
        command: "man",
        examples: &[
            example("memguard man replay", "One page, to standard output."),
            example("memguard man --out /usr/local/share/man/man8", "All pages, into a folder."),
        ],
        exits: &[exit(0, "written"), exit(1, "there is no such command, or the folder can't be made or written to")],
    },
];

/// That of a command.
pub(super) fn lesson(command: &str) -> Option<&'static Lesson> {
    LESSONS.iter().find(|lesson| lesson.command == command)
}

impl Lesson {
    /// In order.
    #[must_use]
    pub fn exits(&self) -> Vec<Exit> {
        let mut exits = self.exits.to_vec();
        exits.push(WRONG_USAGE);
        exits.sort_by_key(|exit| exit.status);
        exits
    }

    /// For the end of `--help`, within 80 columns.
    fn text(&self) -> String {
        let heading = Style::new().bold().underline();
        let mut text = format!("{heading}Examples:{heading:#}");
        for Example { line, does } in self.examples {
            // Writing to a string does not fail.
            let _ = write!(text, "\n  $ {line}\n{}", wrapped(does, 6, 6));
        }
        let _ = write!(text, "\n\n{heading}Exit status:{heading:#}");
        for Exit { status, when } in self.exits() {
            let _ = write!(text, "\n  {status}  {}", wrapped(when, 0, 5));
        }
        text
    }
}

/// Lines of 78 columns at most. The first one begins after `first` columns, the others after `rest`.
fn wrapped(text: &str, first: usize, rest: usize) -> String {
    let mut lines = vec![" ".repeat(first)];
    let mut width = rest;
    for word in text.split(' ') {
        let started = width > rest;
        if started && width + 1 + word.len() > 78 {
            lines.push(" ".repeat(rest) + word);
            width = rest + word.len();
        } else if let Some(line) = lines.last_mut() {
            if started {
                line.push(' ');
            }
            line.push_str(word);
            width += word.len() + usize::from(started);
        }
    }
    lines.join("\n")
}

/// The command with its lesson, and so all below it.
pub(super) fn teach(command: Command) -> Command {
    taught(command, "")
}

fn taught(mut command: Command, path: &str) -> Command {
    if let Some(lesson) = lesson(path) {
        command = command.after_long_help(lesson.text());
    }
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_owned()).collect();
    for name in names {
        let path = if path.is_empty() { name.clone() } else { format!("{path} {name}") };
        command = command.mut_subcommand(name, |command| taught(command, &path));
    }
    command
}

/// The exit statuses of all commands, as a table in Markdown.
#[must_use]
pub fn exit_statuses() -> String {
    let Exit { status, when } = WRONG_USAGE;
    let mut table = format!("Of every command {status} means {when}.\n\n| | 0 | 1 | 3 |\n|---|---|---|---|\n");
    // What is told of a command holds for those below it.
    let told = |lesson: &&Lesson| !matches!(lesson.command, "" | "config") && !lesson.command.starts_with("incidents ");
    for lesson in LESSONS.iter().filter(told) {
        let when = |status| lesson.exits.iter().find(|exit| exit.status == status).map_or("", |exit| exit.when);
        // Writing to a string does not fail.
        let _ = writeln!(table, "| `{}` | {} | {} | {} |", lesson.command, when(0), when(1), when(3));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each(command: &Command, path: &str, see: &mut dyn FnMut(&str, &Command)) {
        see(path, command);
        for command in
            command.get_subcommands().filter(|command| !command.is_hide_set() && command.get_name() != "help")
        {
            let name = command.get_name();
            each(command, &if path.is_empty() { name.to_owned() } else { format!("{path} {name}") }, see);
        }
    }

    #[test]
    fn every_command_has_a_lesson_and_every_lesson_a_command() {
        let mut commands = Vec::new();
        each(&crate::cli::command(), "", &mut |path, command| {
            assert!(lesson(path).is_some_and(|lesson| !lesson.examples.is_empty()), "{path:?} has no examples");
            assert!(command.get_about().is_some(), "{path:?} says not what it does");
            commands.push(path.to_owned());
        });
        for Lesson { command, exits, .. } in LESSONS {
            assert!(commands.iter().any(|name| name == command), "there is no {command:?}");
            assert!(exits.iter().any(|exit| exit.status == 0), "{command:?} never succeeds");
            assert!(
                exits.iter().all(|exit| matches!(exit.status, 0 | 1 | 3)),
                "{command:?}: the table has no such column"
            );
        }
        assert_eq!(commands.len(), LESSONS.len());
    }

    #[test]
    fn every_example_is_of_its_command_and_is_parsed_by_it() {
        for Lesson { command, examples, .. } in LESSONS {
            for Example { line, .. } in *examples {
                let asked = line.split(" > ").next().unwrap_or_default();
                let words: Vec<String> = asked.split(' ').map(|word| word.replace('\'', "")).collect();
                assert!(words.join(" ").starts_with(format!("memguard {command}").trim()), "{line}");
                crate::cli::command().try_get_matches_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
    }

    #[test]
    fn all_help_fits_into_80_columns() {
        each(&crate::cli::command(), "", &mut |path, _| {
            let mut line = vec!["memguard"];
            line.extend(path.split(' ').filter(|word| !word.is_empty()));
            line.push("--help");
            let help = crate::cli::command().term_width(80).try_get_matches_from(&line).unwrap_err().to_string();
            let long = help.lines().find(|line| line.chars().count() > 80);
            assert_eq!(long, None, "{line:?}");
            assert!(help.contains("Examples:\n") && help.contains("Exit status:\n"), "{line:?}: {help}");
        });
    }

    /// `MEMGUARD_BLESS=1` writes it anew.
    #[test]
    fn the_document_has_all_exit_statuses() {
        const BEGIN: &str = "<!-- statuses: made by a test, MEMGUARD_BLESS=1 cargo test -p memguard --lib cli:: -->\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/usage.md");
        let document = std::fs::read_to_string(path).unwrap();
        let (before, rest) = document.split_once(BEGIN).unwrap();
        let (there, after) = rest.split_once("<!-- end -->").unwrap();
        let table = exit_statuses();
        if std::env::var_os("MEMGUARD_BLESS").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{table}<!-- end -->{after}")).unwrap();
        } else {
            assert_eq!(there, table, "MEMGUARD_BLESS=1 writes it anew");
        }
    }

    #[test]
    fn lines_are_wrapped_with_an_indent() {
        let text = wrapped(&"word ".repeat(30), 6, 6);
        assert!(text.lines().all(|line| line.len() <= 78 && line.starts_with("      word")), "{text}");
        assert_eq!(text.split_whitespace().count(), 30);
        assert_eq!(wrapped("a b", 0, 5), "a b");
    }
}
