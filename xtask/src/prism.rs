//! GitHub's own description of its REST API, and Prism, which answers by it and refuses what is not in it.
//!
//! memguard's requests are sent to it as they are (`memguard/tests/github_openapi.rs`). It has no state: that is the stub's.

mod description;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use crate::{cache, paths, process, ui};

/// The description's version is that of GitHub's API at the time; Prism's is the last one for Node 18 and 20.
const PACKAGES: [&str; 2] = ["@octokit/openapi@23.0.2", "@stoplight/prism-cli@5.14.2"];
/// What npm puts there before the description is cut, in MiB.
const ROOM_MIB: u64 = 700;
const PATIENCE: Duration = Duration::from_mins(2);
const NPM_PATIENCE: Duration = Duration::from_mins(10);

/// Where both are. The name changes with the versions and with what is kept of the description.
fn folder() -> anyhow::Result<PathBuf> {
    Ok(paths::cache()?.join("github-23.0.2-prism-5.14.2-1"))
}

/// Both, if they are there.
pub(crate) fn cached() -> anyhow::Result<Option<PathBuf>> {
    let folder = folder()?;
    Ok(is_whole(&folder).then_some(folder))
}

fn is_whole(folder: &Path) -> bool {
    description_in(folder).is_file()
}

fn description_in(folder: &Path) -> PathBuf {
    folder.join("github.json")
}

/// Fetches both with npm, and keeps of the description what memguard uses.
pub(crate) fn install() -> anyhow::Result<()> {
    cache::fill(&folder()?, is_whole, |work| fetch(work).map(|()| work.to_owned()))
}

fn fetch(work: &Path) -> anyhow::Result<()> {
    paths::check_room(work, ROOM_MIB, "GitHub's description")?;
    ui::say(format!("npm install {}", PACKAGES.join(" ")));
    let mut npm = Command::new("npm");
    npm.arg("install")
        .args(["--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--loglevel", "error"])
        .arg("--prefix")
        .arg(work)
        .arg("--cache")
        .arg(work.join(".npm"))
        .args(PACKAGES);
    process::output_within(&mut npm, NPM_PATIENCE)?;
    let octokit = work.join("node_modules/@octokit");
    let whole = octokit.join("openapi/generated/api.github.com.json");
    let text = fs::read(&whole).with_context(|| format!("can't read {}", whole.display()))?;
    let whole = serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", whole.display()))?;
    fs::write(description_in(work), description::cut(&whole)?.to_string())?;
    // What is not needed any more is most of it.
    for rest in [octokit, work.join(".npm")] {
        fs::remove_dir_all(&rest).with_context(|| format!("can't remove {}", rest.display()))?;
    }
    Ok(())
}

/// Sends memguard's requests to it.
pub(crate) fn test() -> anyhow::Result<()> {
    let Some(folder) = cached()? else { bail!("GitHub's description is not there: `cargo xtask setup` fetches it") };
    let step = ui::step("GitHub's own description");
    let test = || {
        let mut cargo = process::cargo();
        // Of the whole workspace, as the unit tests are: with the features of one package alone all would be built again.
        cargo.args(["test", "--quiet", "--workspace", "--test", "github_openapi"]).env_remove("MEMGUARD_EBPF_OBJECT");
        cargo
    };
    // Built before Prism is started, so that it does not wait for a compiler.
    process::run(test().arg("--no-run"))?;
    let prism = Prism::start(&folder)?;
    let result = process::run(test().env("MEMGUARD_PRISM", &prism.url));
    drop(step);
    result.with_context(|| format!("Prism's log is {}", prism.log.display()))
}

/// A Prism that ends with its owner.
struct Prism {
    child: Child,
    url: String,
    log: PathBuf,
}

impl Prism {
    fn start(folder: &Path) -> anyhow::Result<Self> {
        // Free at this moment; Prism takes no port 0.
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr())?.port();
        fs::create_dir_all(paths::target())?;
        let log = paths::target().join("prism.log");
        let output = fs::File::create(&log).with_context(|| format!("can't write {}", log.display()))?;
        let mut command = Command::new("node");
        command
            .arg(folder.join("node_modules/@stoplight/prism-cli/dist/index.js"))
            .args(["mock", "--host", "127.0.0.1", "--port", &port.to_string()])
            .arg(description_in(folder))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        let child = process::spawn(&mut command)?;
        let mut prism = Self { child, url: format!("http://127.0.0.1:{port}"), log };
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ui::check_interrupt()?;
            if let Some(status) = prism.child.try_wait()? {
                bail!("Prism ended at its start ({status}), see {}", prism.log.display());
            }
            if began.elapsed() > PATIENCE {
                bail!("Prism does not listen after {} s, see {}", PATIENCE.as_secs(), prism.log.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        ui::say(format!("Prism was ready after {:.1} s", began.elapsed().as_secs_f64()));
        Ok(prism)
    }
}

impl Drop for Prism {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
