//! One thing that remains to be done elsewhere, and how far it has come. Kept in the journal with its incident.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Failure;

/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);
/// A server that wants to be left alone for longer is asked again all the same.
pub(super) const LONGEST_WISH: Duration = Duration::from_hours(1);
/// What has not come through a day after the verdict helps nobody any more.
pub const GIVE_UP_AFTER: Duration = Duration::from_hours(24);

/// What is to be done. Each can be done again without harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Ask the Kubernetes API which GitHub run the runner had.
    Identify,
    /// Cancel that run.
    Cancel,
    /// Delete the runner's object, so that ARC makes a new runner.
    DeleteRunner,
    /// An Event on the pod.
    PodEvent,
    /// An Event on the runner's object.
    RunnerEvent,
    /// A check run on the commit, for the developer.
    CheckRun,
}

impl Kind {
    /// In the order in which they are begun.
    pub const ALL: [Self; 6] =
        [Self::Identify, Self::PodEvent, Self::Cancel, Self::RunnerEvent, Self::DeleteRunner, Self::CheckRun];

    /// As in the journal and in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Identify => "identify",
            Self::Cancel => "cancel",
            Self::DeleteRunner => "delete_runner",
            Self::PodEvent => "pod_event",
            Self::RunnerEvent => "runner_event",
            Self::CheckRun => "check_run",
        }
    }

    /// For people.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Identify => "finding the GitHub run",
            Self::Cancel => "cancelling the GitHub run",
            Self::DeleteRunner => "deleting the runner",
            Self::PodEvent => "the event on the pod",
            Self::RunnerEvent => "the event on the runner",
            Self::CheckRun => "the check run",
        }
    }
}

/// How far it has come. Times are ms since 1970, because they outlive the machine's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Progress {
    Open(Open),
    /// It is done; in words, what came of it.
    Done {
        at: u64,
        what: String,
    },
    /// It will not be done any more.
    GaveUp {
        at: u64,
        why: String,
    },
    /// There is nothing to do.
    NotNeeded {
        why: String,
    },
}

/// Still to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// Failures in a row.
    #[serde(default)]
    pub failures: u32,
    /// Not to be tried before.
    #[serde(default)]
    pub not_before: u64,
    /// When GitHub took the cancellation, and the forced one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forced: Option<u64>,
    /// GitHub would not take it (409), and what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// The run's attempt that had the job. One that was begun later has the same id, and is nobody's business here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// Since when GitHub is asked for a job on this runner, and has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looked: Option<u64>,
    /// The latest failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// A cancellation that GitHub would not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Since when, ms since 1970.
    pub since: u64,
    /// It was the forced one.
    #[serde(default)]
    pub forced: bool,
    /// In GitHub's words.
    pub why: String,
}

/// Something to do, and how far it has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FollowUp {
    pub kind: Kind,
    #[serde(flatten)]
    pub progress: Progress,
    /// When GitHub took a cancellation, if it did. Outlives [`Open::asked`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<u64>,
}

impl Open {
    /// With no time in it that is still to come: somebody set the clock back, and what was waited for would never be over.
    #[must_use]
    pub(super) fn until(self, now: u64) -> Self {
        let past = |time: Option<u64>| time.map(|time| time.min(now));
        let refused = self.refused.map(|refused| Refused { since: refused.since.min(now), ..refused });
        Self { asked: past(self.asked), forced: past(self.forced), looked: past(self.looked), refused, ..self }
    }
}

/// What one attempt came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    Done(String),
    NotNeeded(String),
    /// It goes well, and has to be looked at again.
    Again {
        after: Duration,
        open: Open,
    },
    Failed(Failure),
}

impl FollowUp {
    #[must_use]
    pub fn new(kind: Kind) -> Self {
        Self { kind, progress: Progress::Open(Open::default()), taken: None }
    }

