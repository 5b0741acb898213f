//! Screens as text, compared with files beside this one, and everything else that has to hold of them.
//!
//! `MEMGUARD_BLESS=1 cargo test -p memguard --lib top::` writes the files anew; look at them before they are committed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, buffer::Buffer, layout::Rect};

use super::{
    keys::{self, Action},
    source::{Link, Transport},
    state::{Effect, Screen, Ui},
    view::{Look, Scene, render},
};
use crate::{
    engine::{Limit, Signals, State},
    respond::Mode,
    status::{
        CostStatus, EngineStatus, FORMAT, HotFile, IncidentStatus, MemoryStatus, PodsStatus, Snapshot, TermStatus,
        Totals, UnitStatus, WorkloadStatus,
    },
    telemetry::CgroupName,
};

const MIB: u64 = 1 << 20;

fn term(name: &str, value: Option<f64>, (from, sure): (f64, f64), confidence: f64, why: &str) -> TermStatus {
    TermStatus { name: name.to_owned(), value, from, sure, met: confidence > 0.0, confidence, why: why.to_owned() }
}

/// A cgroup in this state, with the terms that it would have then.
pub(super) fn unit(id: u64, state: State) -> UnitStatus {
    let hangs = state >= State::Suspect;
    let full = if state > State::Calm { 0.997 } else { 0.62 };
    let (returns, lost) = if hangs { (121.4, 0.93) } else { (0.23, 0.62) };
    let confidence = |holds: bool, much: f64| if holds { much } else { 0.0 };
    UnitStatus {
        name: CgroupName::new(
            Path::new("/sys/fs/cgroup"),
            id,
            &Path::new("/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice").join(format!(
                "kubepods-burstable-pod{:032x}.slice/cri-containerd-{:x}{:063}.scope",
                u128::from(id) << 120,
                id,
                0
            )),
        ),
        workload: Some(WorkloadStatus {
            namespace: "arc-runners".to_owned(),
            pod: format!("linux-x64-large-7d9fq-runner-{id:05}"),
            container: Some("runner".to_owned()),
            repository: Some("acme/monorepo".to_owned()),
            run_id: Some(19_482_001_337),
        }),
        state,
        state_for_s: 4.0 * id as f64,
        watched_for_s: 312.0,
        held_s: hangs.then_some(4.2),
        suspect_for_s: hangs.then_some(6.0),
        quiet_for_s: 0.0,
        ending: false,
        memory: MemoryStatus {
            current: if state > State::Calm { 510 * MIB } else { 317 * MIB },
            limit: Some(512 * MIB),
            limited_by: Limit::Max,
            anon_shmem: 480 * MIB,
            file: 24 * MIB,
            oom_kills: 0,
        },
        refaults: (0..60).map(|second| f64::from(second * second) * if hangs { 9.0 } else { 0.1 }).collect(),
        signals: Some(Signals {
            window_s: 5.0,
            limit: 512 * MIB,
            at_limit: full,
            lost: Some(lost),
            cycles_per_s: Some(69.0),
            empty_cycles: Some(3),
            reclaim_wall: Some(0.75),
            steals_per_s: 3300.0,
            major_faults_per_s: 140.0,
            text_faults_per_s: Some(138.0),
            text_returns_per_s: Some(returns),
            user_cpus: Some(0.02),
            system_cpus: Some(1.64),
            waiting: Some(0.75),
            memory_some: Some(0.75),
            memory_full: Some(0.51),
            io_some: Some(0.18),
            denied: Some(0.04),
            ..Signals::default()
        }),
        terms: vec![
            term(
                "at_limit",
                Some(full),
                (0.95, 0.95),
                confidence(state > State::Calm, 1.0),
                "memory at 100 % of memory.max",
            ),
            term("limit_hit", Some(69.0), (0.0, 0.0), 1.0, "limit hit 69.0 times/s"),
            term("no_oom", Some(0.0), (0.0, 0.0), 1.0, "the kernel's OOM killer was not asked"),
            term("unreclaimable", Some(0.94), (0.25, 0.6), 1.0, "94 % of the limit can't be reclaimed (anon + shmem)"),
            term("refault_share", Some(0.61), (0.3, 0.7), 0.85, "61 % of the 3300 pages/s freed came right back"),
            term(
                "text_returns",
                Some(returns),
                (5.0, 30.0),
                confidence(hangs, 1.0),
                &format!("{returns:.0} times/s program text had to be read that was there a moment ago"),
            ),
            term("text_return_share", Some(0.88), (0.35, 0.75), 1.0, "88 % of all text that had to be read"),
            term("turnover", Some(0.55), (0.05, 0.15), 1.0, "a cached page lives 1.8 s"),
            term(
                "lost",
                Some(lost),
                (0.85, 0.95),
                confidence(hangs, 0.86),
                &format!("{:.0} % of its time is lost: 0.02 CPUs compute", lost * 100.0),
            ),
        ],
        files: if hangs {
            vec![
                HotFile {
                    path: "/usr/share/dotnet/shared/Microsoft.NETCore.App/8.0.4/libcoreclr.so".to_owned(),
                    faults_per_s: 61.0,
                },
                HotFile { path: "device 259:1, inode 1840233".to_owned(), faults_per_s: 7.5 },
            ]
        } else {
            Vec::new()
        },
    }
}

