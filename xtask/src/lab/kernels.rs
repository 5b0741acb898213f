//! Kernels to boot: Debian's cloud images, unpacked into the cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use crate::{
    arch::Arch,
    cache, paths,
    setup::archive::{self, Archive},
    ui,
};

/// A kernel line, and which of its releases we would like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// What a release of this line begins with: `6.12`.
    pub(crate) name: &'static str,
    /// The release to take while the archive has it; else the newest of the line.
    preferred: Option<&'static str>,
    pub(crate) why: &'static str,
}

/// Those that setup fetches.
pub(crate) const DEFAULT: &[Line] = &[
    Line { name: "6.1", preferred: None, why: "AL2023 on EKS 1.31 and 1.32" },
    Line { name: "6.12", preferred: Some("6.12.73"), why: "the release of the bug report; AL2023 on EKS 1.33 to 1.35" },
    Line { name: "6.18", preferred: Some("6.18.15"), why: "AL2023 on EKS 1.36 and 1.37" },
];

/// Also there, fetched when asked for.
const OTHERS: &[Line] = &[Line { name: "7", preferred: None, why: "what comes next" }];

/// The line that runs when none is named: the bug report's.
pub(crate) const USUAL: &str = "6.12";

/// In all of these suites; which has what changes over time.
const SUITES: &[&str] =
    &["bookworm", "bookworm-security", "bookworm-backports", "trixie", "trixie-security", "trixie-backports", "sid"];

/// Modules that the root disk takes; those that are built in are left out.
const MODULES: &[&str] =
    &["virtio", "virtio_ring", "virtio_pci_modern_dev", "virtio_pci_legacy_dev", "virtio_pci", "virtio_blk"];
/// And what the port for records takes, where it is one of virtio's.
const PORT_MODULES: &[&str] = &["virtio_console"];

/// Modules that some guests take besides, and that a kernel may have built in too.
const FURTHER: &[&str] = &["overlay"];

/// A kernel in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    pub(crate) arch: Arch,
    /// `uname -r`
    pub(crate) release: String,
    pub(crate) image: PathBuf,
    pub(crate) modules: Vec<PathBuf>,
}

/// What `--kernel` can name.
pub(crate) fn listed() -> String {
    let lines: Vec<String> = DEFAULT.iter().chain(OTHERS).map(|line| format!("{} ({})", line.name, line.why)).collect();
    lines.join(", ")
}

/// All lines, the oldest first.
pub(crate) fn all() -> impl Iterator<Item = &'static Line> {
    DEFAULT.iter().chain(OTHERS)
}

/// The line of this name.
pub(crate) fn line(name: &str) -> anyhow::Result<&'static Line> {
    DEFAULT
        .iter()
        .chain(OTHERS)
        .find(|line| line.name == name)
        .with_context(|| format!("there is no kernel line {name:?}; there are: {}", listed()))
}

/// On which kernels a command runs.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Chosen {
    /// Kernel lines to run on: 6.1, 6.12, 6.18, 7. May be given again.
    #[arg(long, value_name = "LINE", default_value = USUAL)]
    kernel: Vec<String>,
}

impl Chosen {
    pub(crate) fn lines(&self) -> anyhow::Result<Vec<&'static Line>> {
        self.kernel.iter().map(|name| line(name)).collect()
    }
}

/// Small, and without the drivers of real machines.
const FLAVOUR: &str = "cloud";

/// The release in a package name, if it is a kernel image of this line.
fn release<'p>(package: &'p str, line: &Line, arch: Arch) -> Option<&'p str> {
    let release = package.strip_prefix("linux-image-")?;
    let number = release.strip_suffix(arch.debian())?.strip_suffix('-')?.strip_suffix(FLAVOUR)?.strip_suffix('-')?;
    let rest = number.strip_prefix(line.name)?;
    (rest.starts_with('.')).then_some(release)
}

