//! `cargo xtask lint`: format and lints, with warnings as errors.

use crate::{process, ui};

pub(crate) fn format() -> anyhow::Result<()> {
    let _step = ui::step("format");
    process::run(process::cargo().args(["fmt", "--all", "--check"]))
}

/// Of the whole workspace: the eBPF crate is type-checked for the host, which is enough for clippy.
pub(crate) fn clippy() -> anyhow::Result<()> {
    let _step = ui::step("lints");
    let mut command = process::cargo();
    command.args(["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"]);
    process::run(&mut command)
}

/// What is not checked without cargo-deny, and the remedy.
pub(crate) const NOT_CHECKED: &str = "licences, sources and bans of dependencies were not checked: cargo-deny is not there (cargo install cargo-deny --locked)";

/// Licences, sources and bans; false if there is nothing to check them with. The advisories need a database from the
/// network, so they are left to `cargo deny check`.
pub(crate) fn deny() -> anyhow::Result<bool> {
    if process::find("cargo-deny").is_none() {
        return Ok(false);
    }
    let _step = ui::step("licences, sources, bans");
    process::run(process::cargo().args([
        "deny",
        "--workspace",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ]))?;
    Ok(true)
}

pub(crate) fn run() -> anyhow::Result<()> {
    format()?;
    clippy()?;
    if !deny()? {
        println!("{NOT_CHECKED}");
    }
    Ok(())
}
