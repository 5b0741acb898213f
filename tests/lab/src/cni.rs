//! Plugins of the Container Network Interface (containernetworking/cni, SPEC.md), for pods that talk to themselves only: one
//! that brings up `lo` in a pod's network namespace, and one that says that there is an address. Nothing leaves a pod.

use std::{fs::File, io::Read as _};

use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use crate::guest::loopback;

/// Names by which it is started: what containerd asks for in every pod, and what the node's configuration asks for.
pub(crate) const NAMES: [&str; 2] = ["loopback", "lab-network"];

pub(crate) fn run() -> anyhow::Result<()> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("no configuration on standard input")?;
    let configuration: Value = serde_json::from_str(&text).unwrap_or_default();
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let version = configuration["cniVersion"].as_str().unwrap_or("1.0.0").to_owned();
    match variable("CNI_COMMAND")?.as_str() {
        "VERSION" => println!("{}", json!({"cniVersion": version, "supportedVersions": ["0.3.1", "0.4.0", "1.0.0"]})),
        "ADD" => {
            let (namespace, interface) = (variable("CNI_NETNS")?, variable("CNI_IFNAME")?);
            if interface == "lo" {
                let file = File::open(&namespace).with_context(|| format!("can't open {namespace}"))?;
                move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
                    .with_context(|| format!("can't enter {namespace}"))?;
                loopback()?;
            }
            println!("{}", added(&version, &namespace, &interface));
        }
        "DEL" | "CHECK" => {}
        other => bail!("CNI_COMMAND={other} is not known"),
    }
    Ok(())
}

fn added(version: &str, namespace: &str, interface: &str) -> Value {
    let address = if interface == "lo" { "127.0.0.1/8" } else { "192.0.2.1/24" };
    json!({
        "cniVersion": version,
        "interfaces": [{"name": interface, "sandbox": namespace}],
        "ips": [{"version": "4", "address": address, "interface": 0}],
    })
}
