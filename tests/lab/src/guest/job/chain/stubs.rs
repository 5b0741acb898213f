//! The program that plays GitHub and the Kubernetes API, and how memguard finds them.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use memguard_lab::{
    Record, Scenario,
    chain::{NAMESPACE, Order, Pod, REPOSITORY, RUN_ID, RUNNER, Round, Server, State, TOKEN, Told, World},
    place,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::json;

use super::FOLDER;
use crate::guest::port::Port;

pub(super) const NODE: &str = "lab";
pub(super) const KUBECONFIG: &str = "kubeconfig";
pub(super) const CONFIG: &str = "memguard.toml";
const KEY: &str = "key.pem";
/// An authority to trust, whose key nobody has. A machine always has some, and without any the Kubernetes client does not
/// start, be the server's address without TLS or not.
pub(super) const AUTHORITY: &str = "ca.pem";

const KUBERNETES_PORT: u16 = 6443;
const GITHUB_PORT: u16 = 8080;

pub(in crate::guest::job) struct Stubs {
    program: Child,
    orders: ChildStdin,
    lines: BufReader<ChildStdout>,
    changes: usize,
}

impl Stubs {
    /// Starts it, and writes down for memguard how to find it.
    pub(super) fn start(scenario: &Scenario, round: &Round, app_key: &str) -> anyhow::Result<Self> {
        let folder = Path::new(FOLDER);
        fs::write(folder.join(KUBECONFIG), kubeconfig(KUBERNETES_PORT))?;
        fs::write(folder.join(KEY), app_key)?;
        fs::write(folder.join(AUTHORITY), include_str!("../../../../../chain/ca.pem"))?;
        fs::write(folder.join(CONFIG), config(round))?;
        Self::start_in(&world(scenario, round), None)
    }

    /// Starts it alone, in this network or in the guest's own.
    pub(in crate::guest::job) fn start_in(world: &World, network: Option<File>) -> anyhow::Result<Self> {
        let file = Path::new("/run/world.json");
        fs::write(file, serde_json::to_vec(world)?)?;
        let mut command = Command::new("/lab-stubs");
        command.arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(network) = network {
            // SAFETY: between fork and exec there is nothing but one system call.
            unsafe {
                command.pre_exec(move || {
                    Ok(move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?)
                });
            }
        }
        let mut program = command.spawn().context("can't start /lab-stubs")?;
        let orders = program.stdin.take().context("no pipe to lab-stubs")?;
        let mut lines = BufReader::new(program.stdout.take().context("no pipe from lab-stubs")?);
        let mut line = String::new();
        lines.read_line(&mut line)?;
        ensure!(matches!(serde_json::from_str(&line), Ok(Told::Ready { .. })), "lab-stubs said {line:?}");
        Ok(Self { program, orders, lines, changes: 0 })
    }

    /// Changes how a server is.
    pub(super) fn order(&mut self, server: Server, is: State) -> anyhow::Result<()> {
        self.changes += 1;
        let mut line = serde_json::to_vec(&Order { server, is })?;
        line.push(b'\n');
        self.orders.write_all(&line).context("lab-stubs takes no order")
    }

    /// How often a server was changed.
    pub(super) const fn changes(&self) -> usize {
        self.changes
    }

    /// Ends it, and passes on all that was asked of it.
    pub(in crate::guest::job) fn end(self, port: &Port) -> anyhow::Result<()> {
        let Self { mut program, orders, lines, .. } = self;
        drop(orders);
        for line in lines.lines() {
            let line = line?;
            let Ok(told) = serde_json::from_str(&line) else { bail!("lab-stubs said {line:?}") };
            port.send(Record::Stubs { told });
        }
        // Whoever reaps orphans may have been there before.
        let _ = program.wait();
        Ok(())
    }
}

fn world(scenario: &Scenario, round: &Round) -> World {
    let pods = scenario.pod.iter().map(|pod| {
        let names = pod.container.iter().map(|container| &container.name);
        Pod {
            name: pod.name.clone(),
            uid: place::uid(&pod.name),
            runner_uid: (pod.name == RUNNER).then(|| place::uid(&format!("{}-runner", pod.name))),
            containers: names.map(|name| (name.clone(), place::container_id(&pod.name, name))).collect(),
        }
    });
    World {
        kubernetes_port: KUBERNETES_PORT,
        github_port: GITHUB_PORT,
        token: TOKEN.to_owned(),
        node: NODE.to_owned(),
        namespace: NAMESPACE.to_owned(),
        pods: pods.collect(),
        repository: REPOSITORY.to_owned(),
        run_id: RUN_ID,
        stubborn: round.is_stubborn(),
    }
}

/// How to reach the API server at this port of the loopback.
pub(in crate::guest::job) fn kubeconfig(port: u16) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{"name": "lab", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "lab", "user": {"token": TOKEN}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
    })
    .to_string()
}

fn config(round: &Round) -> String {
    let (folder, force) = (FOLDER, round.is_stubborn());
    format!(
        "[engine]\nprofile = \"fast\"\n\n[kubernetes]\ntimeout_s = 5\n\n[github]\nurl = \"http://127.0.0.1:{GITHUB_PORT}\"\napp_id = 7\n\
         installation_id = 8\nprivate_key_file = \"{folder}/{KEY}\"\ntimeout_s = 5\nforce_cancel = {force}\n\
         force_cancel_after_s = 10\n"
    )
}
