//! How things that others name are shown: cgroups above all.

use std::{fmt, path::Path};

use serde::Serialize;

/// A cgroup as it is shown: its id, and its path below the root, escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CgroupName {
    /// Inode of its folder.
    pub id: u64,
    pub cgroup: String,
}

impl CgroupName {
    #[must_use]
    pub fn new(root: &Path, id: u64, path: &Path) -> Self {
        Self { id, cgroup: shown(path.strip_prefix(root).unwrap_or(path)) }
    }

    /// For lines that come often: `pod7fb47c9c/402911dd690d` for a container's scope below a pod's slice, 150
    /// characters shorter. Long enough to find the full path, which verdicts, actions and all records bear.
    #[must_use]
    pub fn short(&self) -> String {
        let mut parts = self.cgroup.split('/').skip_while(|part| pod_uid(part).is_none());
        let Some(uid) = parts.next().and_then(pod_uid) else { return self.cgroup.clone() };
        let mut short = format!("pod{}", uid.get(..8).unwrap_or(uid));
        for part in parts {
            short.push('/');
            short.push_str(container_id(part).and_then(|id| id.get(..12)).unwrap_or(part));
        }
        short
    }
}

impl fmt::Display for CgroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cgroup)
    }
}

/// The uid in the name of a pod's cgroup: `kubepods-burstable-pod<UID>.slice` (systemd driver) or `pod<UID>`.
fn pod_uid(part: &str) -> Option<&str> {
    let uid = match part.strip_suffix(".slice") {
        Some(slice) => slice.rsplit_once("-pod")?.1,
        None => part.strip_prefix("pod")?,
    };
    let hex = uid.bytes().filter(u8::is_ascii_hexdigit).count();
    let dashes = uid.bytes().filter(|byte| matches!(byte, b'-' | b'_')).count();
    // A static pod's uid is a hash without dashes.
    (hex == 32 && matches!(dashes, 0 | 4) && hex + dashes == uid.len()).then_some(uid)
}

/// The id in the name of a container's cgroup: `cri-containerd-<ID>.scope`, `crio-<ID>.scope`, or `<ID>`.
fn container_id(part: &str) -> Option<&str> {
    let name = part.strip_suffix(".scope").unwrap_or(part);
    let id = name.rsplit_once('-').map_or(name, |(_, id)| id);
    (id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}

/// A path for people's eyes.
#[must_use]
pub fn shown(path: &Path) -> String {
    escaped(&path.to_string_lossy())
}

/// Text for people's eyes: what a job can name (a nested cgroup) cannot break a line or move a cursor.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() || is_bidi(c) { c.escape_default().collect() } else { vec![c] })
        .collect()
}

/// Characters that change the direction of text, and so can make a line read as another one.
const fn is_bidi(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use super::*;

    fn short(cgroup: &str) -> String {
        CgroupName::new(Path::new("/sys/fs/cgroup"), 1, Path::new(&format!("/sys/fs/cgroup/{cgroup}"))).short()
    }

    #[test]
    fn names_that_jobs_choose_are_escaped() {
        assert_eq!(shown(Path::new("a.scope/docker/ok-1")), "a.scope/docker/ok-1");
        assert_eq!(shown(Path::new("x\n2026 KILLED\x1b[2K")), "x\\n2026 KILLED\\u{1b}[2K");
        assert_eq!(shown(Path::new("a\u{202e}b")), "a\\u{202e}b");
        assert_eq!(shown(Path::new(OsStr::from_bytes(b"\xff\x07"))), "\u{fffd}\\u{7}");
    }

    #[test]
    fn containers_have_short_names() {
        let id = "402911dd690d".to_owned() + &"0".repeat(52);
        let slice =
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7fb47c9c_45d8_4a2c_8f1e_0123456789ab.slice";
        assert_eq!(short(&format!("{slice}/cri-containerd-{id}.scope")), "pod7fb47c9c/402911dd690d");
        assert_eq!(short(&format!("{slice}/crio-{id}.scope/init")), "pod7fb47c9c/402911dd690d/init");
        assert_eq!(short(slice), "pod7fb47c9c");
        let uid = "7fb47c9c-45d8-4a2c-8f1e-0123456789ab";
        assert_eq!(short(&format!("kubepods/besteffort/pod{uid}/{id}")), "pod7fb47c9c/402911dd690d");
        assert_eq!(short(&format!("kubepods/pod{}", uid.replace('-', ""))), "pod7fb47c9c");
    }

    #[test]
    fn other_names_stay_as_they_are() {
        for name in ["user.slice/user-1000.slice", "system.slice/podman.service", "podium/x", "", "kubepods/pod-é"] {
            assert_eq!(short(name), name);
        }
        // What is below a container is the job's to name: an odd one is neither cut in a character nor taken for an id.
        let uid = "7fb47c9c-45d8-4a2c-8f1e-0123456789ab";
        let odd = "é".repeat(32);
        assert_eq!(short(&format!("pod{uid}/{odd}")), format!("pod7fb47c9c/{odd}"));
    }
}
