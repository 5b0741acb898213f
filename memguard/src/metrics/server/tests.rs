use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream as Blocking},
    time::Instant,
};

use super::*;
use crate::metrics::{
    Questions,
    fixture::{about, present},
    questions,
};

fn serve() -> (SocketAddr, Server, Questions) {
    let (asker, questions) = questions();
    let served = Served {
        metrics: Metrics::default(),
        about: about(),
        asker,
        started: SystemTime::now(),
        lost_lines: LostLines::default(),
    };
    let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address().unwrap();
    (address, listener.serve(served).unwrap(), questions)
}

/// A detection loop that does nothing but answer, until it is dropped.
struct Loop(Option<(oneshot::Sender<()>, JoinHandle<()>)>);

fn looping(mut questions: Questions) -> Loop {
    let (end, mut ended) = oneshot::channel();
    let thread = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            loop {
                tokio::select! {
                    question = questions.next() => drop(question.send(present())),
                    _ = &mut ended => return,
                }
            }
        });
    });
    Loop(Some((end, thread)))
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.0.take() {
            drop(end);
            thread.join().unwrap();
        }
    }
}

/// Head and body of the answer to a request, as the bytes are.
fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = Blocking::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

fn get(address: SocketAddr, path: &str, accept: &str) -> (String, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\n\r\n"))
}

#[test]
fn the_page_comes_in_the_format_that_is_asked_for_with_its_content_type() {
    let (address, _server, questions) = serve();
    let _loop = looping(questions);
    let (head, body) = get(address, "/metrics", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert!(
        head.contains("\r\ncontent-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{head}"
    );
    assert!(body.ends_with("# EOF\n") && body.contains("memguard_loop_responds 1\n"));
    let (head, body) = get(address, "/metrics?x=y", "*/*");
    assert!(head.contains("\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: close") && head.contains("cache-control: no-store"), "{head}");
    assert!(!body.contains("# EOF") && body.contains("\nmemguard_cgroups{state=\"livelock\"} 1\n"));
}

#[test]
fn a_request_for_the_head_gets_the_length_and_no_body() {
    let (address, _server, questions) = serve();
    let _loop = looping(questions);
    let (head, body) = ask(address, "HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
    assert!(head.starts_with("http/1.1 200 ") && head.contains("content-length: "), "{head}");
    assert_eq!(body, "");
}

#[test]
fn other_paths_and_methods_are_refused_each_with_its_own_status() {
    let (address, _server, questions) = serve();
    let _loop = looping(questions);
    for (request, status) in [
        ("GET /metrics/x HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
        ("POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", "404"),
        ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", "405"),
        ("DELETE /healthz HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
        ("nonsense\r\n\r\n", "400"),
    ] {
        let (head, _) = ask(address, request);
        assert!(head.starts_with(&format!("http/1.1 {status} ")), "{request}: {head}");
        assert_eq!(head.contains("\r\nallow: get, head"), status == "405", "{head}");
    }
    let long = format!("GET /metrics HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(2 * LONGEST_REQUEST));
    let mut stream = Blocking::connect(address).unwrap();
    // It may be cut off in the middle of it.
    let _ = stream.write_all(long.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP/1.1 200"));
    let (_, index) = get(address, "/", "*/*");
    assert!(index.contains("/readyz"));
}

#[test]
fn an_idle_loop_is_alive_and_one_that_hangs_or_has_not_begun_is_not() {
    let (address, _server, questions) = serve();
    // As before the tracer is attached: nobody takes questions yet.
    let began = Instant::now();
    let (head, body) = get(address, "/readyz", "*/*");
    assert!(head.starts_with("http/1.1 503 ") && body.contains("the detection loop does not answer"), "{head} {body}");
    assert!(began.elapsed() < Duration::from_secs(5), "before the kubelet's patience ends");
    let (_, body) = get(address, "/metrics", "*/*");
    assert!(body.contains("memguard_loop_responds 0\n") && body.contains("memguard_verdicts_total"));
    let running = looping(questions);
    for path in ["/healthz", "/readyz"] {
        let (head, body) = get(address, path, "*/*");
        assert!(head.starts_with("http/1.1 200 ") && head.contains("content-type: application/json"), "{head} {body}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&body).unwrap()["status"], "ok");
    }
    drop(running);
    thread::sleep(Duration::from_millis(1100));
    assert!(get(address, "/healthz", "*/*").0.starts_with("http/1.1 503 "));
}

#[test]
fn many_that_ask_for_nothing_keep_nobody_from_being_answered() {
    let (address, _server, questions) = serve();
    let _loop = looping(questions);
    let idle: Vec<_> = (0..3 * MOST_CONNECTIONS).map(|_| Blocking::connect(address).unwrap()).collect();
    let began = Instant::now();
    assert!(get(address, "/healthz", "*/*").0.starts_with("http/1.1 200 "));
    assert!(began.elapsed() < HEADERS_WITHIN / 2, "{:?}", began.elapsed());
    // Nor does one that does not read its answer.
    let mut deaf = Blocking::connect(address).unwrap();
    deaf.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(get(address, "/metrics", "*/*").0.starts_with("http/1.1 200 "));
    drop(idle);
}

#[test]
fn who_does_not_finish_a_request_is_cut_off() {
    let (address, _server, _questions) = serve();
    let mut stream = Blocking::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\n").unwrap();
    stream.set_read_timeout(Some(3 * HEADERS_WITHIN)).unwrap();
    let began = Instant::now();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(began.elapsed() < 2 * HEADERS_WITHIN && !answer.starts_with(b"HTTP/1.1 200"));
    let _ = stream.shutdown(Shutdown::Both);
}

#[test]
fn an_address_that_is_taken_is_told_with_the_remedy_and_ipv6_works() {
    let first = listen("[::1]:0".parse().unwrap()).unwrap();
    let error = listen(first.address().unwrap()).unwrap_err().to_string();
    assert!(error.contains("[::1]:") && error.contains("--metrics-listen"), "{error}");
    drop(first);
}
