//! Whether guests can run at the machine's own speed.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use memguard_lab::Job;

use super::{
    initramfs,
    kernels::Kernel,
    vm::{self, Machine},
};
use crate::{arch::Arch, paths, ui};

/// How QEMU runs a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accel {
    /// Translated from this architecture: works everywhere, some 10 to 20 times slower.
    Tcg(Arch),
    /// On this machine's own processors.
    Kvm,
}

/// What `--accel` can say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Choice {
    /// KVM where it proves to work, else TCG.
    #[default]
    Auto,
    Tcg,
    Kvm,
}

impl Accel {
    /// What the guest's processors are.
    pub(super) const fn guests(self) -> Arch {
        match self {
            Self::Tcg(arch) => arch,
            // The lab runs on x86-64 machines only.
            Self::Kvm => Arch::Amd64,
        }
    }

    pub(super) const fn qemu_arguments(self, cpus: u32) -> &'static [&'static str] {
        match self {
            // With a thread for each CPU, TCG now and then lets one of them run an instruction that another one has replaced
            // already. The kernel patches its text whenever a program is attached or detached, and dies of a breakpoint that
            // nobody owns any more (`Oops: int3` in psi_memstall_enter(), seen while memguard was killed). CPUs that take
            // turns do not.
            Self::Tcg(Arch::Amd64) if cpus > 1 => &["-accel", "tcg,thread=single", "-cpu", "max,-erms,-fsrm"],
            // Fast string instructions zero a page in one go, and TCG takes each of those for a change of translated
            // code: a page that held code then takes so long to clear that the guest seems to hang by itself.
            Self::Tcg(Arch::Amd64) => &["-accel", "tcg,thread=multi", "-cpu", "max,-erms,-fsrm"],
            // The core of Graviton2. "max" signs every return address, which takes its time when it is translated.
            Self::Tcg(Arch::Arm64) => &["-accel", "tcg,thread=multi", "-machine", "virt", "-cpu", "neoverse-n1"],
            Self::Kvm => &["-accel", "kvm", "-cpu", "host"],
        }
    }
}

impl std::fmt::Display for Accel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Tcg(_) => "TCG",
            Self::Kvm => "KVM",
        })
    }
}

/// Longer than a boot under KVM takes, by far.
const PATIENCE: Duration = Duration::from_secs(20);

/// Decides. A machine may have /dev/kvm and still fail to run a guest on it (nested virtualisation), so a guest is
/// booted once, to its end, and the outcome is kept until this machine boots anew.
pub(crate) fn choose(choice: Choice, kernel: &Kernel, guest: &Path) -> anyhow::Result<Accel> {
    let translated = Accel::Tcg(kernel.arch);
    let foreign = !kernel.arch.is_this_machine();
    match choice {
        Choice::Tcg => return Ok(translated),
        Choice::Kvm if foreign => {
            bail!("--accel kvm runs guests of this machine's own architecture, and {} is another", kernel.arch)
        }
        Choice::Kvm => return Ok(Accel::Kvm),
        Choice::Auto if foreign => return Ok(translated),
        Choice::Auto => {}
    }
    if fs::File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return Ok(translated);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let answer = paths::cache()?.join("kvm-works");
    if let Ok(text) = fs::read_to_string(&answer)
        && let Some((answered, works)) = text.split_once(' ')
        && answered == boot.trim()
    {
        return Ok(if works == "yes" { Accel::Kvm } else { translated });
    }
    let _step = ui::step("trying whether guests run under KVM");
    let accel = match prove(kernel, guest) {
        Ok(()) => Accel::Kvm,
        Err(error) => {
            ui::check_interrupt()?;
            ui::say(format!("they do not, TCG it is: {}", error.to_string().lines().next().unwrap_or_default()));
            translated
        }
    };
    let works = if accel == Accel::Kvm { "yes" } else { "no" };
    fs::write(&answer, format!("{} {works}", boot.trim())).context("can't write to the cache")?;
    Ok(accel)
}

fn prove(kernel: &Kernel, guest: &Path) -> anyhow::Result<()> {
    let work = super::work_folder()?;
    let initramfs = work.path().join("initramfs");
    let job = Job::Command { argv: vec!["/lab-guest".to_owned()] };
    let job = serde_json::to_string(&job)?;
    let contents = initramfs::Contents { guest, memguard: None, programs: &[], modules: &kernel.modules, job: &job };
    initramfs::write(&initramfs, &contents)?;
    let machine = Machine {
        accel: Accel::Kvm,
        cpus: 2,
        memory_mib: 512,
        disk: None,
        kernel: &kernel.image,
        initramfs: &initramfs,
        console: &work.path().join("console"),
        silence: PATIENCE,
        longest: PATIENCE,
    };
    vm::run(&machine, |_| {}).map(drop)
}
