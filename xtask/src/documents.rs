//! What the documents say of `cargo xtask`, held against its definition. What they say of memguard and of other tools has a
//! test in `memguard/tests/command_line`.

#[path = "../../tests/docs/console.rs"]
mod console;

use clap::CommandFactory as _;

use self::console::{Document, documents, known, of_xtask};
use crate::Cli;

#[test]
fn every_command_is_understood() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for asked in documents().iter().flat_map(Document::commands) {
        let Some(words) = of_xtask(&asked.words) else { continue };
        checked += 1;
        if let Err(error) = Cli::command().try_get_matches_from(&words) {
            wrong.push(format!("{}: {}: {error}", asked.place, words.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked >= 6, "only {checked} were found");
}

#[test]
fn every_command_in_a_sentence_has_the_options_that_it_is_said_to_have() {
    let mut definition = Cli::command();
    definition.build();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for document in documents() {
        for (line, code) in document.inline_code() {
            let words: Vec<&str> = code.split_whitespace().collect();
            // With variables in front of it or not.
            let Some(at) = words.windows(2).position(|pair| pair == ["cargo", "xtask"]) else { continue };
            checked += 1;
            if let Err(what) = known(&definition, &words[at + 2..]) {
                wrong.push(format!("{}:{line}: `{code}`: {what}", document.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(checked > 20, "only {checked} were found");
}
