//! Two formats of a log line: a sentence for people, an object for machines.

use std::fmt::{self, Write as _};

use serde_json::value::RawValue;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::Writer,
        time::{FormatTime as _, SystemTime},
    },
    registry::LookupSpan,
};

use super::escaped;

/// The field in which [`emit`](super::emit) hands over its JSON.
const RECORD: &str = "record";

/// One line: time, level, message, fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    pub(super) color: bool,
}

/// One JSON object: `time`, `level`, `message`, and the members of the record or the fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Json;

#[derive(Default)]
struct Fields {
    message: String,
    record: Option<String>,
    others: Vec<(&'static str, serde_json::Value)>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => self.others.push((name, format!("{value:?}").into())),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            RECORD => self.record = Some(value.to_owned()),
            name => self.others.push((name, value.into())),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.push((field.name(), value.into()));
    }
}

impl Fields {
    fn of(event: &Event<'_>) -> Self {
        let mut fields = Self::default();
        event.record(&mut fields);
        fields
    }

    /// A message that comes with a record was made in `events`, which escapes what others name; it may have lines. Any other
    /// one can have a path in it, which a job may have named.
    fn shown_message(&self) -> String {
        if self.record.is_some() { self.message.clone() } else { escaped(&self.message) }
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let fields = Fields::of(event);
        let level = *event.metadata().level();
        let (on, off) = match level {
            _ if !self.color => ("", ""),
            Level::ERROR => ("\x1b[31m", "\x1b[0m"),
            Level::WARN => ("\x1b[33m", "\x1b[0m"),
            Level::INFO => ("\x1b[32m", "\x1b[0m"),
            _ => ("\x1b[2m", "\x1b[0m"),
        };
        SystemTime.format_time(&mut writer)?;
        let message = fields.shown_message();
        write!(writer, " {on}{level:5}{off} {message}")?;
        for (name, value) in &fields.others {
            // JSON escapes some of it, and what is left is escaped here.
            write!(writer, " {name}={}", escaped(&value.to_string()))?;
        }
        writeln!(writer)
    }
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let fields = Fields::of(event);
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut line = String::with_capacity(256);
        let member = |line: &mut String, name: &str, value: &serde_json::Value| {
            let separator = if line.is_empty() { '{' } else { ',' };
            write!(line, "{separator}{}:{value}", serde_json::Value::from(name))
        };
        member(&mut line, "time", &time.into())?;
        member(&mut line, "level", &event.metadata().level().as_str().into())?;
        member(&mut line, "message", &fields.shown_message().into())?;
        for (name, value) in &fields.others {
            // Who reads the JSON may show what is in it as it is.
            match value.as_str() {
                Some(text) => member(&mut line, name, &escaped(text).into())?,
                None => member(&mut line, name, value)?,
            }
        }
        // The record is an object already. Anything else in its place would break the line, so it is checked.
        if let Some(record) = fields.record.and_then(|record| RawValue::from_string(record).ok()) {
            let members = record.get().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
            if let Some(members) = members.filter(|members| !members.is_empty()) {
                write!(line, ",{members}")?;
            }
        }
        writeln!(writer, "{line}}}")
    }
}

#[cfg(test)]
mod tests {
    use memguard_stubs::captured::Captured;

    use super::*;

    fn logged<F>(format: F, log: impl FnOnce()) -> String
    where
        F: FormatEvent<tracing_subscriber::Registry, tracing_subscriber::fmt::format::DefaultFields>
            + Send
            + Sync
            + 'static,
    {
        let buffer = Captured::default();
        let subscriber = tracing_subscriber::fmt().event_format(format).with_writer(buffer.writer()).finish();
        tracing::subscriber::with_default(subscriber, log);
        buffer.text()
    }

    #[test]
    fn a_line_of_json_is_one_object_with_the_record_in_it() {
        let line = logged(Json, || {
            tracing::warn!(
                record = r#"{"kind":"verdict","signals":{"at_limit":0.99}}"#,
                count = 3_u64,
                "it \"hangs\"\nhere"
            );
        });
        assert_eq!(line.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["level"], "WARN");
        assert_eq!(value["message"], "it \"hangs\"\nhere");
        assert_eq!(value["kind"], "verdict");
        assert_eq!(value["signals"]["at_limit"], 0.99);
        assert_eq!(value["count"], 3);
        assert!(value["time"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn a_record_that_is_no_json_does_not_break_the_line() {
        let line = logged(Json, || tracing::info!(record = "}{", "still fine"));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["message"], "still fine");
    }

    #[test]
    fn a_message_with_a_path_in_it_stays_on_its_line() {
        let line = logged(Text { color: false }, || tracing::warn!("can't read a.scope/x\n2026 KILLED\x1b[2K"));
        assert_eq!(line.lines().count(), 1);
        assert!(line.contains("x\\n2026 KILLED\\u{1b}[2K"), "{line}");
    }

    #[test]
    fn what_a_job_named_is_escaped_in_fields_and_messages_of_both_formats() {
        let named = "a.scope/x\u{9b}2K\u{202e}\u{2028}\n2026 KILLED";
        let log = || tracing::warn!(error = %named, path = named, "can't read {named}");
        let line = logged(Text { color: false }, log);
        assert_eq!(line.lines().count(), 1);
        assert!(!line.contains(['\u{9b}', '\u{202e}', '\u{2028}']), "{line}");
        assert!(line.contains("error=\"a.scope/x\\u{9b}2K\\u{202e}\\u{2028}\\n2026 KILLED\""), "{line}");
        let line = logged(Json, log);
        assert!(!line.contains(['\u{9b}', '\u{202e}', '\u{2028}']), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let shown = "a.scope/x\\u{9b}2K\\u{202e}\\u{2028}\\n2026 KILLED";
        assert_eq!((&value["error"], &value["path"]), (&shown.into(), &shown.into()));
        assert_eq!(value["message"], format!("can't read {shown}"));
    }

    #[test]
    fn a_line_of_text_leaves_the_record_out() {
        let line = logged(Text { color: false }, || tracing::info!(record = "{}", path = "/x", "hello"));
        assert!(line.contains("INFO  hello path=\"/x\"") && !line.contains("record"), "{line}");
        assert!(logged(Text { color: true }, || tracing::error!("x")).contains("\x1b[31mERROR"));
    }
}
