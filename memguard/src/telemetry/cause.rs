//! Errors with what led to them.

/// An error with all that led to it, each cause told once. Whoever tells an error by itself wants its cause too, so many
/// have it in their own text as well as in their chain.
#[must_use]
pub fn with_causes(error: &anyhow::Error) -> String {
    let mut told = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if told.is_empty() {
            told = cause;
        } else if !told.contains(&cause) {
            told = format!("{told}: {cause}");
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::{fs, io, path::Path};

    use super::*;

    #[test]
    fn a_cause_is_told_once_whether_or_not_the_text_has_it() {
        #[derive(Debug, thiserror::Error)]
        enum Error {
            #[error("can't read x: {source} (there is another way)")]
            InText { source: io::Error },
            #[error("can't read x")]
            InChain { source: io::Error },
        }
        let why = || io::Error::other("no such disk");
        let in_text = anyhow::Error::new(Error::InText { source: why() });
        assert_eq!(with_causes(&in_text), "can't read x: no such disk (there is another way)");
        let in_chain = anyhow::Error::new(Error::InChain { source: why() }).context("no report");
        assert_eq!(with_causes(&in_chain), "no report: can't read x: no such disk");
    }

    /// `{:#}` of anyhow's would tell it twice.
    #[test]
    fn nobody_writes_an_errors_chain_by_another_way() {
        fn look(folder: &Path, wrong: &mut Vec<String>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    look(&path, wrong);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path).unwrap();
                    let found = text.lines().filter(|line| line.contains(concat!("{error", ":#}")));
                    wrong.extend(found.map(|line| format!("{}: {line}", path.display())));
                }
            }
        }
        let mut wrong = Vec::new();
        look(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut wrong);
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}
