//! What a list of pods takes in memory, whatever is in it: memguard's is locked, and its limit small.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use serde_json::json;

use super::super::*;
use crate::kubernetes::{client, fixture::runner_pod};

const NAME: &str = "kubernetes::watch::tests::memory::no_list_takes_more_than_one_of_its_pods_and_what_is_kept";
/// Inside: where the server is.
const SERVER: &str = "MEMGUARD_TEST_PODS_FROM";

/// A list of so many pods, each with labels, annotations and managed fields of so many bytes. No watch is answered.
fn serve(mut stream: TcpStream, pods: usize, bytes: usize) {
    let mut asked = [0; 4096];
    let length = stream.read(&mut asked).unwrap_or(0);
    if String::from_utf8_lossy(&asked[..length]).contains("watch=true") {
        return;
    }
    let mut pod = runner_pod("uid", "name");
    for at in 0..bytes / 3 / 100 {
        let name = format!("{at:04}-{}", "l".repeat(30));
        pod["metadata"]["labels"][&name] = "v".repeat(60).into();
        pod["metadata"]["annotations"][&name] = "v".repeat(60).into();
        pod["metadata"]["managedFields"][0]["fieldsV1"]["f:metadata"]["f:labels"][&name] = json!({});
    }
    let pod = pod.to_string();
    let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n");
    let _ = write!(stream, r#"{{"kind":"PodList","metadata":{{"resourceVersion":"7"}},"items":["#);
    for at in 0..pods {
        let comma = if at == 0 { "" } else { "," };
        if write!(stream, "{comma}{}", pod.replace(r#""uid":"uid""#, &format!(r#""uid":"uid-{at}""#))).is_err() {
            return;
        }
    }
    let _ = write!(stream, "]}}");
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs itself once more, so that nothing else is in the process that is measured.
#[test]
fn no_list_takes_more_than_one_of_its_pods_and_what_is_kept() {
    if let Some(server) = std::env::var_os(SERVER) {
        return inside(server.to_str().unwrap());
    }
    for (pods, bytes) in [(1000, 8_000), (5000, 20_000), (50, 800_000), (3, 8_000_000)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            // A small one first, for all that is needed once; each with the watch after it.
            for (pods, bytes) in [(1, 300), (1, 300), (pods, bytes), (0, 0)] {
                if let Ok((stream, _)) = listener.accept() {
                    serve(stream, pods, bytes);
                }
            }
        });
        let mut inside = Command::new(std::env::current_exe().unwrap());
        let output = inside.args([NAME, "--exact", "--nocapture"]).env(SERVER, address).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let told = |name: &str| -> u64 {
            let word = said.split_whitespace().find_map(|word| word.strip_prefix(name));
            word.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr))).parse().unwrap()
        };
        let (before, after, known) = (told("before="), told("after="), told("known="));
        println!("{pods} pods of {bytes} bytes: {before} KiB, then {after} KiB, {known} pods known");
        let most = Pods::MOST_BYTES as u64 / 1024 + 3 * bytes as u64 / 1024 + 6 * 1024;
        assert!(after - before < most, "{pods} pods of {bytes} bytes: {before} KiB, then {after} KiB; {most} may be");
        assert!(known > 0);
    }
}

fn inside(server: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "k", "cluster": {"server": format!("http://{server}")}}],
        "users": [{"name": "u", "user": {}}], "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    });
    std::fs::write(&path, config.to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = client(Some(&path), Duration::from_secs(5)).await.unwrap();
        let (pods, mut link) = (Pods::default(), Link::default());
        // Its end is that nobody answers the watch.
        let mut once = async || {
            let broken = follow(&client, "node-1", &pods, &mut link).await;
            assert!(broken.failure.to_string().contains("watch pods"), "{}", broken.failure);
        };
        once().await;
        let before = peak_kib();
        once().await;
        println!(" before={before} after={} known={} ", peak_kib(), pods.len());
    });
}
