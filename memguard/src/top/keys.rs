//! What a key means.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What somebody wants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Action {
    Quit,
    /// Stop, as any program in a terminal does at Ctrl-Z.
    Stop,
    /// The whole picture anew: something else wrote to the terminal.
    Redraw,
    Up,
    Down,
    PageUp,
    PageDown,
    First,
    Last,
    Open,
    Back,
    /// Order by the next column, and the other way round.
    Sort,
    Reverse,
    /// Begin to type a filter; then each letter, and the end of it.
    Filter,
    Type(char),
    Erase,
    Accept,
    Cancel,
    /// Stop the picture, or a replay.
    Freeze,
    HideCalm,
    Incidents,
    Help,
    Faster,
    Slower,
    /// Seconds to go on or back in a recording.
    Seek(f64),
    /// To where a state changes next.
    NextMoment,
    Restart,
}

/// `typing`: a filter is being typed, and letters are letters.
#[must_use]
pub fn action(key: KeyEvent, typing: bool) -> Option<Action> {
    if key.kind == KeyEventKind::Release {
        return None;
    }
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if control {
        // These are no signals while the terminal is in raw mode.
        match key.code {
            KeyCode::Char('c' | 'C') => return Some(Action::Quit),
            KeyCode::Char('z' | 'Z') => return Some(Action::Stop),
            KeyCode::Char('l' | 'L') => return Some(Action::Redraw),
            _ => {}
        }
    }
    if typing {
        return match key.code {
            KeyCode::Enter => Some(Action::Accept),
            KeyCode::Esc => Some(Action::Cancel),
            KeyCode::Backspace => Some(Action::Erase),
            KeyCode::Char('u' | 'w') if control => Some(Action::Cancel),
            KeyCode::Char('h') if control => Some(Action::Erase),
            KeyCode::Char(letter) if !control && !letter.is_control() => Some(Action::Type(letter)),
            _ => None,
        };
    }
    if control {
        return match key.code {
            KeyCode::Char('b' | 'u') => Some(Action::PageUp),
            KeyCode::Char('d' | 'f') => Some(Action::PageDown),
            _ => None,
        };
    }
    Some(match key.code {
        KeyCode::Char('q') => Action::Quit,
        KeyCode::Up | KeyCode::Char('k') => Action::Up,
        KeyCode::Down | KeyCode::Char('j') => Action::Down,
        KeyCode::PageUp => Action::PageUp,
        KeyCode::PageDown => Action::PageDown,
        KeyCode::Home | KeyCode::Char('g') => Action::First,
        KeyCode::End | KeyCode::Char('G') => Action::Last,
        KeyCode::Enter | KeyCode::Char('o') => Action::Open,
        KeyCode::Esc | KeyCode::Backspace => Action::Back,
        KeyCode::Char('s') => Action::Sort,
        KeyCode::Char('r') => Action::Reverse,
        KeyCode::Char('/') => Action::Filter,
        KeyCode::Char(' ' | 'f' | 'p') => Action::Freeze,
        KeyCode::Char('c') => Action::HideCalm,
        KeyCode::Char('i') => Action::Incidents,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Action::Help,
        KeyCode::Char('+' | '=') => Action::Faster,
        KeyCode::Char('-') => Action::Slower,
        KeyCode::Right | KeyCode::Char('l') => Action::Seek(5.0),
        KeyCode::Left => Action::Seek(-5.0),
        KeyCode::Char('.') => Action::Seek(1.0),
        KeyCode::Char(',') => Action::Seek(-1.0),
        KeyCode::Char('>') => Action::Seek(60.0),
        KeyCode::Char('<') => Action::Seek(-60.0),
        KeyCode::Char('n') => Action::NextMoment,
        KeyCode::Char('0') => Action::Restart,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn letters_are_letters_while_a_filter_is_typed() {
        assert_eq!(action(plain(KeyCode::Char('q')), false), Some(Action::Quit));
        assert_eq!(action(plain(KeyCode::Char('q')), true), Some(Action::Type('q')));
        assert_eq!(action(plain(KeyCode::Esc), true), Some(Action::Cancel));
        assert_eq!(action(plain(KeyCode::Esc), false), Some(Action::Back));
        assert_eq!(action(plain(KeyCode::Char('\u{1b}')), true), None, "no control characters");
    }

    #[test]
    fn what_every_program_in_a_terminal_understands_is_understood_always() {
        for (letter, means) in [('c', Action::Quit), ('z', Action::Stop), ('l', Action::Redraw)] {
            let key = KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
            assert_eq!((action(key, false), action(key, true)), (Some(means), Some(means)));
        }
        let mut released = plain(KeyCode::Char('q'));
        released.kind = KeyEventKind::Release;
        assert_eq!(action(released, false), None);
    }
}
