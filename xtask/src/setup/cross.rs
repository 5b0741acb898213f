//! What building for another architecture takes: Rust's standard library for it, a C compiler (ring has some C), and that
//! C library.
//!
//! The standard library is rustup's. Debian's rustc has none but its own architecture's in reach, so there the package of
//! the other one is unpacked into the cache: to install it, the machine would have to take in a foreign architecture.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};

use super::{
    State, apt,
    archive::{self, Archive},
};
use crate::{arch::Arch, cache, paths, process, ui};

/// Debian's names of it: stable suites carry a newer compiler than their own under `-web`.
const DEBIAN: [&str; 2] = ["libstd-rust-web-dev", "libstd-rust-dev"];

/// The C compiler, and how the names of binutils begin.
pub(crate) fn tool(arch: Arch, name: &str) -> String {
    format!("{}-{name}", arch.gnu())
}

fn packages(arch: Arch) -> Vec<String> {
    vec![format!("gcc-{}", arch.gnu()), format!("libc6-dev-{}-cross", arch.debian())]
}

/// The compiler that cargo calls.
fn rustc() -> Command {
    Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Where the compiler looks for the standard library of a target, whether it is there or not.
fn library(arch: Arch) -> anyhow::Result<PathBuf> {
    let told = process::output(rustc().args(["--print", "target-libdir", "--target", arch.target()]))?;
    Ok(PathBuf::from(told.trim()))
}

fn has_std(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libstd-") && name.ends_with(".rlib")
    })
}

/// The sysroot in the cache for Debian's compiler of this release.
fn sysroot(arch: Arch) -> anyhow::Result<PathBuf> {
    Ok(paths::cache()?.join(format!("tools/rust-std-{}-{arch}", release()?)).join("usr"))
}

/// The release of the compiler that cargo calls, such as `1.96.0`.
fn release() -> anyhow::Result<String> {
    let told = process::output(rustc().arg("-vV"))?;
    let release = told.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(release.with_context(|| format!("rustc does not tell its release: {told}"))?.to_owned())
}

fn in_sysroot(sysroot: &Path, arch: Arch) -> PathBuf {
    sysroot.join("lib/rustlib").join(arch.target()).join("lib")
}

/// Has a `cargo build` compile for `arch`.
pub(crate) fn apply(command: &mut Command, arch: Arch) -> anyhow::Result<()> {
    command.args(["--target", arch.target()]);
    let linker = format!("CARGO_TARGET_{}_LINKER", arch.target().replace('-', "_").to_uppercase());
    if env::var_os(&linker).is_none() {
        command.env(linker, tool(arch, "gcc"));
    }
    if !has_std(&library(arch)?) {
        let sysroot = sysroot(arch)?;
        ensure!(
            has_std(&in_sysroot(&sysroot, arch)),
            "there is no standard library for {}: run `cargo xtask setup --arm64`",
            arch.target()
        );
        let flag = OsString::from(format!("--sysroot={}", sysroot.display()));
        // With --target, flags are for what is compiled for it, and not for build scripts and macros.
        command.env(
            "CARGO_ENCODED_RUSTFLAGS",
            encoded(env::var_os("CARGO_ENCODED_RUSTFLAGS"), env::var_os("RUSTFLAGS"), flag),
        );
    }
    Ok(())
}

/// Flags from the environment, which cargo takes in this order, and one more.
fn encoded(already: Option<OsString>, plain: Option<OsString>, flag: OsString) -> OsString {
    let mut flags = match (already, plain) {
        (Some(already), _) => already,
        (None, Some(plain)) => plain.to_string_lossy().split_whitespace().collect::<Vec<_>>().join("\u{1f}").into(),
        (None, None) => OsString::new(),
    };
    if !flags.is_empty() {
        flags.push("\u{1f}");
    }
    flags.push(flag);
    flags
}

pub(super) fn std_check(arch: Arch) -> anyhow::Result<State> {
    let folder = library(arch)?;
    let cached = in_sysroot(&sysroot(arch)?, arch);
    Ok(match [folder, cached].into_iter().find(|folder| has_std(folder)) {
        Some(folder) => State::Ready(folder.display().to_string()),
        None => State::Missing { remedy: std_remedy(arch) },
    })
}

/// cargo tells what it runs under which toolchain of rustup.
fn by_rustup() -> bool {
    env::var_os("RUSTUP_TOOLCHAIN").is_some() && process::find("rustup").is_some()
}

fn std_remedy(arch: Arch) -> String {
    if by_rustup() {
        format!("rustup target add {}", arch.target())
    } else {
        format!("`cargo xtask setup --arm64` unpacks Debian's {} of {arch} into the cache", DEBIAN.join(" or "))
    }
}

