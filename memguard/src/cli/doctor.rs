//! `memguard doctor`: every fact about this machine and, with Kubernetes, about memguard's rights there; what it means, and
//! what to do about it.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::Serialize;

use super::{
    output::{Output, OutputArgs, tell},
    paint::Tone,
    reach::ReachArgs,
};
use crate::{
    cgroup::{CgroupRoot, RootFacts},
    config::Configuration,
    doctor::{self, Finding, Grade},
    kernel::{Facts, HookState, Kernel, Level, Plan, Privileges},
    telemetry::{LogFormat, init},
    tracer::{self, Limits, TracerCost, embedded_object},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The cgroup v2 tree that would be watched.
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/cgroup")]
    cgroup_root: PathBuf,

    #[command(flatten)]
    reach: ReachArgs,

    /// The configuration that would be used; mistakes in it are a finding too, and GitHub is asked if it has a [github]
    /// [default: /etc/memguard/memguard.toml, if it is there].
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    output: OutputArgs,
}

/// Where the chart has it.
const USUAL: &str = "/etc/memguard/memguard.toml";

#[derive(Debug, Serialize)]
struct Report<'a> {
    kernel: &'a Kernel,
    privileges: Privileges,
    cgroup: &'a RootFacts,
    obstacle: Option<String>,
    btf: Option<&'a str>,
    layout: serde_json::Map<String, serde_json::Value>,
    hooks: Vec<HookLine<'a>>,
    plan: &'a Plan,
    cost: Option<&'a TracerCost>,
    load_error: Option<&'a str>,
    findings: Vec<Finding>,
}

#[derive(Debug, Serialize)]
struct HookLine<'a> {
    program: &'a str,
    attach: crate::kernel::Attach,
    target: &'a str,
    #[serde(flatten)]
    state: &'a HookState,
    verified_instructions: Option<u32>,
    jited_bytes: Option<u32>,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let _log = init(LogFormat::Text, false);
    let root = CgroupRoot::new(&args.cgroup_root);
    let (mut facts, btf) = Facts::gather(&root, embedded_object().is_some());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    // Really attached, and detached again at the end: only so is it known what the kernel refuses.
    let started = runtime.block_on(async { tracer::start(&mut facts, btf, Limits::default(), false) });
    let (plan, tracer, load_error) = match started {
        Ok((plan, tracer)) => (plan, tracer, None),
        Err(error) => {
            facts.object = false;
            let mut plan = crate::kernel::plan(&facts);
            plan.no_tracer = Some(error.to_string());
            (plan, None, Some(error.to_string()))
        }
    };
    let cost = tracer.as_ref().map(|(tracer, ring)| tracer.cost(ring));
    let swap = std::fs::read_to_string("/proc/swaps").ok().map(|swaps| doctor::swap_is_on(&swaps));
    let mut findings = doctor::node(&facts, &plan, swap);
    let (finding, configured) = configuration(args.config.as_deref(), Path::new(USUAL));
    runtime.block_on(args.reach.look(&configured, &mut findings));
    findings.push(finding);
    let report = Report { findings, ..report(&facts, &plan, cost.as_ref(), load_error.as_deref()) };
    let form = args.output.get();
    let mut answer = String::new();
    match form {
        Output::Json => answer = serde_json::to_string_pretty(&report)? + "\n",
        Output::Text => print(&mut answer, &report)?,
    }
    tell(form, &answer)?;
    Ok(match doctor::worst(&report.findings) {
        Grade::Good => ExitCode::SUCCESS,
        Grade::Lesser => ExitCode::from(3),
        Grade::Bad => ExitCode::FAILURE,
    })
}

fn report<'a>(
    facts: &'a Facts,
    plan: &'a Plan,
    cost: Option<&'a TracerCost>,
    load_error: Option<&'a str>,
) -> Report<'a> {
    let hooks = facts
        .hooks
        .iter()
        .map(|fact| {
            let cost = cost.and_then(|cost| cost.programs.iter().find(|cost| cost.program == fact.hook.program));
            HookLine {
                program: fact.hook.program,
                attach: fact.hook.attach,
                target: fact.hook.target,
                state: &fact.state,
                verified_instructions: cost.and_then(|cost| cost.verified_instructions),
                jited_bytes: cost.map(|cost| cost.jited_bytes),
            }
        })
        .collect();
    Report {
        kernel: &facts.kernel,
        privileges: facts.privileges,
        cgroup: &facts.root,
        obstacle: facts.root.obstacle(),
        btf: facts.btf.as_ref().err().map(String::as_str),
        layout: facts.layout.iter().map(|(name, value)| (name.to_owned(), value.into())).collect(),
        hooks,
        plan,
        cost,
        load_error,
        findings: Vec::new(),
    }
}

/// Which file was read and whether it can be used, and what it says; the defaults where it can't, or there is none.
fn configuration(given: Option<&Path>, usual: &Path) -> (Finding, Configuration) {
    // One that can't be looked at is one that is there.
    let found = given.or_else(|| usual.try_exists().unwrap_or(true).then_some(usual));
    let Some(path) = found else {
        let fact = format!("none was read: --config names none, and there is no {}; {NOBODY_ASKED}", usual.display());
        return (
            Finding::good("configuration", fact, "what would be done by the defaults was looked at"),
            Configuration::default(),
        );
    };
    match crate::config::read(path) {
        Ok(configured) => {
            let mut fact = path.display().to_string();
            if given.is_none() {
                fact.push_str(" was read, because it is there");
            }
            if configured.github.is_none() {
                let _ = write!(fact, "; {NOBODY_ASKED}");
            }
            (Finding::good("configuration", fact, "has no mistakes"), configured)
        }
        Err(error) => {
            let finding = Finding::of(
                "configuration",
                Grade::Bad,
                error.to_string(),
                "memguard would not start with it",
                "mend it; `memguard config show` prints one with every setting explained",
            );
            (finding, Configuration::default())
        }
    }
}

