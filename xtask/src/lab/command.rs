//! Running a command in a guest.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use memguard_lab::{Job, Record, scenario::Disk};

use super::{
    accel::Accel,
    initramfs,
    kernels::Kernel,
    vm::{self, Machine},
};

/// Boots a guest with memguard and further programs in `/` and the root disk in `/disk`, runs `argv`, and returns what
/// it wrote and its exit code.
pub(crate) fn command(
    guest: &Path,
    memguard: &Path,
    programs: &[PathBuf],
    kernel: &Kernel,
    accel: Accel,
    argv: Vec<String>,
) -> anyhow::Result<(String, Option<i32>)> {
    let image = super::disk(kernel.arch)?;
    let work = super::work_folder()?;
    let initramfs = work.path().join("initramfs");
    let job = serde_json::to_string(&Job::Command { argv })?;
    let contents =
        initramfs::Contents { guest, memguard: Some(memguard), programs, modules: &kernel.modules, job: &job };
    initramfs::write(&initramfs, &contents)?;
    let machine = Machine {
        accel,
        cpus: 2,
        memory_mib: 2048,
        disk: Some((&image, &Disk::default())),
        kernel: &kernel.image,
        initramfs: &initramfs,
        console: &work.path().join("console"),
        silence: Duration::from_mins(10),
        longest: Duration::from_mins(20),
    };
    let lines = vm::run(&machine, |_| {})?;
    let mut text = String::new();
    let mut code = None;
    for line in lines {
        match line.record {
            Record::Log { line } => {
                text.push_str(&line);
                text.push('\n');
            }
            Record::Ended { code: ended, .. } => code = ended,
            _ => {}
        }
    }
    Ok((text, code))
}
