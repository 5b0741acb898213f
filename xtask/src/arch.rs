//! The processor architectures that memguard is built for, and what each is called by whom.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

/// A processor architecture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    #[default]
    #[value(name = "amd64", aliases = ["x86_64", "x86-64", "x86_64-unknown-linux-gnu"])]
    Amd64,
    #[value(name = "arm64", aliases = ["aarch64", "aarch64-unknown-linux-gnu"])]
    Arm64,
}

impl Arch {
    /// Whether this machine is one, so that nothing has to be built across.
    pub(crate) fn is_this_machine(self) -> bool {
        self.rust() == std::env::consts::ARCH
    }

    /// As in `std::env::consts::ARCH`, `uname -m`, and the `bpf_target_arch` of aya.
    pub(crate) const fn rust(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64",
            Self::Arm64 => "aarch64",
        }
    }

    /// Cargo's target.
    pub(crate) const fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// As Debian, Go and container images call it.
    pub(crate) const fn debian(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// How Debian's multiarch folders and the names of GNU's tools begin.
    pub(crate) const fn gnu(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-linux-gnu",
            Self::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// What a program was compiled for, by its ELF header.
    pub(crate) fn of(program: &Path) -> anyhow::Result<Self> {
        let shown = program.display();
        let mut header = [0; 20];
        File::open(program)
            .and_then(|mut file| file.read_exact(&mut header))
            .with_context(|| format!("can't read {shown}"))?;
        Self::from_header(&header).with_context(|| format!("{shown} is no program that can be used here"))
    }

    fn from_header(header: &[u8; 20]) -> anyhow::Result<Self> {
        // e_ident: the magic number, 64 bits, little endian; e_machine is at offset 18 (elf.h).
        if header[..6] != *b"\x7fELF\x02\x01" {
            bail!("it is no ELF file of 64 bits, little endian");
        }
        match u16::from_le_bytes([header[18], header[19]]) {
            62 => Ok(Self::Amd64),
            183 => Ok(Self::Arm64),
            other => bail!("it is for ELF machine {other}; 62 (x86-64) and 183 (arm64) are known here"),
        }
    }

    /// Where Debian's cross C library puts what an installed one has in `/lib`.
    pub(crate) fn cross_libraries(self) -> PathBuf {
        Path::new("/usr").join(self.gnu()).join("lib")
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.debian())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_told_apart_by_their_header() {
        let of = |start: &[u8], machine: u16| {
            let mut header = [0; 20];
            header[..start.len()].copy_from_slice(start);
            header[18..].copy_from_slice(&machine.to_le_bytes());
            Arch::from_header(&header)
        };
        assert_eq!(of(b"\x7fELF\x02\x01", 62).unwrap(), Arch::Amd64);
        assert_eq!(of(b"\x7fELF\x02\x01", 183).unwrap(), Arch::Arm64);
        assert!(of(b"\x7fELF\x02\x01", 243).unwrap_err().to_string().contains("243"));
        assert!(of(b"\x7fELF\x01\x01", 62).is_err());
        assert!(of(b"#!/bin/sh\n", 62).is_err());
    }

    #[test]
    fn the_tests_themselves_run_on_what_they_were_built_for() {
        let own = std::env::current_exe().unwrap();
        assert_eq!(Arch::of(&own).unwrap().rust(), std::env::consts::ARCH);
        assert!(Arch::of(&own).unwrap().is_this_machine());
    }

    #[test]
    fn a_target_triple_names_an_architecture_too() {
        use clap::ValueEnum as _;
        for (name, arch) in [
            ("amd64", Arch::Amd64),
            ("x86_64", Arch::Amd64),
            ("arm64", Arch::Arm64),
            ("aarch64", Arch::Arm64),
            (Arch::Arm64.target(), Arch::Arm64),
            (Arch::Amd64.target(), Arch::Amd64),
        ] {
            assert_eq!(Arch::from_str(name, false), Ok(arch), "{name}");
        }
    }
}
