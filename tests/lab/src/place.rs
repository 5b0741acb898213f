//! Where the cgroups of pods and containers are: as the kubelet (systemd driver) and containerd name them, with ids that
//! depend on the names alone, so that runs can be compared.

use std::path::{Path, PathBuf};

/// The mount point of cgroup v2.
pub const ROOT: &str = "/sys/fs/cgroup";
/// What all pods of the lab are in, below it.
pub const BURSTABLE: &str = "kubepods.slice/kubepods-burstable.slice";

/// A number that only depends on the name (FNV-1a).
fn number(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// As in the pod's metadata.
#[must_use]
pub fn uid(pod: &str) -> String {
    let (a, b) = (number(pod), number(&format!("{pod}-2")));
    format!(
        "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        a >> 32,
        a >> 16 & 0xffff,
        a & 0xfff,
        b >> 48 & 0xfff,
        b & 0xffff_ffff_ffff
    )
}

/// The slice of a pod, below the mount point.
#[must_use]
pub fn slice(pod: &str) -> PathBuf {
    Path::new(BURSTABLE).join(format!("kubepods-burstable-pod{}.slice", uid(pod).replace('-', "_")))
}

/// As in the pod's status.
#[must_use]
pub fn container_id(pod: &str, container: &str) -> String {
    let [a, b, c, d] = [0, 1, 2, 3].map(|part| number(&format!("{pod}/{container}/{part}")));
    format!("{a:016x}{b:016x}{c:016x}{d:016x}")
}

/// The scope of a container, in the slice of its pod.
#[must_use]
pub fn scope(pod: &str, container: &str) -> String {
    format!("cri-containerd-{}.scope", container_id(pod, container))
}

/// The cgroup of a container by its full name, `pod/container`, below the mount point.
#[must_use]
pub fn of(full_name: &str) -> Option<PathBuf> {
    let (pod, container) = full_name.split_once('/')?;
    Some(slice(pod).join(scope(pod, container)))
}
