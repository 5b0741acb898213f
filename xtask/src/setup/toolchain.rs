//! A Rust toolchain that compiles for BPF, and a bpf-linker that matches its LLVM.
//!
//! Two kinds do: a nightly of rustup with `rust-src`, which builds `core` itself; and Debian's rustc, whose packages
//! bring a prebuilt `core` for BPF. bpf-linker reads the compiler's bitcode, so it has to be linked against the same
//! major version of LLVM; it is built from source, and that needs the LLVM headers and libraries of a Debian package.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, bail};

use super::{State, apt};
use crate::{cache, paths, process, ui};

/// The release of bpf-linker that is built. It knows these LLVMs.
const LINKER: &str = "0.13.0";
const LINKER_LLVMS: std::ops::RangeInclusive<u32> = 21..=23;

/// Names a kind in the environment, for those who want to choose: `nightly` or `debian`.
const CHOICE: &str = "MEMGUARD_EBPF_TOOLCHAIN";

/// How the compiler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `cargo +nightly -Z build-std=core`
    Nightly,
    /// `/usr/bin/cargo`, with unstable features allowed for the two crates that use one.
    Debian,
}

/// A toolchain that is there and complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) kind: Kind,
    /// Major version of its LLVM.
    pub(crate) llvm: u32,
    version: String,
}

const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// rustc without what rustup and cargo put into our environment.
fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in ["RUSTUP_TOOLCHAIN", "RUSTC", "RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER", "CARGO"] {
        command.env_remove(name);
    }
    command
}

fn nightly(program: &str) -> Command {
    let mut command = clean("rustup");
    command.args(["run", "nightly", program]);
    command
}

/// Version and major LLVM version that a rustc tells about itself.
fn version(command: &mut Command) -> Option<(String, u32)> {
    parse_version(&process::output(command.arg("-vV")).ok()?)
}

fn parse_version(text: &str) -> Option<(String, u32)> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    let llvm = field("LLVM version")?.split('.').next()?.parse().ok()?;
    Some((field("release")?.to_owned(), llvm))
}

impl Toolchain {
    /// The toolchain to use, if one is complete: a nightly first, because it is what the world builds eBPF with.
    pub(crate) fn find() -> anyhow::Result<Option<Self>> {
        Ok(match choice()? {
            Some(Kind::Nightly) => Self::nightly(),
            Some(Kind::Debian) => Self::debian(),
            None => Self::nightly().filter(Self::can_link).or_else(Self::debian),
        })
    }

    fn nightly() -> Option<Self> {
        let sysroot = process::output(nightly("rustc").args(["--print", "sysroot"])).ok()?;
        let source = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml");
        let (version, llvm) = version(&mut nightly("rustc"))?;
        source.is_file().then_some(Self { kind: Kind::Nightly, llvm, version })
    }

    fn debian() -> Option<Self> {
        let sysroot = process::output(clean(DEBIAN_RUSTC).args(["--print", "sysroot"])).ok()?;
        let core = fs::read_dir(Path::new(sysroot.trim()).join("lib/rustlib/bpfel-unknown-none/lib")).ok()?;
        let has_core = core.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"));
        let (version, llvm) = version(&mut clean(DEBIAN_RUSTC))?;
        (has_core && Path::new("/usr/bin/cargo").is_file()).then_some(Self { kind: Kind::Debian, llvm, version })
    }

    /// Whether a matching bpf-linker is there or can be built.
    fn can_link(&self) -> bool {
        self.linker().is_some() || linkable(self.llvm)
    }

    /// bpf-linker for this LLVM, if it was built.
    pub(crate) fn linker(&self) -> Option<PathBuf> {
        let path = linker_folder(self.llvm).ok()?.join("bin/bpf-linker");
        path.is_file().then_some(path)
    }

    pub(super) fn linker_remedy(&self) -> String {
        let llvm = self.llvm;
        let root = linker_folder(llvm).map_or_else(|_| "FOLDER".to_owned(), |path| path.display().to_string());
        format!(
            "{}; LLVM_PREFIX={} cargo install bpf-linker --version {LINKER} --no-default-features --features llvm-{llvm} \
             --root {root}",
            apt::remedy(&llvm_packages(llvm)),
            llvm_prefix(llvm).display()
        )
    }