/// A node with one of each.
pub(super) fn example() -> Snapshot {
    let mut plain = unit(4, State::Calm);
    (plain.workload, plain.name.place) = (None, None);
    plain.name.cgroup = "system.slice/podman-\\u{1b}[2J.service".to_owned();
    let mut fresh = unit(6, State::Calm);
    (fresh.terms, fresh.signals, fresh.refaults) = (Vec::new(), None, Vec::new());
    Snapshot {
        format: FORMAT,
        version: "0.1.0".to_owned(),
        unix_ms: 1_764_000_000_000,
        at_s: 4711.0,
        mode: Mode::Observe,
        signals_from: "full".to_owned(),
        lost: Vec::new(),
        no_tracer: None,
        engine: EngineStatus { window_s: 5.0, hold_s: 7.0 },
        cost: CostStatus {
            cpu_s: 21.3,
            up_s: 71.0,
            cpu_lately: Some(0.003),
            resident_kib: 9400,
            records: 4000,
            wake_ups: 3000,
            events_lost: Some(0),
            programs_s: None,
        },
        pods: Some(PodsStatus { known: 12, stale_since: None }),
        totals: Totals { under_reclaim: 41, suspected: 6, verdicts: 3, killed: 1, ..Totals::default() },
        units: vec![
            unit(1, State::Livelock),
            unit(2, State::Suspect),
            unit(3, State::Pressed),
            plain,
            unit(5, State::Pressed),
            fresh,
        ],
        units_left_out: 0,
        incidents: (0..3)
            .map(|n| IncidentStatus {
                id: format!("mg-{}-7", 1_763_990_000 - n * 900),
                decided_at: 1_763_990_000 - n * 900,
                mode: Mode::Enforce,
                cgroup: "kubepods.slice/pod1/c1.scope".to_owned(),
                workload: Some("arc-runners/linux-x64-large-7d9fq-runner-00001 (runner)".to_owned()),
                outcome: "killed, empty after 104 ms".to_owned(),
                evidence: "memory at 100 % of memory.max; limit hit 69.0 times/s".to_owned(),
                follow_ups: vec!["cancelling the GitHub run: to be done".to_owned()],
                open: 1 - n.min(1),
            })
            .collect(),
    }
}

fn replaying() -> Link {
    Link::Replay(Transport {
        file: "livelock-440-6.12.73.mgtrace".to_owned(),
        about: "Linux 6.12.73, signals full".to_owned(),
        position_s: 34.0,
        length_s: 90.0,
        speed: 2.0,
        paused: true,
    })
}

