//! Exit statuses as the help and docs/usage.md tell them, answers as JSON, and colour.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::fd::AsRawFd as _,
    process::Command,
    time::{Duration, Instant},
};

use memguard::{
    cli::{LESSONS, WRONG_USAGE},
    journal::Copies,
    status,
    top::source::Player,
    trace,
};
use serde_json::Value;

use super::fixture::{Answer, ID, Machine, incident};

/// What is asked, and the status that has to come.
type Case<'a> = (&'a [&'a str], i32);

#[test]
fn every_status_comes_as_it_is_told() {
    let machine = Machine::new();
    let cases: &[Case<'_>] = &[
        (&["run", "--cgroup-root", "/nowhere"], 1),
        (&["run", "--config", "wrong.toml", "--cgroup-root", "/nowhere"], 1),
        (&["record", "out.mgtrace", "--cgroup-root", "/nowhere"], 1),
        (&["replay", "job.mgtrace"], 0),
        (&["replay", "job.mgtrace", "--rule", "all", "--profile", "fast", "--without", "tracer"], 0),
        (&["replay", "nowhere.mgtrace"], 1),
        (&["replay", "no.mgtrace"], 1),
        (&["replay", "cut.mgtrace"], 1),
        (&["replay", "idle.mgtrace"], 1),
        (&["replay", "reworded.mgtrace"], 0),
        (&["replay", "other.mgtrace"], 3),
        (&["replay", "other.mgtrace", "job.mgtrace", "nowhere.mgtrace"], 1),
        (&["replay", "job.mgtrace", "--rule", "nope"], 2),
        (&["replay", "job.mgtrace", "other.mgtrace", "--plot", "x.svg"], 2),
        (&["replay", "job.mgtrace", "--window", "20", "--hold", "7"], 2),
        (&["replay", "job.mgtrace", "--config", "/dev/zero"], 1),
        (&["top", "--config", "memguard.toml"], 2),
        (&["top", "--replay", "nowhere.mgtrace"], 1),
        (&["top", "--replay", "job.mgtrace"], 1),
        (&["status"], 1),
        (&["incidents"], 0),
        (&["incidents", "list"], 0),
        (&["incidents", "show", ID], 0),
        (&["incidents", "show", "mg-1-1"], 1),
        (&["report"], 0),
        (&["report", "latest"], 0),
        (&["report", "mg-1-1"], 1),
        (&["report", ID, "--out", "nowhere/report.html"], 1),
        (&["config", "show", "fast"], 0),
        (&["config", "check", "memguard.toml"], 0),
        (&["config", "check", "wrong.toml"], 1),
        (&["config", "check", "wrong.toml", "--output", "json"], 1),
        (&["config", "check", "nowhere.toml"], 1),
        (&["config", "check", "/dev/zero"], 1),
        (&["report", "--output", "html"], 2),
        (&["config", "reference"], 0),
        (&["completions", "zsh"], 0),
        (&["man"], 0),
        (&["man", "config", "check"], 0),
        (&["man", "walk"], 1),
        (&["man", "--out", "man/man8"], 0),
        (&["man", "--out", "memguard.toml/nowhere"], 1),
        (&[], 2),
        (&["walk"], 2),
        (&["completions", "tcsh"], 2),
    ];
    for (arguments, status) in cases {
        let answer = machine.ask(arguments);
        assert_eq!(answer.status, Some(*status), "{arguments:?}: {answer:?}");
        // With --output json mistakes are the answer.
        let in_answer = arguments.contains(&"json");
        assert_eq!(!answer.error.is_empty(), matches!(status, 1 | 2) && !in_answer, "{arguments:?}: {answer:?}");
        // What is wrong is named.
        for word in arguments.iter().filter(|word| word.contains("nowhere") && *status == 1) {
            assert!(answer.error.contains(word) || answer.out.contains(word), "{arguments:?}");
        }
    }
}

#[test]
fn every_command_refuses_an_option_that_it_does_not_have() {
    let machine = Machine::new();
    for lesson in LESSONS {
        let mut arguments: Vec<&str> = lesson.command.split_whitespace().collect();
        arguments.push("--no-such-option");
        let answer = machine.ask(&arguments);
        assert_eq!(answer.status, Some(WRONG_USAGE.status.into()), "{arguments:?}: {answer:?}");
        assert!(answer.error.contains("--no-such-option"), "{answer:?}");
    }
}

#[test]
fn an_answer_that_nobody_takes_is_a_failure_and_one_that_somebody_had_enough_of_is_none() {
    let machine = Machine::new();
    for arguments in
        [&["man"][..], &["completions", "bash"], &["config", "show"], &["incidents"], &["replay", "job.mgtrace"]]
    {
        let full = machine
            .memguard(arguments)
            .stdout(File::options().write(true).open("/dev/full").unwrap())
            .output()
            .unwrap();
        let answer = Answer::of(&full);
        assert!(
            answer.status == Some(1) && answer.error.contains("can't write the answer"),
            "{arguments:?}: {answer:?}"
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let ended = machine.memguard(arguments).stdout(writer).status().unwrap();
        assert_eq!(ended.code(), Some(0), "{arguments:?}");
    }
}

/// The status says the same as the worst of the findings; and where memguard can work, `run` does, and ends well.
#[test]
fn the_doctors_status_is_that_of_its_worst_finding() {
    let machine = Machine::new();
    for (arguments, bad) in
        [(&["doctor", "--output", "json"][..], false), (&["doctor", "--json", "--config", "wrong.toml"], true)]
    {
        let answer = machine.ask(arguments);
        let report: Value = serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
        let grades: BTreeSet<&str> =
            report["findings"].as_array().unwrap().iter().map(|finding| finding["grade"].as_str().unwrap()).collect();
        let expected = if grades.contains("bad") {
            1
        } else if grades.contains("lesser") {
            3
        } else {
            0
        };
        assert_eq!(answer.status, Some(expected), "{grades:?}");
        assert!(!bad || expected == 1, "a configuration with mistakes is bad");
        if report["obstacle"].is_null() && !bad {
            let answer = machine.ask(&["run", "--duration", "1", "--no-tracer", "--kubernetes", "off"]);
            assert_eq!(answer.status, Some(0), "{answer:?}");
        }
    }
}

#[test]
fn the_view_opens_in_a_terminal_and_ends_well() {
    let machine = Machine::new();
    for arguments in [&["top"][..], &["top", "--replay", "job.mgtrace", "--speed", "4"]] {
        let answer = machine.in_terminal(arguments, "q");
        assert_eq!(answer.status, Some(0), "{answer:?}");
        assert!(answer.out.contains("\x1b[?1049h") && answer.out.contains("\x1b[?1049l"), "{answer:?}");
    }
}

#[test]
fn json_is_json_and_never_in_colour() {
    let machine = Machine::new();
    for (arguments, member) in [
        (&["incidents"][..], "/0/id"),
        (&["incidents", "list"], "/0/stage/stage"),
        (&["incidents", "show", ID], "/rule"),
        (&["report"], "/0/incident"),
        (&["report", "latest"], "/report/incident"),
        (&["config", "show", "careful"], "/engine/hold_s"),
        (&["config", "check", "memguard.toml"], "/in_force/policy/mode"),
        (&["config", "check", "wrong.toml"], "/mistakes/1"),
        (&["config", "reference"], "/0/keys/0/takes"),
        (&["replay", "job.mgtrace"], "/rules/0/units/0/moments/0/to"),
        (&["doctor"], "/findings/0/grade"),
    ] {
        let arguments = [arguments, &["--output", "json"]].concat();
        let output = machine.memguard(&arguments).env("CLICOLOR_FORCE", "1").output().unwrap();
        let answer = Answer::of(&output);
        let value: Value =
            serde_json::from_str(&answer.out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {answer:?}"));
        assert!(value.pointer(member).is_some(), "{arguments:?} has no {member}: {value}");
        assert!(!answer.out.contains('\x1b'), "{arguments:?}");
    }
    let answer = machine.ask(&["config", "check", "wrong.toml", "--output", "json"]);
    let value: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((value["mistakes"].as_array().unwrap().len(), &value["in_force"]), (2, &Value::Null));
}

#[test]
fn text_is_in_colour_where_that_shows_it() {
    let machine = Machine::new();
    for arguments in
        [&["incidents"][..], &["incidents", "show", ID], &["report"], &["replay", "job.mgtrace"], &["doctor"]]
    {
        let painted = |set: &[(&str, &str)]| {
            let mut command = machine.memguard(arguments);
            command.envs(set.iter().copied()).env("TERM", "xterm");
            Answer::of(&command.output().unwrap()).out.contains('\x1b')
        };
        assert!(!painted(&[]), "{arguments:?}: into a pipe");
        assert!(painted(&[("CLICOLOR_FORCE", "1")]), "{arguments:?}");
    }
    let on_terminal = |set: Option<(&str, &str)>| {
        let mut machine = Machine::new();
        machine.set = set.map(|(name, value)| (name.to_owned(), value.to_owned()));
        machine.in_terminal(&["incidents"], "").out.contains("\x1b[32m")
    };
    assert!(on_terminal(None));
    assert!(!on_terminal(Some(("NO_COLOR", "1"))));
}

/// A memguard that is at work, as far as the socket can tell: what it sees is a recording at its verdict.
#[test]
fn a_memguard_at_work_answers() {
    let machine = Machine::new();
    let mut player = Player::new(trace::read(&machine.path("job.mgtrace")).unwrap().entries, None).unwrap();
    player.go_to(Duration::from_secs(20));
    let mut publisher = status::serve(&machine.run()).unwrap();
    publisher.publish(player.snapshot());
    let answer = machine.ask(&["status"]);
    assert!(answer.status == Some(0) && answer.out.contains("\nlivelock "), "{answer:?}");
    assert!(!answer.out.contains('\x1b'), "into a pipe");
    let answer = machine.ask(&["status", "--output", "json"]);
    let value: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!((answer.status, &value["units"][0]["state"]), (Some(0), &"livelock".into()));
    let painted = machine.memguard(&["status"]).env("CLICOLOR_FORCE", "1").output().unwrap();
    assert!(Answer::of(&painted).out.contains("\x1b[31mlivelock"), "{painted:?}");
}

#[test]
fn a_disk_that_does_not_answer_is_told_and_the_copies_are_shown() {
    let machine = Machine::new();
    let state = machine.path("hangs");
    fs::create_dir(&state).unwrap();
    // To open a pipe that nobody writes to waits, as a disk that went away does.
    assert!(Command::new("mkfifo").arg(state.join("journal.redb")).status().unwrap().success());
    Copies::below(&machine.run()).put(&incident("mg-1764000009-1")).unwrap();
    let began = Instant::now();
    let answer = machine.ask(&["incidents", "--state-dir", "hangs"]);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    assert_eq!(answer.status, Some(1), "{answer:?}");
    assert!(answer.out.contains("mg-1764000009-1") && answer.out.contains(ID), "{answer:?}");
    assert!(
        answer.error.contains("hangs did not answer within 5 s") && answer.error.contains("run folder"),
        "{answer:?}"
    );
    let answer = machine.ask(&["incidents", "show", "mg-1764000009-1", "--output", "json", "--state-dir", "hangs"]);
    assert_eq!(answer.status, Some(1), "{answer:?}");
    assert_eq!(serde_json::from_str::<Value>(&answer.out).unwrap()["id"], "mg-1764000009-1");
    let answer = machine.ask(&["report", "latest", "--state-dir", "hangs"]);
    assert!(answer.status == Some(1) && answer.error.contains("reports are on it"), "{answer:?}");
}

/// The journal is fine here, and the report is not: somebody has a lease on it, and so nobody else's `open()` comes back.
#[test]
fn a_report_that_hangs_is_not_waited_for() {
    let machine = Machine::new();
    let path = machine.state().join("reports").join(format!("{ID}.json.gz"));
    let held = File::options().read(true).write(true).open(path).unwrap();
    // SAFETY: neither takes a pointer to anything of ours. The signal tells who holds a lease that it is wanted back.
    let leased = unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
        libc::fcntl(held.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK)
    };
    assert_eq!(leased, 0, "{}", std::io::Error::last_os_error());
    let began = Instant::now();
    let answer = machine.ask(&["report", ID]);
    assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    assert!(answer.status == Some(1) && answer.out.is_empty(), "{answer:?}");
    assert!(answer.error.contains("did not answer within 5 s, and reports are on it"), "{answer:?}");
    let answer = machine.ask(&["report"]);
    assert!(answer.status == Some(0) && answer.out.contains(ID), "a list opens no report: {answer:?}");
    drop(held);
    assert_eq!(machine.ask(&["report", ID]).status, Some(0));
    let answer = machine.ask(&["report", "mg-1-1"]);
    assert!(answer.status == Some(1) && answer.error.contains("there is no report mg-1-1"), "{answer:?}");
}

#[test]
fn the_journal_is_read_from_the_disk_and_is_left_as_it_was() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.run()).unwrap();
    let journal = machine.state().join("journal.redb");
    let before = (fs::read(&journal).unwrap(), fs::metadata(&journal).unwrap().modified().unwrap());
    let answer = machine.ask(&["incidents"]);
    assert!(answer.status == Some(0) && answer.out.contains(ID), "{answer:?}");
    assert_eq!((fs::read(&journal).unwrap(), fs::metadata(&journal).unwrap().modified().unwrap()), before);
    assert!(!machine.run().exists(), "a reader makes no folder");
    // One that can't be read: what the copies have is told, and the status says that it was not all.
    fs::write(&journal, "no journal").unwrap();
    Copies::below(&machine.run()).put(&incident("mg-1764000009-1")).unwrap();
    let answer = machine.ask(&["incidents"]);
    assert!(answer.status == Some(1) && answer.out.contains("mg-1764000009-1"), "{answer:?}");
    assert!(answer.error.contains("journal.redb"), "{answer:?}");
    // Where nothing was kept there is nothing to tell, and it is told where that is.
    fs::create_dir(machine.path("fresh")).unwrap();
    let answer = machine.ask(&["incidents", "--run-dir", "none", "--state-dir", "fresh"]);
    assert_eq!((answer.status, answer.error.as_str()), (Some(0), ""));
    assert_eq!(answer.out, "no incidents in none or fresh\n");
    let answer = machine.ask(&["report", "--run-dir", "none", "--state-dir", "fresh"]);
    assert_eq!((answer.status, answer.out.as_str()), (Some(0), "no reports in fresh\n"));
    // A folder that is named with a mistake is no machine on which all is well.
    for command in ["incidents", "report"] {
        let answer = machine.ask(&[command, "--run-dir", "none", "--state-dir", "typo"]);
        assert!(answer.status == Some(1) && answer.error.contains("there is no folder typo"), "{answer:?}");
    }
    assert!(!machine.path("none").exists() && !machine.path("typo").exists());
}

