//! A key of the file as data: its name, what may stand there, where it goes, and what it is for.
//!
//! Each section is a list of these. What is read, what is refused, what `memguard config show` writes and what the
//! reference tells all come from the one list, so there is no key that is taken and not told.

use std::time::Duration;

use clap::ValueEnum;
use toml::{Table, Value};

use super::{Problems, comment, number};

/// A key of a section whose settings are a `T`.
pub(super) struct Setting<T: 'static> {
    pub(super) name: &'static str,
    pub(super) kind: Kind<T>,
    /// What it is for, and the reason for the default where there is one to tell.
    pub(super) why: &'static str,
}

/// What may stand there, and where it goes.
pub(super) enum Kind<T: 'static> {
    /// A whole number of seconds within a range.
    Seconds { range: (u32, u32), place: fn(&mut T) -> &mut Duration },
    /// A whole number within a range.
    Whole { range: (u32, u32), place: fn(&mut T) -> &mut u32 },
    /// A number within a range.
    Number { range: (f64, f64), place: fn(&mut T) -> &mut f64 },
    /// `true` or `false`.
    Switch { place: fn(&mut T) -> &mut bool },
    /// All else.
    Other(Other<T>),
}

/// A key that has a way of its own to be read.
pub(super) struct Other<T: 'static> {
    /// What may stand there, for people: for a cell of a table.
    pub(super) takes: fn() -> String,
    pub(super) read: fn(&mut T, &str, &Value, &mut Problems),
    /// `None` where it says nothing.
    pub(super) write: fn(&T) -> Option<Value>,
    /// What stands there if it is not said, in words, where that is no value.
    pub(super) unsaid: &'static str,
    /// A value that is right, for where it says nothing.
    pub(super) example: &'static str,
}

impl<T: Clone> Setting<T> {
    pub(super) fn read(&self, into: &mut T, name: &str, value: &Value, problems: &mut Problems) {
        let whole = |least: u32, most: u32| {
            let count = value.as_integer().and_then(|count| u32::try_from(count).ok());
            count.filter(|count| (least..=most).contains(count))
        };
        match &self.kind {
            Kind::Seconds { range: (least, most), place } => match whole(*least, *most) {
                Some(seconds) => *place(into) = Duration::from_secs(seconds.into()),
                None => problems.add(name, value, &format!("write a whole number of seconds from {least} to {most}")),
            },
            Kind::Whole { range: (least, most), place } => match whole(*least, *most) {
                Some(count) => *place(into) = count,
                None => problems.add(name, value, &format!("write a whole number from {least} to {most}")),
            },
            Kind::Number { range: (least, most), place } => {
                match number(value).filter(|number| (least..=most).contains(&number)) {
                    Some(number) => *place(into) = number,
                    None => problems.add(name, value, &format!("write a number from {least} to {most}")),
                }
            }
            Kind::Switch { place } => match value.as_bool() {
                Some(on) => *place(into) = on,
                None => problems.add(name, value, "write true or false"),
            },
            Kind::Other(other) => (other.read)(into, name, value, problems),
        }
    }

    /// Its value; `None` where it says nothing.
    pub(super) fn value(&self, settings: &T) -> Option<Value> {
        // A place is where it is written as well, so one is looked at in a copy.
        let mut copy = settings.clone();
        Some(match &self.kind {
            Kind::Seconds { place, .. } => i64::try_from(place(&mut copy).as_secs()).unwrap_or(i64::MAX).into(),
            Kind::Whole { place, .. } => i64::from(*place(&mut copy)).into(),
            Kind::Number { place, .. } => Value::Float(*place(&mut copy)),
            Kind::Switch { place } => Value::Boolean(*place(&mut copy)),
            Kind::Other(other) => return (other.write)(settings),
        })
    }

    /// What may stand there, for people.
    pub(super) fn takes(&self) -> String {
        match &self.kind {
            Kind::Seconds { range: (least, most), .. } => format!("whole seconds, {least} to {most}"),
            Kind::Whole { range: (least, most), .. } => format!("a whole number, {least} to {most}"),
            Kind::Number { range: (least, most), .. } => format!("a number, {least} to {most}"),
            Kind::Switch { .. } => "`true` or `false`".to_owned(),
            Kind::Other(other) => (other.takes)(),
        }
    }

    /// What stands there if it is not said, for people.
    pub(super) fn default(&self, defaults: &T) -> String {
        match (self.value(defaults), &self.kind) {
            (_, Kind::Other(Other { unsaid, .. })) if !unsaid.is_empty() => (*unsaid).to_owned(),
            (Some(value), _) => format!("`{value}`"),
            (None, _) => "none".to_owned(),
        }
    }

    fn example(&self) -> &'static str {
        match &self.kind {
            Kind::Other(other) => other.example,
            _ => "",
        }
    }
}

/// Reads a section. What is not a key of it is told with all that are.
pub(super) fn read<T: Clone>(
    section: &str,
    settings: &[Setting<T>],
    table: &Table,
    into: &mut T,
    problems: &mut Problems,
) {
    for (key, value) in table {
        let name = format!("{section}.{key}");
        match settings.iter().find(|setting| setting.name == key) {
            Some(setting) => setting.read(into, &name, value, problems),
            None => problems.unknown(&name, &names(settings)),
        }
    }
}

pub(super) fn names<T>(settings: &[Setting<T>]) -> Vec<&'static str> {
    settings.iter().map(|setting| setting.name).collect()
}

/// Each key with what it is for, as lines of a file; what says nothing as a comment with an example.
pub(super) fn written<T: Clone>(all: &[Setting<T>], settings: &T) -> Vec<String> {
    let mut lines = Vec::new();
    for setting in all {
        let line = match (setting.value(settings), setting.example()) {
            (Some(value), _) => format!("{} = {value}", setting.name),
            (None, "") => continue,
            (None, example) => format!("# {} = {example}", setting.name),
        };
        lines.extend(comment(setting.why));
        lines.push(line);
    }
    lines
}

/// The names of an enum's values, quoted.
pub(super) fn choices<C: ValueEnum>() -> String {
    let names: Vec<_> = C::value_variants()
        .iter()
        .filter_map(ValueEnum::to_possible_value)
        .map(|value| format!("`\"{}\"`", value.get_name()))
        .collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

/// One of an enum's values, by its name.
pub(super) fn one_of<C: ValueEnum>(name: &str, value: &Value, problems: &mut Problems) -> Option<C> {
    let read = value.as_str().and_then(|text| C::from_str(text, false).ok());
    if read.is_none() {
        problems.add(name, value, &format!("write {}", choices::<C>().replace('`', "")));
    }
    read
}

/// The name of an enum's value, as it stands in a file.
pub(super) fn name_of<C: ValueEnum>(choice: &C) -> Value {
    Value::String(choice.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default())
}
