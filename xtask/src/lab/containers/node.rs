//! The root file system of the guest's node: Debian's containerd and runc with what they are linked to, and images.

use std::{
    fs::{self, File},
    io::BufWriter,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};

use crate::{
    cache, paths,
    setup::archive::{self, Archive},
    ui,
};

/// Counts up when what is taken changes.
const VERSION: u32 = 1;
/// Of a newer Debian than the root disk's: the runtime of today's nodes is younger, too.
const SUITES: &[&str] = &["trixie", "trixie-security"];
const PACKAGES: &[&str] = &["containerd", "runc"];
const PROGRAMS: &[&str] = &["containerd", "containerd-shim-runc-v2", "ctr", "runc"];
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
/// Where programs expect what is in /usr.
const LINKS: [(&str, &str); 4] = [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")];

fn folder() -> anyhow::Result<PathBuf> {
    Ok(paths::cache()?.join(format!("tools/containerd-{VERSION}")))
}

/// The file system, if it is there.
pub(crate) fn cached() -> anyhow::Result<Option<PathBuf>> {
    let folder = folder()?;
    Ok(is_whole(&folder).then_some(folder))
}

fn is_whole(folder: &Path) -> bool {
    folder.join("usr/bin/containerd").is_file()
}

/// Unpacks it into the cache: 39 MB of packages, of which 112 MiB are kept.
pub(crate) fn install() -> anyhow::Result<()> {
    cache::fill(&folder()?, is_whole, unpack)
}

fn unpack(work: &Path) -> anyhow::Result<PathBuf> {
    ui::say(format!("unpacking Debian's {} and what they depend on into the cache", PACKAGES.join(", ")));
    let archive = Archive::open("containerd", SUITES)?;
    let unpacked = work.join("unpacked");
    for deb in archive.download_closure(PACKAGES)? {
        archive::unpack(&deb, &unpacked)?;
        ui::check_interrupt()?;
    }
    archive.clean();
    let kept = work.join("kept");
    keep(&unpacked, &kept)?;
    Ok(kept)
}

/// Takes the programs and the shared objects out of what was unpacked.
fn keep(unpacked: &Path, kept: &Path) -> anyhow::Result<()> {
    let copy = |from: &Path, to: &str| -> anyhow::Result<()> {
        let to = kept.join(to);
        fs::create_dir_all(to.parent().unwrap_or(kept))?;
        // Follows links: a library is there under each of its names.
        fs::copy(from, &to).with_context(|| format!("can't copy {}", from.display()))?;
        Ok(())
    };
    for name in PROGRAMS {
        let places = ["usr/bin", "usr/sbin"].map(|folder| unpacked.join(folder).join(name));
        let from = places.iter().find(|path| path.symlink_metadata().is_ok_and(|data| data.is_file()));
        let from = from.with_context(|| format!("the packages have no program {name}"))?;
        copy(from, &format!("usr/bin/{name}"))?;
    }
    let libraries = unpacked.join(LIBRARIES);
    for entry in fs::read_dir(&libraries).with_context(|| format!("can't read {}", libraries.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.contains(".so") && path.is_file() {
            copy(&path, &format!("{LIBRARIES}/{name}"))?;
        }
    }
    let loaders = [unpacked.join(LOADER), libraries.join("ld-linux-x86-64.so.2")];
    let loader = loaders.iter().find(|path| path.is_file()).context("the packages have no loader of programs")?;
    copy(loader, LOADER)?;
    for (link, to) in LINKS {
        symlink(to, kept.join(link)).with_context(|| format!("can't make {link}"))?;
    }
    Ok(())
}

/// Writes the file system with images in it as a tar archive. The images are in `/images`, by these names.
pub(super) fn archive(path: &Path, images: &[(&str, &Path)]) -> anyhow::Result<()> {
    let root = cached()?.context("there is no containerd: run `cargo xtask setup`")?;
    let written = (|| -> anyhow::Result<()> {
        let mut archive = tar::Builder::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
        archive.follow_symlinks(false);
        archive.append_dir_all("", &root)?;
        for (name, file) in images {
            ensure!(!name.contains('/'), "{name} is no name of a file");
            archive.append_path_with_name(file, format!("images/{name}"))?;
        }
        archive.into_inner()?.into_inner()?;
        Ok(())
    })();
    written.with_context(|| format!("can't write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_libraries_are_kept_and_nothing_else() {
        let work = tempfile::tempdir().unwrap();
        let unpacked = work.path().join("unpacked");
        let write = |path: &str| {
            let path = unpacked.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.display().to_string()).unwrap();
        };
        for name in ["containerd", "containerd-shim-runc-v2", "ctr"] {
            write(&format!("usr/bin/{name}"));
        }
        write("usr/sbin/runc");
        symlink("../sbin/runc", unpacked.join("usr/bin/runc")).unwrap();
        write("usr/share/doc/runc/copyright");
        write(&format!("{LIBRARIES}/libseccomp.so.2.6.0"));
        symlink("libseccomp.so.2.6.0", unpacked.join(LIBRARIES).join("libseccomp.so.2")).unwrap();
        let kept = work.path().join("kept");
        assert!(keep(&unpacked, &kept).unwrap_err().to_string().contains("loader"));
        write(&format!("{LIBRARIES}/ld-linux-x86-64.so.2"));
        fs::remove_dir_all(&kept).unwrap();
        keep(&unpacked, &kept).unwrap();
        for there in ["bin/runc", "lib64/ld-linux-x86-64.so.2", "lib/x86_64-linux-gnu/libseccomp.so.2"] {
            assert!(kept.join(there).is_file(), "{there}");
        }
        assert!(!kept.join("usr/share").exists());
        fs::remove_file(unpacked.join("usr/bin/ctr")).unwrap();
        fs::remove_dir_all(&kept).unwrap();
        assert!(keep(&unpacked, &kept).unwrap_err().to_string().contains("ctr"));
    }
}
