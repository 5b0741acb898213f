//! Debian's archive through a private apt configuration: packages of any suite, downloaded and unpacked, never
//! installed. Nothing of this machine's own package management is touched.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, bail};

use crate::{
    arch::Arch,
    cache::{self, Lock},
    paths, process, ui,
};

/// A view of the archive: some suites, with lists of its own.
pub(crate) struct Archive {
    folder: PathBuf,
    arch: Arch,
    /// One at a time: what was downloaded is told by what is in the folder.
    _lock: Lock,
}

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Lists of several suites, and the largest set of packages that is fetched, packed and unpacked.
const ROOM_MIB: u64 = 1536;
/// Lists younger than this are taken as they are.
const FRESH: Duration = Duration::from_hours(24);

impl Archive {
    /// A view of these suites for x86-64, on which the lab runs. `name` keeps its lists apart from those of others.
    pub(crate) fn open(name: &str, suites: &[&str]) -> anyhow::Result<Self> {
        Self::open_for(Arch::Amd64, name, suites)
    }

    /// The same for another architecture.
    pub(crate) fn open_for(arch: Arch, name: &str, suites: &[&str]) -> anyhow::Result<Self> {
        for program in ["apt-get", "apt-cache", "dpkg-deb"] {
            process::find(program).with_context(|| {
                format!("fetching from Debian's archive needs {program} (packages apt and dpkg, which other distributions have too)")
            })?;
        }
        if !Path::new(KEYRING).is_file() {
            bail!("{KEYRING} is missing: install the package debian-archive-keyring");
        }
        let folder = paths::cache()?.join("apt").join(name);
        for below in ["lists/partial", "cache/archives/partial", "empty"] {
            let path = folder.join(below);
            fs::create_dir_all(&path).with_context(|| format!("can't make {}", path.display()))?;
        }
        let lock = cache::lock(&folder.join("lock"))?;
        paths::check_room(&folder, ROOM_MIB, "fetching packages")?;
        let (main, security) = mirrors();
        let mut sources = String::new();
        for suite in suites {
            let mirror = if suite.ends_with("-security") { &security } else { &main };
            writeln!(sources, "deb [signed-by={KEYRING}] {mirror} {suite} main")?;
        }
        fs::write(folder.join("sources.list"), sources)?;
        // An empty status file: no package counts as installed, so a closure is complete.
        fs::write(folder.join("status"), "")?;
        let archive = Self { folder, arch, _lock: lock };
        archive.update_if_old()?;
        Ok(archive)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let set = |name: &str, value: &Path| format!("{name}={}", value.display());
        for option in [
            set("Dir::Etc::sourcelist", &self.folder.join("sources.list")),
            set("Dir::Etc::sourceparts", &self.folder.join("empty")),
            set("Dir::Etc::preferencesparts", &self.folder.join("empty")),
            set("Dir::State", &self.folder),
            set("Dir::State::lists", &self.folder.join("lists")),
            set("Dir::State::status", &self.folder.join("status")),
            set("Dir::Cache", &self.folder.join("cache")),
            format!("APT::Architecture={}", self.arch),
            format!("APT::Architectures={}", self.arch),
            // The sandbox user could not write to the cache.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            // A mirror that is some weeks behind is good enough for what runs in a VM of the lab. Signatures are
            // checked all the same.
            "Acquire::Check-Valid-Until=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.env("LC_ALL", "C");
        command
    }

    fn update_if_old(&self) -> anyhow::Result<()> {
        let stamp = self.folder.join("updated");
        let sources = fs::read(self.folder.join("sources.list"))?;
        let age = fs::metadata(&stamp)
            .and_then(|m| m.modified())
            .ok()
            .and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age < FRESH) && fs::read(&stamp).is_ok_and(|stamped| stamped == sources) {
            return Ok(());
        }
        ui::say("reading Debian's package lists");
        let updated = process::output(self.apt("apt-get").args(["update", "-q", "--error-on=any"]));
        match updated {
            Ok(_) => fs::write(&stamp, sources).context("can't write to the cache"),
            // Old lists, or those of the other suites, name most of what is in the archive.
            Err(error) if self.has_lists() => {
                ui::check_interrupt()?;
                ui::say(format!("that failed, using the lists that are there: {error:#}"));
                Ok(())
            }
            Err(error) => Err(error.context("can't read Debian's package lists")),
        }
    }