/// redb panics over some damage of a file that was closed cleanly; people are told in words.
#[test]
fn a_journal_with_a_damaged_page_is_told_and_the_copies_are_shown() {
    const PAGE: usize = 4096;
    let machine = Machine::new();
    let journal = machine.state().join("journal.redb");
    let whole = fs::read(&journal).unwrap();
    let used: Vec<_> =
        (1..whole.len() / PAGE).filter(|page| whole[page * PAGE..][..PAGE].iter().any(|byte| *byte != 0)).collect();
    let mut damaged = 0;
    for page in used {
        let mut content = whole.clone();
        content[page * PAGE..][..PAGE].fill(0);
        fs::write(&journal, content).unwrap();
        let answer = machine.ask(&["incidents"]);
        assert!(matches!(answer.status, Some(0 | 1)) && answer.out.contains(ID), "{page}: {answer:?}");
        assert!(!answer.error.contains("panicked"), "{page}: {answer:?}");
        damaged += usize::from(answer.error.contains("it is damaged; memguard puts it aside"));
    }
    assert!(damaged > 0, "or this shows nothing");
}

/// While memguard has it open there are copies of all that matters.
#[test]
fn a_journal_in_use_is_no_trouble() {
    let machine = Machine::new();
    let opened = memguard::journal::Journal::open(&machine.state(), &machine.run()).unwrap();
    let answer = machine.ask(&["incidents"]);
    assert!(answer.status == Some(0) && answer.out.contains(ID) && answer.error.is_empty(), "{answer:?}");
    drop(opened);
}

#[test]
fn shells_take_their_completions() {
    let machine = Machine::new();
    let answer = machine.ask(&["completions", "bash"]);
    assert!(!answer.out.contains("read-journal\""), "what is hidden is not offered");
    fs::write(machine.path("completions"), answer.out).unwrap();
    // As bash would ask it, with the cursor behind `memguard conf`.
    let script = "source ./completions; COMP_WORDS=(memguard conf); COMP_CWORD=1; COMP_LINE='memguard conf'; \
                  _memguard memguard conf memguard; echo ${COMPREPLY[*]}";
    match Command::new("bash").args(["-c", script]).current_dir(machine.path("")).output() {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), "config\n", "{output:?}"),
        Err(error) => println!("no bash here: {error}"),
    }
}