/// Numbers of a name, so that 6.12.113 comes after 6.12.73.
fn numbers(text: &str) -> Vec<u64> {
    text.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

/// The best of some releases: the preferred one, else the newest.
fn best<'p>(releases: impl Iterator<Item = &'p str>, line: &Line) -> Option<&'p str> {
    releases.max_by_key(|release| {
        let preferred = line.preferred.is_some_and(|preferred| {
            release.strip_prefix(preferred).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        });
        (preferred, numbers(release))
    })
}

fn folder() -> anyhow::Result<PathBuf> {
    Ok(paths::cache()?.join("kernels"))
}

/// The kernel of this line in the cache.
pub(crate) fn cached(line: &Line, arch: Arch) -> anyhow::Result<Option<Kernel>> {
    let folder = folder()?;
    let names: Vec<String> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let releases = names.iter().filter_map(|name| release(name, line, arch));
    let Some(release) = best(releases, line) else { return Ok(None) };
    read(&folder.join(format!("linux-image-{release}")), release, arch).map(Some)
}

fn read(folder: &Path, release: &str, arch: Arch) -> anyhow::Result<Kernel> {
    let image = folder.join("vmlinuz");
    if !image.is_file() {
        bail!("{} is damaged: delete it, and run `cargo xtask setup`", folder.display());
    }
    let mut modules: Vec<_> =
        fs::read_dir(folder.join("modules")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    modules.sort();
    Ok(Kernel { arch, release: release.to_owned(), image, modules })
}

/// The kernel of this line for x86-64, fetched if it is not in the cache.
pub(crate) fn ensure(line: &Line) -> anyhow::Result<Kernel> {
    ensure_for(Arch::Amd64, line)
}

/// The same for another architecture.
pub(crate) fn ensure_for(arch: Arch, line: &Line) -> anyhow::Result<Kernel> {
    if let Some(kernel) = cached(line, arch)? {
        return Ok(kernel);
    }
    fetch(line, arch).with_context(|| format!("no {arch} kernel of line {} can be had", line.name))
}

fn fetch(line: &Line, arch: Arch) -> anyhow::Result<Kernel> {
    let lists = match arch {
        Arch::Amd64 => "kernels",
        Arch::Arm64 => "kernels-arm64",
    };
    let archive = Archive::open_for(arch, lists, SUITES)?;
    let packages = archive.names("linux-image-")?;
    let candidates: Vec<&str> = packages
        .iter()
        .filter(|package| archive_has_it(package))
        .filter_map(|package| release(package, line, arch))
        .collect();
    let release = best(candidates.iter().copied(), line)
        .with_context(|| format!("Debian's archive has none of flavour {FLAVOUR}-{arch} now"))?;
    match line.preferred {
        Some(preferred) if !release.starts_with(preferred) => {
            ui::say(format!("{preferred} is not in the archive any more, taking the newest of its line, {release}"));
        }
        _ => ui::say(format!("fetching kernel {release}")),
    }
    let done = folder()?.join(format!("linux-image-{release}"));
    cache::fill(&done, |done| done.join("vmlinuz").is_file(), |work| build(&archive, release, arch, work))?;
    read(&done, release, arch)
}

/// What guests take of a kernel's packages.
fn build(archive: &Archive, release: &str, arch: Arch, work: &Path) -> anyhow::Result<PathBuf> {
    let unpacked = work.join("unpacked");
    unpack(archive, release, work, &unpacked)?;
    let built = work.join("built");
    take_modules(&unpacked, MODULES, &built.join("modules"))?;
    if arch == Arch::Arm64 {
        take_modules(&unpacked, PORT_MODULES, &built.join("modules"))?;
    }
    take_modules(&unpacked, FURTHER, &built.join("further"))?;
    let places = [format!("boot/vmlinuz-{release}"), format!("usr/lib/modules/{release}/vmlinuz")];
    let image = places.iter().map(|place| unpacked.join(place)).find(|path| path.is_file());
    let image = image.with_context(|| format!("the packages of {release} hold none of {}", places.join(", ")))?;
    fs::copy(&image, built.join("vmlinuz")).with_context(|| format!("can't copy {}", image.display()))?;
    Ok(built)
}

/// Up to 6.x one package holds image and modules, from 7.x on it depends on one for each.
fn unpack(archive: &Archive, release: &str, work: &Path, into: &Path) -> anyhow::Result<()> {
    for kind in ["image", "binary", "modules"] {
        let package = format!("linux-{kind}-{release}");
        if kind == "image" || archive.has(&package) {
            archive::unpack(&archive.download(&package, work)?, into)?;
        }
    }
    Ok(())
}

/// Puts those of these modules that there are into a folder.
fn take_modules(unpacked: &Path, names: &[&str], into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into).with_context(|| format!("can't make {}", into.display()))?;
    for path in names.iter().filter_map(|name| find_module(unpacked, name)) {
        fs::copy(&path, into.join(path.file_name().unwrap_or_default()))
            .with_context(|| format!("can't copy {}", path.display()))?;
    }
    Ok(())
}

