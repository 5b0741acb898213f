//! `cargo xtask image`: the container image without Docker. A root file system as a folder, and the same as an OCI image
//! layout in one tar archive, which `ctr images import`, `podman load`, `skopeo copy oci-archive:` and others take.
//!
//! What is in it is memguard, the shared objects that it needs, the authorities by which TLS is checked, and the names of
//! two users. Every time and owner is 0 and everything is sorted: the same inputs make the same image, bit for bit.

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    arch::Arch,
    build::{self, Profile},
    lab::initramfs::shared_libraries,
    paths, process, ui,
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Without the minutes of link-time optimisation: to try things out.
    #[arg(long)]
    quick: bool,

    /// Put this memguard in, and build none.
    #[arg(long, value_name = "FILE", conflicts_with = "quick")]
    binary: Option<PathBuf>,

    /// Build for this architecture; this machine's own by default.
    #[arg(long, value_enum, conflicts_with = "binary")]
    arch: Option<Arch>,

    /// What the image is called where it is imported.
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("registry.example.com/memguard:", env!("CARGO_PKG_VERSION")))]
    name: String,
}

const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";
const NSSWITCH: &str = "passwd: files\ngroup: files\nhosts: files dns\n";
/// Where something is mounted: a read-only root can't have them made later.
const MOUNT_POINTS: [&str; 8] =
    ["dev", "etc/memguard", "proc", "run/memguard", "sys", "sys/fs/cgroup", "tmp", "var/lib/memguard"];

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let memguard = if let Some(binary) = &args.binary {
        binary.clone()
    } else {
        build::ready(args.arch)?;
        build::memguard_for(args.arch, if args.quick { Profile::Quick } else { Profile::Release })?
    };
    println!("{}", make(&memguard, &args.name)?.display());
    Ok(())
}

/// Makes an image for a try, for `cargo xtask test`.
pub(crate) fn check() -> anyhow::Result<()> {
    make(&build::memguard(Profile::Quick)?, "localhost/memguard:test").map(drop)
}

/// Makes it of this memguard, and returns where it is.
pub(crate) fn make(memguard: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let _step = ui::step("image");
    let folder = paths::target().join("image");
    let root = folder.join("rootfs");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("can't remove {}", root.display()))?;
    }
    let arch = Arch::of(memguard)?;
    fill(&root, memguard)?;
    let entries = entries(&root)?;
    for entry in entries.iter().filter(|entry| entry.size > 0) {
        ui::say(format!("{:>9}  /{}", entry.size, entry.path.display()));
    }
    try_out(&root, arch)?;
    // One name for what most people build, so that those for several architectures stand beside each other.
    let archive = folder.join(if arch.is_this_machine() {
        "memguard-oci.tar".to_owned()
    } else {
        format!("memguard-oci-{arch}.tar")
    });
    let layer = layer(&root, &entries)?;
    let config = json!({
        "Entrypoint": ["/usr/bin/memguard"], "Cmd": ["run"], "User": "0", "Env": ["PATH=/usr/bin"],
        "Labels": {"org.opencontainers.image.licenses": "MIT OR Apache-2.0"},
    });
    let written = oci_archive(name, arch, &config, &layer).and_then(|bytes| Ok(fs::write(&archive, bytes)?));
    written.with_context(|| format!("can't write {}", archive.display()))?;
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    let (unpacked, packed) = (entries.iter().map(|entry| entry.size).sum(), fs::metadata(&archive)?.len());
    ui::say(format!("{:.1} MiB unpacked, {:.1} MiB as an archive", mib(unpacked), mib(packed)));
    Ok(archive)
}

/// Puts files where they belong.
fn fill(root: &Path, memguard: &Path) -> anyhow::Result<()> {
    for folder in MOUNT_POINTS {
        fs::create_dir_all(root.join(folder)).with_context(|| format!("can't make {folder} in {}", root.display()))?;
    }
    ensure!(Path::new(AUTHORITIES).is_file(), "{AUTHORITIES} is missing: install the package ca-certificates");
    let mut files = vec![
        (PathBuf::from("usr/bin/memguard"), memguard.to_owned()),
        (PathBuf::from(AUTHORITIES.trim_start_matches('/')), PathBuf::from(AUTHORITIES)),
    ];
    for library in shared_libraries(memguard)? {
        files.push((library.to.strip_prefix("/").unwrap_or(&library.to).to_owned(), library.from));
    }
    for (to, from) in files {
        let (to, mode) = (root.join(&to), if to.extension().is_some_and(|e| e == "crt") { 0o644 } else { 0o755 });
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        fs::copy(&from, &to).with_context(|| format!("can't copy {} to {}", from.display(), to.display()))?;
        fs::set_permissions(&to, fs::Permissions::from_mode(mode))?;
    }
    for (name, text) in [("passwd", PASSWD), ("group", GROUP), ("nsswitch.conf", NSSWITCH)] {
        let path = root.join("etc").join(name);
        fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    }
    Ok(())
}

/// Whether memguard starts with what is in there and nothing else.
fn try_out(root: &Path, arch: Arch) -> anyhow::Result<()> {
    if !arch.is_this_machine() {
        ui::say(format!("not tried out: this machine is no {arch}"));
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        ui::say("not tried out: chroot needs root");
        return Ok(());
    }
    let told = process::output(Command::new("chroot").arg(root).args(["/usr/bin/memguard", "--version"]))?;
    ensure!(told.starts_with("memguard "), "memguard in the image says {told:?}");
    let settings = process::output(Command::new("chroot").arg(root).args(["/usr/bin/memguard", "config", "show"]))?;
    ensure!(settings.contains("[policy]"), "memguard in the image shows no configuration");
    Ok(())
}