/// The screen as lines of text, without the blanks at their ends.
fn screen(scene: &Scene<'_>, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal
        .draw(|frame| {
            render(scene, frame.area(), frame.buffer_mut());
        })
        .unwrap();
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for y in 0..rows {
        let line: String = (0..columns).map(|x| buffer.cell((x, y)).unwrap().symbol()).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// What is on the screens, with the keys that lead there.
fn each() -> Vec<(&'static str, Link, Option<Snapshot>, Vec<Action>)> {
    let some = || Some(example());
    let idle = Snapshot { units: Vec::new(), ..example() };
    let waiting =
        crate::status::ClientError::NotRunning { path: PathBuf::from("/run/memguard/status.sock") }.to_string();
    vec![
        ("table", Link::Live, some(), vec![Action::Down]),
        ("frozen", Link::Live, some(), vec![Action::Freeze, Action::Sort, Action::HideCalm]),
        ("filter", Link::Live, some(), vec![Action::Filter, Action::Type('7'), Action::Type('d')]),
        ("hang", Link::Live, some(), vec![Action::Down, Action::Open]),
        ("work", Link::Live, some(), vec![Action::Down, Action::Down, Action::Open]),
        ("incidents", Link::Live, some(), vec![Action::Incidents, Action::Down]),
        ("help", Link::Live, some(), vec![Action::Help]),
        ("replay", replaying(), some(), vec![]),
        ("replay-help", replaying(), some(), vec![Action::Help]),
        ("idle", Link::Live, Some(idle), vec![]),
        ("waiting", Link::Waiting(waiting), None, vec![]),
        ("lost", Link::Waiting("memguard has ended".to_owned()), some(), vec![]),
    ]
}

#[test]
fn screens_are_as_they_were_looked_at() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/top/screens");
    let bless = std::env::var_os("MEMGUARD_BLESS").is_some();
    let mut different = Vec::new();
    for (name, link, snapshot, actions) in each() {
        let latest = snapshot.map(Arc::new);
        let mut ui = Ui::default();
        ui.settle(latest.as_ref());
        for action in actions {
            ui.apply(action, latest.as_ref(), matches!(link, Link::Replay(_)));
        }
        for (columns, rows, ascii) in [(80, 24, false), (120, 40, false), (40, 15, true)] {
            let look = Look { color: false, ascii };
            let scene = Scene { ui: &ui, snapshot: ui.picture(latest.as_ref()), link: &link, look };
            let seen = screen(&scene, columns, rows);
            assert!(!ascii || seen.is_ascii(), "{name}: {seen}");
            let file = folder.join(format!("{name}-{columns}x{rows}.txt"));
            if bless {
                fs::create_dir_all(&folder).unwrap();
                fs::write(&file, &seen).unwrap();
            } else if fs::read_to_string(&file).unwrap_or_default() != seen {
                different.push(format!("{}:\n{seen}", file.display()));
            }
        }
    }
    assert!(different.is_empty(), "MEMGUARD_BLESS=1 takes these as right:\n{}", different.join("\n"));
}

#[test]
fn a_state_is_told_by_a_word_and_not_by_its_colour_alone() {
    let latest = Arc::new(example());
    let mut ui = Ui::default();
    ui.settle(Some(&latest));
    let mut seen = Vec::new();
    for color in [true, false] {
        let look = Look { color, ascii: false };
        let scene = Scene { ui: &ui, snapshot: Some(&latest), link: &Link::Live, look };
        let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
        render(&scene, buffer.area, &mut buffer);
        let plain = |cell: &ratatui::buffer::Cell| {
            (cell.fg, cell.bg) == (ratatui::style::Color::Reset, ratatui::style::Color::Reset)
        };
        assert_eq!(buffer.content().iter().all(plain), !color);
        seen.push(buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
    }
    assert_eq!(seen[0], seen[1]);
    assert!(seen[0].contains("LIVELOCK") && seen[0].contains("suspect"));
}

#[test]
fn keys_lead_where_they_say() {
    let latest = Arc::new(example());
    let mut ui = Ui::default();
    ui.settle(Some(&latest));
    let mut press = |code: KeyCode| {
        let action = keys::action(KeyEvent::new(code, KeyModifiers::NONE), ui.typing);
        let effect = action.map_or(Effect::Nothing, |action| ui.apply(action, Some(&latest), false));
        (effect, ui.screen, ui.filter.clone(), ui.typing)
    };
    press(KeyCode::Down);
    assert_eq!(press(KeyCode::Enter).1, Screen::Unit(2));
    assert_eq!(press(KeyCode::Esc).1, Screen::Table);
    for letter in "/runner q".chars() {
        press(KeyCode::Char(letter));
    }
    assert_eq!(press(KeyCode::Enter), (Effect::Nothing, Screen::Table, "runner q".to_owned(), false));
    assert_eq!(press(KeyCode::Char('i')).1, Screen::Incidents);
    assert_eq!(press(KeyCode::Char('q')).0, Effect::Quit);
}

fn any_number() -> impl Strategy<Value = f64> {
    prop_oneof![0.0..2.0, 0.0..1e6, any::<f64>()]
}

prop_compose! {
    fn any_unit()(
        id in 0..9_u64,
        names in prop::array::uniform4(".{0,40}"),
        state in prop::sample::select(vec![State::Calm, State::Pressed, State::Suspect, State::Livelock]),
        numbers in prop::array::uniform8(any_number()),
        memory in (any::<u64>(), any::<Option<u64>>(), any::<u64>()),
        refaults in prop::collection::vec(any_number(), 0..70),
        of_pod in any::<bool>(),
        known in prop::sample::select(vec!["at_limit", "limit_hit", "no_oom", "refault_share", "lost", "\u{1b}[2J"]),
        value in prop::option::of(any_number()),
        met in any::<bool>(),
    ) -> UnitStatus {
        let [namespace, pod, container, cgroup] = names;
        let workload = WorkloadStatus { namespace, pod, container: Some(container), repository: None, run_id: Some(id) };
        UnitStatus {
            name: CgroupName { id, cgroup: cgroup.clone(), place: None, pod: None },
            workload: of_pod.then_some(workload),
            state,
            state_for_s: numbers[0],
            watched_for_s: numbers[1],
            held_s: value,
            suspect_for_s: met.then_some(numbers[2]),
            quiet_for_s: numbers[3],
            ending: false,
            memory: MemoryStatus { current: memory.0, limit: memory.1, anon_shmem: memory.2, ..MemoryStatus::default() },
            refaults,
            signals: met.then(|| Signals { lost: value, window_s: numbers[4], ..Signals::default() }),
            terms: vec![term(known, value, (numbers[5], numbers[6]), f64::from(u8::from(met)), &cgroup)],
            files: vec![HotFile { path: cgroup, faults_per_s: numbers[7] }],
        }
    }
}

fn any_key() -> impl Strategy<Value = KeyEvent> {
    let code = prop_oneof![
        "[a-zA-Z/?+,.<>=0 -]".prop_map(|letter| KeyCode::Char(letter.chars().next().unwrap())),
        any::<char>().prop_map(KeyCode::Char),
        prop::sample::select(vec![
            KeyCode::Enter,
            KeyCode::Esc,
            KeyCode::Up,
            KeyCode::Down,
            KeyCode::PageDown,
            KeyCode::PageUp,
            KeyCode::Home,
            KeyCode::End,
            KeyCode::Backspace,
            KeyCode::Left,
            KeyCode::Right,
            KeyCode::F(1),
        ]),
    ];
    (code, any::<bool>()).prop_map(|(code, control)| {
        KeyEvent::new(code, if control { KeyModifiers::CONTROL } else { KeyModifiers::NONE })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_there_is_to_see_and_whatever_is_typed_it_is_drawn(
        units in prop::collection::vec(any_unit(), 0..12),
        sizes in prop::collection::vec((0..140_u16, 0..50_u16), 1..4),
        keys in prop::collection::vec(any_key(), 0..24),
        (color, ascii, replay) in any::<(bool, bool, bool)>(),
    ) {
        let latest = Arc::new(Snapshot { units, ..example() });
        let link = if replay { replaying() } else { Link::Live };
        let mut ui = Ui::default();
        ui.settle(Some(&latest));
        for (index, key) in keys.into_iter().enumerate() {
            if let Some(action) = keys::action(key, ui.typing) {
                ui.apply(action, Some(&latest), replay);
            }
            ui.settle(Some(&latest));
            let (columns, rows) = sizes[index % sizes.len()];
            let mut buffer = Buffer::empty(Rect::new(0, 0, columns, rows));
            let scene = Scene { ui: &ui, snapshot: ui.picture(Some(&latest)), link: &link, look: Look { color, ascii } };
            let most = render(&scene, buffer.area, &mut buffer);
            ui.limit_scroll(most);
            for cell in buffer.content() {
                prop_assert!(!cell.symbol().chars().any(char::is_control), "{:?}", cell.symbol());
                prop_assert!(!ascii || cell.symbol().is_ascii());
            }
        }
    }
}
