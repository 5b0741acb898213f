//! What is being looked at, and how: changed by actions alone. Pure.

use std::sync::Arc;

use super::keys::Action;
use crate::{
    engine::State,
    status::{Snapshot, UnitStatus},
};

/// Letters of a filter.
const LONGEST_FILTER: usize = 60;
/// Rows that a page goes on.
const PAGE: usize = 10;

/// By what the table is ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// The most suspicious first, and of those the ones with the most evidence, then refaults.
    #[default]
    State,
    Refaults,
    Memory,
    /// How long it has been in its state.
    Since,
    Name,
}

impl Sort {
    const fn next(self) -> Self {
        match self {
            Self::State => Self::Refaults,
            Self::Refaults => Self::Memory,
            Self::Memory => Self::Since,
            Self::Since => Self::Name,
            Self::Name => Self::State,
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Refaults => "refaults",
            Self::Memory => "memory",
            Self::Since => "time in state",
            Self::Name => "name",
        }
    }
}

/// What fills the screen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Screen {
    #[default]
    Table,
    /// One cgroup, by its id.
    Unit(u64),
    Incidents,
}

/// All that a person has chosen.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own")]
pub struct Ui {
    pub screen: Screen,
    pub help: bool,
    pub sort: Sort,
    pub reversed: bool,
    pub filter: String,
    /// A filter is being typed.
    pub typing: bool,
    pub hide_calm: bool,
    /// The id of the selected cgroup, and where it stood: when it is gone, its neighbour is selected.
    pub selected: Option<u64>,
    place: usize,
    pub incident: usize,
    /// Lines that a long text was scrolled down.
    pub scroll: usize,
    /// The picture that is kept while the world goes on.
    pub frozen: Option<Arc<Snapshot>>,
}

/// What an action asks of the world.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Effect {
    Nothing,
    Quit,
    /// For the terminal.
    Stop,
    Redraw,
    /// For a replay.
    Pause,
    Faster,
    Slower,
    Seek(f64),
    NextMoment,
    Restart,
}

impl Ui {
    /// The picture to look at: the frozen one, or the latest.
    #[must_use]
    pub fn picture<'a>(&'a self, latest: Option<&'a Arc<Snapshot>>) -> Option<&'a Snapshot> {
        self.frozen.as_ref().or(latest).map(|snapshot| &**snapshot)
    }

    /// The rows of the table, in order.
    #[must_use]
    pub fn rows<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a UnitStatus> {
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<&UnitStatus> = snapshot
            .units
            .iter()
            .filter(|unit| !self.hide_calm || unit.state > State::Calm)
            .filter(|unit| matches(unit, &filter))
            .collect();
        let by = |a: f64, b: f64| b.total_cmp(&a);
        rows.sort_by(|a, b| {
            let order = match self.sort {
                Sort::State => b
                    .state
                    .cmp(&a.state)
                    .then_with(|| by(a.held_s.unwrap_or(0.0), b.held_s.unwrap_or(0.0)))
                    .then_with(|| by(a.refaults_per_s(), b.refaults_per_s())),
                Sort::Refaults => by(a.refaults_per_s(), b.refaults_per_s()),
                Sort::Memory => b.memory.current.cmp(&a.memory.current),
                Sort::Since => by(a.state_for_s, b.state_for_s),
                Sort::Name => a.shown_name().cmp(&b.shown_name()),
            };
            let order = order.then(a.name.id.cmp(&b.name.id));
            if self.reversed { order.reverse() } else { order }
        });
        rows
    }

    /// Where the selected row stands among `rows`.
    #[must_use]
    pub fn position(&self, rows: &[&UnitStatus]) -> Option<usize> {
        let place = rows.iter().position(|unit| Some(unit.name.id) == self.selected);
        place.or_else(|| (!rows.is_empty()).then(|| self.place.min(rows.len() - 1)))
    }

    /// There is a new picture: what was selected stays so, or else its neighbour is.
    pub fn settle(&mut self, latest: Option<&Arc<Snapshot>>) {
        let Some(snapshot) = self.picture(latest) else { return };
        let rows = self.rows(snapshot);
        let (place, incidents) = (self.position(&rows), snapshot.incidents.len());
        let selected = place.map(|place| rows[place].name.id);
        (self.selected, self.place) = (selected, place.unwrap_or(0));
        self.incident = self.incident.min(incidents.saturating_sub(1));
    }

