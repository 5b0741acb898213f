//! Panels over a common time axis.

use std::fmt::{self, Write as _};

use crate::engine::{Ramp, State};

/// All of it.
pub(super) struct Picture {
    pub(super) title: String,
    pub(super) subtitle: String,
    /// In seconds, as everything.
    pub(super) states: Vec<(f64, State)>,
    pub(super) verdicts: Vec<f64>,
    pub(super) others: Vec<(f64, &'static str)>,
    pub(super) panels: Vec<Panel>,
}

/// Some lines with a common scale.
pub(super) struct Panel {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    /// What a value is multiplied by to be told in that unit.
    pub(super) scale: f64,
    /// Where the axis ends; the greatest value without it.
    pub(super) most: Option<f64>,
    pub(super) lines: Vec<Line>,
    /// Thresholds of the second line.
    pub(super) ramps: Vec<Ramp>,
}

pub(super) struct Line {
    pub(super) name: &'static str,
    /// Which of the colours.
    pub(super) color: usize,
    pub(super) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 16.0;
const PANEL: f64 = 96.0;
const GAP: f64 = 42.0;
const BAND: f64 = 16.0;
const TOP: f64 = 64.0;

const STYLE: &str = "\
svg{font:12px system-ui,sans-serif;background:#fff;--ink:#1f2328;--faint:#d0d7de;--c0:#0969da;--c1:#cf222e;--c2:#1a7f37;\
--calm:#dafbe1;--pressed:#ddf4ff;--suspect:#fff8c5;--livelock:#ff8182}\
@media(prefers-color-scheme:dark){svg{background:#0d1117;--ink:#e6edf3;--faint:#30363d;--c0:#58a6ff;--c1:#ff7b72;--c2:#56d364;\
--calm:#12261e;--pressed:#121d2f;--suspect:#3b2e0a;--livelock:#8e1519}}\
text{fill:var(--ink)}.s{font-size:11px;opacity:.75}.t{font-size:15px;font-weight:600}.g{stroke:var(--faint);fill:none}\
.l0{stroke:var(--c0)}.l1{stroke:var(--c1)}.l2{stroke:var(--c2)}.l{fill:none;stroke-width:1.6}.f0{fill:var(--c0)}\
.f1{fill:var(--c1)}.f2{fill:var(--c2)}.r{fill:var(--c1);opacity:.12}.v{stroke:var(--c1);stroke-width:2}\
.o{stroke:var(--ink);stroke-dasharray:2 3;opacity:.5}.calm{fill:var(--calm)}.pressed{fill:var(--pressed)}\
.suspect{fill:var(--suspect)}.livelock{fill:var(--livelock)}";

fn escaped(text: &str) -> String {
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

/// A round number at or above a value.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * power).into_iter().find(|step| *step >= value).unwrap_or(value)
}

impl Picture {
    pub(super) fn draw(&self) -> String {
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = self.write(&mut out);
        out
    }

    fn end(&self) -> f64 {
        self.states.last().map_or(1.0, |(at, _)| *at).max(1.0)
    }

