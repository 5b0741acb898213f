//! Panels over a common time axis.

use std::fmt::{self, Write as _};

use crate::engine::{Ramp, State};

/// All of it.
pub(crate) struct Picture {
    pub(crate) shape: Shape,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    /// In seconds, as everything.
    pub(crate) states: Vec<(f64, State)>,
    pub(crate) verdicts: Vec<f64>,
    pub(crate) others: Vec<(f64, &'static str)>,
    pub(crate) panels: Vec<Panel>,
}

/// Some lines with a common scale.
pub(crate) struct Panel {
    pub(crate) name: &'static str,
    pub(crate) unit: &'static str,
    /// What a value is multiplied by to be told in that unit.
    pub(crate) scale: f64,
    /// Where the axis ends; the greatest value without it.
    pub(crate) most: Option<f64>,
    pub(crate) lines: Vec<Line>,
    /// Thresholds of the second line.
    pub(crate) ramps: Vec<Ramp>,
}

pub(crate) struct Line {
    pub(crate) name: &'static str,
    /// Which of the colours.
    pub(crate) color: usize,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What it is drawn for. Lengths in units of the picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    width: f64,
    left: f64,
    right: f64,
    top: f64,
    gap: f64,
    /// With title and subtitle above, and its own style sheet: to stand alone.
    alone: bool,
    /// What the lines are stands in a row of its own, for want of width.
    legend_below: bool,
    /// The moment that is called 0 on the time axis.
    zero: f64,
}

impl Shape {
    /// A file of its own.
    pub(crate) const PAGE: Self = Self {
        width: 760.0,
        left: 56.0,
        right: 16.0,
        top: 64.0,
        gap: 42.0,
        alone: true,
        legend_below: false,
        zero: 0.0,
    };
    /// A part of a page, readable at the width of a phone: one panel, the style is the page's. `zero` is the moment that is
    /// called 0 on the time axis.
    pub(crate) const fn card(zero: f64) -> Self {
        Self { width: 400.0, left: 58.0, right: 10.0, top: 18.0, gap: 56.0, alone: false, legend_below: true, zero }
    }
}

const PANEL: f64 = 96.0;
const BAND: f64 = 16.0;

/// Colours by the names of classes; a page with pictures in it needs this once.
pub(crate) const STYLE: &str = "\
svg{font:12px system-ui,sans-serif;background:#fff;--ink:#1f2328;--faint:#d0d7de;--c0:#0969da;--c1:#cf222e;--c2:#1a7f37;\
--calm:#dafbe1;--pressed:#ddf4ff;--suspect:#fff8c5;--livelock:#ff8182}\
@media(prefers-color-scheme:dark){svg{background:#0d1117;--ink:#e6edf3;--faint:#30363d;--c0:#58a6ff;--c1:#ff7b72;--c2:#56d364;\
--calm:#12261e;--pressed:#121d2f;--suspect:#3b2e0a;--livelock:#8e1519}}\
text{fill:var(--ink)}.s{font-size:11px;opacity:.75}.t{font-size:15px;font-weight:600}.g{stroke:var(--faint);fill:none}\
.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l{fill:none;stroke-width:1.6}.f0{fill:var(--c0)}\
.f1{fill:var(--c1)}.f2{fill:var(--c2)}.r{fill:var(--c1);opacity:.12}.v{stroke:var(--c1);stroke-width:2}\
.o{stroke:var(--ink);stroke-dasharray:2 3;opacity:.5}.calm{fill:var(--calm)}.pressed{fill:var(--pressed)}\
.suspect{fill:var(--suspect)}.livelock{fill:var(--livelock)}";

/// For text and attributes of XML and HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, c| {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
        out
    })
}

/// A number on an axis: no more digits than can be told apart there.
fn tick(value: f64) -> String {
    if value >= 10.0 { format!("{value:.0}") } else { format!("{}", (value * 1000.0).round() / 1000.0) }
}

/// A round number at or above a value.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= value).unwrap_or(value)
}

impl Picture {
    pub(crate) fn draw(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn end(&self) -> f64 {
        self.states.last().map_or(1.0, |(at, _)| *at).max(1.0)
    }

    fn x(&self, at: f64) -> f64 {
        let Shape { width, left, right, .. } = self.shape;
        left + (width - left - right) * (at / self.end()).clamp(0.0, 1.0)
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        // Names of other rules stand below each other where they would overlap.
        let others = self.others.len().min(12);
        let Shape { width, left, top, gap, alone, .. } = self.shape;
        let panels = self.panels.len() as f64 * (PANEL + gap);
        let below = if alone { 24.0 } else { 20.0 - gap };
        let height = top + BAND + gap + panels + 15.0 * others as f64 + below;
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" role=\"img\">\n<title>{}</title>",
            escaped(&self.title)
        )?;
        if alone {
            writeln!(
                out,
                "<style>{STYLE}</style>\n<text class=\"t\" x=\"{left}\" y=\"22\">{}</text>\n\
                 <text class=\"s\" x=\"{left}\" y=\"40\">{}</text>",
                escaped(&self.title),
                escaped(&shortened(&self.subtitle)),
            )?;
        }
        self.band(out)?;
        let mut y = top + BAND + gap;
        for panel in &self.panels {
            self.panel(out, panel, y)?;
            y += PANEL + gap;
        }
        let bottom = y - gap + 4.0;
        for at in &self.verdicts {
            let x = self.x(*at);
            let anchor = if x > width * 0.85 { ("end", x) } else { ("start", x + 4.0) };
            writeln!(
                out,
                "<line class=\"v\" x1=\"{x:.1}\" y1=\"{top:.0}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\n\
                 <text class=\"f1\" x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"{}\">verdict</text>",
                anchor.1,
                top - 5.0,
                anchor.0
            )?;
        }
        for (row, (at, name)) in self.others.iter().take(others).enumerate() {
            let (x, y) = (self.x(*at), bottom + 26.0 + 15.0 * row as f64);
            let anchor = if x > width * 0.7 { ("end", x - 4.0) } else { ("start", x + 4.0) };
            writeln!(
                out,
                "<line class=\"o\" x1=\"{x:.1}\" y1=\"{top:.0}\" x2=\"{x:.1}\" y2=\"{y:.1}\"/>\n\
                 <text class=\"s\" x=\"{:.1}\" y=\"{y:.1}\" text-anchor=\"{}\">{name} acts at {at:.0} s</text>",
                anchor.1, anchor.0
            )?;
        }
        writeln!(out, "</svg>")
    }

