//! Text that has to fit.

use ratatui::{buffer::Buffer, layout::Rect};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Columns.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The beginning of `text` in so many columns, with a mark if something was left out.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    if columns == 0 {
        return String::new();
    }
    let mut kept = from_start(text, columns - 1);
    kept.push('…');
    kept
}

/// The end of it.
pub(super) fn cut_start(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    if columns == 0 {
        return String::new();
    }
    format!("…{}", from_end(text, columns - 1))
}

/// Both ends of it: names that machines make differ at their ends.
pub(super) fn cut_middle(text: &str, columns: usize) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    if columns < 3 {
        return cut(text, columns);
    }
    let end = (columns - 1) / 2;
    format!("{}…{}", from_start(text, columns - 1 - end), from_end(text, end))
}

fn from_start(text: &str, columns: usize) -> String {
    let mut used = 0;
    text.chars()
        .take_while(|letter| {
            used += letter.width().unwrap_or(0);
            used <= columns
        })
        .collect()
}

fn from_end(text: &str, columns: usize) -> String {
    let mut used = 0;
    let kept: Vec<char> = text
        .chars()
        .rev()
        .take_while(|letter| {
            used += letter.width().unwrap_or(0);
            used <= columns
        })
        .collect();
    kept.into_iter().rev().collect()
}

/// In lines of so many columns, between words; a longer word has a line of its own.
pub(super) fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if width(line) + 1 + width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// In just so many columns.
pub(super) fn left(text: &str, columns: usize) -> String {
    let text = cut(text, columns);
    let room = columns.saturating_sub(width(&text));
    text + &" ".repeat(room)
}

pub(super) fn right(text: &str, columns: usize) -> String {
    let text = cut(text, columns);
    " ".repeat(columns.saturating_sub(width(&text))) + &text
}

/// A number in five columns at the most: `0`, `4.2`, `310`, `12.4k`.
pub(super) fn number(value: f64) -> String {
    match value {
        value if !value.is_finite() => "?".to_owned(),
        0.0 => "0".to_owned(),
        value if value < 10.0 => format!("{value:.1}"),
        value if value < 9_999.5 => format!("{value:.0}"),
        value if value < 99_950.0 => format!("{:.1}k", value / 1e3),
        value if value < 999_500.0 => format!("{:.0}k", value / 1e3),
        value if value < 99_950_000.0 => format!("{:.1}M", value / 1e6),
        _ => "lots".to_owned(),
    }
}

/// Bytes in six columns at the most.
pub(super) fn bytes(count: u64) -> String {
    const KIB: f64 = 1024.0;
    let count = count as f64;
    for (unit, size) in [("K", KIB), ("M", KIB * KIB), ("G", KIB * KIB * KIB)] {
        let value = count / size;
        if value < 9.995 && unit != "K" {
            return format!("{value:.1}{unit}");
        }
        if value < 1023.5 || (unit == "G" && value < 99_999.5) {
            return format!("{value:.0}{unit}");
        }
    }
    "lots".to_owned()
}

pub(super) fn percent(share: f64) -> String {
    if share.is_finite() && share < 99.995 { format!("{:.0}%", share * 100.0) } else { "lots".to_owned() }
}

/// Seconds in five columns: `7s`, `3m20`, `2h05`, `12d`.
pub(super) fn duration(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is for people")]
    let whole = seconds.max(0.0) as u64;
    match whole {
        0..60 => format!("{whole}s"),
        60..3600 => format!("{}m{:02}", whole / 60, whole % 60),
        3600..86_400 => format!("{}h{:02}", whole / 3600, whole % 3600 / 60),
        86_400..86_400_000 => format!("{}d", whole / 86_400),
        _ => "long".to_owned(),
    }
}

/// `1:07`.
pub(super) fn minutes(seconds: f64) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates, and is for people")]
    let whole = seconds.max(0.0) as u64;
    format!("{}:{:02}", whole / 60, whole % 60)
}

/// The time of day in UTC, of seconds since 1970.
pub(super) fn clock(seconds: u64) -> String {
    formatted(seconds, "%H:%M:%SZ")
}

pub(super) fn day_and_time(seconds: u64) -> String {
    formatted(seconds, "%m-%d %H:%M:%SZ")
}

fn formatted(seconds: u64, how: &str) -> String {
    let timestamp = i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(|| seconds.to_string(), |timestamp| timestamp.strftime(how).to_string())
}