    /// `replay`: the picture comes from a recording, which can be stopped itself.
    pub fn apply(&mut self, action: Action, latest: Option<&Arc<Snapshot>>, replay: bool) -> Effect {
        match action {
            Action::Quit => return Effect::Quit,
            Action::Stop => return Effect::Stop,
            Action::Redraw => return Effect::Redraw,
            Action::Help => (self.help, self.scroll) = (!self.help, 0),
            Action::Up => self.step(-1, latest),
            Action::Down => self.step(1, latest),
            Action::PageUp => self.step(-isize::try_from(PAGE).unwrap_or(1), latest),
            Action::PageDown => self.step(isize::try_from(PAGE).unwrap_or(1), latest),
            Action::First => self.step(isize::MIN / 2, latest),
            Action::Last => self.step(isize::MAX / 2, latest),
            Action::Back if self.help => (self.help, self.scroll) = (false, 0),
            Action::Back if self.screen != Screen::Table => (self.screen, self.scroll) = (Screen::Table, 0),
            Action::Back => self.filter.clear(),
            Action::Open if self.help => {}
            Action::Open => {
                if let (Screen::Table, Some(id)) = (self.screen, self.selected) {
                    (self.screen, self.scroll) = (Screen::Unit(id), 0);
                }
            }
            Action::Incidents => {
                let other = if self.screen == Screen::Incidents { Screen::Table } else { Screen::Incidents };
                (self.screen, self.scroll, self.help) = (other, 0, false);
            }
            Action::Sort => self.sort = self.sort.next(),
            Action::Reverse => self.reversed = !self.reversed,
            Action::HideCalm => self.hide_calm = !self.hide_calm,
            Action::Filter => (self.typing, self.screen, self.help) = (true, Screen::Table, false),
            Action::Type(letter) => {
                if self.filter.chars().count() < LONGEST_FILTER {
                    self.filter.push(letter);
                }
            }
            Action::Erase => drop(self.filter.pop()),
            Action::Accept => self.typing = false,
            Action::Cancel => {
                self.typing = false;
                self.filter.clear();
            }
            Action::Freeze if replay => return Effect::Pause,
            Action::Freeze => self.frozen = if self.frozen.is_some() { None } else { latest.cloned() },
            Action::Faster => return Effect::Faster,
            Action::Slower => return Effect::Slower,
            Action::Seek(seconds) => return Effect::Seek(seconds),
            Action::NextMoment => return Effect::NextMoment,
            Action::Restart => return Effect::Restart,
        }
        self.settle(latest);
        Effect::Nothing
    }

    fn step(&mut self, by: isize, latest: Option<&Arc<Snapshot>>) {
        if self.help || matches!(self.screen, Screen::Unit(_)) {
            self.scroll = self.scroll.saturating_add_signed(by);
            return;
        }
        let Some(snapshot) = self.picture(latest) else { return };
        if self.screen == Screen::Incidents {
            let last = snapshot.incidents.len().saturating_sub(1);
            self.incident = self.incident.saturating_add_signed(by).min(last);
            return;
        }
        let rows = self.rows(snapshot);
        let place = self.position(&rows).map(|place| place.saturating_add_signed(by).min(rows.len() - 1));
        if let Some(place) = place {
            (self.selected, self.place) = (Some(rows[place].name.id), place);
        }
    }

    /// The view can't scroll further than this.
    pub fn limit_scroll(&mut self, most: usize) {
        self.scroll = self.scroll.min(most);
    }
}

