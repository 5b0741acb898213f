//! `memguard report`: what is known of one incident, as text, JSON or a page for a browser.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use super::{
    WrongUsage,
    incidents::{RUN_DIR, STATE_DIR, gather, outcome},
    output,
    stored::{self, Trouble},
};
use crate::{
    journal::Incident,
    report::{Entry, Record, html, text},
    telemetry::{escaped, shown},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The incident, as in the log, an Event or a check run; `latest` for the latest one.
    #[arg(value_name = "ID")]
    id: Option<String>,

    /// How it looks: `html` is one page that needs nothing else [default: text, or as the name of --out ends].
    #[arg(long, value_enum, value_name = "FORM")]
    output: Option<Output>,

    /// Write it there instead of to standard output.
    #[arg(long, value_name = "FILE", requires = "id")]
    out: Option<PathBuf>,

    /// As given to `memguard run`.
    #[arg(long, value_name = "FOLDER", default_value = STATE_DIR)]
    state_dir: PathBuf,

    /// As given to `memguard run`.
    #[arg(long, value_name = "FOLDER", default_value = RUN_DIR)]
    run_dir: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    #[default]
    Text,
    Json,
    Html,
}

/// What was seen, and what came of it by the journal.
#[derive(Serialize)]
struct Whole<'a> {
    report: &'a Record,
    incident: Option<&'a Incident>,
}

impl Args {
    fn output(&self) -> Output {
        let by_name = || match self.out.as_deref().and_then(Path::extension).and_then(|extension| extension.to_str()) {
            Some("html" | "htm") => Output::Html,
            Some("json") => Output::Json,
            _ => Output::Text,
        };
        self.output.unwrap_or_else(by_name)
    }

    fn tell(&self, answer: &str) -> anyhow::Result<()> {
        let form = if self.output() == Output::Text { output::Output::Text } else { output::Output::Json };
        output::tell(form, answer)
    }
}

/// Where reports come from.
trait Reports {
    /// Oldest first.
    fn list(&self) -> anyhow::Result<Vec<Entry>>;

    /// That of an incident, or of the `latest` one.
    fn get(&self, id: &str) -> anyhow::Result<Record>;
}

/// Those below a state folder, whose disk may hang.
struct OnDisk<'a>(&'a Path);

impl Reports for OnDisk<'_> {
    fn list(&self) -> anyhow::Result<Vec<Entry>> {
        stored::reports(self.0)
    }

    fn get(&self, id: &str) -> anyhow::Result<Record> {
        stored::report(self.0, id)
    }
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    answer(args, stored::read(&args.state_dir), &OnDisk(&args.state_dir))
}

/// `stored`: what the journal on the disk holds.
fn answer(args: &Args, stored: Result<Vec<Incident>, Trouble>, reports: &impl Reports) -> anyhow::Result<ExitCode> {
    let (incidents, trouble) = gather(&args.run_dir, stored);
    if let Some(trouble @ Trouble::Disk { .. }) = trouble {
        anyhow::bail!("{trouble}, and reports are on it");
    }
    if let Some(trouble @ (Trouble::Missing { .. } | Trouble::Forbidden { .. })) = trouble {
        anyhow::bail!("{trouble}");
    }
    if let Some(trouble) = trouble {
        super::complain(format!("{trouble}; what was done is told as far as it is known"));
    }
    let find = |id: &str| incidents.iter().find(|incident| incident.id == id);
    let Some(id) = &args.id else {
        let entries = reports.list()?;
        let answer = match args.output() {
            Output::Json => {
                let ids: Vec<_> = entries.iter().map(|entry| (&entry.id, entry.decided_at, entry.bytes)).collect();
                serde_json::to_string_pretty(&ids.iter().map(|(id, decided_at, bytes)| {
                    serde_json::json!({ "incident": id, "decided_at": decided_at, "bytes": bytes, "what": find(id).map(Incident::outcome) })
                }).collect::<Vec<_>>())? + "\n"
            }
            Output::Text if entries.is_empty() => format!("no reports in {}\n", shown(&args.state_dir)),
            Output::Text => list(&entries, find),
            Output::Html => {
                let what = "a page is made of one report: `memguard report latest --output html`".to_owned();
                return Err(WrongUsage(what).into());
            }
        };
        args.tell(&answer)?;
        return Ok(ExitCode::SUCCESS);
    };
    let record = reports.get(id)?;
    let incident = find(&record.incident);
    let answer = match args.output() {
        Output::Text => text(&record, incident),
        Output::Json => serde_json::to_string_pretty(&Whole { report: &record, incident })? + "\n",
        Output::Html => html(&record, incident),
    };
    match &args.out {
        Some(out) => {
            fs::write(out, answer).with_context(|| format!("can't write to {}", escaped(&out.to_string_lossy())))?;
        }
        None => args.tell(&answer)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list<'a>(entries: &[Entry], find: impl Fn(&str) -> Option<&'a Incident>) -> String {
    let mut text = String::new();
    for entry in entries {
        let incident = find(&entry.id);
        let _ = writeln!(
            text,
            "{}  {}  {}: {}",
            super::incidents::time(entry.decided_at),
            escaped(&entry.id),
            incident.map_or_else(|| "?".to_owned(), |incident| escaped(&incident.cgroup)),
            incident.map_or_else(|| "not in the journal any more".to_owned(), outcome)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::incidents,
        journal::Copies,
        report::{Store, fixture::record},
    };

    impl Reports for Store {
        fn list(&self) -> anyhow::Result<Vec<Entry>> {
            Ok(self.list()?)
        }

        fn get(&self, id: &str) -> anyhow::Result<Record> {
            Ok(self.get(id)?)
        }
    }

    fn args(dir: &Path, id: Option<&str>) -> Args {
        Args {
            id: id.map(str::to_owned),
            output: None,
            out: None,
            state_dir: dir.join("state"),
            run_dir: dir.join("run"),
        }
    }

    #[test]
    fn the_kind_of_file_is_told_by_its_name_unless_said() {
        let dir = tempfile::tempdir().unwrap();
        let with = |out: &str, output| Args { out: Some(out.into()), output, ..args(dir.path(), None) }.output();
        assert_eq!(with("x.html", None), Output::Html);
        assert_eq!(with("x.json", None), Output::Json);
        assert_eq!(with("x", None), Output::Text);
        assert_eq!(with("x.html", Some(Output::Json)), Output::Json);
    }

    #[test]
    fn a_report_is_joined_with_what_the_journal_knows() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::below(&dir.path().join("state"));
        store.put(&record("mg-1764000000-7")).unwrap();
        Copies::below(&dir.path().join("run")).put(&incidents::tests::incident()).unwrap();
        let out = dir.path().join("report.html");
        let run = |args: &Args| answer(args, Ok(Vec::new()), &store);
        run(&Args { out: Some(out.clone()), ..args(dir.path(), Some("latest")) }).unwrap();
        let page = fs::read_to_string(&out).unwrap();
        assert!(page.contains("and memguard killed it") && page.contains("empty after 12 ms"));
        let out = dir.path().join("report.json");
        run(&Args { out: Some(out.clone()), ..args(dir.path(), Some("mg-1764000000-7")) }).unwrap();
        let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&out).unwrap()).unwrap();
        assert_eq!(json["report"]["incident"], "mg-1764000000-7");
        assert_eq!(json["incident"]["stage"]["stage"], "done");
        let error = run(&args(dir.path(), Some("mg-1-1"))).unwrap_err().to_string();
        assert!(error.contains("no report mg-1-1"), "{error}");
        assert!(list(&store.list().unwrap(), |_| None).contains("mg-1764000000-7"));
    }
}
