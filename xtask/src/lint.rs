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

/// Licences, sources and bans. The advisories need a database from the network, so they are left to `cargo deny check`.
pub(crate) fn deny() -> anyhow::Result<()> {
    if process::find("cargo-deny").is_none() {
        ui::say("cargo-deny is not there, so licences are not checked (cargo install cargo-deny --locked)");
        return Ok(());
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
    ]))
}

pub(crate) fn run() -> anyhow::Result<()> {
    format()?;
    clippy()?;
    deny()
}
