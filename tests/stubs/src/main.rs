//! `lab-stubs WORLD`: GitHub and the Kubernetes API on a guest's loopback, and ARC's controller, which lets go of a runner
//! once its run is over. Orders come in by standard input; all that was asked is told on standard output at the end of it.

#[path = "lab/world.rs"]
mod world;

use std::{io::Write as _, net::SocketAddr, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context as _, bail};
use memguard_lab::chain::{Order, Request, Server, State, Told, World};
use memguard_stubs::{
    gate::{Gate, Is},
    github::GitHubStub,
    kubernetes::KubeStub,
};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// How soon ARC's controller notices.
const ARC: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab-stubs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, world] = arguments.as_slice() else {
        bail!("this program is started by the lab's guest (`cargo xtask lab chain`): lab-stubs WORLD.json");
    };
    let text = std::fs::read(Path::new(world)).with_context(|| format!("can't read {world}"))?;
    let world: World = serde_json::from_slice(&text).with_context(|| format!("{world} is no world"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(play(&world))
}

/// Tells something, in one line.
fn tell(told: &Told) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(told)?;
    line.push(b'\n');
    std::io::stdout().write_all(&line).context("nobody listens")
}

async fn play(world: &World) -> anyhow::Result<()> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let port = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let began = now();
    let github = GitHubStub::start(any, world::github(world)).await?;
    let gate = Gate::start(port(world.github_port), github.address()).await.context("the port of GitHub")?;
    let github_port = gate.address().port();
    // What ARC made knows where GitHub is.
    let kubernetes = KubeStub::start(any, world::kubernetes(world, github_port)).await?;
    let other = Gate::start(port(world.kubernetes_port), kubernetes.address()).await;
    let gates = [other.context("the port of the API server")?, gate];
    tell(&Told::Ready { kubernetes_port: gates[0].address().port(), github_port })?;
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let mut arc = tokio::time::interval(ARC);
    let mut over = false;
    loop {
        tokio::select! {
            order = orders.next_line() => match order? {
                Some(line) => {
                    let order = serde_json::from_str(&line).with_context(|| format!("no order: {line:?}"))?;
                    obey(&gates, order);
                }
                None => break,
            },
            _ = arc.tick() => over = arc_looks(world, &kubernetes, &github, over)?,
        }
    }
    let mut all: Vec<Request> = world::asked_of_kubernetes(&kubernetes);
    all.extend(world::asked_of_github(&github, began));
    all.sort_by(|a, b| a.t.total_cmp(&b.t));
    for request in all {
        tell(&Told::Request(request))?;
    }
    tell(&Told::End(world::end(world, &kubernetes, &github)))
}

fn obey([kubernetes, github]: &[Gate; 2], order: Order) {
    let gate = match order.server {
        Server::Kubernetes => kubernetes,
        Server::Github => github,
    };
    gate.set(match order.is {
        State::Well => Is::Open,
        State::Refuses => Is::Shut,
        State::Hangs => Is::Silent,
        State::Unavailable => Is::Unavailable,
    });
}

/// What ARC's controller does: it lets go of a runner that is to be deleted once GitHub has. Whether the run is over.
fn arc_looks(world: &World, kubernetes: &KubeStub, github: &GitHubStub, was_over: bool) -> anyhow::Result<bool> {
    let run = github.run(world.run_id).filter(|run| run.status == "completed");
    let Some(run) = run else { return Ok(false) };
    if !was_over {
        tell(&Told::RunOver { t: now(), conclusion: run.conclusion.unwrap_or_default() })?;
    }
    for (namespace, name) in kubernetes.runners_to_be_let_go() {
        kubernetes.remove_finalizers(&namespace, &name);
        tell(&Told::RunnerGone { t: now(), name })?;
    }
    Ok(true)
}

/// `CLOCK_MONOTONIC` in seconds.
fn now() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
