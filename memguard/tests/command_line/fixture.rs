//! A machine as an operator finds it: folders with incidents and a report, a recording, a configuration.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::fd::{FromRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use memguard::{
    engine::{Engine, Settings},
    journal::{Incident, Journal},
    report,
    trace::{self, Decided, Entry, Writer},
};
use serde_json::json;
use tempfile::TempDir;

pub(crate) const ID: &str = "mg-1764000000-4711";

/// A folder with all of it.
pub(crate) struct Machine {
    folder: TempDir,
    /// A variable of the environment.
    pub(crate) set: Option<(String, String)>,
}

/// A command that has to end.
pub(crate) const LONG: Duration = Duration::from_mins(1);

impl Machine {
    pub(crate) fn new() -> Self {
        let machine = Self { folder: tempfile::tempdir().unwrap(), set: None };
        fs::create_dir_all(machine.path("etc/memguard")).unwrap();
        let configuration = "[engine]\nprofile = \"careful\"\n[policy]\nmode = \"observe\"\n";
        for file in ["memguard.toml", "etc/memguard/memguard.toml"] {
            fs::write(machine.path(file), configuration).unwrap();
        }
        fs::write(machine.path("wrong.toml"), "[engine]\nhold_s = 0\nspeed = 1\n").unwrap();
        machine.record("job.mgtrace", &Settings::default());
        // Decided by other settings than it says.
        let settings = Settings { hold: Duration::from_secs(55), ..Settings::default() };
        machine.record("other.mgtrace", &settings);
        fs::write(machine.path("no.mgtrace"), "no recording").unwrap();
        // Cut off within its only block; and of a machine on which nothing happened.
        let whole = fs::read(machine.path("job.mgtrace")).unwrap();
        fs::write(machine.path("cut.mgtrace"), &whole[..100]).unwrap();
        fs::write(machine.path("idle.mgtrace"), &whole[..8]).unwrap();
        machine.reword("job.mgtrace", "reworded.mgtrace");
        let mut journal = Journal::open(&machine.state(), &machine.run()).unwrap().journal;
        journal.before(&mut incident(ID));
        assert!(journal.close(LONG), "the journal is written");
        report::Store::below(&machine.state()).put(&record(ID)).unwrap();
        machine
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(below)
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.path("run/memguard")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("var/lib/memguard")
    }

