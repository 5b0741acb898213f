//! A guest's initramfs: a cpio archive in the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst),
//! written here because not every machine has a cpio program.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{arch::Arch, process, setup::cross};

/// Writes an archive entry by entry.
struct Cpio<W> {
    out: W,
    inode: u32,
    folders: BTreeSet<PathBuf>,
}

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

impl<W: Write> Cpio<W> {
    fn new(out: W) -> Self {
        Self { out, inode: 0, folders: BTreeSet::new() }
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let size = u32::try_from(data.len()).map_err(io::Error::other)?;
        let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
        // inode, mode, uid, gid, links, mtime, size, device of the file system (2), device (2), name size, checksum
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, device.0, device.1, name_size, 0];
        write!(self.out, "070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        write!(self.out, "{name}\0")?;
        self.pad(6 + 8 * fields.len() + name.len() + 1)?;
        self.out.write_all(data)?;
        self.pad(data.len())
    }

    fn pad(&mut self, length: usize) -> io::Result<()> {
        self.out.write_all(&[0; 3][..length.wrapping_neg() % 4])
    }

    /// Makes a folder and those above it, once.
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        let above: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned).collect();
        for path in above.into_iter().rev() {
            if self.folders.insert(path.clone()) {
                self.entry(&path.to_string_lossy(), FOLDER, (0, 0), &[])?;
            }
        }
        Ok(())
    }

    /// Puts a file at a path without its leading slash.
    fn file(&mut self, path: &Path, data: &[u8]) -> io::Result<()> {
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.entry(&path.to_string_lossy(), PROGRAM, (0, 0), data)
    }

    fn finish(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()
    }
}

/// What goes in.
pub(crate) struct Contents<'a> {
    pub(crate) guest: &'a Path,
    /// memguard, where the guest is to have it.
    pub(crate) memguard: Option<&'a Path>,
    /// Further programs, into `/`.
    pub(crate) programs: &'a [PathBuf],
    pub(crate) modules: &'a [PathBuf],
    /// `/job.json`
    pub(crate) job: &'a str,
}

/// Writes the archive to `path`.
pub(crate) fn write(path: &Path, contents: &Contents<'_>) -> anyhow::Result<()> {
    let file = fs::File::create(path).with_context(|| format!("can't make {}", path.display()))?;
    let mut cpio = Cpio::new(io::BufWriter::new(file));
    let mut put = |to: &Path, from: &Path| -> anyhow::Result<()> {
        let data = fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
        cpio.file(to, &data).with_context(|| format!("can't write {}", path.display()))
    };
    put(Path::new("init"), contents.guest)?;
    put(Path::new("lab-guest"), contents.guest)?;
    let mut programs = vec![contents.guest];
    if let Some(memguard) = contents.memguard {
        put(Path::new("memguard"), memguard)?;
        programs.push(memguard);
    }
    for program in contents.programs {
        put(Path::new(program.file_name().context("a program needs a name")?), program)?;
        programs.push(program);
    }
    for module in contents.modules {
        put(&Path::new("modules").join(module.file_name().unwrap_or_default()), module)?;
    }
    let mut libraries = BTreeSet::new();
    // What stands beside programs may be data, which is loaded with nothing.
    for program in programs.iter().filter(|path| is_elf(path)) {
        libraries.extend(shared_libraries(program)?);
    }
    for library in libraries {
        put(library.to.strip_prefix("/").unwrap_or(&library.to), &library.from)?;
    }
    let written = (|| {
        for folder in ["proc", "sys", "dev", "run", "tmp", "disk"] {
            cpio.folder(Path::new(folder))?;
        }
        cpio.entry("dev/console", CHARACTER_DEVICE, (5, 1), &[])?;
        cpio.file(Path::new("job.json"), contents.job.as_bytes())?;
        cpio.finish()
    })();
    written.with_context(|| format!("can't write {}", path.display()))
}

/// A shared library.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Library {
    /// Where the program's loader looks for it.
    pub(crate) to: PathBuf,
    /// Where it is on this machine.
    pub(crate) from: PathBuf,
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"\x7fELF"
}

