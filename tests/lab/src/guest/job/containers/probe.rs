//! Looking at memguard's container from the node: what it serves, and what the kernel knows of it.

use std::{
    fs::{self, File},
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use memguard_lab::containers::Facts;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Fields of /proc/PID/status.
const FIELDS: [&str; 5] = ["VmRSS", "CapEff", "NoNewPrivs", "Seccomp", "NSpid"];

/// The network of a pod.
pub(super) struct Probe(File);

impl Probe {
    /// That of a process.
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/ns/net");
        File::open(&path).map(Self).with_context(|| format!("can't open {path}"))
    }

    pub(super) fn namespace(&self) -> anyhow::Result<File> {
        self.0.try_clone().context("can't clone a file")
    }

    /// Status and body of a page of a server in the pod. A thread goes there, so that nobody else does.
    pub(super) fn get(&self, port: u16, path: &str) -> anyhow::Result<(u16, String)> {
        let ask = || -> anyhow::Result<(u16, String)> {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))
                .context("can't enter the pod's network")?;
            let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), TIMEOUT)?;
            stream.set_read_timeout(Some(TIMEOUT))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
            let (_, body) = answer.split_once("\r\n\r\n").context("no body")?;
            Ok((status, body.to_owned()))
        };
        thread::scope(|scope| scope.spawn(ask).join()).map_err(|_| anyhow!("the probe panicked"))?
    }
}

/// What the kernel knows of a process and its container; `None` if it is gone.
pub(super) fn facts(pid: u32, cgroup: &Path) -> Option<Facts> {
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}"));
    let status = file("status").ok()?;
    let field = |name: &&str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(((*name).to_owned(), value.trim().to_owned()))
    };
    let limits = file("limits").unwrap_or_default();
    let memlock = limits.lines().find_map(|line| line.strip_prefix("Max locked memory")).unwrap_or_default();
    let number = |name: &str| fs::read_to_string(cgroup.join(name)).ok().and_then(|text| text.trim().parse().ok());
    Some(Facts {
        status: FIELDS.iter().filter_map(field).collect(),
        memlock: memlock.split_whitespace().take(2).collect::<Vec<_>>().join(" "),
        oom_score_adj: file("oom_score_adj").unwrap_or_default().trim().to_owned(),
        memory_peak: number("memory.peak").unwrap_or_default(),
        memory_max: number("memory.max").unwrap_or_default(),
    })
}
