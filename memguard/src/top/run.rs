//! The loop: what is new, what was typed, and a picture.

use std::time::{Duration, Instant};

use crossterm::event::Event;

use super::{
    keys,
    source::Source,
    state::{Effect, Ui},
    terminal::{Asked, Signals, Taken, TerminalError, Whom, next},
    view::{Look, Scene, render},
};

/// Between two looks at what is new. A key is answered at once.
const TICK: Duration = Duration::from_millis(100);
/// The picture is drawn so often, new or not, so that a size that came without a word is seen. What else writes to the terminal
/// stays: only what has changed is written. Ctrl-L writes all of it.
const DRAW_EVERY: Duration = Duration::from_secs(1);

/// Until somebody has seen enough.
pub fn run(mut source: Source, look: Look) -> Result<(), TerminalError> {
    let signals = Signals::listen()?;
    let mut taken = Taken::over()?;
    let mut ui = Ui::default();
    let (mut last, mut drawn) = (Instant::now(), None::<Instant>);
    loop {
        let elapsed = last.elapsed();
        last = Instant::now();
        if source.advance(elapsed) {
            ui.settle(source.latest());
            drawn = None;
        }
        if drawn.is_none_or(|at| at.elapsed() >= DRAW_EVERY) {
            draw(&mut taken, &mut ui, &source, look)?;
            drawn = Some(Instant::now());
        }
        let mut event = next(TICK)?;
        while let Some(happened) = event {
            drawn = None;
            if let Event::Key(key) = happened
                && let Some(action) = keys::action(key, ui.typing)
            {
                let replay = matches!(source, Source::Replay(_));
                match ui.apply(action, source.latest(), replay) {
                    Effect::Quit => return Ok(()),
                    Effect::Stop => taken.stop(Whom::Group, &signals)?,
                    Effect::Redraw => taken.clear()?,
                    effect => {
                        source.apply(effect);
                        ui.settle(source.latest());
                    }
                }
            }
            event = next(Duration::ZERO)?;
        }
        match signals.asked() {
            None => {}
            Some(Asked::End) => return Ok(()),
            Some(Asked::Stop) => {
                taken.stop(Whom::Us, &signals)?;
                drawn = None;
            }
            Some(Asked::GoOn) => {
                taken.again()?;
                drawn = None;
            }
        }
    }
}

fn draw(taken: &mut Taken, ui: &mut Ui, source: &Source, look: Look) -> Result<(), TerminalError> {
    let mut most = 0;
    taken.terminal.draw(|frame| {
        let scene = Scene { ui, snapshot: ui.picture(source.latest()), link: source.link(), look };
        most = render(&scene, frame.area(), frame.buffer_mut());
    })?;
    ui.limit_scroll(most);
    Ok(())
}
