//! A recording, run through the engine as far as somebody has got: at each moment there is the same to see as there was
//! then. Pure.

use std::{collections::BTreeMap, path::Path, time::Duration};

use crate::{
    engine::{Engine, Memory, Settings, State, UnitId},
    respond::Mode,
    status::{CostStatus, EngineStatus, FORMAT, IncidentStatus, Snapshot, Totals, Trail, UnitStatus},
    telemetry::{CgroupName, escaped},
    trace::{Entry, Start},
    workload::Place,
};

/// memguard was started anew within a recording: nobody knows after how long.
const NEW_START: Duration = Duration::from_secs(1);

/// At some place in a recording.
#[derive(Debug)]
pub struct Player {
    entries: Vec<Entry>,
    /// When each of them happened, from the beginning.
    times: Vec<Duration>,
    /// In the place of those that it was recorded with.
    settings: Option<Settings>,
    /// The first entry that is still to come.
    next: usize,
    seen: Seen,
}

/// What has come of the entries so far.
#[derive(Debug)]
struct Seen {
    engine: Engine,
    start: Option<Start>,
    /// `CLOCK_MONOTONIC` of the first sample since that start, and of the latest.
    first: Option<Duration>,
    now: Duration,
    watched: BTreeMap<UnitId, Watched>,
    incidents: Vec<(UnitId, IncidentStatus)>,
    totals: Totals,
}

#[derive(Debug)]
struct Watched {
    name: CgroupName,
    memory: Memory,
    trail: Trail,
    suspected: bool,
}

impl Seen {
    fn new(settings: Settings) -> Self {
        Self {
            engine: Engine::new(settings),
            start: None,
            first: None,
            now: Duration::ZERO,
            watched: BTreeMap::new(),
            incidents: Vec::new(),
            totals: Totals::default(),
        }
    }
}

impl Player {
    /// At the first sample. `None` if there is none.
    #[must_use]
    pub fn new(entries: Vec<Entry>, settings: Option<Settings>) -> Option<Self> {
        entries.iter().find(|entry| matches!(entry, Entry::Sample { .. }))?;
        let times = times(&entries);
        let seen = Seen::new(settings.clone().unwrap_or_default());
        let mut player = Self { entries, times, settings, next: 0, seen };
        player.go_to(Duration::ZERO);
        Some(player)
    }

    #[must_use]
    pub fn length(&self) -> Duration {
        self.times.last().copied().unwrap_or_default()
    }

    /// How it was made: the first start in it.
    #[must_use]
    pub fn start(&self) -> Option<&Start> {
        self.entries.iter().find_map(|entry| match entry {
            Entry::Start(start) => Some(&**start),
            _ => None,
        })
    }

    /// Plays all that happened until then. Back is from the beginning. Whether anything happened.
    pub fn go_to(&mut self, at: Duration) -> bool {
        let target = self.times.partition_point(|time| *time <= at);
        if target < self.next {
            self.seen = Seen::new(self.settings.clone().unwrap_or_default());
            self.next = 0;
        } else if target == self.next {
            return false;
        }
        while self.next < target {
            self.step();
        }
        true
    }

    /// Plays on to where a state changes. When that was; `None` at the end.
    pub fn next_moment(&mut self) -> Option<Duration> {
        while self.next < self.entries.len() {
            let at = self.times[self.next];
            if self.step() {
                // With all that happened in the same moment.
                self.go_to(at);
                return Some(at);
            }
        }
        None
    }

