//! The real terminal: taken over at the start, given back whatever happens.

use std::{
    env,
    io::{self, IsTerminal as _, Stdout, stdin, stdout},
    mem::{self, ManuallyDrop},
    panic, process,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use crossterm::{
    cursor::{Hide, Show},
    event::{self, Event},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    layout::{Position, Rect},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use signal_hook::consts::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP};

use super::view::Look;

/// Why there can be no picture.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    #[error(
        "this is no terminal: `memguard top` draws on one (`kubectl exec -it`, `ssh -t`); for scripts there is `memguard status`"
    )]
    None,
    #[error(
        "TERM is {}, so it is not known what this terminal can do: set it (`TERM=xterm memguard top`), or use `memguard status`",
        if term.is_empty() { "not set" } else { term }
    )]
    Dumb { term: String },
    #[error("can't use this terminal: {0}")]
    Io(#[from] io::Error),
    #[error("the terminal is gone")]
    Gone,
}

/// What this terminal can show, as far as its environment tells.
#[must_use]
pub fn look(ascii: Option<bool>) -> Look {
    look_of(|name| env::var(name).ok().filter(|value| !value.is_empty()), ascii)
}

fn look_of(variable: impl Fn(&str) -> Option<String>, ascii: Option<bool>) -> Look {
    // The first of these that is set counts (setlocale(3)).
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(&variable).unwrap_or_default().to_lowercase();
    let utf8 = locale.contains("utf-8") || locale.contains("utf8");
    let term = variable("TERM").unwrap_or_default();
    // https://no-color.org, and the terminals that never had any.
    let color = variable("NO_COLOR").is_none() && !term.starts_with("vt") && !term.ends_with("-m");
    Look { color, ascii: ascii.unwrap_or(!utf8) }
}

/// What somebody asks for by a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    End,
    Stop,
    /// It was stopped, and goes on.
    GoOn,
}

/// Signals that have come.
#[derive(Debug, Default)]
pub struct Signals {
    end: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    go_on: Arc<AtomicBool>,
}

impl Signals {
    pub fn listen() -> io::Result<Self> {
        let signals = Self::default();
        for (signal, flag) in [
            (SIGTERM, &signals.end),
            (SIGINT, &signals.end),
            (SIGQUIT, &signals.end),
            (SIGHUP, &signals.end),
            (SIGTSTP, &signals.stop),
            (SIGCONT, &signals.go_on),
        ] {
            signal_hook::flag::register(signal, Arc::clone(flag))?;
        }
        Ok(signals)
    }

    /// Each time that one came is told once.
    #[must_use]
    pub fn asked(&self) -> Option<Asked> {
        [(&self.end, Asked::End), (&self.stop, Asked::Stop), (&self.go_on, Asked::GoOn)]
            .into_iter()
            .find_map(|(flag, asked)| flag.swap(false, Ordering::Relaxed).then_some(asked))
    }
}

/// Who stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    /// This process: it alone was asked.
    Us,
    /// All that was started with it, such as a `sudo` around it: what the terminal does at Ctrl-Z, unless in raw mode.
    Group,
}

/// Stops. Where nobody could have it go on (its process group is orphaned, as under `kubectl exec`) the kernel does nothing.
fn stop_now(whom: Whom) -> io::Result<()> {
    // SAFETY: a sigaction of zeros is a valid one, by which the kernel does what it does by default: SIG_DFL is 0, no flags, and an
    // empty mask.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    let mut ours = default;
    let pid = if whom == Whom::Us { rustix::process::getpid().as_raw_nonzero().get() } else { 0 };
    // SAFETY: both point to a sigaction that lives; what is put back is what signal-hook had set.
    unsafe {
        if libc::sigaction(SIGTSTP, &raw const default, &raw mut ours) != 0 {
            return Err(io::Error::last_os_error());
        }
        let sent = if libc::kill(pid, SIGTSTP) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        // It comes to this once it goes on.
        libc::sigaction(SIGTSTP, &raw const ours, std::ptr::null_mut());
        sent
    }
}

