//! The real terminal: taken over at the start, given back whatever happens.

use std::{
    env,
    io::{self, IsTerminal as _, Stdout, stdin, stdout},
    panic,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crossterm::{
    cursor::{Hide, Show},
    event::{self, Event},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Terminal, backend::CrosstermBackend};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};

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

/// Whether somebody asked by a signal for the end.
#[derive(Debug)]
pub struct Signals(Arc<AtomicBool>);

impl Signals {
    pub fn listen() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT, SIGQUIT] {
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
        }
        Ok(Self(asked))
    }

    #[must_use]
    pub fn asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A terminal in raw mode, on its second screen.
#[derive(Debug)]
pub struct Taken {
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
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
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        let taken = Self { terminal };
        enable_raw_mode()?;
        execute!(stdout(), EnterAlternateScreen, Hide)?;
        Ok(taken)
    }
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

/// What was typed, or that the size is another one; `None` when nothing came within this time.
pub fn next(within: Duration) -> Result<Option<Event>, TerminalError> {
    // crossterm reads on and on from a terminal that has hung up, so it is not asked then.
    let keyboard = stdin();
    let mut wanted = [PollFd::new(&keyboard, PollFlags::IN)];
    if !event::poll(Duration::ZERO)? {
        match poll(&mut wanted, Some(&Timespec::try_from(within).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 0 }))) {
            Ok(0) | Err(Errno::INTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(TerminalError::Io(error.into())),
        }
        if wanted[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return Err(TerminalError::Gone);
        }
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
