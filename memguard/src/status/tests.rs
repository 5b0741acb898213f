//! The socket from both ends.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    engine::{Engine, Memory, Settings},
    respond::Mode,
    telemetry::CgroupName,
};

/// A made-up snapshot whose time is `at_s`, with so many cgroups.
fn snapshot(at_s: f64, units: u64) -> Snapshot {
    let engine = Engine::new(Settings::default());
    let trail = Trail::new(Duration::ZERO);
    let name = |id| CgroupName { id, cgroup: format!("{id}-{}", "x".repeat(300)), place: None, pod: None };
    Snapshot {
        format: FORMAT,
        version: "0".to_owned(),
        unix_ms: 0,
        at_s,
        mode: Mode::Observe,
        signals_from: "full".to_owned(),
        lost: Vec::new(),
        no_tracer: None,
        engine: EngineStatus { window_s: 5.0, hold_s: 7.0 },
        cost: CostStatus::default(),
        pods: None,
        totals: Totals::default(),
        units: (0..units)
            .map(|id| UnitStatus::new(name(id), &Memory::default(), &trail, &engine, Duration::from_secs(1)))
            .collect(),
        units_left_out: 0,
        incidents: Vec::new(),
    }
}

/// As the agent does it, in ticks of 10 ms: only while somebody watches. Until `done`.
fn publish_until(publisher: &mut Publisher, units: u64, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "never done");
        if publisher.watched() {
            publisher.publish(snapshot(began.elapsed().as_secs_f64(), units));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_is_published_arrives_and_the_socket_is_roots_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = serve(dir.path()).unwrap();
    let at = socket(dir.path());
    assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o600);
    let client = thread::spawn({
        let at = at.clone();
        move || {
            let mut client = Client::connect(&at).unwrap();
            (client.snapshot().unwrap(), client.snapshot().unwrap())
        }
    });
    publish_until(&mut publisher, 3, || client.is_finished());
    let (first, second) = client.join().unwrap();
    assert_eq!(first.units.len(), 3);
    assert!(second.at_s > first.at_s);
    // Whoever has gone is noticed, and then nothing is asked for any more.
    publish_until_nobody(&mut publisher);
    drop(publisher);
    assert!(!at.exists());
    assert!(matches!(Client::connect(&at), Err(ClientError::NotRunning { .. })));
}

fn publish_until_nobody(publisher: &mut Publisher) {
    let watchers = publisher.watchers_for_tests();
    publish_until(publisher, 1, || *watchers.borrow() == 0);
}

#[test]
fn one_that_does_not_read_holds_up_nobody_and_is_let_go() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = serve(dir.path()).unwrap();
    let stuck = UnixStream::connect(socket(dir.path())).unwrap();
    let watchers = publisher.watchers_for_tests();
    // How much the other one sees while this one does not read, which is until it is let go.
    let reader = thread::spawn({
        let at = socket(dir.path());
        move || {
            let mut client = Client::connect(&at).unwrap();
            let (mut beside, mut both) = (0, false);
            loop {
                client.snapshot().unwrap();
                match *watchers.borrow() {
                    2 => (beside, both) = (beside + 1, true),
                    _ if both => return beside,
                    _ => {}
                }
            }
        }
    });
    // Some hundred KiB each: more than the buffers of a socket take.
    publish_until(&mut publisher, 256, || reader.is_finished());
    let beside = reader.join().unwrap();
    // One after the other, it would be as many as the buffers take: two.
    assert!(beside >= 5, "{beside} snapshots while somebody did not read");
    publish_until_nobody(&mut publisher);
    let mut rest = Vec::new();
    let cut = (&stuck).take(16 << 20).read_to_end(&mut rest);
    assert!(cut.is_ok() && !rest.is_empty(), "it was let go: {cut:?}");
}

#[test]
fn eight_watch_and_the_ninth_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = serve(dir.path()).unwrap();
    let at = socket(dir.path());
    let clients = thread::spawn(move || {
        let mut eight: Vec<_> = (0..8).map(|_| Client::connect(&at).unwrap()).collect();
        for client in &mut eight {
            client.snapshot().unwrap();
        }
        let ninth = Client::connect(&at).unwrap().snapshot();
        for client in &mut eight {
            client.snapshot().unwrap();
        }
        ninth.unwrap_err()
    });
    publish_until(&mut publisher, 1, || clients.is_finished());
    let error = clients.join().unwrap();
    assert!(matches!(error, ClientError::Refused { .. }) && error.to_string().contains("8 others"), "{error}");
}

