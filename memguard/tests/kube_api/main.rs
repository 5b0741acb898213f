//! What memguard asks of the Kubernetes API, asked of a real one: kube-apiserver with etcd, from the folder that
//! `KUBEBUILDER_ASSETS` names (docs/testing-kubernetes.md). Its rights there are those of the manifests in `deploy/`.
//!
//! One server for all, so this is no ordinary test program: `cargo test --test kube_api [-- PART_OF_A_NAME]`.

mod events;
mod install;
mod rights;
mod runners;
mod secrets;
mod server;
mod watch;

use std::{path::PathBuf, pin::Pin, process::ExitCode, time::Instant};

use install::Installed;
use server::Server;

type Running<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;
type Scenario = for<'a> fn(&'a mut Server, &'a Installed) -> Running<'a>;

/// In this order: the later ones do things to the server.
const SCENARIOS: [(&str, Scenario); 11] = [
    ("every_right_that_memguard_asks_for_is_granted_and_no_other", |s, i| Box::pin(rights::exact(s, i))),
    ("what_was_not_granted_is_refused", |s, i| Box::pin(rights::refused(s, i))),
    ("a_right_that_is_taken_away_is_missed_and_named", |s, i| Box::pin(rights::taken_away(s, i))),
    ("arcs_secret_is_read_only_where_the_chart_grants_it", |s, i| Box::pin(secrets::only_as_granted(s, i))),
    ("events_of_every_kind_are_taken", |s, i| Box::pin(events::taken(s, i))),
    ("a_job_is_found_by_its_runner", |s, i| Box::pin(runners::job_of_a_runner(s, i))),
    ("only_the_runner_with_the_right_uid_is_deleted", |s, i| Box::pin(runners::deletion(s, i))),
    ("runners_of_the_older_arc_are_found_and_deleted", |s, i| Box::pin(runners::older_arc(s, i))),
    ("pods_of_this_node_come_and_go", |s, i| Box::pin(watch::come_and_go(s, i))),
    ("what_is_known_outlives_the_api_server", |s, i| Box::pin(watch::restart(s, i))),
    ("a_version_that_etcd_has_forgotten_is_no_outage", |s, i| Box::pin(watch::compaction(s, i))),
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let Some(assets) = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from) else {
        println!(
            "kube_api: skipped: KUBEBUILDER_ASSETS names no folder with kube-apiserver and etcd \
             (docs/testing-kubernetes.md)"
        );
        return ExitCode::SUCCESS;
    };
    let parts: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    match run(&assets, |name| parts.is_empty() || parts.iter().any(|part| name.contains(part.as_str()))).await {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("kube_api: {failed} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            println!("kube_api: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(assets: &std::path::Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<usize> {
    let began = Instant::now();
    let mut server = Server::start(assets).await?;
    let installed = Installed::new(&server).await?;
    let version = server.admin.get("/version").await?;
    println!("kube_api: {} was ready after {:.1} s", version["gitVersion"], began.elapsed().as_secs_f64());
    let mut failed = 0;
    for (name, scenario) in SCENARIOS.into_iter().filter(|(name, _)| wanted(name)) {
        let began = Instant::now();
        let result = scenario(&mut server, &installed).await;
        failed += usize::from(result.is_err());
        let told = result.map_or_else(|error| format!("FAILED: {error:#}"), |()| "ok".to_owned());
        println!("test {name} ... {told} ({:.1} s)", began.elapsed().as_secs_f64());
    }
    Ok(failed)
}
