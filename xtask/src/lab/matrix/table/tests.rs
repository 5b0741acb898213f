use super::*;
use crate::lab::{judge::course::Hang, matrix::evaluate::Judged};

fn run(scenario: &str, kind: Kind, half: Half, class: Class, rules: &[(&str, Outcome, Option<f64>)]) -> Evaluated {
    let hang = Hang { onset: 33.0, end: 97.0, share: 0.012, lasts: true };
    let course = Course {
        container: "a/b".to_owned(),
        at_limit: Some(32.0),
        hangs: if matches!(class, Class::Hung | Class::Contrary) { vec![hang] } else { Vec::new() },
        share: Some(0.93),
        worst: Some(0.71),
        ..Course::default()
    };
    let judged = |outcome, verdict_s| Judged { outcome, suspect_s: Some(4.0), verdict_s, cgroup: None };
    Evaluated {
        scenario: scenario.to_owned(),
        kernel: "6.12".to_owned(),
        release: "6.12.73".to_owned(),
        kind,
        half,
        class,
        file: String::new(),
        build: (scenario == "held").then(|| "0123456789ab".to_owned()),
        courses: vec![course],
        rules: rules.iter().map(|(rule, outcome, s)| ((*rule).to_owned(), judged(*outcome, *s))).collect(),
        recording: std::path::PathBuf::new(),
    }
}

fn some() -> Evaluation {
    let caught = |s| (DEFAULT, Outcome::Caught, Some(s));
    let alarm = ("oomd-workload", Outcome::FalseAlarm, None);
    let runs = vec![
        run(
            "lock",
            Kind::Livelock,
            Half::Tuning,
            Class::Hung,
            &[caught(12.0), ("oomd-workload", Outcome::Caught, Some(17.0))],
        ),
        run(
            "lock",
            Kind::Livelock,
            Half::Tuning,
            Class::Hung,
            &[caught(19.0), ("oomd-workload", Outcome::Missed, None)],
        ),
        run("held", Kind::Livelock, Half::HeldOut, Class::Hung, &[(DEFAULT, Outcome::Missed, None)]),
        run("lame", Kind::Livelock, Half::HeldOut, Class::Works, &[]),
        run("cut", Kind::Livelock, Half::HeldOut, Class::HungBriefly, &[caught(-0.8)]),
        run("scan", Kind::Healthy, Half::HeldOut, Class::Works, &[alarm]),
        run("odd", Kind::Healthy, Half::Tuning, Class::Contrary, &[alarm]),
        run("ended", Kind::Oom, Half::Tuning, Class::KernelActed, &[alarm]),
    ];
    Evaluation {
        runs,
        left_out: vec!["x.jsonl: the scenario has changed since".to_owned()],
        broke_off: vec!["lock on 6.12: the guest has been silent for 120 s\n  console: x".to_owned()],
        judge: "ba9876543210".to_owned(),
        ..Evaluation::default()
    }
}

#[test]
fn each_run_is_counted_once_and_by_what_it_did() {
    let text = all(&some());
    for row in [
        "3 hung and had to be seen, 1 hung too briefly for that, or too shortly before their end, 2 worked at their limit, 1 were ended by",
        "Recorded: `0123456789ab` 1, 7 from before that was noted. Judged all of them: `ba9876543210`.",
        "| 6.12 | 7 | 8 | 0 | 1 | 6 |",
        "| **memguard**, default profile | 0 of 0 | 0 of 2 | 0 of 2 | 30 s | 0 of 2 | 1 of 1 | 1 of 3 | 0 | 15.5 s | 19.0 s |",
        "not falling fast | 0 of 0 + 1 in other runs | 1 of 2 | 1 of 2 + 1 in other runs | 40 s | 1 of 2 | 0 of 1 | 1 of 3 | 0 | 17.0 s |",
        "| **memguard**, `--profile careful` | 0 of 0 | 0 of 2 | 0 of 2 | 80 s | 0 of 0 | 0 of 0 | 0 of 0 | 3 | - | - |",
        "| oomd-workload | 1 of 3 | 1 of 3 | 0 of 0 | 0 of 0 |",
        "| lock | 6.12 | tuning | 2 | hung 64 s and more at 1.2 % | 2 of 2 | 4.0 s | 15.5 s | 19.0 s |  |",
        "| held | 6.12 | held-out | 1 | hung 64 s and more at 1.2 % | 0 of 1, **1 missed** | - | - | - |  |",
        "| cut | 6.12 | held-out | 1 | works at 93 % (worst 30 s: 71 %) | 0 of 0, 1 of 1 too short ones | - | - | - |  |",
        "| cut (livelock) | 6.12 | works at 93 % (71 % in its worst 30 s) | a verdict in the hang |",
        "| scan | 6.12 | held-out | 1 | works at 93 % (worst 30 s: 71 %) | silent | oomd-workload (1) |",
        "| odd (healthy) | 6.12 | hung 64 s and more, at 1.2 % of its work | no verdict |",
        "| lame (livelock) | 6.12 | works at 93 % (71 % in its worst 30 s) | no verdict |",
        "- x.jsonl: the scenario has changed since",
        "\nBroke off, so that nobody knows what they would have shown:\n\n- lock on 6.12: the guest has been silent for 120 s\n",
    ] {
        assert!(text.contains(row), "no {row} in\n{text}");
    }
    let text = summary(&some().runs);
    assert!(text.contains("0+1 of 3"), "{text}");
}

#[test]
fn kernels_are_in_the_order_of_their_numbers() {
    let mut kernels = ["7", "6.12, no tracer", "6.18", "6.12", "6.1"];
    kernels.sort_by_key(|kernel| version(kernel));
    assert_eq!(kernels, ["6.1", "6.12", "6.12, no tracer", "6.18", "7"]);
}