    fn x(&self, at: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at / self.end()).clamp(0.0, 1.0)
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        // Names of other rules stand below each other where they would overlap.
        let others = self.others.len().min(12);
        let panels = self.panels.len() as f64 * (PANEL + GAP);
        let height = TOP + BAND + GAP + panels + 15.0 * others as f64 + 24.0;
        writeln!(
            out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\">\n\
             <style>{STYLE}</style>\n<title>{0}</title>\n<text class=\"t\" x=\"{LEFT}\" y=\"22\">{0}</text>\n\
             <text class=\"s\" x=\"{LEFT}\" y=\"40\">{1}</text>",
            escaped(&self.title),
            escaped(&shortened(&self.subtitle)),
        )?;
        self.band(out)?;
        let mut y = TOP + BAND + GAP;
        for panel in &self.panels {
            self.panel(out, panel, y)?;
            y += PANEL + GAP;
        }
        let bottom = y - GAP + 4.0;
        for at in &self.verdicts {
            let x = self.x(*at);
            writeln!(
                out,
                "<line class=\"v\" x1=\"{x:.1}\" y1=\"{TOP:.0}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>\n\
                 <text class=\"f1\" x=\"{:.1}\" y=\"{:.0}\">verdict</text>",
                x + 4.0,
                TOP - 5.0
            )?;
        }
        for (row, (at, name)) in self.others.iter().take(others).enumerate() {
            let (x, y) = (self.x(*at), bottom + 26.0 + 15.0 * row as f64);
            let anchor = if x > WIDTH * 0.7 { ("end", x - 4.0) } else { ("start", x + 4.0) };
            writeln!(
                out,
                "<line class=\"o\" x1=\"{x:.1}\" y1=\"{TOP:.0}\" x2=\"{x:.1}\" y2=\"{y:.1}\"/>\n\
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
        for (from, to, state) in spans {
            let (from, to) = (self.x(from), self.x(to));
            writeln!(
                out,
                "<rect class=\"{state}\" x=\"{from:.1}\" y=\"{TOP:.0}\" width=\"{:.1}\" height=\"{BAND}\"/>",
                to - from
            )?;
            if to - from > 56.0 {
                writeln!(out, "<text class=\"s\" x=\"{:.1}\" y=\"{:.0}\">{state}</text>", from + 4.0, TOP + 12.0)?;
            }
        }
        Ok(())
    }

    fn panel(&self, out: &mut String, panel: &Panel, top: f64) -> fmt::Result {
        let bottom = top + PANEL;
        let greatest = panel.lines.iter().flat_map(|line| &line.points).map(|(_, value)| *value).fold(0.0, f64::max);
        let most = panel.most.unwrap_or_else(|| round_up(greatest));
        let y = |value: f64| bottom - PANEL * (value / most).clamp(0.0, 1.0);
        writeln!(out, "<text x=\"{LEFT}\" y=\"{:.0}\">{}</text>", top - 8.0, escaped(panel.name))?;
        for step in 0..=2 {
            let value = most * f64::from(step) / 2.0;
            writeln!(
                out,
                "<line class=\"g\" x1=\"{LEFT}\" y1=\"{0:.1}\" x2=\"{1}\" y2=\"{0:.1}\"/>\n\
                 <text class=\"s\" x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{4}{5}</text>",
                y(value),
                WIDTH - RIGHT,
                LEFT - 6.0,
                y(value) + 4.0,
                value * panel.scale,
                panel.unit
            )?;
        }
        for ramp in &panel.ramps {
            let (from, sure) = (y(ramp.from), y(ramp.sure));
            let height = (from - sure).max(1.5);
            writeln!(
                out,
                "<rect class=\"r\" x=\"{LEFT}\" y=\"{sure:.1}\" width=\"{:.1}\" height=\"{height:.1}\"/>",
                WIDTH - LEFT - RIGHT
            )?;
        }
        let mut legend = WIDTH - RIGHT;
        for line in panel.lines.iter().rev() {
            let points = line.points.iter().fold(String::new(), |mut points, (at, value)| {
                let _ = write!(points, "{:.1},{:.1} ", self.x(*at), y(*value));
                points
            });
            writeln!(out, "<polyline class=\"l l{}\" points=\"{}\"/>", line.color, points.trim_end())?;
            writeln!(
                out,
                "<text class=\"s f{}\" x=\"{legend:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>",
                line.color,
                top - 8.0,
                escaped(line.name)
            )?;
            // Some 6 units a letter.
            legend -= 6.0 * line.name.len() as f64 + 14.0;
        }
        for step in 0..=4 {
            let at = self.end() * f64::from(step) / 4.0;
            writeln!(
                out,
                "<text class=\"s\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{at:.0} s</text>",
                self.x(at),
                bottom + 14.0
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
