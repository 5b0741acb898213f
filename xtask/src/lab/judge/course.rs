//! How the work of a container went, told by its progress alone: memguard has no part in it.

use memguard_lab::scenario::Kind;
use serde::{Deserialize, Serialize};

use super::Run;

/// Hung work does less than this share of what it did before.
pub(crate) const HUNG: f64 = 0.2;
/// Work that does less than this share is slow.
pub(crate) const SLOW: f64 = 0.5;
/// A hang lasts for so many seconds. What recovers sooner by itself was a stall.
pub(crate) const HANG_S: f64 = 30.0;
/// A verdict so long before the onset is one on the hang that begins.
const EARLY_S: f64 = 10.0;
/// A stall that only the kernel ended counts from here on.
const STALL_S: f64 = 10.0;
/// A hang is over when for so many seconds none of its moments was hung.
const OVER_S: f64 = 10.0;
/// Progress is averaged over so many seconds before it is called hung: one request may come through at any time.
const SMOOTH_S: f64 = 5.0;
/// Where progress comes in large steps (programs run, say) it is averaged over the time of so many of them, or chance
/// would decide; but over no more than this.
const STEPS: f64 = 8.0;
const SMOOTHEST_S: f64 = 30.0;

/// Work that does so many times what it did before the trouble had hardly begun then: a fifth of that is no hang.
const HARDLY_BEGUN: f64 = 5.0;

/// What happened in a container. Times are the guest's `CLOCK_MONOTONIC` in seconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Course {
    pub(crate) container: String,
    pub(crate) at_limit: Option<f64>,
    /// All stretches in which it was hung, mere stalls among them.
    pub(crate) hangs: Vec<Hang>,
    /// Share of its progress that it made from the limit (or the trouble) to its end.
    pub(crate) share: Option<f64>,
    /// The same in its worst 30 seconds.
    pub(crate) worst: Option<f64>,
    /// When the kernel's OOM killer was first seen to have acted.
    pub(crate) oom_kill: Option<f64>,
    /// The last process was gone.
    pub(crate) dead: Option<f64>,
    /// Why its progress tells nothing, where something should report it.
    pub(crate) untold: Option<String>,
    /// From when to when it was slow: in the ten seconds before, it had done less than half of its work.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) slow: Vec<[f64; 2]>,
}

/// A stretch in which work was hung.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hang {
    /// The first second at the limit with progress, smoothed, under a fifth of what it was.
    pub(crate) onset: f64,
    pub(crate) end: f64,
    /// Share of progress in it.
    pub(crate) share: f64,
    /// It was still hung when the run, or the container, ended.
    pub(crate) lasts: bool,
}

impl Hang {
    pub(crate) fn seconds(&self) -> f64 {
        self.end - self.onset
    }

    /// A verdict later than this is on something else. What lasts to the end of the run is averaged over up to so many
    /// seconds, so its last moment is as long before that end, in which a verdict is as right.
    pub(crate) fn until(&self) -> f64 {
        self.end + if self.lasts { SMOOTHEST_S } else { 1.0 }
    }

    /// Else it was a stall.
    pub(crate) fn is_one(&self) -> bool {
        self.seconds() >= HANG_S
    }
}

impl Course {
    /// The first hang that is no mere stall.
    pub(crate) fn hung(&self) -> Option<&Hang> {
        self.hangs.iter().find(|hang| hang.is_one())
    }

    /// The first hang; if there is none, the longest stall.
    pub(crate) fn hang(&self) -> Option<&Hang> {
        self.hung().or_else(|| self.hangs.iter().max_by(|a, b| a.seconds().total_cmp(&b.seconds())))
    }

    /// When the kernel ended this hang, if it did.
    pub(crate) fn ended_by_kernel(&self, hang: &Hang) -> Option<f64> {
        self.oom_kill.filter(|kill| (hang.onset..=hang.end + 3.0).contains(kill))
    }

    /// When a verdict is right: from shortly before a hang begins to its end. A stall that only the kernel, or the end of
    /// the run, put an end to counts too, but for work that should not hang: there nobody knows what it would have become.
    pub(crate) fn right(&self, kind: Kind) -> impl Iterator<Item = (f64, f64)> {
        self.hangs.iter().filter_map(move |hang| {
            let killed = self.ended_by_kernel(hang);
            let ended_for_it = (hang.lasts || killed.is_some()) && hang.seconds() >= STALL_S;
            let counts = hang.is_one() || (ended_for_it && kind != Kind::Healthy);
            let end = killed.map_or(hang.until(), |kill| kill.min(hang.end + 1.0));
            counts.then_some((hang.onset - EARLY_S, end))
        })
    }

