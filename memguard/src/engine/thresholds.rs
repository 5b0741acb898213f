//! How the engine is set: every number that a verdict depends on, with the reason for it, in this one place.
//!
//! A graded term of the rule has two thresholds, a [`Ramp`]: where it begins to hold, and where it leaves no doubt. What
//! lies between counts for less, so a clear hang is a livelock after [`Settings::hold`] and an unclear one later. A plain
//! threshold has one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How the engine watches a cgroup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Length of the sliding window over which signals are computed. Shorter ones flap on bursts.
    #[serde(with = "super::ns")]
    pub window: Duration,
    /// Evidence that makes a livelock: for how long the rule has to hold beyond doubt.
    #[serde(with = "super::ns")]
    pub hold: Duration,
    /// So many ticks of a second in a row without evidence end a suspicion; fewer only delay it.
    pub grace_ticks: u32,
    /// After an action on a cgroup nothing is decided about it for this long.
    #[serde(with = "super::ns")]
    pub post_action_delay: Duration,
    /// Size of a page in bytes.
    pub page_size: u64,
    pub thresholds: Thresholds,
}

/// How much evidence is asked for before a cgroup is called a livelock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// A window of 3 s and 5 s of evidence, some ten in all: for jobs that are cheap to run again.
    Fast,
    /// 7 s, some fifteen in all.
    #[default]
    Default,
    /// 55 s, a minute in all: for jobs that thrash at times and recover.
    Careful,
}

impl Profile {
    #[must_use]
    pub const fn hold(self) -> Duration {
        Duration::from_secs(match self {
            Self::Fast => 5,
            Self::Default => 7,
            Self::Careful => 55,
        })
    }

    #[must_use]
    pub const fn window(self) -> Duration {
        Duration::from_secs(match self {
            Self::Fast => 3,
            Self::Default | Self::Careful => 5,
        })
    }
}

impl Settings {
    /// The defaults, with the window and the evidence that a profile asks for.
    #[must_use]
    pub fn profile(profile: Profile) -> Self {
        Self { window: profile.window(), hold: profile.hold(), ..Self::default() }
    }

    /// What is wrong between settings that are right each by itself.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        // A counter that jumps stays in the window for as long as that is, and a tick more.
        (self.hold < self.window + Duration::from_secs(2)).then(|| {
            format!(
                "evidence of {} s (hold_s) has to be two seconds longer than the window of {} s (window_s), or one odd reading would do",
                self.hold.as_secs(),
                self.window.as_secs()
            )
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: Profile::Default.window(),
            hold: Profile::Default.hold(),
            grace_ticks: 3,
            post_action_delay: Duration::from_secs(30),
            page_size: 4096,
            thresholds: Thresholds::default(),
        }
    }
}

/// Where a term begins to hold, and where it leaves no doubt.
///
/// Written as `{ from = 0.5, sure = 0.8 }`, or as one number for both.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Written")]
pub struct Ramp {
    pub from: f64,
    pub sure: f64,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    One(f64),
    Two { from: f64, sure: f64 },
}

impl From<Written> for Ramp {
    fn from(written: Written) -> Self {
        match written {
            Written::One(both) => Self { from: both, sure: both },
            Written::Two { from, sure } => Self { from, sure },
        }
    }
}

/// Confidence of a term that has only just begun to hold: a hang that is no clearer than this takes three times as long
/// to be called one.
const LEAST_CONFIDENCE: f64 = 1.0 / 3.0;

impl Ramp {
    const fn new(from: f64, sure: f64) -> Self {
        Self { from, sure }
    }

    /// A threshold that is met or not.
    const fn plain(both: f64) -> Self {
        Self::new(both, both)
    }

    /// Where it takes so much of it.
    #[must_use]
    pub fn times(self, factor: f64) -> Self {
        Self::new(self.from * factor, self.sure * factor)
    }

