//! Every input that the fuzzer kept, through the same functions: what was found once stays found, without a fuzzer.

use std::{fs, path::Path};

#[test]
fn every_kept_input_is_taken() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut targets: Vec<String> =
        fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    targets.sort_unstable();
    let known: Vec<&str> = memguard::fuzzing::TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(targets, known, "each target has a corpus, and each corpus a target");

    for (name, target) in memguard::fuzzing::TARGETS {
        let folder = corpus.join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            // Shown only if it fails, and then the last one is the culprit.
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", folder.display());
    }
}
