//! `cargo xtask lab containers`: containerd and runc run memguard's own image and a job that hangs, in one VM, as a kubelet
//! would have them: memguard's pod is what the chart renders.

mod judge;
pub(crate) mod node;
mod screen;
mod table;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};
use memguard_lab::{
    Job, Line, Record,
    containers::{Case, Plan, Variant, all, few},
    scenario::Disk,
};
use serde_json::{Value, json};

use self::judge::{Judged, judge};
use super::{
    accel, document, image, initramfs,
    kernels::{self, Kernel},
    programs::Programs,
    vm::{self, Machine},
};
use crate::{
    build::{self, Profile},
    deploy, image as memguard_image, paths, process, setup, ui,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `few` (two cases) or `all` (ten; writes the tables of docs/containers.md).
    #[arg(value_enum, default_value_t)]
    set: Set,

    /// A kernel line: 6.1, 6.12, 6.18, 7.
    #[arg(long, value_name = "LINE", default_value = kernels::USUAL)]
    kernel: String,

    /// Processors that the VM may use.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cores: u32,

    /// How the guest is run.
    #[arg(long, value_enum, default_value_t)]
    accel: accel::Choice,

    /// Put this memguard into the image, and build none.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,

    /// Judge the records of the last run again, and run nothing.
    #[arg(long)]
    from_records: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Set {
    Few,
    #[default]
    All,
}

/// The image of the job's containers and of sandboxes.
const JOB_IMAGE: &str = "localhost/lab:1";
/// Shared objects of the listener in it: all of their text is hot.
const TEXT_OBJECTS: u32 = 4;
const TEXT_PAGES: u32 = 3072;
const MEMORY_MIB: u32 = 3072;

impl Args {
    /// What tells most in little time.
    pub(crate) fn few(accel: accel::Choice) -> Self {
        Self { set: Set::Few, kernel: kernels::USUAL.to_owned(), cores: 2, accel, binary: None, from_records: false }
    }

    fn cases(&self) -> Vec<Case> {
        match self.set {
            Set::Few => few(),
            Set::All => all(),
        }
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let cases = args.cases();
    let lines = if args.from_records { read()? } else { guest(args, &cases)? };
    let judged: Vec<Judged> = split(&lines).into_iter().map(|(case, lines)| judge(case, lines)).collect();
    for one in &judged {
        let word = if one.failures.is_empty() { "ok    " } else { "FAILED" };
        println!("{word}  {}", one.case);
        for fact in one.facts.iter().map(|(name, fact)| format!("{name}: {fact}")) {
            println!("        {fact}");
        }
        for failure in &one.failures {
            println!("        FAILED: {failure}");
        }
    }
    if judged.len() != cases.len() {
        bail!("{} of {} cases were played", judged.len(), cases.len());
    }
    if args.set == Set::All {
        let path = paths::root().join("docs/containers.md");
        document::write(&path, "containers", "memguard in real containers", &table::tables(&lines, &judged))?;
        ui::say(format!("wrote {}", path.display()));
    }
    let failed = judged.iter().filter(|one| !one.failures.is_empty()).count();
    println!("lab: {} cases passed, {failed} failed", judged.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} cases did not come out as expected", judged.len());
    }
    Ok(())
}

/// Boots one guest that plays all cases.
fn guest(args: &Args, cases: &[Case]) -> anyhow::Result<Vec<Line>> {
    super::check_machine()?;
    setup::ensure(setup::Part::Containers)?;
    let mut kernel: Kernel = kernels::ensure(kernels::line(&args.kernel)?)?;
    kernel.modules.extend(kernels::further(&kernel)?);
    let taken = Programs::new()?;
    let guest = taken.take(&build::guest()?)?;
    let programs = [taken.take(&build::stubs()?)?, taken.take(&build::kubelet()?)?];
    let memguard = taken.take(&match &args.binary {
        Some(binary) => binary.clone(),
        None => build::memguard(Profile::Quick)?,
    })?;
    let disk = image::ensure()?;
    let accel = accel::choose(args.accel, &kernel, &guest)?;

    let work = super::work_folder()?;
    let templates = templates(cases)?;
    let name = templates.first().and_then(|(_, template)| template["spec"]["containers"][0]["image"].as_str());
    let memguard_archive = memguard_image::make(&memguard, name.context("the template names no image")?)?;
    let job_archive = work.path().join("job.tar");
    make_job_image(&guest, &job_archive)?;
    let images = [("lab.tar", job_archive.as_path()), ("memguard.tar", memguard_archive.as_path())];
    let node = work.path().join("node.tar");
    node::archive(&node, &images)?;
    let plan = Plan {
        cases: cases.to_vec(),
        templates,
        image: JOB_IMAGE.to_owned(),
        archives: images.iter().map(|(name, _)| format!("/images/{name}")).collect(),
    };
    let [stubs, kubelet] = programs;
    let contents = initramfs::Contents {
        guest: &guest,
        memguard: None,
        programs: &[stubs, kubelet, node],
        modules: &kernel.modules,
        job: &serde_json::to_string(&Job::Containers { plan: Box::new(plan) })?,
    };
    let initramfs = work.path().join("initramfs");
    initramfs::write(&initramfs, &contents)?;
    let machine = Machine {
        accel,
        cpus: args.cores,
        memory_mib: MEMORY_MIB,
        disk: Some((&disk, &Disk::default())),
        kernel: &kernel.image,
        initramfs: &initramfs,
        console: &work.path().join("console"),
        silence: Duration::from_mins(4),
        longest: Duration::from_mins(6 + 6 * cases.len() as u64),
    };
    let _step = ui::step(format!("{} cases with real containers on {} under {accel}", cases.len(), kernel.release));
    // Kept as they come: a guest that breaks off has told until then.
    let mut text = String::new();
    let outcome = vm::run(&machine, |line| {
        if let Some(told) = gist(&line.record) {
            ui::say(format!("{:6.1} s  {told}", line.t));
        }
        if let Ok(line) = serde_json::to_string(line) {
            text.push_str(&line);
            text.push('\n');
        }
    });
    let kept = kept()?;
    fs::write(&kept, text).with_context(|| format!("can't write {}", kept.display()))?;
    ui::say(format!("records: {}", kept.display()));
    outcome
}

/// What is worth telling while it goes on.
fn gist(record: &Record) -> Option<String> {
    match record {
        Record::Step { what } => Some(what.clone()),
        Record::Case { case } => Some(format!("case {case}")),
        Record::Seen { of, what, .. } => Some(format!("{of}: {what}")),
        Record::Output { line, .. } => Some(line.clone()),
        Record::Trouble => Some("the trouble begins".to_owned()),
        Record::AtLimit { container } => Some(format!("{container} is at its limit")),
        Record::Dead { container } => Some(format!("{container} is empty")),
        _ => None,
    }
}

/// memguard's pod, by variant: the manifests' own, and what the chart renders for the other one.
fn templates(cases: &[Case]) -> anyhow::Result<Vec<(Variant, Value)>> {
    let mut variants: Vec<Variant> = cases.iter().map(|case| case.variant).collect();
    variants.sort_unstable();
    variants.dedup();
    let mut made = Vec::new();
    for variant in variants {
        let template = match variant {
            Variant::Privileged => deploy::manifest_template()?,
            Variant::Capabilities => deploy::template("capabilities.yaml")?,
            Variant::DefaultSeccomp => {
                let mut template = deploy::template("capabilities.yaml")?;
                template["spec"]["containers"][0]["securityContext"]["seccompProfile"] =
                    json!({"type": "RuntimeDefault"});
                template
            }
            Variant::OwnPids => {
                let mut template = deploy::manifest_template()?;
                template["spec"]["hostPID"] = false.into();
                template
            }
        };
        made.push((variant, template));
    }
    Ok(made)
}

/// The guest's program, with what it is linked to, and text to run.
fn make_job_image(guest: &Path, to: &Path) -> anyhow::Result<()> {
    let object = to.with_extension("so");
    process::output(
        Command::new("cc")
            .args(["-shared", "-nostdlib", &format!("-DPAGES={TEXT_PAGES}"), "-o"])
            .arg(&object)
            .arg(paths::root().join("tests/workloads/text.S")),
    )?;
    let mut files = vec![(PathBuf::from("lab-guest"), guest.to_owned())];
    for library in initramfs::shared_libraries(guest)? {
        files.push((library.to.strip_prefix("/").unwrap_or(&library.to).to_owned(), library.from));
    }
    for index in 0..TEXT_OBJECTS {
        files.push((PathBuf::from(format!("disk/text/libtext{index:02}.so")), object.clone()));
    }
    let config = json!({"Entrypoint": ["/lab-guest"], "Cmd": ["pause"], "User": "0"});
    let archive = memguard_image::of_files(JOB_IMAGE, &config, &files)?;
    fs::write(to, archive).with_context(|| format!("can't write {}", to.display()))
}

/// Where the records of the last run are.
fn kept() -> anyhow::Result<PathBuf> {
    let folder = paths::lab().join("records");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    Ok(folder.join("containers.jsonl"))
}

fn read() -> anyhow::Result<Vec<Line>> {
    let kept = kept()?;
    let text = fs::read_to_string(&kept).with_context(|| format!("can't read {}", kept.display()))?;
    text.lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("{} has a wrong line", kept.display())))
        .collect()
}

/// The records of each case.
fn split(lines: &[Line]) -> Vec<(Case, &[Line])> {
    let begins: Vec<usize> = (0..lines.len()).filter(|at| matches!(lines[*at].record, Record::Case { .. })).collect();
    let ends = begins.iter().copied().skip(1).chain([lines.len()]);
    let of = |(begin, end): (&usize, usize)| match &lines[*begin].record {
        Record::Case { case } => Some((*case, &lines[*begin..end])),
        _ => None,
    };
    begins.iter().zip(ends).filter_map(of).collect()
}
