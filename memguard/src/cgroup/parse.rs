//! The formats of cgroup files: text in, values or a complaint out. No panic on any input.

use std::time::Duration;

use crate::engine::Stall;

/// Calls `found` with each key and value of a flat keyed file (memory.stat, memory.events). Lines of another shape are
/// left out: new kernels add keys, and what is needed is checked by the caller.
pub(super) fn flat_keyed(text: &str, mut found: impl FnMut(&str, u64)) {
    for line in text.lines() {
        if let Some((key, value)) = line.split_once(' ')
            && let Ok(value) = value.trim().parse()
        {
            found(key, value);
        }
    }
}

/// A single number, such as memory.current.
pub(super) fn number(text: &str) -> Result<u64, String> {
    let text = text.trim();
    text.parse().map_err(|_| format!("expected a number, found {text:?}"))
}

/// A limit: a number, or `max` for none.
pub(super) fn limit(text: &str) -> Result<Option<u64>, String> {
    match text.trim() {
        "max" => Ok(None),
        text => text.parse().map(Some).map_err(|_| format!("expected a number or `max`, found {text:?}")),
    }
}

/// A PSI file: two lines, `some` and `full`, each with `total=` in microseconds.
pub(super) fn pressure(text: &str) -> Result<Stall, String> {
    let total = |kind: &str| {
        text.lines()
            .filter_map(|line| {
                line.strip_prefix(kind)?.split_whitespace().find_map(|field| field.strip_prefix("total="))
            })
            .find_map(|total| total.parse().ok())
            .map(Duration::from_micros)
            .ok_or_else(|| format!("no total of `{kind}` in {text:?}"))
    };
    Ok(Stall { some: total("some")?, full: total("full")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let mut found = Vec::new();
        flat_keyed("anon 5242880\nfile 0\nworkingset_refault_file 12\n", |key, value| {
            found.push((key.to_owned(), value));
        });
        assert_eq!(
            found,
            [("anon".to_owned(), 5_242_880), ("file".to_owned(), 0), ("workingset_refault_file".to_owned(), 12)]
        );
        assert_eq!(number("4096\n"), Ok(4096));
        assert_eq!(limit("max\n"), Ok(None));
        assert_eq!(limit("536870912\n"), Ok(Some(536_870_912)));
        let text =
            "some avg10=1.00 avg60=0.50 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=250\n";
        assert_eq!(pressure(text), Ok(Stall { some: Duration::from_millis(1500), full: Duration::from_micros(250) }));
    }

    #[test]
    fn complains_about_what_it_does_not_understand() {
        assert!(number("").unwrap_err().contains("\"\""));
        assert!(number("-1").unwrap_err().contains("-1"));
        assert!(number("99999999999999999999").is_err());
        assert!(limit("maximum").unwrap_err().contains("maximum"));
        assert!(pressure("some avg10=0.00").unwrap_err().contains("some"));
        assert!(pressure("some total=1\n").unwrap_err().contains("full"));
        flat_keyed("\n \nx\nx y\nx 1 2\n\u{0} 1\n", |key, value| assert_eq!((key, value), ("\u{0}", 1)));
    }
}