    fn has_lists(&self) -> bool {
        let lists = fs::read_dir(self.folder.join("lists")).into_iter().flatten().flatten();
        lists.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    }

    /// Names of all packages that begin like this.
    pub(crate) fn names(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let text = process::output(self.apt("apt-cache").args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Whether there is a package of this name, and not only a mention of it.
    pub(crate) fn has(&self, package: &str) -> bool {
        process::output(self.apt("apt-cache").args(["show", "--no-all-versions", package]))
            .is_ok_and(|text| !text.trim().is_empty())
    }

    /// Downloads one package into `folder`.
    pub(crate) fn download(&self, package: &str, folder: &Path) -> anyhow::Result<PathBuf> {
        let before = debs(folder)?;
        process::output(self.apt("apt-get").args(["download", "-q", package]).current_dir(folder))
            .with_context(|| format!("can't download the Debian package {package}"))?;
        let new = debs(folder)?.into_iter().find(|path| !before.contains(path));
        new.with_context(|| format!("apt-get downloaded no file for {package}"))
    }

    /// Downloads packages with all that they depend on, and returns the files.
    pub(crate) fn download_closure(&self, packages: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
        // What an interrupted run left belongs to no closure, or to that of another time.
        self.clean();
        let mut command = self.apt("apt-get");
        command.args(["install", "-q", "-y", "--download-only", "--no-install-recommends"]).args(packages);
        process::output(&mut command).with_context(|| format!("can't download {}", packages.join(" ")))?;
        debs(&self.folder.join("cache/archives"))
    }

    /// Deletes downloaded files.
    pub(crate) fn clean(&self) {
        let _ = process::output(self.apt("apt-get").arg("clean"));
    }
}

/// All packages in a folder.
fn debs(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .with_context(|| format!("can't read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .collect();
    paths.sort();
    Ok(paths)
}

/// Unpacks a package.
pub(crate) fn unpack(deb: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into).with_context(|| format!("can't make {}", into.display()))?;
    process::output(Command::new("dpkg-deb").arg("--extract").args([deb, into])).map(drop)
}

/// Where this machine gets Debian's packages and security updates from; Debian's own addresses where it uses others.
fn mirrors() -> (String, String) {
    let told = process::output(Command::new("apt-get").args(["indextargets", "--format", "$(REPO_URI) $(ORIGIN)"]));
    pick_mirrors(&told.unwrap_or_default())
}

/// Lines are an address and the origin, as the repository's signed Release file names it. Many a third party's repository has
/// an address that ends like Debian's; its origin is another one.
fn pick_mirrors(targets: &str) -> (String, String) {
    let uris = || targets.lines().filter_map(|line| line.split_once(' ').filter(|(_, origin)| *origin == "Debian"));
    let ending =
        |end: &str| uris().map(|(uri, _)| uri.trim_end_matches('/')).find(|uri| uri.ends_with(end)).map(str::to_owned);
    (
        ending("/debian").unwrap_or_else(|| "http://deb.debian.org/debian".to_owned()),
        ending("/debian-security").unwrap_or_else(|| "http://deb.debian.org/debian-security".to_owned()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_taken_from_this_machine_or_debians_own() {
        let (main, security) = pick_mirrors(
            "https://x.example/linux/debian/ Docker\nhttps://y.example/debian/ \nhttps://z.example/debian/ Debian Backports\n\
             http://m.example/debian/ Debian\nhttp://m.example/debian-security/ Debian\n",
        );
        assert_eq!((main.as_str(), security.as_str()), ("http://m.example/debian", "http://m.example/debian-security"));
        let (main, security) = pick_mirrors("http://archive.ubuntu.com/ubuntu/ Ubuntu\nhttps://x.example/debian X\n");
        assert_eq!(
            (main.as_str(), security.as_str()),
            ("http://deb.debian.org/debian", "http://deb.debian.org/debian-security")
        );
    }
}
