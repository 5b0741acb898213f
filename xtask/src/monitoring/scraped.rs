//! What is scraped, and the Prometheus that does it. Both end when they are dropped.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use crate::{paths, process, setup::prometheus::Prometheus, ui};

/// Formats, as Prometheus calls them.
const FORMATS: [(&str, &str); 2] = [("openmetrics", "OpenMetricsText1.0.0"), ("text", "PrometheusText0.0.4")];
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// One that serves metrics.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) name: String,
    address: SocketAddr,
}

impl Target {
    /// Its page, as a client that asks for nothing in particular gets it.
    pub(super) fn page(&self) -> anyhow::Result<String> {
        get(self.address, "/metrics").with_context(|| format!("no page of {}", self.name))
    }
}

/// In HTTP/1.0, in which an answer ends with its connection.
fn get(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of its head")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{}: {body}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// For a query string.
fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        // Writing to a string does not fail.
        let _ = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => write!(encoded, "{}", char::from(byte)),
            _ => write!(encoded, "%{byte:02X}"),
        };
    }
    encoded
}

/// The example `monitored` of memguard.
#[derive(Debug)]
pub(super) struct Monitored {
    child: Child,
    pub(super) targets: Vec<Target>,
}

impl Monitored {
    pub(super) fn build() -> anyhow::Result<()> {
        process::run(process::cargo().args(["build", "--quiet", "--package", "memguard", "--example", "monitored"]))
    }

    pub(super) fn start() -> anyhow::Result<Self> {
        let mut command = Command::new(paths::target().join("debug/examples/monitored"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = process::spawn(&mut command)?;
        let lines = BufReader::new(child.stdout.take().context("it has no standard output")?).lines();
        let mut this = Self { child, targets: Vec::new() };
        for line in lines.take(2) {
            let line = line?;
            let (name, address) = line.split_once(' ').with_context(|| format!("it says {line}"))?;
            this.targets.push(Target { name: name.to_owned(), address: address.parse()? });
        }
        if this.targets.len() < 2 {
            bail!("the example `monitored` ended at its start: run it to see why");
        }
        Ok(this)
    }
}

impl Drop for Monitored {
    fn drop(&mut self) {
        // It ends with its standard input, and takes its folder along.
        drop(self.child.stdin.take());
        let began = Instant::now();
        while began.elapsed() < ANSWER_WITHIN && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    result: Vec<Sample>,
}

/// One of those that come of a query.
#[derive(Debug, Deserialize)]
pub(super) struct Sample {
    /// Time and value.
    pub(super) value: (f64, String),
}

/// A Prometheus at work.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Running {
    /// Has all targets scraped once a second in each format, and the rules evaluated as often.
    pub(super) fn start(
        prometheus: &Prometheus,
        targets: &[Target],
        rules: &Path,
        work: &Path,
    ) -> anyhow::Result<Self> {
        // The port is free a moment later too, as a rule.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let file = work.join("prometheus.yml");
        fs::write(&file, configuration(targets, rules, address)?)?;
        let log = work.join("log");
        let mut command = prometheus.command("prometheus")?;
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", work.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log)?);
        let child = process::spawn(&mut command)?;
        Ok(Self { child, address, log })
    }

    /// What comes of a query now.
    pub(super) fn query(&self, expr: &str) -> anyhow::Result<Vec<Sample>> {
        let answer = get(self.address, &format!("/api/v1/query?query={}", encoded(expr))).context(expr.to_owned())?;
        let answer: Answer = serde_json::from_str(&answer).with_context(|| format!("Prometheus answers {answer}"))?;
        Ok(answer.data.result)
    }

    /// Waits until a query finds something.
    pub(super) fn wait(&self, expr: &str, patience: Duration) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let found = self.query(expr);
            ui::check_interrupt()?;
            match found {
                Ok(found) if !found.is_empty() => return Ok(()),
                _ if began.elapsed() < patience => thread::sleep(Duration::from_millis(200)),
                found => {
                    let log = fs::read_to_string(&self.log).unwrap_or_default();
                    let why = found.err().map(|error| format!("{error:#}\n")).unwrap_or_default();
                    bail!("after {} s still nothing comes of {expr}\n{why}{log}", patience.as_secs());
                }
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its data is thrown away, so it need not end well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(targets: &[Target], rules: &Path, own: SocketAddr) -> anyhow::Result<String> {
    let mut text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\nscrape_configs:\n\
         - job_name: prometheus\n  static_configs: [{{targets: ['{own}']}}]\n",
        rules.display()
    );
    for (format, protocol) in FORMATS {
        write!(text, "- job_name: memguard-{format}\n  scrape_protocols: [{protocol}]\n  static_configs:\n")?;
        for target in targets {
            writeln!(text, "  - {{targets: ['{}'], labels: {{node: {}}}}}", target.address, target.name)?;
        }
    }
    Ok(text)
}