    /// `cargo build` for BPF, but for the package and where to put it.
    pub(crate) fn cargo_build(&self) -> anyhow::Result<Command> {
        let linker = self.linker().context("bpf-linker is missing: run `cargo xtask setup`")?;
        let mut command = match self.kind {
            Kind::Nightly => {
                let mut command = nightly("cargo");
                command.args(["build", "-Z", "build-std=core"]);
                command
            }
            Kind::Debian => {
                let mut command = clean("/usr/bin/cargo");
                command.arg("build").env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "aya_ebpf,memguard_ebpf");
                command
            }
        };
        let folder = linker.parent().unwrap_or(Path::new("."));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([folder.to_owned()].into_iter().chain(std::env::split_paths(&path)))?;
        command.current_dir(paths::root()).env("PATH", path);
        Ok(command)
    }
}

fn choice() -> anyhow::Result<Option<Kind>> {
    match std::env::var(CHOICE).as_deref() {
        Err(_) | Ok("") => Ok(None),
        Ok("nightly") => Ok(Some(Kind::Nightly)),
        Ok("debian") => Ok(Some(Kind::Debian)),
        Ok(other) => bail!("{CHOICE} is {other:?}: it can be `nightly` or `debian`, or be left unset"),
    }
}

pub(super) fn check() -> anyhow::Result<State> {
    Ok(match Toolchain::find()? {
        Some(toolchain) => {
            let kind = match toolchain.kind {
                Kind::Nightly => "nightly with rust-src",
                Kind::Debian => "Debian's rustc with core for BPF",
            };
            State::Ready(format!("{kind}, {} (LLVM {})", toolchain.version, toolchain.llvm))
        }
        None => State::Missing {
            remedy: format!(
                "rustup toolchain install nightly --profile minimal --component rust-src (if there is an LLVM of its \
                 version to link against), or: {}",
                apt::remedy(&debian_packages().unwrap_or_else(|| RUSTC_WEB.map(str::to_owned).to_vec()))
            ),
        },
    })
}

/// Debian's packages: newer suites carry them under the plain names, stable ones under `-web`, with a newer compiler
/// than the suite's own.
const RUSTC_WEB: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const RUSTC_PLAIN: [&str; 3] = ["rustc", "cargo", "libstd-rust-dev-bpf"];

fn debian_packages() -> Option<Vec<String>> {
    [RUSTC_WEB, RUSTC_PLAIN]
        .into_iter()
        .find(|packages| packages.iter().all(|package| apt::has(package)))
        .map(|packages| packages.map(str::to_owned).to_vec())
}

/// A nightly that is there is completed; else Debian's packages; else a nightly is fetched.
///
/// Debian's come before a nightly that is not there yet: their LLVM is in the same archive, while the newest nightly's
/// often is in none, and then no linker could be built for it.
pub(super) fn install() -> anyhow::Result<()> {
    let choice = choice()?;
    let mut tried = Vec::new();
    let mut attempt = |name: &str, way: fn() -> anyhow::Result<()>| {
        let result = way();
        ui::check_interrupt()?;
        Ok::<_, anyhow::Error>(match result {
            Ok(()) => true,
            Err(error) => {
                tried.push(format!("{name}: {error:#}"));
                false
            }
        })
    };
    if choice != Some(Kind::Debian)
        && let Some((_, llvm)) = version(&mut nightly("rustc"))
    {
        // rust-src is some 30 MB, so first whether it would be of use.
        let linkable = linkable(llvm) || apt::find(&[&format!("llvm-{llvm}-dev")])? && linkable(llvm);
        if linkable && attempt("the nightly toolchain that is here", complete_nightly)? {
            return Ok(());
        }
    }
    if choice != Some(Kind::Nightly) && attempt("Debian's packages", install_debian)? {
        return Ok(());
    }
    if choice != Some(Kind::Debian) && attempt("a nightly toolchain", fetch_nightly)? {
        return Ok(());
    }
    bail!("no toolchain that compiles for BPF can be had here; tried:\n  {}", tried.join("\n  "));
}