    /// 0 below `from`, [`LEAST_CONFIDENCE`] at it, 1 at `sure` and above.
    #[must_use]
    pub fn confidence(&self, value: f64) -> f64 {
        if value.is_nan() || value < self.from {
            0.0
        } else if value >= self.sure || self.sure <= self.from {
            1.0
        } else {
            LEAST_CONFIDENCE + (1.0 - LEAST_CONFIDENCE) * (value - self.from) / (self.sure - self.from)
        }
    }
}

/// What each term of the rule asks for. [`KNOBS`] says what each is for, and why it is what it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Thresholds {
    pub at_limit: Ramp,
    pub own_hits: Ramp,
    pub unreclaimable: Ramp,
    pub refault_share: Ramp,
    pub text_returns_per_s: Ramp,
    pub text_return_share: Ramp,
    pub crowded: Ramp,
    pub turnover_per_s: Ramp,
    pub scarce_turnover_per_s: Ramp,
    pub denied_cpus: Ramp,
    pub faulting: Ramp,
    pub brief_turnover_per_s: Ramp,
    pub faulting_brief: Ramp,
    pub faulting_beside: Ramp,
    pub faulting_utterly: Ramp,
    pub text_read: Ramp,
    pub text_faults_per_s: Ramp,
    pub text_turnover_per_s: Ramp,
    pub blind_turnover_per_s: Ramp,
    pub lost: Ramp,
    pub lost_utterly: Ramp,
    pub frantic_turnover_per_s: Ramp,
    pub lost_frantic: Ramp,
    pub least_busy: Ramp,
    pub least_busy_without_io: Ramp,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            at_limit: Ramp::plain(0.95),
            own_hits: Ramp::plain(0.5),
            unreclaimable: Ramp::new(0.25, 0.60),
            refault_share: Ramp::new(0.3, 0.7),
            text_returns_per_s: Ramp::new(5.0, 30.0),
            text_return_share: Ramp::new(0.35, 0.75),
            crowded: Ramp::plain(0.80),
            turnover_per_s: Ramp::new(0.05, 0.15),
            scarce_turnover_per_s: Ramp::new(0.12, 0.25),
            denied_cpus: Ramp::plain(0.6),
            faulting: Ramp::new(0.75, 0.9),
            brief_turnover_per_s: Ramp::plain(2.0),
            faulting_brief: Ramp::new(0.55, 0.8),
            faulting_beside: Ramp::new(0.7, 0.9),
            faulting_utterly: Ramp::new(0.92, 0.98),
            text_read: Ramp::plain(0.5),
            text_faults_per_s: Ramp::new(20.0, 100.0),
            text_turnover_per_s: Ramp::new(0.15, 0.5),
            blind_turnover_per_s: Ramp::new(0.4, 0.5),
            lost: Ramp::new(0.85, 0.95),
            lost_utterly: Ramp::new(0.95, 0.98),
            frantic_turnover_per_s: Ramp::plain(10.0),
            lost_frantic: Ramp::new(0.65, 0.80),
            least_busy: Ramp::plain(0.5),
            least_busy_without_io: Ramp::plain(0.25),
        }
    }
}

/// A threshold as an operator sees it.
#[derive(Clone, Copy, Debug)]
pub struct Knob {
    pub name: &'static str,
    pub unit: &'static str,
    /// What makes sense.
    pub range: (f64, f64),
    /// Whether it may have two numbers; a plain one has one.
    pub graded: bool,
    /// What it measures, and the reason for the default.
    pub why: &'static str,
    get: fn(&Thresholds) -> Ramp,
    set: fn(&mut Thresholds) -> &mut Ramp,
}

impl Knob {
    #[must_use]
    pub fn get(&self, thresholds: &Thresholds) -> Ramp {
        (self.get)(thresholds)
    }

    pub fn set(&self, thresholds: &mut Thresholds, ramp: Ramp) {
        *(self.set)(thresholds) = ramp;
    }
}

macro_rules! knobs {
    ($($kind:ident $name:ident, $unit:literal, $least:literal..=$most:literal, $why:literal;)+) => {
        /// Every threshold of the rule.
        pub const KNOBS: &[Knob] = &[$(Knob {
            name: stringify!($name),
            unit: $unit,
            range: ($least, $most),
            graded: knobs!($kind),
            why: $why,
            get: |thresholds| thresholds.$name,
            set: |thresholds| &mut thresholds.$name,
        }),+];
    };
    (graded) => { true };
    (plain) => { false };
}

