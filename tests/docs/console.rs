//! What the documents tell people to type. Included by the tests that hold it against memguard, and against `cargo xtask`.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A document.
#[derive(Debug)]
pub(crate) struct Document {
    /// Below the root of the repository.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// A block between fences.
#[derive(Debug)]
pub(crate) struct Block {
    /// What stands behind the opening fence.
    pub(crate) language: String,
    /// Of the first line in it, from 1.
    pub(crate) line: usize,
    pub(crate) text: String,
}

/// One command: no pipe, no `&&`, and no redirection in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Document and line.
    pub(crate) place: String,
    pub(crate) words: Vec<String>,
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// README.md, fuzz/README.md, and all documents in docs/ and deploy/.
pub(crate) fn documents() -> Vec<Document> {
    let root = root();
    let mut paths = vec![PathBuf::from("README.md"), PathBuf::from("fuzz/README.md")];
    for folder in ["docs", "deploy"] {
        find(&root, Path::new(folder), &mut paths);
    }
    paths.sort();
    paths.into_iter().map(|path| Document { text: fs::read_to_string(root.join(&path)).unwrap(), path }).collect()
}

fn find(root: &Path, folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = folder.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            find(root, &path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

impl Document {
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<Block> = None;
        for (index, line) in self.text.lines().enumerate() {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(language)) => {
                    let language = language.trim().to_owned();
                    open = Some(Block { language, line: index + 2, text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.path.display());
        blocks
    }

    /// All that is to be typed: lines of `console` blocks with a prompt. What has none is what is answered.
    pub(crate) fn commands(&self) -> Vec<Asked> {
        let mut all = Vec::new();
        for block in self.blocks() {
            assert!(
                !["sh", "bash", "shell"].contains(&block.language.as_str()),
                "{}:{}: write `console`, and a prompt in front of what is typed",
                self.path.display(),
                block.line
            );
            if block.language != "console" {
                continue;
            }
            let mut lines = block.text.lines().enumerate();
            let before = all.len();
            while let Some((index, line)) = lines.next() {
                let Some(typed) = line.strip_prefix("$ ").or_else(|| line.strip_prefix("# ")) else { continue };
                let mut typed = typed.to_owned();
                while typed.ends_with('\\') {
                    typed.pop();
                    typed.push_str(lines.next().map_or("", |(_, line)| line));
                }
                let place = format!("{}:{}", self.path.display(), block.line + index);
                all.extend(simple(&typed).into_iter().map(|words| Asked { place: place.clone(), words }));
            }
            assert!(all.len() > before, "{}:{}: no line has a prompt", self.path.display(), block.line);
        }
        all
    }

    /// What stands between backquotes in the text outside of blocks, with its line.
    pub(crate) fn inline_code(&self) -> Vec<(usize, String)> {
        let mut spans = Vec::new();
        for (line, text) in self.prose() {
            spans.extend(text.split('`').skip(1).step_by(2).map(|span| (line, span.to_owned())));
        }
        spans
    }

    /// Lines outside of blocks. A paragraph is one, with the number of its first line: code and links may be wrapped.
    pub(crate) fn prose(&self) -> Vec<(usize, String)> {
        let mut paragraphs: Vec<(usize, String)> = Vec::new();
        let (mut inside, mut goes_on) = (false, false);
        for (index, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                (inside, goes_on) = (!inside, false);
            } else if !inside {
                let alone = line.trim().is_empty() || line.starts_with(['#', '|']);
                match paragraphs.last_mut().filter(|_| goes_on && !alone) {
                    Some((_, paragraph)) => {
                        paragraph.push(' ');
                        paragraph.push_str(line.trim());
                    }
                    None => paragraphs.push((index + 1, line.to_owned())),
                }
                goes_on = !alone;
            }
        }
        paragraphs
    }
}

/// A line as a shell takes it apart: simple commands, each as words. Without what is assigned in front of a command,
/// `sudo`, redirections and a comment.
pub(crate) fn simple(line: &str) -> Vec<Vec<String>> {
    let mut commands: Vec<Vec<String>> = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars().peekable();
    let end = |commands: &mut Vec<Vec<String>>, word: &mut Option<String>| {
        if let (Some(command), Some(word)) = (commands.last_mut(), word.take()) {
            command.push(word);
        }
    };
    while let Some(c) = characters.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, ' ') => end(&mut commands, &mut word),
            (None, '|' | '&' | ';') => {
                end(&mut commands, &mut word);
                commands.push(Vec::new());
            }
            (None, '>' | '<') => {
                end(&mut commands, &mut word);
                while characters.next_if(|c| matches!(c, '>' | '<' | ' ')).is_some() {}
                while characters.next_if(|c| !matches!(c, ' ' | '|' | '&' | ';')).is_some() {}
            }
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "a quote is not closed: {line}");
    end(&mut commands, &mut word);
    for command in &mut commands {
        let assigned = |word: &String| {
            word.split_once('=')
                .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        };
        let begin = command.iter().position(|word| word != "sudo" && !assigned(word)).unwrap_or(command.len());
        command.drain(..begin);
    }
    commands.retain(|command| !command.is_empty());
    commands
}

/// What of it `cargo xtask` gets, with `cargo xtask` as the first word.
pub(crate) fn of_xtask(words: &[String]) -> Option<Vec<String>> {
    let [cargo, xtask, arguments @ ..] = words else { return None };
    (cargo == "cargo" && xtask == "xtask").then(|| [&["cargo xtask".to_owned()], arguments].concat())
}

/// Holds code in a text against the definition of a command: all subcommands and options that it names have to be there.
/// Words in capitals, and what is left out by dots, stand for something.
pub(crate) fn known(mut command: &clap::Command, words: &[&str]) -> Result<(), String> {
    let mut below = true;
    for word in words {
        let word = word.trim_end_matches([',', '.', ':', ')']);
        if word == "--" {
            break;
        }
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split(['=', '[', '|']).next().unwrap_or_default();
            let there = command.get_arguments().any(|argument| argument.get_long() == Some(name));
            if !there && !matches!(name, "help" | "version") {
                return Err(format!("{} has no --{name}", command.get_name()));
            }
        } else if below && !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase() || c == '-') {
            match command.get_subcommands().find(|subcommand| subcommand.get_name() == word) {
                Some(subcommand) => command = subcommand,
                None if word == "help" => below = false,
                None if command.has_subcommands() => return Err(format!("{} has no {word}", command.get_name())),
                None => below = false,
            }
        } else {
            below = false;
        }
    }
    Ok(())
}

mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        simple(line)
    }

    #[test]
    fn a_line_is_taken_apart_as_a_shell_does() {
        let expected = |commands: &[&[&str]]| -> Vec<Vec<String>> {
            commands.iter().map(|words| words.iter().map(|&word| word.to_owned()).collect()).collect()
        };
        assert_eq!(words("a 'b c' \"d\"e   # f"), expected(&[&["a", "b c", "de"]]));
        assert_eq!(
            words("A=1 sudo x y=2 | jq '.[] | @tsv' && z > /tmp/f; w"),
            expected(&[&["x", "y=2"], &["jq", ".[] | @tsv"], &["z"], &["w"]])
        );
        assert_eq!(words("x a#b"), expected(&[&["x", "a#b"]]));
        let xtask: Vec<String> = ["cargo", "xtask", "run", "--", "x"].map(str::to_owned).to_vec();
        assert_eq!(of_xtask(&xtask).unwrap(), ["cargo xtask", "run", "--", "x"]);
        assert_eq!(of_xtask(&["cargo".to_owned(), "test".to_owned()]), None);
    }

    #[test]
    fn prompts_continuations_and_answers_are_told_apart() {
        let text = "a `b c` and `d\ne`\n\n```console\n$ one \\\n    two\nanswer\n# three\n```\n```text\n$ no\n```\n";
        let document = Document { path: "x.md".into(), text: text.to_owned() };
        let commands = document.commands();
        assert_eq!(commands[0], Asked { place: "x.md:5".to_owned(), words: vec!["one".to_owned(), "two".to_owned()] });
        assert_eq!((commands.len(), commands[1].words[0].as_str()), (2, "three"));
        assert_eq!(document.inline_code(), [(1, "b c".to_owned()), (1, "d e".to_owned())]);
        assert_eq!(document.blocks().len(), 2);
    }

    #[test]
    fn what_a_command_does_not_have_is_told() {
        let command = clap::Command::new("m")
            .subcommand(clap::Command::new("run").arg(clap::Arg::new("mode").long("mode")).arg(clap::Arg::new("x")));
        let known = |line: &str| known(&command, &line.split(' ').collect::<Vec<_>>());
        for good in
            ["run --mode enforce", "run --mode=off|on", "COMMAND --help", "run FILE", "run --", "help", "run -- --x"]
        {
            known(good).unwrap();
        }
        for bad in ["walk", "run --speed 3", "--mode"] {
            known(bad).unwrap_err();
        }
    }
}