/// Rates as bars, each the mean of as many seconds as it takes to fit; the latest at the right. One scale for all
/// cgroups, three steps to two decades: ten times as much is a step and a half higher.
pub(super) fn sparkline(rates: &[f64], columns: usize, history: usize) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let each = history.div_ceil(columns.max(1)).max(1);
    let bars: Vec<char> = rates
        .rchunks(each)
        .take(columns)
        .map(|part| {
            let rate = part.iter().sum::<f64>() / part.len() as f64;
            if rate.is_nan() || rate < 1.0 {
                return '·';
            }
            // 1/s is the lowest bar, 100 000/s and more the highest.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 7")]
            let step = (rate.log10() / 5.0 * 7.0).clamp(0.0, 7.0) as usize;
            BARS[step]
        })
        .collect();
    let line: String = bars.into_iter().rev().collect();
    " ".repeat(columns.saturating_sub(width(&line))) + &line
}

/// Puts ASCII in the place of everything else, for a terminal that is not told to be UTF-8.
pub(super) fn to_ascii(buffer: &mut Buffer, area: Rect) {
    for y in area.y..area.bottom() {
        for x in area.x..area.right() {
            let Some(cell) = buffer.cell_mut((x, y)) else { continue };
            if cell.symbol().is_ascii() {
                continue;
            }
            let ascii = match cell.symbol() {
                "▁" => "_",
                "▂" | "░" | "·" => ".",
                "▃" => ":",
                "▄" | "─" => "-",
                "▅" => "=",
                "▆" | "┌" | "┐" | "└" | "┘" => "+",
                "▇" => "*",
                "█" => "#",
                "…" => "~",
                "│" => "|",
                _ => "?",
            };
            cell.set_symbol(ascii);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_fits_and_shows_that_it_was() {
        assert_eq!(cut("runner", 6), "runner");
        assert_eq!(cut("runner-1", 6), "runne…");
        assert_eq!(cut_middle("linux-x64-abc12-runner", 11), "linux…unner");
        assert_eq!(cut_start("linux-x64", 4), "…x64");
        for columns in 0..12 {
            for text in ["abcdefghijklmn", "中文中文中文", "e\u{301}e\u{301}e\u{301}e\u{301}e\u{301}", ""] {
                for cut in [cut(text, columns), cut_middle(text, columns), cut_start(text, columns)] {
                    assert!(width(&cut) <= columns, "{cut:?} in {columns}");
                }
                assert_eq!(width(&left(text, columns)), columns);
                assert_eq!(width(&right(text, columns)), columns);
            }
        }
    }

    #[test]
    fn numbers_fit_their_columns() {
        let numbers = [0.0, 0.04, 9.96, 12.3, 999.6, 9_999.4, 9_999.6, 30_219.0, 123_456.0, 999_600.0, 5e7, 1e300];
        for value in numbers.into_iter().chain([f64::NAN, f64::INFINITY]) {
            assert!(width(&number(value)) <= 5, "{value}: {}", number(value));
            assert!(width(&percent(value)) <= 5, "{value}: {}", percent(value));
            assert!(width(&duration(value)) <= 5, "{value}: {}", duration(value));
        }
        for shift in 0..64 {
            assert!(width(&bytes(1 << shift)) <= 6, "{}", bytes(1 << shift));
        }
        assert_eq!((number(30_219.0).as_str(), bytes(512 << 20).as_str()), ("30.2k", "512M"));
        assert_eq!((duration(200.0).as_str(), minutes(67.0).as_str()), ("3m20", "1:07"));
        assert_eq!((clock(1_764_000_000).as_str(), clock(u64::MAX)), ("16:00:00Z", u64::MAX.to_string()));
    }

    #[test]
    fn bars_have_one_scale_and_the_latest_is_at_the_right() {
        let rates = [0.0, 1.0, 100.0, 10_000.0, 1e6, f64::NAN, f64::INFINITY];
        assert_eq!(sparkline(&rates, 8, 8), " ·▁▃▆█·█");
        let minute: Vec<f64> = (0..60).map(|second| if second < 30 { 0.0 } else { 1e5 }).collect();
        assert_eq!(sparkline(&minute, 6, 60), "···███");
        assert_eq!((sparkline(&[], 3, 60).as_str(), sparkline(&minute, 0, 60).as_str()), ("   ", ""));
    }
}
