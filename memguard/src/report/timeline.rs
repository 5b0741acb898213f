//! The last two minutes of a cgroup, kept while it is pressed.

use std::{collections::VecDeque, time::Duration};

use serde::{Deserialize, Serialize};

use crate::engine::{Memory, Signals, State};

/// As far back as it goes.
const SPAN: Duration = Duration::from_mins(2);
/// Points that are kept: one for each look, which is once a second.
const MOST: usize = 121;

/// One look at a cgroup. Shares are of 1, rates per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Point {
    /// Seconds, at most 0: before the verdict.
    pub at_s: f32,
    pub state: State,
    /// Bytes.
    pub current: u64,
    pub anon: u64,
    pub file: u64,
    pub shmem: u64,
    pub refaults_per_s: f32,
    pub limit_hits_per_s: f32,
    pub unreclaimable: f32,
    pub turnover_per_s: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_returns_per_s: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_cpus: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_some: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_full: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_some: Option<f32>,
}

// 1024 cgroups that are all pressed for two minutes take 15 MiB at the most; a calm one takes nothing.
const _: () = assert!(size_of::<(Duration, Point)>() <= 136);

/// A ring of points, which takes no memory before the cgroup is pressed for the first time.
#[derive(Debug, Default)]
pub struct Timeline(VecDeque<(Duration, Point)>);

#[expect(clippy::cast_possible_truncation, reason = "for people's eyes; seven digits do")]
const fn short(value: f64) -> f32 {
    value as f32
}

impl Timeline {
    /// Takes in what a look at `at` gave.
    pub fn push(&mut self, at: Duration, state: State, memory: &Memory, signals: Option<&Signals>) {
        if state == State::Calm && self.0.is_empty() {
            return;
        }
        while self.0.len() >= MOST || self.0.front().is_some_and(|(first, _)| at.saturating_sub(*first) > SPAN) {
            self.0.pop_front();
        }
        if state == State::Calm && self.0.iter().all(|(_, point)| point.state == State::Calm) {
            self.0 = VecDeque::new();
            return;
        }
        let mut point = Point {
            state,
            current: memory.current,
            anon: memory.anon,
            file: memory.file,
            shmem: memory.shmem,
            ..Point::default()
        };
        if let Some(s) = signals {
            point = Point {
                refaults_per_s: short(s.refaults_per_s),
                limit_hits_per_s: short(s.limit_hits_per_s),
                unreclaimable: short(s.unreclaimable),
                turnover_per_s: short(s.turnover_per_s),
                text_returns_per_s: s.text_returns_per_s.map(short),
                lost: s.lost.map(short),
                waiting: s.waiting.map(short),
                user_cpus: s.user_cpus.map(short),
                memory_some: s.memory_some.map(short),
                memory_full: s.memory_full.map(short),
                io_some: s.io_some.map(short),
                ..point
            };
        }
        self.0.push_back((at, point));
    }

    /// The points, in seconds before `now`.
    #[must_use]
    pub fn points(&self, now: Duration) -> Vec<Point> {
        let before = |at: &Duration| -short(now.saturating_sub(*at).as_secs_f64());
        self.0.iter().map(|(at, point)| Point { at_s: before(at), ..*point }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(timeline: &mut Timeline, second: u64, state: State) {
        timeline.push(Duration::from_secs(second), state, &Memory::default(), None);
    }

    #[test]
    fn a_calm_cgroup_takes_no_memory() {
        let mut timeline = Timeline::default();
        push(&mut timeline, 1, State::Calm);
        assert_eq!(timeline.0.capacity(), 0);
        push(&mut timeline, 2, State::Pressed);
        for second in 3..200 {
            push(&mut timeline, second, State::Calm);
        }
        assert_eq!(timeline.0.capacity(), 0, "nor one that was pressed long ago");
    }

    #[test]
    fn it_goes_back_two_minutes_however_often_one_looks() {
        let mut timeline = Timeline::default();
        for second in 0..500 {
            push(&mut timeline, second, State::Pressed);
        }
        push(&mut timeline, 500, State::Livelock);
        let points = timeline.points(Duration::from_secs(500));
        assert_eq!((points.len(), points[0].at_s, points[120].at_s), (121, -120.0, 0.0));
        assert_eq!(points[120].state, State::Livelock);
        for tenth in 0..5000 {
            timeline.push(Duration::from_millis(501_000 + tenth), State::Pressed, &Memory::default(), None);
        }
        assert_eq!(timeline.0.len(), MOST);
    }
}