    /// What is known of it while it is open.
    #[must_use]
    pub const fn open(&self) -> Option<&Open> {
        match &self.progress {
            Progress::Open(open) => Some(open),
            _ => None,
        }
    }

    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open().is_some()
    }

    /// When GitHub took the cancellation, if it did.
    #[must_use]
    pub fn taken(&self) -> Option<u64> {
        self.taken.or_else(|| self.open().and_then(|open| open.asked.or(open.forced)))
    }

    /// How it ended, for people.
    #[must_use]
    pub fn outcome(&self) -> String {
        let what = self.kind.what();
        match &self.progress {
            Progress::Open(Open { last: Some(why), failures, .. }) if *failures > 0 => {
                format!("{what}: tried {failures} times so far, {why}")
            }
            Progress::Open(Open { refused: Some(Refused { why, .. }), .. }) => {
                format!("{what}: GitHub will not have it so far ({why})")
            }
            Progress::Open(Open { asked: Some(_), .. }) => format!("{what}: asked for"),
            Progress::Open(_) => format!("{what}: to be done"),
            Progress::Done { what: outcome, .. } => format!("{what}: {outcome}"),
            Progress::GaveUp { why, .. } => format!("{what}: given up, {why}"),
            Progress::NotNeeded { why } => format!("{what}: not needed, {why}"),
        }
    }

    /// Takes in what an attempt came to. `jitter` is from 0 to 1; `decided_at` and `now` are ms since 1970.
    pub fn took(&mut self, attempt: Attempt, decided_at: u64, now: u64, jitter: f64) {
        let Progress::Open(open) = &self.progress else { return };
        self.taken = self.taken.or(open.asked).or(open.forced);
        let too_late = now.saturating_sub(decided_at) >= milliseconds(GIVE_UP_AFTER);
        self.progress = match attempt {
            Attempt::Done(what) => Progress::Done { at: now, what },
            Attempt::NotNeeded(why) => Progress::NotNeeded { why },
            Attempt::Again { .. } if too_late => Progress::GaveUp { at: now, why: given_up("it does not end") },
            Attempt::Again { after, open } => Progress::Open(Open {
                failures: 0,
                last: None,
                not_before: now.saturating_add(milliseconds(after)),
                ..open
            }),
            Attempt::Failed(Failure::Final { why }) => Progress::GaveUp { at: now, why },
            Attempt::Failed(Failure::Later { why, .. }) if too_late => {
                Progress::GaveUp { at: now, why: given_up(&why) }
            }
            Attempt::Failed(Failure::Later { after, why }) => {
                let pause = pause(open.failures, jitter).max(after.unwrap_or_default().min(LONGEST_WISH));
                Progress::Open(Open {
                    failures: open.failures.saturating_add(1),
                    not_before: now.saturating_add(milliseconds(pause)),
                    last: Some(why),
                    ..open.clone()
                })
            }
        };
    }

    /// Says that there is nothing to do.
    pub fn not_needed(&mut self, why: &str) {
        if self.is_open() {
            self.progress = Progress::NotNeeded { why: why.to_owned() };
        }
    }
}

fn given_up(why: &str) -> String {
    format!("after {} h: {why}", GIVE_UP_AFTER.as_secs() / 3600)
}

/// From half to the whole of a time that doubles with each failure: many nodes that lost the same server don't come back
/// to it at the same moment.
fn pause(failures: u32, jitter: f64) -> Duration {
    let whole = FIRST_PAUSE.saturating_mul(1 << failures.min(20)).min(LONGEST_PAUSE);
    let jitter = if jitter.is_nan() { 1.0 } else { jitter.clamp(0.0, 1.0) };
    whole.mul_f64(0.5 + 0.5 * jitter)
}

pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600 * 1000;

    fn later(after: Option<u64>) -> Attempt {
        Attempt::Failed(Failure::Later { after: after.map(Duration::from_secs), why: "gone".to_owned() })
    }

    #[test]
    fn pauses_double_up_to_five_minutes_and_differ() {
        let mut job = FollowUp::new(Kind::Cancel);
        let mut now = 0;
        let mut pauses = Vec::new();
        for _ in 0..12 {
            job.took(later(None), 0, now, 1.0);
            let next = job.open().unwrap().not_before;
            pauses.push((next - now) / 1000);
            now = next;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]);
        assert_eq!((pause(3, 0.0), pause(3, 1.0)), (Duration::from_secs(4), Duration::from_secs(8)));
        assert!(pause(u32::MAX, f64::NAN) <= LONGEST_PAUSE);
    }

    #[test]
    fn a_servers_wish_is_respected_within_an_hour() {
        let mut job = FollowUp::new(Kind::Cancel);
        job.took(later(Some(90)), 0, 0, 0.0);
        assert_eq!(job.open().unwrap().not_before, 90_000);
        job.took(later(Some(1_000_000)), 0, 0, 0.0);
        assert_eq!(job.open().unwrap().not_before, 3_600_000);
    }

    #[test]
    fn an_outage_of_hours_is_survived_and_one_of_a_day_ends_with_a_reason() {
        let mut job = FollowUp::new(Kind::Cancel);
        job.took(later(None), 0, DAY - 1, 0.5);
        assert!(job.is_open());
        job.took(later(None), 0, DAY, 0.5);
        assert!(matches!(&job.progress, Progress::GaveUp { why, .. } if why == "after 24 h: gone"), "{job:?}");
        let before = job.clone();
        job.took(Attempt::Done("x".to_owned()), 0, DAY, 0.5);
        assert_eq!(job, before, "what is settled stays so");
    }

    #[test]
    fn progress_takes_failures_back_and_is_read_back_from_json() {
        let mut job = FollowUp::new(Kind::Cancel);
        job.took(later(None), 0, 5, 0.5);
        let open = Open { asked: Some(7), ..job.open().unwrap().clone() };
        job.took(Attempt::Again { after: Duration::from_secs(5), open }, 0, 10, 0.5);
        assert_eq!(job.open(), Some(&Open { asked: Some(7), not_before: 5010, ..Open::default() }));
        for progress in [
            job.progress.clone(),
            Progress::Done { at: 1, what: "x".to_owned() },
            Progress::GaveUp { at: 1, why: "x".to_owned() },
            Progress::NotNeeded { why: "x".to_owned() },
        ] {
            let job = FollowUp { progress, ..FollowUp::new(Kind::CheckRun) };
            let text = serde_json::to_string(&job).unwrap();
            assert_eq!(serde_json::from_str::<FollowUp>(&text).unwrap(), job, "{text}");
            assert!(job.outcome().starts_with("the check run: "));
        }
        assert!(serde_json::from_str::<FollowUp>(r#"{"kind":"cancel","state":"open"}"#).unwrap().is_open());
    }
}
