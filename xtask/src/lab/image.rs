//! The guests' root disk: an ext4 image with programs of Debian, the listener's shared objects, and what the workloads
//! read: a big file, a source tree, a database, a package.

mod data;

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    cache, paths, process,
    setup::archive::{self, Archive},
    ui,
};

/// Counts up when what is made here changes in a way that its sources do not show.
const VERSION: u32 = 2;
/// Debian's packages on the disk, with all that they depend on.
const PACKAGES: &[&str] = &[
    "coreutils",
    "dash",
    "dpkg",
    "findutils",
    "gcc",
    "git",
    "grep",
    "libc6-dev",
    "make",
    "nodejs",
    "python3",
    "ripgrep",
    "sqlite3",
    "tar",
    "zstd",
];
/// What nobody runs or reads in a guest.
const LEFT_OUT: &[&str] = &["usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info"];
/// The package that guests unpack: some ten MiB, thirty unpacked.
const UNPACKED: &str = "cpp-12_";
const SUITES: &[&str] = &["bookworm", "bookworm-security"];
/// Shared objects of the listener: 17 of 12 MiB are 204 MiB of text.
pub(super) const TEXT_OBJECTS: u32 = 17;
pub(super) const TEXT_PAGES: u32 = 3072;
/// The file that is streamed, scanned and mapped: larger than any limit.
pub(super) const BIG_FILE_MIB: u32 = 768;
const IMAGE_MIB: u32 = 3072;

/// Sources that end up on the disk.
const SOURCES: &[&str] = &["text.S", "report.py"];

fn source(name: &str) -> PathBuf {
    paths::root().join("tests/workloads").join(name)
}

/// FNV-1a over everything that the image is made from, so that a change makes a new one.
fn key() -> anyhow::Result<String> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    };
    for number in [VERSION, TEXT_OBJECTS, TEXT_PAGES, BIG_FILE_MIB, IMAGE_MIB].into_iter().chain(data::SIZES) {
        add(&number.to_ne_bytes());
    }
    for name in PACKAGES.iter().chain(SUITES).chain(LEFT_OUT).chain(&[UNPACKED]) {
        add(name.as_bytes());
    }
    for name in SOURCES {
        let path = source(name);
        add(&fs::read(&path).with_context(|| format!("can't read {}", path.display()))?);
    }
    Ok(format!("{hash:016x}"))
}

fn path() -> anyhow::Result<PathBuf> {
    Ok(paths::cache()?.join(format!("images/root-{}.ext4", key()?)))
}

/// The image, if it was made from what is here now.
pub(crate) fn cached() -> anyhow::Result<Option<PathBuf>> {
    let path = path()?;
    Ok(path.is_file().then_some(path))
}

/// The image, made if it is not there.
pub(crate) fn ensure() -> anyhow::Result<PathBuf> {
    let path = path()?;
    cache::fill(&path, Path::is_file, |work| make(&path, work)).context("can't make the root disk")?;
    Ok(path)
}

fn make(path: &Path, work: &Path) -> anyhow::Result<PathBuf> {
    let parent = path.parent().context("the cache has no parent")?;
    // The tree and the image of it stand side by side for a moment.
    paths::check_room(parent, u64::from(BIG_FILE_MIB + IMAGE_MIB) + 512, "making the root disk")?;
    remove_old(parent, "root-")?;
    let root = work.join("root");

    ui::say(format!("unpacking Debian's {} and what they depend on", PACKAGES.join(", ")));
    let archive = Archive::open("image", SUITES)?;
    let debs = archive.download_closure(PACKAGES)?;
    for deb in &debs {
        archive::unpack(deb, &root)?;
        ui::check_interrupt()?;
    }
    for folder in ["text", "data", "proc", "dev", "tmp", "root", "var/tmp"] {
        fs::create_dir_all(root.join(folder))?;
    }
    let unpacked =
        debs.iter().find(|deb| deb.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNPACKED)));
    let unpacked = unpacked.with_context(|| format!("none of the packages is {UNPACKED}*.deb"))?;
    fs::copy(unpacked, root.join("data/package.deb"))?;
    archive.clean();
    for folder in LEFT_OUT {
        match fs::remove_dir_all(root.join(folder)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't leave out {folder}"));
            }
            _ => {}
        }
    }

    ui::say("assembling the listener's shared objects");
    text_objects(&mut Command::new("cc"), &source("text.S"), &root.join("text"))?;
    fs::copy(source("report.py"), root.join("root/report.py"))?;
    big_file(&root.join("data/big"))?;
    ui::check_interrupt()?;
    ui::say("making a source tree and a database");
    data::source_tree(&root.join("data/tree"))?;
    data::database(&root, &root.join("data/database"))?;
    ui::check_interrupt()?;

    ui::say("writing the file system");
    let image = work.join("image");
    file_system(&root, &image, IMAGE_MIB)?;
    Ok(image)
}

/// Images of earlier sources are of no use any more.
pub(super) fn remove_old(folder: &Path, prefix: &str) -> anyhow::Result<()> {
    for old in fs::read_dir(folder)?.flatten() {
        let name = old.file_name();
        let name = name.to_string_lossy();
        if name.starts_with(prefix) && name.ends_with(".ext4") {
            let _ = fs::remove_file(old.path());
        }
    }
    Ok(())
}

/// Has a compiler assemble the listener's shared objects.
pub(super) fn text_objects(compiler: &mut Command, source: &Path, folder: &Path) -> anyhow::Result<()> {
    let object = |index: u32| folder.join(format!("libtext{index:02}.so"));
    compiler.args(["-shared", "-nostdlib", &format!("-DPAGES={TEXT_PAGES}"), "-o"]).arg(object(0)).arg(source);
    process::output(compiler)?;
    for index in 1..TEXT_OBJECTS {
        fs::copy(object(0), object(index)).with_context(|| format!("can't write {}", object(index).display()))?;
    }
    Ok(())
}

/// An ext4 file system with what is in a folder.
pub(super) fn file_system(root: &Path, image: &Path, mib: u32) -> anyhow::Result<()> {
    let mke2fs = ["mke2fs", "/usr/sbin/mke2fs", "/sbin/mke2fs"].into_iter().find(|program| {
        process::find(program).is_some() || Path::new(program).is_absolute() && Path::new(program).is_file()
    });
    let mke2fs = mke2fs.context("there is no mke2fs: run `cargo xtask setup`")?;
    process::output(
        Command::new(mke2fs)
            .args(["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
            .arg(root)
            .arg(image)
            .arg(format!("{mib}M")),
    )
    .map(drop)
}

/// Not random, but no two pages alike.
pub(super) fn big_file(path: &Path) -> anyhow::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut page = [0x5a; 4096];
    for number in 0..u64::from(BIG_FILE_MIB) * 256 {
        page[..8].copy_from_slice(&number.to_le_bytes());
        file.write_all(&page)?;
    }
    file.flush().with_context(|| format!("can't write {}", path.display()))
}