knobs! {
    plain at_limit, "share of the limit", 0.5..=1.0,
        "Mean memory.current. A livelock sits at its limit all the time; below it reclaim has no reason to run.";
    plain own_hits, "share of the hits in the subtree", 0.0..=1.0,
        "Whether it is this limit that is hit, or mostly smaller ones below it. What a pod shows is the sum of its \
         containers: one that thrashes at its own limit must not be taken for a hang of the pod, for which the container \
         with the most memory would be ended. Where the containers have room below their limits it is 1.";
    graded unreclaimable, "share of the limit", 0.0..=1.0,
        "anon + shmem: what reclaim can't touch without swap. Hangs had 24 % and more when they began, mostly over 90 % \
         later; programs that only read files have next to none.";
    graded refault_share, "refaults for each page read in", 0.0..=2.0,
        "Whether what is freed is wanted again. Hangs 0.4 to 1, the less the more text there is that was never read before. \
         Necessary, and alone worth nothing: any loop over a file \
         larger than its limit has 1 too.";
    graded text_returns_per_s, "1/s", 0.0..=1_000_000.0,
        "Major faults on program text that had one less than 32 s ago. Reading, scanning and databases have none, however \
         large; hangs 60 on a disk of 150 IOPS, 1000 on one of 3000.";
    graded text_return_share, "share of major faults on text", 0.0..=1.0,
        "A start-up faults in much text, but each piece of it once. In hangs that last 65 to 99 % comes back within 32 s.";
    plain crowded, "share of the limit", 0.0..=1.0,
        "With so much anon + shmem refaulted pages of text, for each page read in, count as returns too: on a slow disk they \
         come back long before the same text has its second fault. Where the tracer can't tell them from others, all \
         refaults are taken for text as far as major faults are on it, which is right where hardly anything else is left.";
    graded turnover_per_s, "1/s", 0.0..=1000.0,
        "How often the page cache is replaced as a whole: 1 / mean lifetime of a cached page. Pages that live for 20 s are \
         not thrashed. Hangs 0.09 to 8, and 0.03 on the slowest disk (see lost_utterly). The one that was missed had 0.02 \
         to 0.03, and 0.014 while it did half of its work.";
    graded scarce_turnover_per_s, "1/s", 0.0..=1000.0,
        "What takes its place where tasks wait for the disk as much of the time as lost asks for, or are denied a CPU: somebody \
         does so while work goes on, too. Hangs 0.26 and more, and 0.03 in one on a slow disk that is missed for it; services \
         that went on at a third to three fifths of their speed 0.02 to 0.08. See faulting_utterly.";
    plain denied_cpus, "share of the time", 0.0..=1.0,
        "From when on that is so: the time in which all that could run are denied a CPU, by cpu.max or by other cgroups (full of \
         cpu.pressure; without PSI throttled_usec of cpu.stat). A service that mostly sleeps, in a tenth of a CPU, went on at two fifths of its speed and spent nine \
         tenths of that CPU in the kernel.";
    graded faulting, "share of their time", 0.0..=1.0,
        "How much of their time the tasks that have faults on mapped files spend in these (filemap_fault()); the rest they \
         compute, sleep, or wait for something else, of which no more than a second counts each time. Hangs 0.84 to 0.99; \
         four threads that took turns and went on at a third of their speed 0.69, sixteen that did so beside one that filled a \
         tmpfs 0.5. Where all that could run are denied a CPU it takes less, by as much of the time as that is, at most half: a \
         hang with half a CPU had 0.46.";
    plain brief_turnover_per_s, "1/s", 0.0..=1000.0,
        "With the page cache replaced so often, next to nothing but text left in it and nearly all of that coming back, not all of \
         the time between two faults is work: caches are filled again, and instructions tried again. There the time with just \
         one task in a fault counts as well, unless text_read says that somebody else reads files: where the others wait for \
         it (a lock, Python's GIL), each of sixteen threads spends 0.03 to 0.05 of its time in faults.";
    graded faulting_brief, "share of their time", 0.0..=1.0,
        "What takes the place of faulting then, but for faulting_beside. Three python processes at a fiftieth of their speed had \
         0.65, with pages that lived 0.04 s, a node process 0.7 to 0.8, sixteen threads that took turns 0.7 all together.";
    graded faulting_beside, "share of their time", 0.0..=1.0,
        "The same where the other signals may tell of others: where text_read does not \
         hold, or a task waits for the disk as much of the time as lost asks for; and with so much of it turnover_per_s will \
         do where tasks are denied a CPU. Four threads that went on at 84 % beside a stream 0.1 to 0.25, four that hung there \
         0.99; with a fifth of a CPU a hang had 0.8, and with a tenth a service at 38 % of its speed 0.63 at most.";
    graded faulting_utterly, "share of their time", 0.0..=1.0,
        "With so much of it, pages may live long where the disk or the CPUs are scarce, and it is a hang all the same: 0.99 on a \
         slow disk. Threads that mostly sleep, there, 0.3 to 0.53 at 56 % of their speed, and up to 0.85 at a third of it.";
    plain text_read, "share of the pages read in", 0.0..=1.0,
        "With less than this of it text that was thrown out before, somebody else reads files, and waits, and is in the kernel \
         for that.";
    graded text_faults_per_s, "1/s", 0.0..=1_000_000.0,
        "Where the tracer can't tell which text comes back: faults on text, or major faults of any kind.";
    graded text_turnover_per_s, "1/s", 0.0..=1000.0,
        "... and how often the page cache is replaced, which then has to say more: hangs mostly 0.2 to 8.";
    graded blind_turnover_per_s, "1/s", 0.0..=1000.0,
        "What takes its place where nobody knows who waits in faults, either (no eBPF): sixteen threads that took turns, and went \
         on at three quarters of their speed, had 0.2 to 0.35.";
    graded lost, "share of its time", 0.0..=1.0,
        "(kernel time + waiting for memory or disk) / (user time + kernel time + waiting), the latter least_busy at least, \
         and where cpu.pressure tells, the time in which no task waits for a CPU. Hangs 0.91 to 1. Programs whose text is \
         thrown out and comes back just as often, but which go on at a third or more of their speed: 0.35 to 0.83; 0.9 in \
         two that went on at half of theirs and 0.99 in services on a slow disk, which are spared by turnover alone.";
    graded lost_utterly, "share of its time", 0.0..=1.0,
        "With so much lost to the kernel and to waiting for memory, and the disk not waited for all the time, pages may live \
         long and it is a hang all the same. One of four that hung on one CPU was now above 0.98 and now at 0.97; with a hard \
         edge there its verdict came seven seconds later.";
    plain frantic_turnover_per_s, "1/s", 0.0..=1000.0,
        "With the page cache replaced so often, next to nothing but text left in it and nearly all of that coming back, time \
         in user mode is not work either: three python processes at 6.6 % of theirs still spent 0.36 CPUs there, with pages \
         that lived 0.05 s. Programs that went on at a third of their speed or more had 0.4/s at most.";
    graded lost_frantic, "share of its time", 0.0..=1.0,
        "What takes the place of lost then. That hang had lost 0.69 to 0.75.";
    plain least_busy, "CPUs and waiting", 0.0..=4.0,
        "Less than this is no work that could be lost: a service that sleeps most of the time, and reads its text in \
         whenever it wakes up, went on at 98 % of its work, and without this had lost 0.92 to 0.95 of it. Where cpu.pressure \
         tells who waits for a CPU, all of the rest of the time counts instead: of eight threads that mostly sleep, on a slow \
         disk, one waited for it two fifths of the time, at nine tenths of their work, and had lost 0.97 of half a CPU.";
    plain least_busy_without_io, "CPUs and waiting", 0.0..=4.0,
        "The same where waiting for the disk can't be seen (no PSI).";
}
