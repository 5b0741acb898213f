//! A round's world, in the terms of the two stubs, and back.

use memguard_lab::chain::{End, Request, Server, World};
use memguard_stubs::{
    github::{self, Ending, GitHubStub, Run},
    kubernetes::{
        self, KubeStub,
        objects::{Container, Runner, ephemeral_runner, of_runner, pod},
    },
};
use serde_json::Value;

/// GitHub takes so long to end a run that was cancelled.
const ENDS_AFTER_MS: u64 = 2000;
/// ARC before 0.13 leaves the runner of a failed job to others.
const ARC_VERSION: &str = "0.12.1";
/// Another run of the same repository, which nobody has a reason to touch.
const OTHER_RUN: u64 = 1;

pub(crate) fn kubernetes(world: &World, github_port: u16) -> kubernetes::Setup {
    let mut objects = Vec::new();
    for one in &world.pods {
        let containers: Vec<_> =
            one.containers.iter().map(|(name, id)| Container { name, id, memory_limit: Some("256Mi") }).collect();
        let of_pod = pod(&world.node, &world.namespace, &one.name, &one.uid, &containers);
        let Some(uid) = &one.runner_uid else {
            objects.push(of_pod);
            continue;
        };
        objects.push(of_runner(of_pod, uid));
        objects.push(ephemeral_runner(&Runner {
            namespace: &world.namespace,
            name: &one.name,
            uid,
            job: Some((&world.repository, world.run_id)),
            config_url: &format!("http://127.0.0.1:{github_port}/octo"),
            arc_version: ARC_VERSION,
        }));
    }
    kubernetes::Setup { objects, token: Some(world.token.clone()), ..kubernetes::Setup::default() }
}

pub(crate) fn github(world: &World) -> github::Setup {
    let runner = world.pods.iter().find(|pod| pod.runner_uid.is_some()).map_or("", |pod| &pod.name);
    let ending = if world.stubborn { Ending::Stuck } else { Ending::AfterMs(ENDS_AFTER_MS) };
    let mut run = Run::on(&world.repository, world.run_id, runner);
    run.ending = ending;
    let runs = vec![run, Run::on(&world.repository, OTHER_RUN, "another-runner")];
    github::Setup { runs, token: Some(world.token.clone()), ..github::Setup::default() }
}

pub(crate) fn asked_of_kubernetes(stub: &KubeStub) -> Vec<Request> {
    let as_told = |request: kubernetes::Request| Request {
        server: Server::Kubernetes,
        t: request.t,
        method: request.method,
        path: request.path,
        body: request.body,
        code: request.code,
        effect: request.effect,
    };
    stub.requests().into_iter().map(as_told).collect()
}

/// `began`: when it was started, in seconds of `CLOCK_MONOTONIC`.
pub(crate) fn asked_of_github(stub: &GitHubStub, began: f64) -> Vec<Request> {
    let as_told = |request: github::Request| Request {
        server: Server::Github,
        t: began + request.at_ms as f64 / 1e3,
        method: request.method,
        path: request.path,
        body: request.body,
        code: None,
        effect: None,
    };
    stub.requests().into_iter().map(as_told).collect()
}

/// How the world is at the end.
pub(crate) fn end(world: &World, kubernetes: &KubeStub, github: &GitHubStub) -> End {
    let run = github.run(world.run_id);
    let of_run = |of: fn(&Run) -> u32| run.as_ref().map_or(0, of);
    let other = github.run(OTHER_RUN);
    let runner = world.pods.iter().find(|pod| pod.runner_uid.is_some());
    let object = runner.and_then(|pod| kubernetes.get("ephemeralrunners", &world.namespace, &pod.name));
    End {
        cancels: of_run(|run| run.cancels),
        force_cancels: of_run(|run| run.force_cancels),
        conclusion: run.as_ref().and_then(|run| run.conclusion.clone()),
        others_touched: other.is_none_or(|run| run.cancels + run.force_cancels > 0 || run.status != "in_progress"),
        check_runs: github.check_runs().into_iter().map(|check| check.body).collect::<Vec<Value>>(),
        runner_uid: runner.and_then(|pod| pod.runner_uid.clone()).unwrap_or_default(),
        runner_left: object.is_some(),
    }
}
