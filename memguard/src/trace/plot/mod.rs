//! A recording as a picture: one self-contained SVG, light or dark as the reader's screen is.

pub(crate) mod svg;

use crate::engine::{
    Engine, Observation, Ramp, Settings, Signals, State, UnitId,
    baselines::{Baseline, Watch},
};

use self::svg::{Line, Panel, Picture, Shape};
use super::Entry;

/// What one cgroup went through.
struct Course {
    cgroup: String,
    /// Seconds since the first sample of the recording, and what the engine made of it then.
    points: Vec<(f64, Observation)>,
    /// When other people's rules would have acted.
    others: Vec<(f64, Baseline)>,
}

/// Draws the cgroup that came closest to a livelock. `None` if the recording has no samples.
#[must_use]
pub fn plot(entries: &[Entry], settings: Option<&Settings>, title: &str) -> Option<String> {
    let recorded = entries.iter().find_map(|entry| match entry {
        Entry::Start(start) => Some(start.settings.clone()),
        _ => None,
    });
    let settings = settings.cloned().or(recorded).unwrap_or_default();
    let course = closest(courses(entries, &settings))?;
    Some(drawn(&course, &settings, title))
}

fn courses(entries: &[Entry], settings: &Settings) -> Vec<(UnitId, Course)> {
    let mut engine = Engine::new(settings.clone());
    let mut watches = Baseline::ALL.map(|rule| (rule, Watch::new(rule)));
    let mut names: Vec<(UnitId, String)> = Vec::new();
    let mut courses: Vec<(UnitId, Course)> = Vec::new();
    let mut began = None;
    for entry in entries {
        match entry {
            Entry::Watch { unit, cgroup } => names.push((*unit, cgroup.clone())),
            Entry::Sample { unit, sample, .. } => {
                let at = sample.at.saturating_sub(*began.get_or_insert(sample.at)).as_secs_f64();
                let place = courses.iter().position(|(id, _)| id == unit).unwrap_or_else(|| {
                    let name = names.iter().rfind(|(id, _)| id == unit).map(|(_, name)| name.clone());
                    let cgroup = name.unwrap_or_else(|| format!("cgroup {unit}"));
                    courses.push((*unit, Course { cgroup, points: Vec::new(), others: Vec::new() }));
                    courses.len() - 1
                });
                let course = &mut courses[place].1;
                for (rule, watch) in &mut watches {
                    if watch.observe(*unit, sample) {
                        course.others.push((at, *rule));
                    }
                }
                course.points.push((at, engine.observe(*unit, (**sample).clone())));
            }
            Entry::Acted { unit, at } => engine.acted(*unit, *at),
            Entry::Forget { unit } => engine.forget(*unit),
            Entry::Start(_) | Entry::Lost { .. } => {}
        }
    }
    courses
}

/// The one with the most time in the worst state.
fn closest(courses: Vec<(UnitId, Course)>) -> Option<Course> {
    courses.into_iter().map(|(_, course)| course).max_by_key(|course| {
        let in_state = |state| course.points.iter().filter(|(_, point)| point.state == state).count();
        (in_state(State::Livelock), in_state(State::Suspect), in_state(State::Pressed), course.points.len())
    })
}

fn drawn(course: &Course, settings: &Settings, title: &str) -> String {
    let t = &settings.thresholds;
    let line = |name: &'static str, color: usize, value: fn(&Signals) -> Option<f64>| Line {
        name,
        color,
        points: course.points.iter().filter_map(|(at, point)| Some((*at, value(point.signals.as_ref()?)?))).collect(),
    };
    let share = |name, lines, ramps: &[Ramp]| Panel {
        name,
        unit: "%",
        scale: 100.0,
        most: Some(1.0),
        lines,
        ramps: ramps.to_vec(),
    };
    let rate =
        |name, lines, ramps: &[Ramp]| Panel { name, unit: "/s", scale: 1.0, most: None, lines, ramps: ramps.to_vec() };
    let panels = vec![
        share(
            "Memory, of the limit",
            vec![
                line("in use", 0, |s| Some(s.at_limit)),
                line("can't be reclaimed (anon + shmem)", 1, |s| Some(s.unreclaimable)),
            ],
            &[t.unreclaimable],
        ),
        rate(
            "Major faults on program text",
            vec![
                line("all", 0, |s| s.text_faults_per_s.or(Some(s.major_faults_per_s))),
                line("text that was there 32 s ago", 1, |s| s.text_returns_per_s),
            ],
            &[],
        ),
        share(
            "Comes back",
            vec![
                line("of the pages read", 0, |s| s.refault_share.map(|share| share.min(1.0))),
                line("of the text read", 1, |s| s.text_return_share),
                line("text, of what comes back", 2, |s| s.text_of_refaults),
            ],
            &[t.text_return_share],
        ),
        share(
            "Time",
            vec![
                line("lost", 1, |s| s.lost),
                line("a task waits", 0, |s| s.waiting),
                line("computing, of a CPU", 2, |s| s.user_cpus),
                line("of tasks with faults, in these", 3, |s| s.faulting),
            ],
            &[t.lost],
        ),
    ];
    let states = course.points.iter().map(|(at, point)| (*at, point.state)).collect();
    let verdicts = course.points.iter().filter(|(_, point)| point.verdict.is_some()).map(|(at, _)| *at).collect();
    let others = course.others.iter().map(|(at, rule)| (*at, rule.name())).collect();
    Picture {
        shape: Shape::PAGE,
        title: title.to_owned(),
        subtitle: course.cgroup.clone(),
        states,
        verdicts,
        others,
        panels,
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        engine::{Sample, fixture::hang},
        trace::Decided,
    };

    fn entries() -> Vec<Entry> {
        let mut engine = Engine::new(Settings::default());
        let mut entries = vec![Entry::Watch { unit: UnitId(3), cgroup: "pod<1>&\"x\".scope".to_owned() }];
        for second in 0..40 {
            let sample: Sample = hang(second);
            let decided = Decided::of(&engine.observe(UnitId(3), sample.clone()));
            entries.push(Entry::Sample { unit: UnitId(3), sample: Box::new(sample), decided });
        }
        entries
    }

    #[test]
    fn a_livelock_is_drawn_with_its_verdict_and_every_name_escaped() {
        let svg = plot(&entries(), None, "a & b").unwrap();
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        for text in ["a &amp; b", "pod&lt;1&gt;&amp;&quot;x&quot;.scope", "verdict", "report-trigger", "lost"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
        well_formed(&svg);
    }

    #[test]
    fn nothing_to_draw_is_nothing() {
        assert_eq!(plot(&[], None, "x"), None);
    }

    /// Every tag that is opened is closed, in order.
    fn well_formed(xml: &str) {
        let mut open: Vec<&str> = Vec::new();
        for tag in xml.split('<').skip(1) {
            let (tag, _) = tag.split_once('>').unwrap();
            if let Some(name) = tag.strip_prefix('/') {
                assert_eq!(open.pop(), Some(name));
            } else if !tag.ends_with('/') {
                open.push(tag.split_whitespace().next().unwrap());
            }
        }
        assert!(open.is_empty(), "{open:?}");
    }
}