    /// A hang of the lab, as today's engine decides about it by its defaults, said to be recorded with `settings`.
    fn record(&self, name: &str, settings: &Settings) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/recordings");
        let source = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .find(|path| path.file_name().unwrap().to_str().unwrap().starts_with("livelock-256m-6.12"))
            .unwrap();
        let mut engine = Engine::new(Settings::default());
        let mut writer = Writer::new(fs::File::create(self.path(name)).unwrap()).unwrap();
        for mut entry in trace::read(&source).unwrap().entries {
            match &mut entry {
                Entry::Start(start) => start.settings = settings.clone(),
                Entry::Sample { unit, sample, decided } => {
                    *decided = Decided::of(&engine.observe(*unit, (**sample).clone()));
                }
                Entry::Acted { unit, at } => engine.acted(*unit, *at),
                Entry::Forget { unit } => engine.forget(*unit),
                Entry::Watch { .. } | Entry::Lost { .. } => {}
            }
            writer.write(&entry).unwrap();
        }
        writer.finish().unwrap();
    }

    /// A recording as another memguard would have made it, which decided the same and said so in other words.
    fn reword(&self, from: &str, to: &str) {
        let mut writer = Writer::new(fs::File::create(self.path(to)).unwrap()).unwrap();
        for mut entry in trace::read(&self.path(from)).unwrap().entries {
            if let Entry::Sample { decided, .. } = &mut entry {
                decided.digest ^= 1;
            }
            writer.write(&entry).unwrap();
        }
        writer.finish().unwrap();
    }

    /// memguard with this machine's folders, as far as the command takes them.
    pub(crate) fn memguard<I: AsRef<str>>(&self, arguments: &[I]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_memguard"));
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.args(arguments.iter().map(AsRef::as_ref));
        let mut definition = &{
            let mut whole = memguard::cli::command();
            whole.build();
            whole
        };
        for argument in arguments {
            match definition.find_subcommand(argument.as_ref()) {
                Some(below) => definition = below,
                None => break,
            }
        }
        for (option, folder) in [("run-dir", self.run()), ("state-dir", self.state())] {
            let takes = definition.get_arguments().any(|argument| argument.get_long() == Some(option));
            if takes && !arguments.iter().any(|argument| argument.as_ref() == format!("--{option}")) {
                command.arg(format!("--{option}")).arg(folder);
            }
        }
        for variable in ["NO_COLOR", "CLICOLOR_FORCE", "CLICOLOR", "NODE_NAME", "KUBERNETES_SERVICE_HOST"] {
            command.env_remove(variable);
        }
        if let Some((name, value)) = &self.set {
            command.env(name, value);
        }
        command
    }

    /// Runs it to its end.
    pub(crate) fn ask<I: AsRef<str>>(&self, arguments: &[I]) -> Answer {
        Answer::of(&self.memguard(arguments).output().unwrap())
    }

    /// Runs it in a terminal of 80 columns, and types `keys` once it has drawn something.
    pub(crate) fn in_terminal<I: AsRef<str>>(&self, arguments: &[I], keys: &str) -> Answer {
        let (master, slave) = terminal();
        let mut command = self.memguard(arguments);
        command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8");
        command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave);
        let mut child = command.spawn().unwrap();
        // It has copies of the terminal's end, without which reading here would never end.
        drop(command);
        let mut typed = fs::File::from(master.try_clone().unwrap());
        let mut shown = fs::File::from(master);
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut all = Vec::new();
            let mut some = [0; 4096];
            // EIO once nobody has the other end.
            while let Ok(count @ 1..) = shown.read(&mut some) {
                all.extend_from_slice(&some[..count]);
                let _ = tell.send(all.clone());
            }
        });
        let mut seen = told.recv_timeout(LONG).unwrap();
        typed.write_all(keys.as_bytes()).unwrap();
        let began = std::time::Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if began.elapsed() > LONG {
                // Said by its status: it was killed.
                child.kill().unwrap();
            }
            thread::sleep(Duration::from_millis(20));
        };
        while let Ok(more) = told.recv_timeout(Duration::from_secs(2)) {
            seen = more;
        }
        Answer { status: status.code(), out: String::from_utf8_lossy(&seen).into_owned(), error: String::new() }
    }
}

/// Both ends of a terminal of 80 columns and 24 lines: who types, and the program's.
pub(crate) fn terminal() -> (OwnedFd, OwnedFd) {
    let (mut master, mut slave) = (-1, -1);
    let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: all pointers are to live values of the types that openpty(3) asks for, or null where it allows that.
    let result = unsafe {
        libc::openpty(&raw mut master, &raw mut slave, std::ptr::null_mut(), std::ptr::null(), &raw const size)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    // SAFETY: openpty(3) has just made these two, and nobody else has them.
    let ends = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
    // A program that had the other end too would never see it closed.
    for end in [&ends.0, &ends.1] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC).unwrap();
    }
    ends
}

/// What came of a command.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) error: String,
}

impl Answer {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { status: output.status.code(), out: text(&output.stdout), error: text(&output.stderr) }
    }
}

pub(crate) fn incident(id: &str) -> Incident {
    let value = json!({
        "id": id, "decided_at": 1_764_000_000, "boot_id": "", "mode": "enforce", "unit": 7,
        "cgroup": "kubepods.slice/runner.scope", "victim": 8, "method": "kill", "rule": "ci",
        "evidence": "memory at 100 % of memory.max; limit hit 9.0 times/s",
        "stage": {"stage": "done", "ended": {"outcome": "dead", "write_us": 9, "empty_after_ms": 12}},
    });
    serde_json::from_value(value).unwrap()
}

fn record(id: &str) -> report::Record {
    let value = json!({
        "version": report::VERSION, "incident": id, "decided_at": 1_764_000_000, "mode": "enforce", "unit": 7,
        "cgroup": "kubepods.slice/runner.scope",
        "machine": {"node": "node-1", "kernel": "6.12.73", "architecture": "x86_64", "level": "full", "signals": [], "memguard": "0.1.0"},
        "suspect_for_s": 9.0, "confidence": 1.0, "settings": Settings::default(), "memory": memguard::engine::Memory::default(),
        "terms": [{"name": "at_limit", "value": 1.0, "threshold": 0.95, "met": true, "confidence": 1.0, "why": "memory at 100 % of memory.max"}],
    });
    serde_json::from_value(value).unwrap()
}
