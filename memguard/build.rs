//! Puts the eBPF object where `include_bytes_aligned!` finds it.
//!
//! The object is built by `cargo xtask build`, which hands its path over in `MEMGUARD_EBPF_OBJECT`. Without it (a plain
//! `cargo build` or `cargo test`, which need no nightly, no bpf-linker and no root) an empty object is embedded, and
//! memguard works from cgroup files alone and says so.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    const OBJECT: &str = "MEMGUARD_EBPF_OBJECT";
    println!("cargo:rerun-if-env-changed={OBJECT}");
    println!("cargo:rerun-if-changed=build.rs");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?).join("memguard.bpf.o");
    match env::var_os(OBJECT).filter(|path| !path.is_empty()) {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo:rerun-if-changed={}", path.display());
            fs::copy(&path, &out)
                .map_err(|error| format!("{OBJECT}: can't copy {} to {}: {error}", path.display(), out.display()))?;
        }
        None => fs::write(&out, [])?,
    }
    Ok(())
}