fn complete_nightly() -> anyhow::Result<()> {
    ui::say("adding rust-src to the nightly toolchain");
    rustup(&["component", "add", "rust-src", "--toolchain", "nightly"])?;
    usable_nightly()
}

fn fetch_nightly() -> anyhow::Result<()> {
    ui::say("fetching a nightly toolchain with rust-src");
    rustup(&["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"])?;
    usable_nightly()
}

fn usable_nightly() -> anyhow::Result<()> {
    let toolchain = Toolchain::nightly().context("rustup brought no rust-src")?;
    if !toolchain.can_link() {
        bail!("no package brings LLVM {}, which its bpf-linker would need", toolchain.llvm);
    }
    Ok(())
}

fn install_debian() -> anyhow::Result<()> {
    if !apt::find(&RUSTC_WEB)? && !apt::find(&RUSTC_PLAIN)? {
        bail!("this machine's package sources have neither {} nor {}", RUSTC_WEB.join(" "), RUSTC_PLAIN.join(" "));
    }
    let packages = debian_packages().context("the package sources changed meanwhile")?;
    apt::install(&packages)?;
    Toolchain::debian().with_context(|| format!("no core for BPF in {}", packages.join(" ")))?;
    Ok(())
}

fn rustup(arguments: &[&str]) -> anyhow::Result<()> {
    const PATIENCE: Duration = Duration::from_mins(5);
    process::output_within(clean("rustup").args(arguments), PATIENCE).map(drop)
}

fn linker_folder(llvm: u32) -> anyhow::Result<PathBuf> {
    Ok(paths::cache()?.join(format!("tools/bpf-linker-{LINKER}-llvm-{llvm}")))
}

/// Whether a bpf-linker for this LLVM can be built, by the package lists as they are.
fn linkable(llvm: u32) -> bool {
    LINKER_LLVMS.contains(&llvm) && (llvm_config(llvm).is_file() || apt::has(&format!("llvm-{llvm}-dev")))
}

fn llvm_prefix(llvm: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{llvm}"))
}

fn llvm_config(llvm: u32) -> PathBuf {
    llvm_prefix(llvm).join("bin/llvm-config")
}

fn llvm_packages(llvm: u32) -> Vec<String> {
    let mut packages: Vec<String> = [format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev")].into();
    packages.extend(["zlib1g-dev", "libzstd-dev", "libxml2-dev", "g++"].map(str::to_owned));
    packages
}

pub(super) fn install_linker() -> anyhow::Result<()> {
    let toolchain = Toolchain::find()?.context("there is no toolchain that it could match")?;
    let llvm = toolchain.llvm;
    if !LINKER_LLVMS.contains(&llvm) {
        bail!("bpf-linker {LINKER} knows LLVM {LINKER_LLVMS:?}, and the toolchain has LLVM {llvm}");
    }
    if apt::is_debian() {
        apt::install(&llvm_packages(llvm))?;
    }
    if !llvm_config(llvm).is_file() {
        bail!("there is no {}", llvm_config(llvm).display());
    }
    ui::say(format!("building bpf-linker {LINKER} for LLVM {llvm} (a minute or two)"));
    let is_whole = |folder: &Path| folder.join("bin/bpf-linker").is_file();
    cache::fill(&linker_folder(llvm)?, is_whole, |building| {
        let mut command = process::cargo();
        command
            .args(["install", "bpf-linker", "--version", LINKER, "--no-default-features", "--locked"])
            .args(["--features", &format!("llvm-{llvm}"), "--root"])
            .arg(building)
            .env("LLVM_PREFIX", llvm_prefix(llvm))
            .env_remove("CARGO_TARGET_DIR");
        process::output(&mut command)?;
        Ok(building.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_from_what_rustc_says() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        assert_eq!(parse_version(text), Some(("1.97.0-nightly".to_owned(), 22)));
        assert_eq!(parse_version("error: toolchain 'nightly' is not installed"), None);
        assert_eq!(parse_version("release: 1\nLLVM version: x"), None);
    }
}
