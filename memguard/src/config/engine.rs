//! `[engine]`: how much evidence is asked for. The thresholds and the reasons for them are the engine's own.

use toml::{Table, Value};

use super::{
    Problems, comment, number,
    setting::{self, Kind, Other, Setting},
};
use crate::engine::{KNOBS, Profile, Ramp, Settings};

const PROFILE: &str = "profile";

pub(super) const SETTINGS: &[Setting<Settings>] = &[
    Setting {
        name: PROFILE,
        kind: Kind::Other(Other {
            takes: setting::choices::<Profile>,
            // Before all else, by `read`.
            read: |_, _, _, _| {},
            // Its values are written instead.
            write: |_| None,
            unsaid: "`\"default\"`",
            example: "",
        }),
        why: "How much evidence is asked for: window_s 3 and hold_s 5, 5 and 7, 5 and 55. A verdict comes some 10, 15 or 60 \
              seconds after a hang began. What else is said here is over it.",
    },
    Setting {
        name: "window_s",
        kind: Kind::Seconds { range: (2, 60), place: |settings| &mut settings.window },
        why: "Length of the sliding window over which signals are computed. Shorter ones flap on bursts.",
    },
    Setting {
        name: "hold_s",
        kind: Kind::Seconds { range: (1, 3600), place: |settings| &mut settings.hold },
        why: "Evidence that makes a livelock: for how long the rule has to hold beyond doubt. Two seconds more than window_s \
              at least, or one odd reading would do.",
    },
    Setting {
        name: "post_action_delay_s",
        kind: Kind::Seconds { range: (0, 3600), place: |settings| &mut settings.post_action_delay },
        why: "After an action on a cgroup nothing is decided about it for this long.",
    },
    Setting {
        name: "grace_ticks",
        kind: Kind::Whole { range: (1, 60), place: |settings| &mut settings.grace_ticks },
        why: "So many ticks of a second in a row without evidence end a suspicion; fewer only delay it.",
    },
    Setting {
        name: "thresholds",
        kind: Kind::Other(Other {
            takes: || "a table, `[engine.thresholds]`: see below".to_owned(),
            read: |settings, name, value, problems| match value.as_table() {
                Some(table) => thresholds(table, settings, problems),
                None => problems.add(name, value, "write it as a table, [engine.thresholds]"),
            },
            // They are written after all else, as a table of their own.
            write: |_| None,
            unsaid: "each its own",
            example: "",
        }),
        why: "What each term of the rule asks for.",
    },
];

pub(super) fn read(table: &Table, problems: &mut Problems) -> Settings {
    let mut settings = Settings::default();
    // First the profile, whatever the order in the file: what else is said overrides it.
    if let Some(value) = table.get(PROFILE)
        && let Some(profile) = setting::one_of(&format!("engine.{PROFILE}"), value, problems)
    {
        settings = Settings::profile(profile);
    }
    setting::read("engine", SETTINGS, table, &mut settings, problems);
    settings
}

fn thresholds(table: &Table, settings: &mut Settings, problems: &mut Problems) {
    for (key, value) in table {
        let name = format!("engine.thresholds.{key}");
        let Some(knob) = KNOBS.iter().find(|knob| knob.name == key) else {
            let known: Vec<_> = KNOBS.iter().map(|knob| knob.name).collect();
            problems.unknown(&name, &known);
            continue;
        };
        let (least, most) = knob.range;
        let within = |number: f64| (least..=most).contains(&number);
        match ramp(value) {
            Some(ramp) if !knob.graded && ramp.from.to_bits() != ramp.sure.to_bits() => {
                problems.add(&name, value, "it is met or not: write one number");
            }
            Some(ramp) if within(ramp.from) && within(ramp.sure) && ramp.from <= ramp.sure => {
                knob.set(&mut settings.thresholds, ramp);
            }
            Some(ramp) if ramp.from > ramp.sure => problems.add(&name, value, "`from` may not be above `sure`"),
            _ => problems.add(
                &name,
                value,
                &format!(
                    "write {{ from = A, sure = B }}, or one number for both, from {least} to {most} ({})",
                    knob.unit
                ),
            ),
        }
    }
}

/// `{ from = A, sure = B }` with nothing else in it, or a number.
fn ramp(value: &Value) -> Option<Ramp> {
    match value {
        Value::Table(table) if table.len() == 2 => {
            Some(Ramp { from: number(table.get("from")?)?, sure: number(table.get("sure")?)? })
        }
        other => number(other).map(|both| Ramp { from: both, sure: both }),
    }
}

/// As it stands in a file.
pub(super) fn shown(ramp: Ramp, graded: bool) -> String {
    let Ramp { from, sure } = ramp;
    if graded { format!("{{ from = {from}, sure = {sure} }}") } else { from.to_string() }
}

/// The settings as a part of a configuration file.
pub(super) fn written(settings: &Settings) -> String {
    let mut lines = vec!["[engine]".to_owned()];
    lines.extend(setting::written(SETTINGS, settings));
    lines.push("\n[engine.thresholds]".to_owned());
    for knob in KNOBS {
        lines.extend(comment(&format!("{} ({})", knob.why, knob.unit)));
        lines.push(format!("{} = {}", knob.name, shown(knob.get(&settings.thresholds), knob.graded)));
    }
    lines.join("\n") + "\n"
}
