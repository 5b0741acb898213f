//! Every command in README.md, docs/ and deploy/ is run, or at least understood; and so is every configuration in them.
//!
//! Commands of `cargo xtask` are held against its definition by a test of its own.

use std::{fs, path::Path};

use memguard::{
    cli::{self, LESSONS},
    config,
};

use super::{
    console::{Asked, Document, documents, known, of_xtask},
    fixture::{Answer, ID, Machine},
    foreign,
};

/// Commands that watch a machine until they are told to end.
const ONLY_PARSED: &[&str] = &["run", "record"];
/// What stands for another name in the documents.
const PLACEHOLDERS: &[(&str, &str)] = &[("FILE", "memguard.toml"), ("ID", ID)];

/// What memguard gets of a command, be it behind `kubectl exec … --`.
fn of_memguard(words: &[String]) -> Option<&[String]> {
    let words = match (words.first()?.as_str(), words.iter().position(|word| word == "--")) {
        ("kubectl", Some(at)) => &words[at + 1..],
        _ => words,
    };
    let program = Path::new(words.first()?).file_name()?;
    (program == "memguard").then_some(words)
}

/// As it is typed, with everything below the folder of this test.
fn here(machine: &Machine, word: &str) -> String {
    if let Some((_, other)) = PLACEHOLDERS.iter().find(|(placeholder, _)| *placeholder == word) {
        return (*other).to_owned();
    }
    match word.strip_prefix('/') {
        Some(below) => machine.path(below).to_str().unwrap().to_owned(),
        None => word.to_owned(),
    }
}

fn run(machine: &Machine, words: &[String]) -> Option<String> {
    if let Err(error) = cli::command().try_get_matches_from(words)
        && error.use_stderr()
    {
        return Some(error.to_string());
    }
    let command = words.get(1).map_or("", String::as_str);
    if ONLY_PARSED.contains(&command) {
        return None;
    }
    let arguments: Vec<String> = words[1..].iter().map(|word| here(machine, word)).collect();
    let answer = if command == "top" { machine.in_terminal(&arguments, "q") } else { machine.ask(&arguments) };
    let Answer { status, out, error } = &answer;
    let status = status.and_then(|status| u8::try_from(status).ok());
    // A machine without a memguard at work has nobody to answer; and what the doctor finds depends on the machine.
    let right = match command {
        "status" => status == Some(1) && error.contains("status.sock"),
        "doctor" => LESSONS
            .iter()
            .any(|lesson| lesson.command == "doctor" && lesson.exits.iter().any(|exit| Some(exit.status) == status)),
        _ => status == Some(0) && (!out.is_empty() || arguments.iter().any(|word| word == "--out")),
    };
    (!right).then(|| format!("{answer:?}"))
}

#[test]
fn every_command_is_right() {
    let machine = Machine::new();
    let mut wrong = Vec::new();
    let (mut ours, mut others) = (0, 0);
    for asked in documents().iter().flat_map(Document::commands) {
        let Asked { place, words } = &asked;
        let objection = if let Some(words) = of_memguard(words) {
            ours += 1;
            run(&machine, words).or_else(|| (asked.words[0] == "kubectl").then(|| foreign::objection(&asked)).flatten())
        } else {
            others += usize::from(of_xtask(words).is_none());
            foreign::objection(&asked)
        };
        wrong.extend(objection.map(|objection| format!("{place}: {}: {objection}", words.join(" "))));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(ours >= 20 && others >= 10, "only {ours} commands of memguard and {others} others were found");
}

#[test]
fn every_command_in_a_sentence_has_the_options_that_it_is_said_to_have() {
    let mut definition = cli::command();
    definition.build();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for document in documents() {
        for (line, code) in document.inline_code() {
            let words: Vec<&str> = code.split_whitespace().collect();
            let Some((&"memguard", arguments)) = words.split_first() else { continue };
            checked += 1;
            if let Err(what) = known(&definition, arguments) {
                wrong.push(format!("{}:{line}: `{code}`: {what}", document.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 50, "only {checked} were found");
}

/// All of a configuration, or a part of one. Bottlerocket's settings are the only other TOML.
#[test]
fn every_configuration_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("memguard.toml");
    let mut checked = 0;
    for document in documents() {
        for block in document.blocks().iter().filter(|block| block.language == "toml") {
            if block.text.starts_with("[settings.boot]") {
                continue;
            }
            fs::write(&path, &block.text).unwrap();
            let read = config::read(&path);
            assert!(read.is_ok(), "{}:{}: {}", document.path.display(), block.line, read.unwrap_err());
            checked += 1;
        }
    }
    assert!(checked >= 4, "only {checked} were found");
}

#[test]
fn memguards_part_of_a_command_is_found() {
    let of = |line: &str| {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        of_memguard(&words).map(|words| words.join(" "))
    };
    assert_eq!(of("kubectl -n m exec ds/memguard -- /usr/bin/memguard doctor").unwrap(), "/usr/bin/memguard doctor");
    assert_eq!(of("target/release/memguard run").unwrap(), "target/release/memguard run");
    assert_eq!(of("kubectl -n memguard logs memguard"), None);
    let machine = Machine::new();
    let run = |line: &str| run(&machine, &line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    assert!(run("memguard walk").unwrap().contains("walk"));
    assert!(run("memguard replay nowhere.mgtrace").unwrap().contains("nowhere.mgtrace"));
    assert_eq!(run("memguard config check FILE"), None);
}