/// A terminal in raw mode, on its second screen.
#[derive(Debug)]
pub struct Taken {
    /// Never dropped: it would say on standard error that it could not show the cursor, and panic where that is gone too, as when
    /// the terminal's window was closed. The cursor is [`give_back`]'s.
    pub terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl Taken {
    /// Takes the terminal over. Dropped, it gives it back; and so does a panic, before it says a word.
    pub fn over() -> Result<Self, TerminalError> {
        static HOOK: Once = Once::new();
        if !stdin().is_terminal() || !stdout().is_terminal() {
            return Err(TerminalError::None);
        }
        let term = env::var("TERM").unwrap_or_default();
        if matches!(term.as_str(), "" | "dumb" | "unknown") {
            return Err(TerminalError::Dumb { term });
        }
        HOOK.call_once(|| {
            let before = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        end_with_the_terminal()?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        let taken = Self { terminal: ManuallyDrop::new(terminal) };
        take()?;
        Ok(taken)
    }

    /// Gives the terminal back, stops, and takes it over again once somebody has it go on.
    pub fn stop(&mut self, whom: Whom, signals: &Signals) -> Result<(), TerminalError> {
        give_back();
        stop_now(whom)?;
        signals.go_on.store(false, Ordering::Relaxed);
        self.again()
    }

    /// After a stop: somebody else had the terminal meanwhile, with modes of its own.
    pub fn again(&mut self) -> Result<(), TerminalError> {
        // Or else it is believed to be in raw mode still.
        let _ = disable_raw_mode();
        take()?;
        self.clear()
    }

    /// The next picture is written whole, and not only what has changed.
    pub fn clear(&mut self) -> Result<(), TerminalError> {
        // What is called `clear` asks the terminal where its cursor is, and waits two seconds for one that does not answer.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))?;
        Ok(())
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Hide)
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// As it was. That it fails can't be told to anybody.
fn give_back() {
    let _ = execute!(stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

/// How it stands with what is typed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keyboard {
    Nothing,
    Typed,
    Gone,
}

fn keyboard(wanted: PollFlags, within: Duration) -> io::Result<Keyboard> {
    let stdin = stdin();
    let mut wanted = [PollFd::new(&stdin, wanted)];
    match poll(&mut wanted, Some(&Timespec::try_from(within).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 }))) {
        Ok(0) | Err(Errno::INTR) => Ok(Keyboard::Nothing),
        Ok(_) if wanted[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) => {
            Ok(Keyboard::Gone)
        }
        Ok(_) => Ok(Keyboard::Typed),
        Err(error) => Err(error.into()),
    }
}

/// crossterm reads on and on from a terminal that has hung up, and does not come back. So it is not asked then, and this is for
/// one that hangs up while it is.
fn end_with_the_terminal() -> io::Result<()> {
    let watch = || {
        loop {
            match keyboard(PollFlags::empty(), Duration::from_secs(1)) {
                Ok(Keyboard::Gone) => break,
                Ok(Keyboard::Nothing | Keyboard::Typed) => {}
                Err(_) => return,
            }
        }
        // Time for an end in good order.
        thread::sleep(Duration::from_secs(1));
        #[expect(clippy::exit, reason = "nothing else ends a thread that is in a loop of somebody else's")]
        process::exit(1);
    };
    thread::Builder::new().name("memguard-hangup".to_owned()).spawn(watch).map(drop)
}

/// What was typed, or that the size is another one; `None` when nothing came within this time.
pub fn next(within: Duration) -> Result<Option<Event>, TerminalError> {
    let ready = |within| match keyboard(PollFlags::IN, within) {
        Ok(Keyboard::Gone) => Err(TerminalError::Gone),
        Ok(found) => Ok(found),
        Err(error) => Err(TerminalError::Io(error)),
    };
    ready(Duration::ZERO)?;
    // What it has read before is not in the terminal any more.
    if !event::poll(Duration::ZERO)? && ready(within)? == Keyboard::Nothing {
        return Ok(None);
    }
    if event::poll(Duration::ZERO)? { Ok(Some(event::read()?)) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(variables: &[(&str, &str)]) -> Look {
        look_of(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()), None)
    }

    #[test]
    fn the_environment_tells_what_can_be_shown() {
        let plain = Look { color: true, ascii: true };
        assert_eq!(look(&[]), plain, "as in a container: the C locale");
        assert_eq!(look(&[("LANG", "en_US.UTF-8")]), Look { ascii: false, ..plain });
        assert_eq!(look(&[("LANG", "en_US.UTF-8"), ("LC_ALL", "C")]), plain, "LC_ALL comes first");
        assert_eq!(look(&[("LC_ALL", "C.utf8")]), Look { ascii: false, ..plain });
        assert!(!look(&[("NO_COLOR", "1"), ("TERM", "xterm")]).color);
        assert!(!look(&[("TERM", "vt100")]).color);
    }

    #[test]
    fn errors_say_what_to_do() {
        let unset = TerminalError::Dumb { term: String::new() }.to_string();
        assert!(unset.starts_with("TERM is not set") && unset.contains("memguard status"), "{unset}");
        assert!(TerminalError::None.to_string().contains("kubectl exec -it"));
    }
}