/// Whether a cgroup is meant by a filter, which is in lower case.
fn matches(unit: &UnitStatus, filter: &str) -> bool {
    let has = |text: &str| text.to_lowercase().contains(filter);
    filter.is_empty()
        || has(&unit.shown_name())
        || has(&unit.name.cgroup)
        || has(&unit.state.to_string())
        || unit.workload.as_ref().and_then(|workload| workload.repository.as_deref()).is_some_and(has)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::tests::{example, unit};

    fn ids(ui: &Ui, snapshot: &Snapshot) -> Vec<u64> {
        ui.rows(snapshot).iter().map(|unit| unit.name.id).collect()
    }

    #[test]
    fn the_most_suspicious_come_first_and_every_order_can_be_reversed() {
        let snapshot = example();
        let mut ui = Ui::default();
        let states: Vec<State> = ui.rows(&snapshot).iter().map(|unit| unit.state).collect();
        assert!(states.is_sorted_by(|a, b| a >= b), "{states:?}");
        for _ in 0..5 {
            let order = ids(&ui, &snapshot);
            ui.apply(Action::Reverse, None, false);
            let mut reversed = ids(&ui, &snapshot);
            reversed.reverse();
            assert_eq!(order, reversed, "{:?}", ui.sort);
            ui.apply(Action::Reverse, None, false);
            ui.apply(Action::Sort, None, false);
        }
        assert_eq!(ui.sort, Sort::State, "around");
    }

    #[test]
    fn what_is_selected_stays_so_when_rows_move_and_its_neighbour_is_when_it_goes() {
        let mut snapshot = example();
        let latest = Arc::new(snapshot.clone());
        let mut ui = Ui::default();
        ui.settle(Some(&latest));
        ui.apply(Action::Down, Some(&latest), false);
        let selected = ui.selected.unwrap();
        assert_eq!(Some(&selected), ids(&ui, &snapshot).get(1));
        snapshot.units.reverse();
        snapshot.units.push(unit(99, State::Livelock));
        snapshot.units.push(unit(98, State::Livelock));
        ui.settle(Some(&Arc::new(snapshot.clone())));
        assert_eq!(ui.selected, Some(selected));
        snapshot.units.retain(|unit| unit.name.id != selected);
        ui.settle(Some(&Arc::new(snapshot.clone())));
        assert!(ui.selected.is_some() && ui.selected != Some(selected));
        snapshot.units.clear();
        ui.settle(Some(&Arc::new(snapshot)));
        assert_eq!(ui.selected, None);
    }

    #[test]
    fn a_filter_is_typed_used_and_taken_back() {
        let latest = Arc::new(example());
        let mut ui = Ui::default();
        ui.apply(Action::Filter, Some(&latest), false);
        for letter in "SUSPECT".chars() {
            ui.apply(Action::Type(letter), Some(&latest), false);
        }
        assert!(ui.typing && ui.rows(&latest).iter().all(|unit| unit.state == State::Suspect));
        ui.apply(Action::Accept, Some(&latest), false);
        assert!(!ui.typing && !ui.filter.is_empty());
        ui.apply(Action::Back, Some(&latest), false);
        assert_eq!(ui.rows(&latest).len(), latest.units.len());
        for _ in 0..1000 {
            ui.apply(Action::Type('x'), Some(&latest), false);
        }
        assert_eq!(ui.filter.len(), LONGEST_FILTER);
    }

    #[test]
    fn a_frozen_picture_stays_while_the_world_goes_on() {
        let (first, mut later) = (Arc::new(example()), example());
        later.units.clear();
        let later = Arc::new(later);
        let mut ui = Ui::default();
        ui.apply(Action::Freeze, Some(&first), false);
        assert_eq!(ui.picture(Some(&later)).unwrap().units.len(), first.units.len());
        ui.apply(Action::Freeze, Some(&later), false);
        assert!(ui.picture(Some(&later)).unwrap().units.is_empty());
        assert_eq!(ui.apply(Action::Freeze, Some(&later), true), Effect::Pause, "a replay is stopped itself");
        assert!(ui.frozen.is_none());
    }

    #[test]
    fn one_is_opened_scrolled_and_left() {
        let latest = Arc::new(example());
        let mut ui = Ui::default();
        ui.settle(Some(&latest));
        ui.apply(Action::Open, Some(&latest), false);
        let Screen::Unit(id) = ui.screen else { panic!("{:?}", ui.screen) };
        ui.apply(Action::Down, Some(&latest), false);
        assert_eq!((ui.scroll, ui.selected), (1, Some(id)));
        ui.apply(Action::Last, Some(&latest), false);
        ui.apply(Action::Last, Some(&latest), false);
        ui.limit_scroll(3);
        ui.apply(Action::Back, Some(&latest), false);
        assert_eq!((ui.screen, ui.scroll), (Screen::Table, 0));
    }
}
