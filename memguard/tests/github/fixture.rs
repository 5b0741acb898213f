//! A stub, and credentials for it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use memguard::{
    github::{CheckRun, Conclusion, GitHub, Repository, Settings, Source},
    remote::Failure,
};
use memguard_stubs::github::{GitHubStub, Run, Setup};
use tempfile::TempDir;

pub(crate) const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/github/app-key.pem");
pub(crate) const TOKEN: &str = "0123456789-a-token-of-no-known-kind";
pub(crate) const RUN: u64 = 7;

pub(crate) struct Fixture {
    pub(crate) stub: GitHubStub,
    pub(crate) github: GitHub,
    pub(crate) repository: Repository,
    /// Of the token, where there is one.
    pub(crate) folder: TempDir,
}

pub(crate) fn repository() -> Repository {
    "octo/repo".parse().unwrap()
}

pub(crate) fn app() -> Source {
    Source::App { id: "Iv23liABC".to_owned(), installation: 8, key: PathBuf::from(KEY) }
}

pub(crate) fn settings(url: &str, source: Source) -> Settings {
    Settings { url: url.to_owned(), timeout: Duration::from_secs(10), ..Settings::new(source) }
}

pub(crate) async fn stub(setup: Setup) -> GitHubStub {
    GitHubStub::start("127.0.0.1:0".parse().unwrap(), setup).await.unwrap()
}

/// With a run on `runner-1`, and an App's credentials.
pub(crate) async fn with_app() -> Fixture {
    with_app_and(Setup::default(), Duration::from_secs(10)).await
}

pub(crate) async fn with_app_and(mut setup: Setup, timeout: Duration) -> Fixture {
    setup.runs.push(Run::on("octo/repo", RUN, "runner-1"));
    let stub = stub(setup).await;
    let github = GitHub::new(&Settings { timeout, ..settings(&stub.url(), app()) }).unwrap();
    Fixture { stub, github, repository: repository(), folder: tempfile::tempdir().unwrap() }
}

/// The same with a token in a folder.
pub(crate) async fn with_token() -> Fixture {
    let setup =
        Setup { runs: vec![Run::on("octo/repo", RUN, "runner-1")], token: Some(TOKEN.to_owned()), ..Setup::default() };
    let stub = stub(setup).await;
    let folder = tempfile::tempdir().unwrap();
    write_token(folder.path(), TOKEN);
    let github = GitHub::new(&settings(&stub.url(), Source::Folder(folder.path().to_owned()))).unwrap();
    Fixture { stub, github, repository: repository(), folder }
}

/// As a Secret is replaced: never half.
pub(crate) fn write_token(folder: &Path, token: &str) {
    fs::write(folder.join("new"), token).unwrap();
    fs::rename(folder.join("new"), folder.join("github_token")).unwrap();
}

pub(crate) fn check(external_id: &str) -> CheckRun {
    let now = SystemTime::now();
    CheckRun {
        head_sha: "0123456789abcdef0123456789abcdef01234567".to_owned(),
        name: "memguard / out of memory & hung".to_owned(),
        external_id: external_id.to_owned(),
        title: "The job hung at its memory limit".to_owned(),
        summary: "It was ended after 40 s.".to_owned(),
        text: Some("| limit | 512 MiB |".to_owned()),
        conclusion: Conclusion::Failure,
        started_at: now - Duration::from_mins(1),
        completed_at: now,
        details_url: Some("https://example.org/memguard".to_owned()),
    }
}

impl Fixture {
    /// Paths of the requests so far, with their methods, below the repository.
    pub(crate) fn asked(&self) -> Vec<String> {
        let short = |path: &str| path.replace("/api/v3", "").replace("/repos/octo/repo", "");
        self.stub.requests().iter().map(|request| format!("{} {}", request.method, short(&request.path))).collect()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked().iter().filter(|line| line.contains(part)).count()
    }
}

/// For how long to wait, of a failure that can get better.
pub(crate) fn later<T: std::fmt::Debug>(result: Result<T, Failure>) -> (Option<u64>, String) {
    match result {
        Err(Failure::Later { after, why }) => (after.map(|after| after.as_secs()), why),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn never<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
    match result {
        Err(Failure::Final { why }) => why,
        other => panic!("{other:?}"),
    }
}
