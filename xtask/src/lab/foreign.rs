//! The disk of guests whose architecture is not this machine's: the listener's shared objects and the big file. Programs of
//! Debian are not on it: nothing here could prepare what they work on, since they do not run here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use memguard_lab::{Scenario, scenario::Program};
use sha2::{Digest as _, Sha256};

use super::image;
use crate::{arch::Arch, cache, paths, setup::cross, ui};

/// Counts up when what is made here changes in a way that its source does not show.
const VERSION: u32 = 1;
/// Room for memguard beside the rest.
const SPARE_MIB: u32 = 256;

/// The text of the listener's shared objects.
fn source(arch: Arch) -> anyhow::Result<PathBuf> {
    match arch {
        Arch::Amd64 => bail!("the disk of {arch} guests is another one"),
        Arch::Arm64 => Ok(paths::root().join("tests/workloads/text-arm64.S")),
    }
}

fn path(arch: Arch) -> anyhow::Result<PathBuf> {
    let source = source(arch)?;
    let text = fs::read(&source).with_context(|| format!("can't read {}", source.display()))?;
    let mut hash = Sha256::new();
    for number in [VERSION, SPARE_MIB, image::TEXT_OBJECTS, image::TEXT_PAGES, image::BIG_FILE_MIB] {
        hash.update(number.to_le_bytes());
    }
    hash.update(text);
    let key = format!("{:x}", hash.finalize());
    Ok(paths::cache()?.join(format!("images/{arch}-{}.ext4", &key[..16])))
}

/// The disk, if it was made from what is here now.
pub(crate) fn cached(arch: Arch) -> anyhow::Result<Option<PathBuf>> {
    let path = path(arch)?;
    Ok(path.is_file().then_some(path))
}

/// The disk, made if it is not there.
pub(crate) fn ensure(arch: Arch) -> anyhow::Result<PathBuf> {
    let path = path(arch)?;
    cache::fill(&path, Path::is_file, |work| make(arch, &path, work))
        .with_context(|| format!("can't make the disk of {arch} guests"))?;
    Ok(path)
}

fn make(arch: Arch, path: &Path, work: &Path) -> anyhow::Result<PathBuf> {
    // An object is its pages and a few KiB of headers.
    let text_mib = image::TEXT_OBJECTS * (image::TEXT_PAGES / 256 + 1);
    let mib = text_mib + image::BIG_FILE_MIB + SPARE_MIB;
    let parent = path.parent().context("the cache has no parent")?;
    paths::check_room(parent, u64::from(2 * mib), "making the disk")?;
    image::remove_old(parent, &format!("{arch}-"))?;
    let root = work.join("root");
    for folder in ["text", "data", "proc", "dev", "tmp", "root", "usr/bin", "var/tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    ui::say(format!("assembling the listener's shared objects for {arch}"));
    let mut compiler = Command::new(cross::tool(arch, "gcc"));
    image::text_objects(&mut compiler, &source(arch)?, &root.join("text"))?;
    image::big_file(&root.join("data/big"))?;
    ui::check_interrupt()?;
    ui::say("writing the file system");
    let written = work.join("image");
    image::file_system(&root, &written, mib)?;
    Ok(written)
}

/// Why guests of another architecture can't run a scenario.
pub(crate) fn obstacle(scenario: &Scenario) -> Option<String> {
    let (.., workload) = scenario
        .workloads()
        .find(|(.., workload)| matches!(workload.run, Program::Exec { .. } | Program::Repeat { .. }))?;
    Some(format!(
        "{}: its workload {} is a program of Debian's, and only x86-64 guests have those",
        scenario.name, workload.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_with_programs_of_debian_are_refused_by_name() {
        let read = |name: &str| Scenario::read(&paths::scenarios().join(format!("{name}.toml"))).unwrap();
        assert_eq!(obstacle(&read("livelock")), None);
        assert_eq!(obstacle(&read("smoke")), None);
        let why = obstacle(&read("ripgrep")).unwrap();
        assert!(why.starts_with("ripgrep: "), "{why}");
    }

    #[test]
    fn the_disk_has_the_name_of_its_architecture() {
        let path = path(Arch::Arm64).unwrap();
        assert!(path.file_name().unwrap().to_string_lossy().starts_with("arm64-"), "{}", path.display());
        assert!(source(Arch::Amd64).is_err());
    }
}