/// The shared libraries that a program is loaded with, and its loader.
pub(crate) fn shared_libraries(program: &Path) -> anyhow::Result<Vec<Library>> {
    let arch = Arch::of(program)?;
    if !arch.is_this_machine() {
        return cross_libraries(program, arch);
    }
    // ldd fails for what is linked statically.
    let Ok(told) = process::output(Command::new("ldd").arg(program)) else { return Ok(Vec::new()) };
    if let Some(line) = told.lines().find(|line| line.contains("not found")) {
        bail!("{} needs a library that is not there: {}", program.display(), line.trim());
    }
    Ok(parse_ldd(&told).into_iter().map(|path| Library { to: path.clone(), from: path }).collect())
}

/// The same of a program that can't be run here, whose ldd can't be asked: from Debian's cross C library.
fn cross_libraries(program: &Path, arch: Arch) -> anyhow::Result<Vec<Library>> {
    let folder = arch.cross_libraries();
    let mut found = BTreeSet::new();
    let mut open = vec![program.to_owned()];
    while let Some(file) = open.pop() {
        let told = process::output(Command::new(cross::tool(arch, "objdump")).arg("-p").arg(&file))?;
        for name in needed(&told) {
            let from = folder.join(name);
            if !from.is_file() {
                bail!("{} needs {name}, which is not in {}", file.display(), folder.display());
            }
            // The loader has its place from the architecture's ABI; the folder of the others is among those that it knows.
            let to =
                if name.starts_with("ld-") { Path::new("/lib").join(name) } else { library_folder(arch).join(name) };
            if found.insert(Library { to, from: from.clone() }) {
                open.push(from);
            }
        }
    }
    Ok(found.into_iter().collect())
}

fn library_folder(arch: Arch) -> PathBuf {
    Path::new("/lib").join(arch.gnu())
}

/// Names of libraries in what `objdump -p` says.
fn needed(told: &str) -> impl Iterator<Item = &str> {
    told.lines().filter_map(|line| line.trim().strip_prefix("NEEDED").map(str::trim))
}

/// Lines are `name => /path (address)`, `/path (address)` or `linux-vdso.so.1 (address)`.
fn parse_ldd(text: &str) -> Vec<PathBuf> {
    text.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_padded_and_folders_come_before_files() {
        let mut bytes = Vec::new();
        let mut cpio = Cpio::new(&mut bytes);
        cpio.file(Path::new("a/b/c"), b"12345").unwrap();
        cpio.file(Path::new("a/b/d"), b"").unwrap();
        cpio.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        let names: Vec<usize> = ["a\0", "a/b\0", "a/b/c\0", "a/b/d\0", "TRAILER!!!\0"]
            .iter()
            .map(|name| text.find(name).unwrap_or_else(|| panic!("{name:?}")))
            .collect();
        assert!(names.is_sorted(), "{names:?}");
        assert_eq!(text.matches("070701").count(), 5, "each folder once");
    }

    #[test]
    fn ldd_is_understood() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        assert_eq!(
            parse_ldd(text),
            [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }

    #[test]
    fn libraries_of_foreign_programs_are_read_from_objdump() {
        let text = "Dynamic Section:\n  NEEDED               libc.so.6\n  NEEDED               ld-linux-aarch64.so.1\n  \
                    INIT                 0x0000000000001000\n\nVersion References:\n  required from libc.so.6:\n";
        assert_eq!(needed(text).collect::<Vec<_>>(), ["libc.so.6", "ld-linux-aarch64.so.1"]);
    }

    #[test]
    fn programs_are_told_from_data() {
        assert!(is_elf(&std::env::current_exe().unwrap()));
        assert!(!is_elf(Path::new("/nowhere")) && !is_elf(Path::new("/dev/null")));
    }

    #[test]
    fn what_is_no_program_is_refused() {
        let error = shared_libraries(Path::new(file!())).map_or_else(|error| format!("{error:#}"), |_| String::new());
        assert!(error.contains("initramfs.rs"), "{error}");
    }
}