/// A file or a folder of the root file system.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// Without a leading slash.
    path: PathBuf,
    folder: bool,
    size: u64,
    mode: u32,
}

/// All of them, each folder before what is in it.
fn entries(root: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("can't read {}", folder.display()))? {
            let path = entry?.path();
            let metadata = fs::metadata(&path)?;
            found.push(Entry {
                path: path.strip_prefix(root)?.to_owned(),
                folder: metadata.is_dir(),
                size: if metadata.is_dir() { 0 } else { metadata.len() },
                // Not as the umask has it.
                mode: if metadata.is_dir() {
                    0o755
                } else if metadata.permissions().mode() & 0o100 == 0 {
                    0o644
                } else {
                    0o755
                },
            });
            if metadata.is_dir() {
                open.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The root file system as an uncompressed archive.
fn layer(root: &Path, entries: &[Entry]) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let data = if entry.folder { Vec::new() } else { fs::read(root.join(&entry.path))? };
        let kind = if entry.folder { tar::EntryType::Directory } else { tar::EntryType::Regular };
        append(&mut archive, &entry.path, kind, entry.mode, &data)?;
    }
    Ok(archive.into_inner()?)
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &Path,
    kind: tar::EntryType,
    mode: u32,
    data: &[u8],
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(data.len() as u64);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, path, data)
}

/// An image with these programs, at paths without a leading slash.
pub(crate) fn of_files(name: &str, config: &Value, files: &[(PathBuf, PathBuf)]) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut folders = BTreeSet::new();
    for (to, from) in files {
        let above: Vec<&Path> = to.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()).collect();
        for folder in above.into_iter().rev().filter(|folder| folders.insert(folder.to_path_buf())) {
            append(&mut archive, folder, tar::EntryType::Directory, 0o755, &[])?;
        }
        let data = fs::read(from).with_context(|| format!("can't read {}", from.display()))?;
        append(&mut archive, to, tar::EntryType::Regular, 0o755, &data)?;
    }
    let (_, program) = files.first().context("an image without files")?;
    oci_archive(name, Arch::of(program)?, config, &archive.into_inner()?)
}

/// An image of this one layer, as an OCI image layout (opencontainers/image-spec, image-layout.md) in a tar archive.
fn oci_archive(name: &str, arch: Arch, config: &Value, layer: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut compressed = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    compressed.write_all(layer)?;
    let layer_blob = Blob::new("application/vnd.oci.image.layer.v1.tar+gzip", compressed.finish()?);
    let config = json!({
        "architecture": arch.debian(), "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(layer))]},
    });
    let config = Blob::json("application/vnd.oci.image.config.v1+json", &config);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config.descriptor(), "layers": [layer_blob.descriptor()],
    });
    let manifest = Blob::json("application/vnd.oci.image.manifest.v1+json", &manifest);
    let mut described = manifest.descriptor();
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    // The first is the specification's; by the second containerd names what it imports.
    described["annotations"] = json!({"org.opencontainers.image.ref.name": tag, "io.containerd.image.name": name});
    let index = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [described],
    });
    let mut archive = tar::Builder::new(Vec::new());
    let mut file =
        |path: &str, data: &[u8]| append(&mut archive, Path::new(path), tar::EntryType::Regular, 0o644, data);
    file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    file("index.json", index.to_string().as_bytes())?;
    let mut blobs = [config, layer_blob, manifest];
    blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
    for blob in &blobs {
        file(&format!("blobs/sha256/{}", blob.digest), &blob.data)?;
    }
    Ok(archive.into_inner()?)
}

struct Blob {
    kind: &'static str,
    data: Vec<u8>,
    digest: String,
}

impl Blob {
    fn new(kind: &'static str, data: Vec<u8>) -> Self {
        Self { kind, digest: digest(&data), data }
    }

    fn json(kind: &'static str, value: &Value) -> Self {
        Self::new(kind, value.to_string().into_bytes())
    }

    fn descriptor(&self) -> Value {
        json!({"mediaType": self.kind, "digest": format!("sha256:{}", self.digest), "size": self.data.len()})
    }
}

fn digest(data: &[u8]) -> String {
    format!("{:x}", Sha256::digest(data))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read as _};

    use super::*;

    fn files(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let mut files = BTreeMap::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            assert_eq!((entry.header().mtime().unwrap(), entry.header().uid().unwrap()), (0, 0));
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), data);
        }
        files
    }

    #[test]
    fn the_layout_leads_from_its_index_to_every_file_of_the_layer() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::write(root.path().join("usr/bin/memguard"), "program").unwrap();
        let listed = entries(root.path()).unwrap();
        let layer = layer(root.path(), &listed).unwrap();
        assert_eq!(files(&layer).keys().collect::<Vec<_>>(), ["usr", "usr/bin", "usr/bin/memguard"]);
        let made = || oci_archive("example.com/memguard:1", Arch::Arm64, &json!({"User": "0"}), &layer).unwrap();
        let archive = made();
        assert_eq!(archive, made());
        let files = files(&archive);
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let blob = |descriptor: &Value| {
            let hash = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            let data = &files[&format!("blobs/sha256/{hash}")];
            assert_eq!((digest(data).as_str(), data.len() as u64), (hash, descriptor["size"].as_u64().unwrap()));
            data.clone()
        };
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        assert_eq!((&config["architecture"], &config["os"]), (&json!("arm64"), &json!("linux")));
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(&layer)));
        assert_eq!(config["config"]["User"], "0");
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(&blob(&manifest["layers"][0])[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, layer);
    }
}
