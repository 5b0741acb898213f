//! `memguard top` and who else has its terminal: it stops and goes on as a shell's job does, and repairs its picture.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, fd::OwnedFd, unix::process::CommandExt as _},
    process::Child,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid},
    termios::{LocalModes, tcgetattr},
};

use super::fixture::{LONG, Machine, terminal};

const TAKEN: &str = "\x1b[?1049h";
const GIVEN_BACK: &str = "\x1b[?1049l";
const CLEARED: &str = "\x1b[2J";
/// A word of the picture that stays. Blanks are not written.
const PICTURE: &str = "reclaim";

/// A replay in a terminal, as a job of its own.
struct Top {
    child: Child,
    keyboard: File,
    program: OwnedFd,
    unread: Vec<u8>,
    ended: bool,
}

impl Top {
    fn start(machine: &Machine) -> Self {
        let (keyboard, program) = terminal();
        let mut command = machine.memguard(&["top", "--replay", "job.mgtrace"]);
        command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8").process_group(0);
        command
            .stdin(program.try_clone().unwrap())
            .stdout(program.try_clone().unwrap())
            .stderr(program.try_clone().unwrap());
        let child = command.spawn().unwrap();
        let mut top = Self { child, keyboard: File::from(keyboard), program, unread: Vec::new(), ended: false };
        top.shows(TAKEN);
        top.shows(PICTURE);
        top
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits until this was written, after what was waited for before.
    fn shows(&mut self, what: &str) {
        let began = Instant::now();
        loop {
            if let Some(at) = self.unread.windows(what.len()).position(|window| window == what.as_bytes()) {
                self.unread.drain(..at + what.len());
                return;
            }
            let mut wanted = [PollFd::new(&self.keyboard, PollFlags::IN)];
            // The picture of a replay never rests, so each piece has no time of its own.
            let left = Timespec::try_from(LONG.saturating_sub(began.elapsed())).unwrap();
            let came = poll(&mut wanted, Some(&left)).unwrap();
            assert!(came > 0, "no {what:?} in {:?}", String::from_utf8_lossy(&self.unread));
            let mut some = [0; 4096];
            let count = self.keyboard.read(&mut some).unwrap();
            self.unread.extend(&some[..count]);
        }
    }

    fn raw(&self) -> bool {
        !tcgetattr(self.program.as_fd()).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    /// As a shell waits for its job.
    fn waited(&mut self) -> WaitStatus {
        let began = Instant::now();
        loop {
            if let Some((_, status)) = waitpid(Some(self.pid()), WaitOptions::UNTRACED | WaitOptions::NOHANG).unwrap() {
                self.ended = !status.stopped();
                return status;
            }
            assert!(began.elapsed() < LONG, "it neither stopped nor ended");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Top {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.child.kill();
        }
    }
}

#[test]
fn it_stops_with_the_terminal_given_back_and_goes_on_with_a_whole_picture() {
    let machine = Machine::new();
    let mut top = Top::start(&machine);
    for by_key in [true, false] {
        assert!(top.raw());
        if by_key {
            top.types("\x1a");
        } else {
            top.signal(Signal::TSTP);
        }
        top.shows(GIVEN_BACK);
        let status = top.waited();
        assert_eq!(status.stopping_signal(), Some(Signal::TSTP.as_raw()), "{status:?}");
        assert!(!top.raw(), "the shell has it as it was");
        top.signal(Signal::CONT);
        top.shows(TAKEN);
        // All of it, and not only what has changed since.
        top.shows(CLEARED);
        top.shows(PICTURE);
    }
    top.types("q");
    top.shows(GIVEN_BACK);
    assert_eq!(top.waited().exit_status(), Some(0));
}

#[test]
fn a_picture_that_somebody_wrote_into_is_repaired() {
    let machine = Machine::new();
    let mut top = Top::start(&machine);
    // Nobody tells memguard of this one.
    top.types("\x0c");
    top.shows(CLEARED);
    top.shows(PICTURE);
    // Nor does it know what a shell did with the terminal while it was stopped without a word.
    top.signal(Signal::STOP);
    assert_eq!(top.waited().stopping_signal(), Some(Signal::STOP.as_raw()));
    top.signal(Signal::CONT);
    top.shows(CLEARED);
    top.shows(PICTURE);
    assert!(top.raw());
    top.signal(Signal::HUP);
    top.shows(GIVEN_BACK);
    assert_eq!(top.waited().exit_status(), Some(0));
    assert!(!top.raw());
}

#[test]
fn a_window_that_was_closed_ends_it_without_a_panic() {
    let machine = Machine::new();
    let mut top = Top::start(&machine);
    let nothing = || File::open("/dev/null").unwrap();
    (top.keyboard, top.program) = (nothing(), nothing().into());
    assert_eq!(top.waited().exit_status(), Some(1));
}