    /// Plays one entry. Whether a state changed, or there was a verdict.
    fn step(&mut self) -> bool {
        let Some(entry) = self.entries.get(self.next) else { return false };
        self.next += 1;
        let seen = &mut self.seen;
        match entry {
            Entry::Start(start) => {
                let settings = self.settings.clone().unwrap_or_else(|| start.settings.clone());
                seen.engine = Engine::new(settings);
                (seen.start, seen.first) = (Some((**start).clone()), None);
                seen.watched.clear();
                false
            }
            Entry::Watch { unit, cgroup } => {
                seen.totals.under_reclaim += 1;
                let name = name(*unit, cgroup);
                let trail = Trail::new(seen.now);
                let watched = Watched { name, memory: Memory::default(), trail, suspected: false };
                seen.watched.insert(*unit, watched);
                false
            }
            Entry::Sample { unit, sample, .. } => {
                let at = sample.at;
                seen.first.get_or_insert(at);
                seen.now = seen.now.max(at);
                if seen.now.saturating_sub(at) > Duration::from_mins(1) {
                    // The machine was started anew, and its clock.
                    seen.now = at;
                }
                let observation = seen.engine.observe(*unit, (**sample).clone());
                let watched = seen.watched.entry(*unit).or_insert_with(|| Watched {
                    name: name(*unit, &format!("cgroup {unit}")),
                    memory: Memory::default(),
                    trail: Trail::new(at),
                    suspected: false,
                });
                if watched.memory == Memory::default() {
                    watched.trail = Trail::new(at);
                }
                watched.memory = sample.memory;
                watched.trail.observed(at, &sample.memory, &observation);
                if observation.state >= State::Suspect && !watched.suspected {
                    watched.suspected = true;
                    seen.totals.suspected += 1;
                }
                if let Some(verdict) = &observation.verdict {
                    seen.totals.verdicts += 1;
                    let since_start = at.saturating_sub(seen.first.unwrap_or(at)).as_secs();
                    let decided_at =
                        seen.start.as_ref().map_or(0, |start| start.unix_time_s).saturating_add(since_start);
                    seen.incidents.push((
                        *unit,
                        IncidentStatus {
                            id: format!("mg-{decided_at}-{unit}"),
                            decided_at,
                            mode: Mode::Observe,
                            cgroup: watched.name.cgroup.clone(),
                            workload: None,
                            outcome: "a verdict".to_owned(),
                            evidence: verdict.terms.sentence(),
                            follow_ups: Vec::new(),
                            open: 0,
                        },
                    ));
                }
                observation.verdict.is_some() || observation.state != observation.before
            }
            Entry::Acted { unit, at } => {
                seen.engine.acted(*unit, *at);
                if let Some((_, incident)) = seen.incidents.iter_mut().rev().find(|(of, _)| of == unit) {
                    "a verdict, and an action".clone_into(&mut incident.outcome);
                }
                false
            }
            Entry::Forget { unit } => {
                seen.engine.forget(*unit);
                seen.watched.remove(unit).is_some()
            }
            Entry::Lost { .. } => false,
        }
    }

    /// What there is to see now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let seen = &self.seen;
        let settings = seen.engine.settings();
        let since_start = seen.first.map_or(Duration::ZERO, |first| seen.now.saturating_sub(first));
        let unix_ms = seen.start.as_ref().map_or(0, |start| start.unix_time_s).saturating_mul(1000);
        let units = seen.watched.values().filter(|watched| watched.memory != Memory::default());
        let mut snapshot = Snapshot {
            format: FORMAT,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            unix_ms: unix_ms.saturating_add(u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX)),
            at_s: seen.now.as_secs_f64(),
            mode: Mode::Observe,
            signals_from: seen.start.as_ref().map(|start| escaped(&start.signals_from)).unwrap_or_default(),
            lost: Vec::new(),
            no_tracer: None,
            engine: EngineStatus { window_s: settings.window.as_secs_f64(), hold_s: settings.hold.as_secs_f64() },
            cost: CostStatus::default(),
            pods: None,
            totals: seen.totals,
            units: units
                .map(|watched| {
                    UnitStatus::new(watched.name.clone(), &watched.memory, &watched.trail, &seen.engine, seen.now)
                })
                .collect(),
            units_left_out: 0,
            incidents: seen.incidents.iter().rev().map(|(_, incident)| incident.clone()).collect(),
        };
        snapshot.bound();
        snapshot
    }
}

