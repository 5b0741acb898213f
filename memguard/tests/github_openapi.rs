//! Every request of memguard against GitHub's own description, by Prism: `cargo xtask test` starts one and names it in
//! `MEMGUARD_PRISM`. Without it this is skipped.

#[cfg(test)]
#[path = "github/fixture.rs"]
#[expect(dead_code, reason = "the other tests use the rest of it")]
mod fixture;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, io::Write as _, sync::Once};

    use http::{Request, StatusCode, header};
    use http_body_util::{BodyExt as _, Full};
    use hyper::body::Bytes;
    use hyper_util::{
        client::legacy::{Client, connect::HttpConnector},
        rt::TokioExecutor,
    };
    use memguard::github::{Cancelled, GitHub, Settings, Told, Verdict};
    use memguard_stubs::github::{Ending, Run};
    use serde_json::{Value, json};

    use super::fixture::{self, RUN, app, check, settings};

    /// Of the examples in the description.
    const EXAMPLE_RUN: u64 = 30_433_642;
    const EXAMPLE_RUNNER: &str = "my runner";

    static SAID: Once = Once::new();

    fn prism() -> Option<String> {
        let url = std::env::var("MEMGUARD_PRISM").ok();
        if url.is_none() {
            // Not by a macro: of a test that passes its words would not be shown.
            SAID.call_once(|| {
                let line = "skipped: MEMGUARD_PRISM names no Prism; `cargo xtask test` starts one";
                let _ = writeln!(std::io::stderr(), "{line}");
            });
        }
        url
    }

    struct Raw(Client<HttpConnector, Full<Bytes>>, String);

    impl Raw {
        fn new(url: &str) -> Self {
            Self(Client::builder(TokioExecutor::new()).build_http(), url.to_owned())
        }

        async fn send(&self, method: &str, path: &str, body: &Value, bearer: bool) -> (StatusCode, String) {
            let mut request = Request::builder()
                .method(method)
                .uri(format!("{}{path}", self.1))
                .header(header::ACCEPT, "application/vnd.github+json");
            if bearer {
                request = request.header(header::AUTHORIZATION, "Bearer x");
            }
            let body = if body.is_null() {
                Bytes::new()
            } else {
                request = request.header(header::CONTENT_TYPE, "application/json");
                body.to_string().into()
            };
            let answer = self.0.request(request.body(Full::new(body)).unwrap()).await.unwrap();
            let status = answer.status();
            let text = answer.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8_lossy(&text).into_owned())
        }
    }

    /// What the description's examples answer is what memguard reads.
    #[tokio::test]
    async fn the_examples_of_githubs_description_are_read() {
        let Some(url) = prism() else { return };
        let settings = Settings { api_url: Some(url.clone()), ..settings(&url, app()) };
        let github = GitHub::new(&settings).unwrap();
        let repository = "octo-org/octo-repo".parse().unwrap();
        let run = github.run(&repository, EXAMPLE_RUN).await.unwrap();
        assert_eq!((run.status.as_str(), run.head_sha.len()), ("queued", 40), "{run:?}");
        let jobs = github.jobs_on(&repository, EXAMPLE_RUN, EXAMPLE_RUNNER).await.unwrap();
        assert_eq!((jobs.len(), jobs[0].conclusion.as_deref()), (1, Some("success")), "{jobs:?}");
        assert_eq!(github.cancel(&repository, EXAMPLE_RUN).await, Ok(Cancelled::Accepted));
        assert_eq!(github.force_cancel(&repository, EXAMPLE_RUN).await, Ok(Cancelled::Accepted));
        let told = github.tell_check(&repository, &check("mg-1")).await.unwrap();
        assert!(matches!(told, Told::Check { id: 4, already: false, .. }), "{told:?}");
        let checks = github.doctor().await;
        assert!(checks.iter().any(|check| check.name == "rate limit"), "{checks:?}");
        assert!(!checks.iter().any(|check| check.name == "login" && check.verdict != Verdict::Good), "{checks:?}");
    }

    /// All that memguard sends in any of its ways, noted by the stub, is what the description allows.
    #[tokio::test]
    async fn every_request_is_one_that_githubs_description_allows() {
        let Some(url) = prism() else { return };
        let mut noted = Vec::new();
        for fixture in [fixture::with_app().await, fixture::with_token().await] {
            fixture.stub.put_run(Run { ending: Ending::Stuck, ..Run::on("octo/repo", RUN, "runner-1") });
            let (github, repository) = (&fixture.github, &fixture.repository);
            github.run(repository, RUN).await.unwrap();
            github.jobs_on(repository, RUN, "runner-1").await.unwrap();
            github.cancel(repository, RUN).await.unwrap();
            github.force_cancel(repository, RUN).await.unwrap();
            let mut long = check("mg-2");
            long.title = "ü".repeat(1000);
            long.summary = "ü".repeat(70_000);
            for check in [check("mg-1"), long] {
                github.tell_check(repository, &check).await.unwrap();
            }
            github.doctor().await;
            noted.extend(fixture.stub.requests());
        }
        let raw = Raw::new(&url);
        let mut kinds = BTreeSet::new();
        for request in noted {
            let path = request.path.strip_prefix("/api/v3").unwrap();
            let (status, text) = raw.send(&request.method, path, &request.body, true).await;
            assert!(status.is_success(), "{} {path}: {status} {text}", request.method);
            let last = path.split('?').next().unwrap().split('/').next_back().unwrap();
            kinds.insert(format!("{} {}", request.method, if last.len() == 40 { "status" } else { last }));
        }
        let expected = [
            "GET 7",
            "GET check-runs",
            "GET jobs",
            "GET rate_limit",
            "POST access_tokens",
            "POST cancel",
            "POST check-runs",
            "POST force-cancel",
            "POST status",
        ];
        assert_eq!(kinds.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    /// What is held against the description can fail.
    #[tokio::test]
    async fn wrong_requests_are_refused() {
        let Some(url) = prism() else { return };
        let raw = Raw::new(&url);
        let sha = "0123456789abcdef0123456789abcdef01234567";
        let good = json!({"name": "memguard", "head_sha": sha, "status": "completed", "conclusion": "failure"});
        let with = |name: &str, value: Value| {
            let mut body = good.clone();
            body[name] = value;
            body
        };
        let repo = "/repos/octo/repo";
        let null = Value::Null;
        let runs = format!("{repo}/check-runs");
        assert_eq!(raw.send("POST", &runs, &good, true).await.0, 201);
        for (method, path, body, bearer, refused) in [
            ("POST", runs.clone(), with("conclusion", json!("killed")), true, 422),
            ("POST", runs.clone(), with("external_id", json!(7)), true, 422),
            ("POST", runs.clone(), with("started_at", json!("yesterday")), true, 422),
            ("POST", runs.clone(), with("output", json!({"title": "x"})), true, 422),
            ("POST", format!("{repo}/statuses/{sha}"), json!({"state": "bad"}), true, 422),
            ("POST", format!("{repo}/actions/runs/seven/cancel"), null.clone(), true, 422),
            ("GET", format!("{repo}/actions/runs/7/jobs?filter=newest"), null.clone(), true, 422),
            ("GET", format!("{repo}/commits/{sha}/check-runs?app_id=x"), null.clone(), true, 422),
            ("GET", format!("{repo}/actions/runs/7"), null.clone(), false, 401),
            ("GET", format!("{repo}/actions/run/7"), null.clone(), true, 404),
            ("PUT", format!("{repo}/actions/runs/7/cancel"), null, true, 405),
        ] {
            let (status, text) = raw.send(method, &path, &body, bearer).await;
            assert_eq!(status, refused, "{method} {path} {body}: {text}");
        }
    }
}
