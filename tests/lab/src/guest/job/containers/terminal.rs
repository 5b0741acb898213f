//! An operator at a terminal in memguard's container, as `kubectl exec -it` gives one.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::node::{Container, SOCKET};
use crate::guest::job::STEP;

/// As narrow as a terminal is.
const COLUMNS: u16 = 80;
const ROWS: u16 = 24;

/// A program at a terminal, while all else goes on.
pub(super) struct Terminal {
    /// What `lab-kubelet` writes once the program has ended, or why it did not.
    said: String,
    until: Instant,
}

impl Terminal {
    /// Runs memguard with these arguments; each text is typed at its time, in seconds from now.
    pub(super) fn open(
        container: &Container,
        name: &str,
        arguments: &[&str],
        keys: &[(f64, &str)],
    ) -> anyhow::Result<Self> {
        let last = keys.last().map_or(0.0, |(at_s, _)| *at_s);
        let longest_s = last + 30.0;
        let keys: Vec<Value> = keys.iter().map(|(at_s, text)| json!({"at_s": at_s, "text": text})).collect();
        let session = json!({"columns": COLUMNS, "rows": ROWS, "longest_s": longest_s, "keys": keys});
        let said = format!("/run/terminal-{name}");
        let file = File::create(&said).with_context(|| format!("can't make {said}"))?;
        let mut kubelet = Command::new("/lab-kubelet");
        kubelet.args([SOCKET, "terminal", &container.id, &session.to_string(), "/usr/bin/memguard"]).args(arguments);
        kubelet.stdin(Stdio::null()).stderr(file.try_clone()?).stdout(file);
        // Whoever reaps here reaps this one too: its words are what tells of its end.
        kubelet.spawn().context("can't start lab-kubelet")?;
        Ok(Self { said, until: Instant::now() + Duration::from_secs_f64(longest_s + 30.0) })
    }

    /// What there was to see, once it has ended.
    pub(super) fn told(&self, mut meanwhile: impl FnMut()) -> anyhow::Result<Value> {
        loop {
            let text =
                fs::read_to_string(Path::new(&self.said)).with_context(|| format!("can't read {}", self.said))?;
            if text.ends_with('\n') {
                return serde_json::from_str(&text).with_context(|| format!("lab-kubelet said {text:?}"));
            }
            if Instant::now() >= self.until {
                bail!("the terminal does not end");
            }
            meanwhile();
            thread::sleep(STEP);
        }
    }
}