fn name(unit: UnitId, cgroup: &str) -> CgroupName {
    CgroupName { id: unit.0, cgroup: escaped(cgroup), place: Place::of(Path::new(cgroup)), pod: None }
}

/// A clock for the whole recording, which never goes back.
fn times(entries: &[Entry]) -> Vec<Duration> {
    let (mut now, mut last) = (Duration::ZERO, None::<Duration>);
    let mut anew = false;
    entries
        .iter()
        .map(|entry| {
            match entry {
                Entry::Start(_) => (anew, last) = (last.is_some(), None),
                Entry::Sample { sample, .. } => {
                    now += match last {
                        Some(last) => sample.at.saturating_sub(last),
                        None if std::mem::take(&mut anew) => NEW_START,
                        None => Duration::ZERO,
                    };
                    last = Some(sample.at);
                }
                _ => {}
            }
            now
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{self, Judge};

    fn recording(name: &str) -> Vec<Entry> {
        trace::read(&trace::of_the_lab(name)).unwrap().entries
    }

    #[test]
    fn at_each_moment_there_is_to_see_what_the_engine_decides_then() {
        let entries = recording("livelock-440-6.12.73");
        let replay = trace::replay(&entries, &[Judge::Recorded], &[]);
        let moments: Vec<(f64, State)> = replay.rules[0]
            .units
            .iter()
            .flat_map(|unit| &unit.moments)
            .map(|moment| (moment.at_s, moment.to))
            .collect();
        assert!(moments.len() >= 2, "{moments:?}");
        let mut player = Player::new(entries, None).unwrap();
        for (at_s, state) in moments {
            player.go_to(Duration::from_secs_f64(at_s + 1e-6));
            let snapshot = player.snapshot();
            assert!(snapshot.units.iter().any(|unit| unit.state == state), "{state} at {at_s}: {snapshot:?}");
        }
        player.go_to(player.length());
        assert_eq!(player.snapshot().totals.verdicts, 1);
        assert_eq!(player.snapshot().incidents.len(), 1);
    }

    #[test]
    fn back_and_forth_leads_to_the_same_picture() {
        let mut player = Player::new(recording("livelock-dind-6.12.73"), None).unwrap();
        let middle = player.length() / 2;
        player.go_to(middle);
        let first = player.snapshot();
        player.go_to(player.length());
        assert_ne!(player.snapshot(), first);
        player.go_to(Duration::ZERO);
        player.go_to(middle);
        assert_eq!(player.snapshot(), first);
        assert!(!player.go_to(middle), "nothing new");
    }

    #[test]
    fn goes_on_to_where_something_happens() {
        let mut player = Player::new(recording("livelock-440-6.12.73"), None).unwrap();
        let mut before = Duration::ZERO;
        let mut seen = Vec::new();
        while let Some(at) = player.next_moment() {
            assert!(at >= before);
            before = at;
            seen.extend(player.snapshot().units.first().map(|unit| unit.state));
        }
        for state in [State::Suspect, State::Livelock] {
            assert!(seen.contains(&state), "{seen:?}");
        }
    }

    #[test]
    fn other_settings_lead_to_another_picture_and_nothing_to_none() {
        let entries = recording("livelock-440-6.12.73");
        let slow = Settings { hold: Duration::from_hours(1), ..Settings::default() };
        let mut player = Player::new(entries.clone(), Some(slow)).unwrap();
        player.go_to(player.length());
        assert_eq!(player.snapshot().totals.verdicts, 0);
        assert!(Player::new(Vec::new(), None).is_none());
        let twice: Vec<Entry> = entries.iter().chain(&entries).cloned().collect();
        let once = Player::new(entries, None).unwrap().length();
        assert_eq!(Player::new(twice, None).unwrap().length(), once * 2 + NEW_START, "two starts in one file");
    }
}