const NOBODY_ASKED: &str = "without a [github] in it nothing is asked of GitHub";

fn print(out: &mut String, report: &Report<'_>) -> std::fmt::Result {
    for finding in &report.findings {
        let grade = match finding.grade {
            Grade::Good => Tone::Good.paint("ok  "),
            Grade::Lesser => Tone::Look.paint("less"),
            Grade::Bad => Tone::Bad.paint("BAD "),
        };
        writeln!(out, "{grade}  {:13} {}", finding.name, finding.fact)?;
        if finding.grade != Grade::Good {
            writeln!(out, "      {:13} {}", "", finding.means)?;
        }
        if let Some(remedy) = &finding.remedy {
            writeln!(out, "      {:13} {} {remedy}", "", Tone::Strong.paint("->"))?;
        }
    }
    writeln!(out)?;
    let yes_no = |yes: bool| if yes { "yes".to_owned() } else { Tone::Look.paint("NO") };
    let Report { kernel, privileges, cgroup, .. } = report;
    let kib = kernel.page_size / 1024;
    writeln!(out, "kernel           {} {}, pages of {kib} KiB", kernel.release, kernel.machine)?;
    let lru = match kernel.mglru {
        Some(true) => "multi-gen LRU on",
        Some(false) => "multi-gen LRU off",
        None => "no multi-gen LRU",
    };
    writeln!(out, "page reclaim     {lru}")?;
    writeln!(
        out,
        "cgroup           {}: v2 {}, memory controller {}, cgroup.kill {}, PSI {}",
        cgroup.path.display(),
        yes_no(cgroup.v2),
        yes_no(cgroup.memory),
        yes_no(cgroup.kill),
        yes_no(cgroup.pressure)
    )?;
    writeln!(
        out,
        "privileges       load eBPF {}, kill {}, lock memory {}, oom_score_adj {}",
        yes_no(privileges.tracing),
        yes_no(privileges.kill),
        yes_no(privileges.lock_memory),
        yes_no(privileges.oom_score)
    )?;
    writeln!(out, "BTF              {}", report.btf.unwrap_or("yes"))?;
    writeln!(out, "\n{}", Tone::Strong.paint("hooks"))?;
    for hook in &report.hooks {
        let planned = report.plan.programs().any(|program| program == hook.program);
        let state = match (hook.state, planned, hook.verified_instructions) {
            (HookState::Available, true, Some(count)) => format!("attached, {count} instructions verified"),
            (HookState::Available, true, None) => "attached".to_owned(),
            (HookState::Available, false, _) => Tone::Quiet.paint("there, not needed"),
            (HookState::Missing(why), ..) => Tone::Look.paint(format_args!("missing: {why}")),
            (HookState::Refused(why), ..) => Tone::Look.paint(format_args!("refused: {why}")),
        };
        writeln!(out, "  {:10} {:29} {state}", hook.attach, hook.target)?;
    }
    writeln!(out, "\n{} {}", Tone::Strong.paint("plan:"), report.plan.level)?;
    if let Some(why) = &report.plan.no_tracer {
        writeln!(out, "  no tracer: {why}")?;
    }
    for signal in &report.plan.signals {
        let source = if signal.programs.is_empty() { "cgroup files".to_owned() } else { signal.programs.join(" + ") };
        writeln!(out, "  {:25} {source}", signal.signal)?;
        if let Some(lost) = signal.lost {
            let verb = if signal.programs.is_empty() { "instead" } else { "lost" };
            writeln!(out, "  {:25} {verb}: {lost}", "")?;
        }
    }
    match &report.obstacle {
        Some(obstacle) => writeln!(out, "\n{}", Tone::Bad.paint(format_args!("memguard can't work here: {obstacle}"))),
        None => writeln!(
            out,
            "\nmemguard can work here{}",
            match report.plan.level {
                Level::Full => " with all its signals.",
                Level::Degraded => ", with some signals from lesser sources.",
                Level::Files => ", from cgroup files alone.",
            }
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_usual_file_is_read_if_it_is_there_and_the_finding_says_which_one_was() {
        let dir = tempfile::tempdir().unwrap();
        let (usual, other) = (dir.path().join("memguard.toml"), dir.path().join("other.toml"));
        let (finding, configured) = configuration(None, &usual);
        assert!(finding.fact.contains("none was read") && finding.fact.contains("memguard.toml"), "{}", finding.fact);
        assert_eq!((finding.grade, configured), (Grade::Good, Configuration::default()));
        fs::write(&usual, "[kubernetes]\nevents = false\n[github]\ntoken_file = \"/t\"\n").unwrap();
        let (finding, configured) = configuration(None, &usual);
        assert!(finding.fact.ends_with("memguard.toml was read, because it is there"), "{finding:?}");
        assert!(!configured.kubernetes.events && configured.github.is_some());
        fs::write(&other, "").unwrap();
        let (finding, configured) = configuration(Some(&other), &usual);
        assert!(finding.fact.contains("other.toml; without a [github]") && configured.github.is_none(), "{finding:?}");
        fs::write(&usual, "nonsense").unwrap();
        let (finding, configured) = configuration(None, &usual);
        assert_eq!((finding.grade, configured), (Grade::Bad, Configuration::default()));
        assert!(finding.fact.contains("memguard.toml"), "{}", finding.fact);
        assert_eq!(configuration(Some(&dir.path().join("none")), &other).0.grade, Grade::Bad, "it was asked for");
    }
}