pub(super) fn install_std(arch: Arch) -> anyhow::Result<()> {
    if by_rustup() {
        ui::say(format!("rustup target add {}", arch.target()));
        return process::output(Command::new("rustup").args(["target", "add", arch.target()])).map(drop);
    }
    let release = release()?;
    let suites = suites(&fs::read_to_string("/etc/os-release").unwrap_or_default());
    let archive =
        Archive::open_for(arch, &format!("rust-std-{arch}"), &suites.iter().map(String::as_str).collect::<Vec<_>>())?;
    let folder = sysroot(arch)?;
    let folder = folder.parent().context("the sysroot has no parent")?;
    let is_whole = |folder: &Path| has_std(&in_sysroot(&folder.join("usr"), arch));
    cache::fill(folder, is_whole, |work| unpack_std(arch, &archive, &suites, &release, work))
}

/// The first package of the compiler's own release.
fn unpack_std(arch: Arch, archive: &Archive, suites: &[String], release: &str, work: &Path) -> anyhow::Result<PathBuf> {
    let mut seen = Vec::new();
    for package in DEBIAN.into_iter().filter(|package| archive.has(package)) {
        let deb = archive.download(package, work)?;
        let name = deb.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Libraries of any other release are refused by the compiler.
        if name.starts_with(&format!("{package}_{release}")) {
            ui::say(format!("unpacking {name} into the cache"));
            let unpacked = work.join("unpacked");
            archive::unpack(&deb, &unpacked)?;
            ensure!(has_std(&in_sysroot(&unpacked.join("usr"), arch)), "{name} holds no standard library");
            return Ok(unpacked);
        }
        seen.push(name);
    }
    bail!(
        "rustc is {release}, and Debian's {} has no standard library of {arch} of that release ({}): update rustc, or use \
         rustup (`rustup target add {}`)",
        suites.join(", "),
        if seen.is_empty() { "none at all".to_owned() } else { seen.join(", ") },
        arch.target()
    )
}

/// This machine's suites, or Debian 12's.
fn suites(os_release: &str) -> Vec<String> {
    let field =
        |name: &str| os_release.lines().find_map(|line| line.strip_prefix(name)).map(|text| text.trim_matches('"'));
    // Debian's children have suites of their own, which are not in its archive.
    match field("VERSION_CODENAME=").filter(|_| field("ID=") == Some("debian")) {
        Some("sid") => vec!["sid".to_owned()],
        Some(name) if !name.is_empty() => vec![name.to_owned(), format!("{name}-security")],
        _ => vec!["bookworm".to_owned(), "bookworm-security".to_owned()],
    }
}

pub(super) fn compiler_check(arch: Arch) -> State {
    let loader = arch.cross_libraries().join("libc.so.6");
    match process::find(&tool(arch, "gcc")).filter(|_| loader.is_file()) {
        Some(path) => State::Ready(path.display().to_string()),
        None => State::Missing { remedy: apt::remedy(&packages(arch)) },
    }
}

pub(super) fn install_compiler(arch: Arch) -> anyhow::Result<()> {
    apt::install(&packages(arch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_environment_are_kept() {
        let flag = || OsString::from("--sysroot=/x");
        assert_eq!(encoded(None, None, flag()), "--sysroot=/x");
        assert_eq!(encoded(None, Some("-C  opt-level=1 ".into()), flag()), "-C\u{1f}opt-level=1\u{1f}--sysroot=/x");
        assert_eq!(encoded(Some("-Ca b".into()), Some("-x".into()), flag()), "-Ca b\u{1f}--sysroot=/x");
    }

    #[test]
    fn packages_come_from_this_machines_suites() {
        assert_eq!(suites("ID=debian\nVERSION_CODENAME=trixie\n"), ["trixie", "trixie-security"]);
        assert_eq!(suites("ID=debian\nVERSION_CODENAME=\"sid\"\n"), ["sid"]);
        for other in ["", "ID=ubuntu\nVERSION_CODENAME=noble\n"] {
            assert_eq!(suites(other), ["bookworm", "bookworm-security"]);
        }
    }

    #[test]
    fn a_standard_library_is_known_by_its_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!has_std(folder.path()));
        fs::write(folder.path().join("libstd-0123.so"), "").unwrap();
        assert!(!has_std(folder.path()), "the shared one alone links nothing");
        fs::write(folder.path().join("libstd-0123.rlib"), "").unwrap();
        assert!(has_std(folder.path()));
        assert!(!has_std(Path::new("/nowhere")));
    }
}