/// Modules of a kernel in the cache that only some guests take; fetched if the cache was made without them.
pub(crate) fn further(kernel: &Kernel) -> anyhow::Result<Vec<PathBuf>> {
    let parent = kernel.image.parent().context("the kernel has no folder")?;
    let folder = parent.join("further");
    cache::fill(&folder, Path::is_dir, |work| {
        ui::say(format!("fetching {} of kernel {}", FURTHER.join(", "), kernel.release));
        let archive = Archive::open("kernels", SUITES)?;
        let unpacked = work.join("unpacked");
        unpack(&archive, &kernel.release, work, &unpacked)?;
        let taken = work.join("taken");
        take_modules(&unpacked, FURTHER, &taken)?;
        Ok(taken)
    })?;
    let entries = fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Leaves out what only looks like an image package.
fn archive_has_it(package: &str) -> bool {
    !package.ends_with("-dbg") && !package.ends_with("-unsigned")
}

fn find_module(folder: &Path, name: &str) -> Option<PathBuf> {
    let mut open = vec![folder.join("lib/modules"), folder.join("usr/lib/modules")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else if path.file_name().and_then(|file| file.to_str()?.split('.').next()) == Some(name) {
                return Some(path);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(line_name: &str, packages: &[&str]) -> Option<String> {
        pick_for(Arch::Amd64, line_name, packages)
    }

    fn pick_for(arch: Arch, line_name: &str, packages: &[&str]) -> Option<String> {
        let line = line(line_name).unwrap();
        best(packages.iter().filter_map(|package| release(package, line, arch)), line).map(str::to_owned)
    }

    #[test]
    fn the_preferred_release_or_the_newest_of_the_line() {
        let archive = [
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.73+deb12-cloud-amd64",
            "linux-image-6.12.113+deb12-cloud-amd64",
            "linux-image-6.12.113+deb13-cloud-amd64",
            "linux-image-6.12.73+deb12-amd64",
            "linux-image-6.1.0-53-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
            "linux-image-6.12.73+deb12-cloud-arm64",
            "linux-image-6.12.118+deb13-arm64",
        ];
        assert_eq!(pick("6.12", &archive).as_deref(), Some("6.12.73+deb12-cloud-amd64"));
        assert_eq!(pick("6.12", &archive[2..]).as_deref(), Some("6.12.113+deb13-cloud-amd64"), "numbers, not letters");
        assert_eq!(pick("6.1", &archive).as_deref(), Some("6.1.0-53-cloud-amd64"), "6.1 is not 6.12");
        assert_eq!(pick("7", &archive).as_deref(), Some("7.3.4+deb13-cloud-amd64"));
        assert_eq!(pick("6.18", &archive), None);
        assert_eq!(pick_for(Arch::Arm64, "6.12", &archive).as_deref(), Some("6.12.73+deb12-cloud-arm64"));
        assert_eq!(pick_for(Arch::Arm64, "6.1", &archive), None);
    }

    #[test]
    fn an_unknown_line_is_answered_with_the_known_ones() {
        let error = line("5.10").unwrap_err().to_string();
        assert!(error.contains("5.10") && error.contains("6.12"), "{error}");
    }
}