    /// Whether a verdict at a time is right.
    pub(crate) fn is_right(&self, kind: Kind, verdict: f64) -> bool {
        self.right(kind).any(|(from, to)| (from..=to).contains(&verdict))
    }

    /// Whether the run ended in a stall, before this could become a hang.
    pub(crate) fn is_cut_short(&self) -> bool {
        let cut = |hang: &Hang| hang.lasts && !hang.is_one() && hang.seconds() >= STALL_S;
        self.hangs.iter().any(|hang| cut(hang) && self.ended_by_kernel(hang).is_none())
    }

    /// Whether it had done less than half of its work in the ten seconds before a time.
    pub(crate) fn is_slow(&self, t: f64) -> bool {
        self.slow.iter().any(|[from, to]| (*from..*to).contains(&t))
    }

    /// In a few words.
    pub(crate) fn told(&self) -> String {
        let mut parts = Vec::new();
        match (self.hang(), self.share) {
            (Some(hang), _) if hang.is_one() => {
                let end = match (self.ended_by_kernel(hang), hang.lasts) {
                    (Some(_), _) => ", then the kernel killed",
                    (None, true) => " and more",
                    (None, false) => ", then it recovered",
                };
                parts.push(format!("hung {:.0} s{end}, at {:.1} % of its work", hang.seconds(), hang.share * 100.0));
            }
            (hang, Some(share)) => {
                let worst = self.worst.map(|worst| format!(" ({:.0} % in its worst 30 s)", worst * 100.0));
                parts.push(format!("works at {:.0} %{}", share * 100.0, worst.unwrap_or_default()));
                if let Some(hang) = hang {
                    parts.push(format!("stalled {:.0} s", hang.seconds()));
                }
            }
            (_, None) => {}
        }
        if self.oom_kill.is_some() && self.hung().is_none() {
            parts.push("OOM-killed".to_owned());
        }
        if self.at_limit.is_none() {
            parts.push("never at its limit".to_owned());
        }
        parts.extend(self.untold.clone());
        if parts.is_empty() {
            parts.push("lived".to_owned());
        }
        parts.join(", ")
    }
}

/// Shares are written down; more digits than these mean nothing.
fn rounded(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}

/// What works in a container, and how fast it did before the trouble.
pub(super) struct Work<'r> {
    run: &'r Run<'r>,
    victims: Vec<Victim<'r>>,
    smooth: f64,
    /// Nothing works any more after this.
    pub(super) until: f64,
}

struct Victim<'r> {
    name: &'r str,
    /// Progress per second.
    baseline: f64,
    until: f64,
}

impl<'r> Work<'r> {
    /// An error names what made no progress before the trouble.
    pub(super) fn of(run: &'r Run<'r>, container: &str) -> Result<Self, String> {
        let end = run.dead(container).unwrap_or(f64::MAX).min(run.last());
        let mut victims = Vec::new();
        for workload in run.victims(container) {
            let name = workload.name.as_str();
            let before = |seconds: f64| run.progress(name, run.trouble - seconds, run.trouble);
            // In ten seconds, or where little happens in that time, in as much as there is.
            let few = |(steps, _): &(u64, f64)| (*steps as f64) < STEPS;
            let warm_up = f64::from(run.scenario.time.warm_up_s) - 2.0;
            let measured = before(10.5).filter(|found| !few(found)).or_else(|| before(warm_up.max(10.5)));
            let Some((steps, seconds)) = measured.filter(|(steps, _)| *steps > 0) else {
                return Err(format!("{name} made no progress before the trouble"));
            };
            let until = run.exit(name).map_or(end, |(t, ..)| t.min(end));
            victims.push(Victim { name, baseline: steps as f64 / seconds, until });
        }
        let Some(until) = victims.iter().map(|victim| victim.until).reduce(f64::max) else {
            return Err(format!("nothing in {container} reports progress"));
        };
        let slowest = victims.iter().map(|victim| STEPS / victim.baseline).fold(0.0, f64::max);
        Ok(Self { run, victims, smooth: slowest.clamp(SMOOTH_S, SMOOTHEST_S), until })
    }

    /// The share of its earlier progress that is made between two times, as the mean of all that works there.
    pub(super) fn share(&self, from: f64, to: f64) -> Option<f64> {
        let shares: Vec<f64> = self
            .victims
            .iter()
            .filter(|victim| victim.until + 1.0 >= to)
            .filter_map(|victim| Some(self.run.rate(victim.name, from, to)? / victim.baseline))
            .collect();
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    }

