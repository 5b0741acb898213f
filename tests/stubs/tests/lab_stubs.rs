//! The program that plays GitHub and Kubernetes in the lab's guests, from its start to its end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use memguard_lab::chain::{NAMESPACE, Order, Pod, REPOSITORY, RUN_ID, RUNNER, Server, State, TOKEN, Told, World};
use serde_json::json;

fn world() -> World {
    let pod = |name: &str, runner_uid: Option<&str>| Pod {
        name: name.to_owned(),
        uid: format!("pod-{name}"),
        runner_uid: runner_uid.map(str::to_owned),
        containers: vec![("runner".to_owned(), "a".repeat(64))],
    };
    World {
        kubernetes_port: 0,
        github_port: 0,
        token: TOKEN.to_owned(),
        node: "lab".to_owned(),
        namespace: NAMESPACE.to_owned(),
        pods: vec![pod(RUNNER, Some("runner-1")), pod("neighbour", None)],
        repository: REPOSITORY.to_owned(),
        run_id: RUN_ID,
        stubborn: false,
    }
}

/// The status and the body of an answer; an error where there is none.
fn ask(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\nContent-Length: \
         {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    Ok((status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()))
}

#[test]
fn a_round_as_memguard_would_play_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("world.json");
    std::fs::write(&file, serde_json::to_vec(&world()).unwrap()).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_lab-stubs"))
        .arg(&file)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut orders = program.stdin.take().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Told>(&lines.next().unwrap().unwrap()).unwrap();
    let Told::Ready { kubernetes_port, github_port } = next() else { panic!("not ready") };

    let runner = format!("/apis/actions.github.com/v1alpha1/namespaces/{NAMESPACE}/ephemeralrunners/{RUNNER}");
    let (code, text) = ask(kubernetes_port, "GET", &runner, "").unwrap();
    assert!(code == 200 && text.contains(&RUN_ID.to_string()) && text.contains(&github_port.to_string()), "{text}");
    let mut order = |is| writeln!(orders, "{}", json!(Order { server: Server::Kubernetes, is })).unwrap();
    order(State::Refuses);
    while ask(kubernetes_port, "GET", &runner, "").is_ok() {
        thread::sleep(Duration::from_millis(10));
    }
    order(State::Well);
    while ask(kubernetes_port, "GET", &runner, "").is_err() {
        thread::sleep(Duration::from_millis(10));
    }
    let run = format!("/api/v3/repos/{REPOSITORY}/actions/runs/{RUN_ID}");
    assert_eq!(ask(github_port, "POST", &format!("{run}/cancel"), "").unwrap().0, 202);
    let precondition = json!({"preconditions": {"uid": "runner-1"}}).to_string();
    assert_eq!(ask(kubernetes_port, "DELETE", &runner, &precondition).unwrap().0, 200);
    assert_eq!(ask(kubernetes_port, "GET", &runner, "").unwrap().0, 200, "it waits for GitHub");
    while !ask(github_port, "GET", &run, "").unwrap().1.contains("cancelled") {
        thread::sleep(Duration::from_millis(100));
    }
    assert!(matches!(next(), Told::RunOver { conclusion, .. } if conclusion == "cancelled"));
    assert!(matches!(next(), Told::RunnerGone { name, .. } if name == RUNNER));
    assert_eq!(ask(kubernetes_port, "GET", &runner, "").unwrap().0, 404);

    drop(orders);
    let mut requests = Vec::new();
    let end = loop {
        match next() {
            Told::Request(request) => requests.push(request),
            Told::End(end) => break end,
            other => panic!("{other:?}"),
        }
    };
    assert!(requests.is_sorted_by(|a, b| a.t <= b.t));
    let effects: Vec<_> = requests.iter().filter_map(|request| request.effect.as_deref()).collect();
    assert_eq!(effects, [format!("deleted ephemeralrunners {NAMESPACE}/{RUNNER} runner-1")]);
    assert_eq!((end.cancels, end.force_cancels, end.conclusion.as_deref()), (1, 0, Some("cancelled")));
    assert!(!end.others_touched && !end.runner_left && end.check_runs.is_empty() && end.runner_uid == "runner-1");
    assert!(program.wait().unwrap().success());
}