#[test]
fn garbage_from_a_client_is_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = serve(dir.path()).unwrap();
    let mut stream = UnixStream::connect(socket(dir.path())).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let _ = stream.write_all(&vec![0xff; 1 << 20]);
    let reader = thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map(|_| line)
    });
    publish_until(&mut publisher, 1, || reader.is_finished());
    assert!(reader.join().unwrap().unwrap().starts_with("{\"format\":1,"));
}

#[test]
fn a_socket_that_was_left_behind_is_replaced_and_one_in_use_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = socket(dir.path());
    drop(UnixListener::bind(&at).unwrap());
    assert!(at.exists(), "as after a SIGKILL");
    let first = serve(dir.path()).unwrap();
    assert!(matches!(serve(dir.path()), Err(ServeError::InUse { .. })));
    assert!(at.exists(), "the first one's stays");
    drop(first);
    fs::write(&at, "a file").unwrap();
    assert!(matches!(serve(dir.path()), Err(ServeError::NotASocket { .. })));
    assert_eq!(fs::read(&at).unwrap(), b"a file");
}

#[test]
fn somebody_who_comes_after_a_pause_gets_no_old_news() {
    let dir = tempfile::tempdir().unwrap();
    let mut publisher = serve(dir.path()).unwrap();
    let ask = |at: &Path| {
        let at = at.to_owned();
        thread::spawn(move || Client::connect(&at).unwrap().snapshot().unwrap().at_s)
    };
    let first = ask(&socket(dir.path()));
    publish_until(&mut publisher, 1, || first.is_finished());
    publish_until_nobody(&mut publisher);
    thread::sleep(Duration::from_millis(1700));
    let second = ask(&socket(dir.path()));
    let began = Instant::now();
    let mut told = false;
    while !second.is_finished() && began.elapsed() < Duration::from_secs(10) {
        if publisher.watched() && began.elapsed() > Duration::from_millis(300) {
            publisher.publish(snapshot(1e6, 1));
            told = true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(told, "it waited for a new one");
    assert!(second.join().unwrap() >= 1e6);
}

/// Answers one client with these bytes.
fn answering(bytes: &'static [u8]) -> ClientError {
    let dir = tempfile::tempdir().unwrap();
    let at = socket(dir.path());
    let listener = UnixListener::bind(&at).unwrap();
    let server = thread::spawn(move || listener.accept().unwrap().0.write_all(bytes).unwrap());
    let answer = Client::connect(&at).unwrap().snapshot();
    server.join().unwrap();
    answer.unwrap_err()
}

#[test]
fn answers_that_make_no_sense_are_errors_that_say_so() {
    for (bytes, part) in [
        (&b"{\"format\":99}\n"[..], "use the same version"),
        (b"{\"format\":1}\n", "missing field"),
        (b"{}\n", "without a format"),
        (b"HTTP/1.1 200 OK\r\n", "no memguard"),
        (b"\xff\xfe\n", "no memguard"),
        (b"{\"format\":1,", "has ended"),
        (b"", "has ended"),
        (b"{\"refused\":\"\\u001b[2J\"}\n", "\\u{1b}[2J"),
    ] {
        let error = answering(bytes).to_string();
        assert!(error.contains(part) && error.contains("status.sock"), "{part}: {error}");
    }
}

#[test]
fn a_snapshot_is_bounded_and_is_read_back_as_it_was() {
    let mut many = snapshot(1.0, 300);
    many.units[299].refaults = vec![5.0];
    many.bound();
    assert_eq!((many.units.len(), many.units_left_out, many.units[0].name.id), (MOST_UNITS, 44, 299));
    let json = serde_json::to_string(&many).unwrap();
    assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), many);
    let plain = text(&many);
    assert!(plain.contains("and 44 more") && plain.contains("no whole window yet"));
}