    /// The smoothed shares from each sample on within two times.
    fn moments(&self, from: f64, to: f64, seconds: f64) -> impl Iterator<Item = (f64, f64)> {
        let times = self.run.samples.iter().map(|(t, _)| *t);
        times
            .filter(move |t| *t >= from && t + seconds <= to)
            .filter_map(move |t| Some((t, self.share(t, t + seconds + 0.5)?)))
    }

    /// Of the moments in a stretch, the share that was not hung.
    pub(super) fn above(&self, from: f64, to: f64) -> f64 {
        let moments: Vec<_> = self.moments(from, to, self.smooth).collect();
        let above = moments.iter().filter(|(_, share)| *share >= HUNG).count();
        above as f64 / moments.len().max(1) as f64
    }

    /// All hangs and stalls from a time on.
    fn hangs(&self, from: f64) -> Vec<Hang> {
        let mut hangs: Vec<Hang> = Vec::new();
        for (t, _) in self.moments(from, self.until, self.smooth).filter(|(_, share)| *share < HUNG) {
            let end = t + self.smooth;
            match hangs.last_mut() {
                Some(hang) if t - (hang.end - self.smooth) <= OVER_S => hang.end = end,
                _ => hangs.push(Hang { onset: t, end, share: 0.0, lasts: false }),
            }
        }
        for hang in &mut hangs {
            hang.share = self.share(hang.onset, hang.end).map(rounded).unwrap_or_default();
            hang.lasts = hang.end + 2.5 >= self.until;
        }
        hangs
    }

    /// The share of its work that was done in the ten seconds before a time, or in as long as it takes to tell.
    fn share_before(&self, t: f64) -> Option<f64> {
        self.share(t - self.smooth.max(10.0) - 0.5, t.min(self.until))
    }

    /// From when to when it was slow, from one sample to another.
    fn slow(&self, from: f64) -> Vec<[f64; 2]> {
        let mut slow: Vec<[f64; 2]> = Vec::new();
        let mut open = false;
        for (t, _) in self.run.samples.iter().filter(|(t, _)| *t >= from) {
            if open && let Some(last) = slow.last_mut() {
                last[1] = *t;
            }
            let is_slow = self.share_before(*t).is_some_and(|share| share < SLOW);
            if is_slow && !open {
                slow.push([*t, *t]);
            }
            open = is_slow;
        }
        for end in slow.iter_mut().flatten() {
            *end = (*end * 100.0).round() / 100.0;
        }
        slow
    }

    /// How many a second the work of the container did before the trouble, for people.
    pub(super) fn told(&self) -> String {
        let each: Vec<_> =
            self.victims.iter().map(|victim| format!("{} of {:.1}/s", victim.name, victim.baseline)).collect();
        each.join(" and ")
    }
}

impl Run<'_> {
    /// How it went in a container.
    pub(crate) fn course(&self, container: &str) -> Course {
        let at_limit = self.at_limit(container);
        let oom_kill = self.figures(container).find(|(_, figures)| figures.oom_kill > 0).map(|(t, _)| t);
        let mut course = Course {
            container: container.to_owned(),
            at_limit,
            oom_kill,
            dead: self.dead(container),
            ..Course::default()
        };
        let work = match Work::of(self, container) {
            Ok(work) => work,
            Err(why) => {
                course.untold = self.victims(container).next().map(|_| why);
                return course;
            }
        };
        let from = at_limit.unwrap_or(self.trouble).max(self.trouble);
        course.share = work.share(from, work.until).map(rounded);
        if course.share.is_some_and(|share| share > HARDLY_BEGUN) {
            course.untold = Some("hardly begun before the trouble, so there is nothing to compare with".to_owned());
        }
        let worst = work.moments(from, work.until, HANG_S).map(|(_, share)| share).reduce(f64::min);
        course.worst = worst.map(rounded);
        if at_limit.is_some() {
            course.hangs = work.hangs(from);
        }
        course.slow = work.slow(self.trouble);
        course
    }

    /// The share of its work that a container does from a time on.
    pub(crate) fn share_after(&self, container: &str, t: f64) -> Option<f64> {
        Work::of(self, container).ok()?.share(t, self.last())
    }

    /// The share of its work that a container did in the ten seconds before a time.
    pub(crate) fn share_before(&self, container: &str, t: f64) -> Option<f64> {
        Work::of(self, container).ok()?.share_before(t)
    }
}