    /// The states, as a coloured band.
    fn band(&self, out: &mut String) -> fmt::Result {
        let mut begun: Option<(f64, State)> = None;
        let mut spans = Vec::new();
        for (at, state) in &self.states {
            match begun {
                Some((_, before)) if before == *state => {}
                Some((from, before)) => {
                    spans.push((from, *at, before));
                    begun = Some((*at, *state));
                }
                None => begun = Some((*at, *state)),
            }
        }
        if let Some((from, state)) = begun {
            spans.push((from, self.end(), state));
        }
        let top = self.shape.top;
        for (from, to, state) in spans {
            let (from, to) = (self.x(from), self.x(to));
            writeln!(
                out,
                "<rect class=\"{state}\" x=\"{from:.1}\" y=\"{top:.0}\" width=\"{:.1}\" height=\"{BAND}\"/>",
                to - from
            )?;
            if to - from > 56.0 {
                writeln!(out, "<text class=\"s\" x=\"{:.1}\" y=\"{:.0}\">{state}</text>", from + 4.0, top + 12.0)?;
            }
        }
        Ok(())
    }

    fn panel(&self, out: &mut String, panel: &Panel, top: f64) -> fmt::Result {
        let Shape { width, left, right, legend_below, zero, .. } = self.shape;
        let bottom = top + PANEL;
        let title = if legend_below { top - 23.0 } else { top - 8.0 };
        let greatest = panel.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(0.0, f64::max);
        let most = panel.most.unwrap_or_else(|| round_up(greatest));
        let y = |value: f64| bottom - PANEL * (value / most).clamp(0.0, 1.0);
        writeln!(out, "<text x=\"{left}\" y=\"{title:.0}\">{}</text>", escaped(panel.name))?;
        for step in 0..=2 {
            let value = most * f64::from(step) / 2.0;
            writeln!(
                out,
                "<line class=\"g\" x1=\"{left}\" y1=\"{0:.1}\" x2=\"{1}\" y2=\"{0:.1}\"/>\n\
                 <text class=\"s\" x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}{5}</text>",
                y(value),
                width - right,
                left - 6.0,
                y(value) + 4.0,
                tick(value * panel.scale),
                panel.unit
            )?;
        }
        for ramp in &panel.ramps {
            let (from, sure) = (y(ramp.from), y(ramp.sure));
            let height = (from - sure).max(1.5);
            writeln!(
                out,
                "<rect class=\"r\" x=\"{left}\" y=\"{sure:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
                width - left - right
            )?;
        }
        // From the right, or from the left in a row of its own. Some 6 units a letter; where there is room, more.
        let letter = if legend_below { 7.0 } else { 6.0 };
        let letters = |line: &Line| letter * line.name.chars().count() as f64 + 14.0;
        let (mut legend, anchor) = if legend_below { (left, "start") } else { (width - right, "end") };
        let in_order: Vec<&Line> =
            if legend_below { panel.lines.iter().collect() } else { panel.lines.iter().rev().collect() };
        for line in in_order {
            let points = line.points.iter().fold(String::new(), |mut points, (at, value)| {
                let _ = write!(points, "{:.1},{:.1} ", self.x(*at), y(*value));
                points
            });
            writeln!(out, "<polyline class=\"l l{}\" points=\"{}\"/>", line.color, points.trim_end())?;
            writeln!(
                out,
                "<text class=\"s f{}\" x=\"{legend:.0}\" y=\"{:.0}\" text-anchor=\"{anchor}\">{}</text>",
                line.color,
                top - 8.0,
                escaped(line.name)
            )?;
            legend += if legend_below { letters(line) } else { -letters(line) };
        }
        for step in 0..=4 {
            let at = self.end() * f64::from(step) / 4.0;
            let anchor = if step == 4 && legend_below { "end" } else { "middle" };
            writeln!(
                out,
                "<text class=\"s\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{:.0} s</text>",
                self.x(at),
                bottom + 14.0,
                // The sum makes 0 of what would be written as -0.
                (at - zero).round() + 0.0
            )?;
        }
        Ok(())
    }
}

/// The end of a long path tells most.
fn shortened(text: &str) -> String {
    const MOST: usize = 100;
    let count = text.chars().count();
    if count <= MOST { text.to_owned() } else { format!("…{}", text.chars().skip(count - MOST).collect::<String>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [(0.0, 1.0), (0.03, 0.05), (1.0, 1.0), (13.0, 20.0), (999.0, 1000.0), (f64::NAN, 1.0)] {
            assert!((round_up(value) - end).abs() < 1e-9, "{value}: {}", round_up(value));
        }
    }
}
