use std::time::UNIX_EPOCH;

use http::{HeaderValue, Method};
use serde_json::json;

use super::*;

/// The clock here is an hour and a half late.
const NOW: u64 = 1_700_000_000;
const DATE: &str = "Wed, 15 Nov 2023 00:00:00 GMT";
const DATE_S: u64 = 1_700_006_400;

fn call() -> Call {
    Call {
        forbidden: "give it \"actions: write\"",
        ..Call::new(Method::GET, "/x".into(), "cancel run 7 of o/r".into())
    }
}

fn answer(status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Answer {
    let headers =
        headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
    Answer::new(status, headers.collect(), body.into(), SecretString::from("0123456789abcdef-old-style"))
}

fn says(message: &str) -> String {
    json!({"message": message, "documentation_url": "x"}).to_string()
}

fn refused(status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) -> Failure {
    answer(status, headers, body).refusal(&call(), UNIX_EPOCH + Duration::from_secs(NOW))
}

fn later(failure: &Failure) -> Option<u64> {
    match failure {
        Failure::Later { after, .. } => Some(after.map_or(0, |after| after.as_secs())),
        Failure::Final { .. } => None,
    }
}

#[test]
fn not_now_is_told_from_no() {
    let no = "Resource not accessible by integration";
    let soon = (DATE_S + 90).to_string();
    for (status, headers, message, wait) in [
        (429, vec![], "x", 60),
        (429, vec![("retry-after", "7")], "x", 7),
        (403, vec![("retry-after", "120")], no, 120),
        (403, vec![], "You have exceeded a secondary rate limit. Please wait", 60),
        (403, vec![], "API rate limit exceeded for installation ID 1", 60),
        (403, vec![], "You have triggered an abuse detection mechanism", 60),
        (403, vec![("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", soon.as_str()), ("date", DATE)], no, 90),
        (503, vec![("retry-after", "30")], "x", 30),
        (500, vec![], "x", 0),
        (502, vec![], "x", 0),
        (408, vec![], "x", 0),
        (409, vec![], "x", 0),
        (401, vec![], "Bad credentials", 0),
    ] {
        let failure = refused(status, &headers, says(message));
        assert_eq!(later(&failure), Some(wait), "{status} {headers:?} {failure:?}");
    }
    for (status, headers) in [
        (400, vec![]),
        (403, vec![]),
        (403, vec![("x-ratelimit-remaining", "17"), ("x-ratelimit-reset", soon.as_str())]),
        (404, vec![]),
        (410, vec![]),
        (422, vec![]),
        (451, vec![]),
    ] {
        assert_eq!(later(&refused(status, &headers, says(no))), None, "{status} {headers:?}");
    }
}

#[test]
fn waits_go_by_githubs_clock_and_have_bounds() {
    let wait = |headers: &[(&'static str, &str)]| later(&refused(429, headers, says("x"))).unwrap();
    let (soon, past) = ((DATE_S + 90).to_string(), (DATE_S - 90).to_string());
    let limit = |reset| [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset), ("date", DATE)];
    assert_eq!(wait(&limit(&soon)), 90, "by our own clock it would be more than an hour");
    assert_eq!(wait(&limit(&soon)[..2]), 3600, "without its clock ours counts, within reason");
    assert_eq!(wait(&limit(&past)), 1);
    assert_eq!(wait(&limit("99999999999999999")), 60, "no time that there is");
    assert_eq!(wait(&limit("-5")), 1);
    assert_eq!(wait(&[("retry-after", "Wed, 15 Nov 2023 00:02:00 GMT"), ("date", DATE)]), 120);
    assert_eq!(wait(&[("retry-after", "0")]), 1);
    assert_eq!(wait(&[("retry-after", "999999999")]), 3600);
    assert_eq!(wait(&[("retry-after", "99999999999999999999999")]), 60);
    assert_eq!(wait(&[("retry-after", "soon")]), 60);
}

#[test]
fn words_that_are_not_githubs_are_no_answer() {
    for status in [400, 401, 403, 404, 409, 410, 422] {
        for body in ["<html>Not Found</html>", "", "{", "{\"error\": \"x\"}", "[]", "\u{fffd}"] {
            let failure = refused(status, &[], body);
            assert!(later(&failure).is_some() && failure.to_string().contains("not in GitHub's words"), "{failure:?}");
        }
    }
}

#[test]
fn a_refusal_says_what_was_tried_what_github_said_and_what_to_do() {
    let failure = refused(403, &[("x-accepted-github-permissions", "actions=write")], says("Resource not accessible"));
    let why = failure.to_string();
    for part in ["cancel run 7 of o/r", "\"Resource not accessible\" (403)", "actions: write", "asks for actions=write"]
    {
        assert!(why.contains(part), "{why}");
    }
    let why = refused(404, &[], says("Not Found")).to_string();
    assert!(why.contains("may not see") && why.contains("installed"), "{why}");
    let why = refused(401, &[], says("Bad credentials")).to_string();
    assert!(why.contains("put a new one"), "{why}");
    let body = json!({"message": "Validation Failed", "errors": [
        {"resource": "CheckRun", "field": "conclusion", "code": "invalid"}, "odd", {"message": "too long"}, {"x": 1}, 3,
    ]});
    let why = refused(422, &[], body.to_string()).to_string();
    assert!(why.contains("Validation Failed; conclusion: invalid; odd; too long\" (422)"), "{why}");
}

#[test]
fn what_a_server_says_is_shown_without_secrets_and_escapes() {
    let text = says(&format!("a\n\u{1b}[2Kyou sent Bearer 0123456789abcdef-old-style and ghs_abc{}", "y".repeat(9999)));
    let why = refused(403, &[], text).to_string();
    assert!(!why.contains("0123456789") && !why.contains("ghs_") && !why.contains(['\n', '\u{1b}']), "{why}");
    assert!(why.contains("Bearer [token]") && why.len() < 1000, "{why}");
}

#[test]
fn an_answer_that_is_cut_or_something_else_is_tried_again() {
    #[derive(Debug, Deserialize)]
    struct Body {
        #[expect(dead_code, reason = "only whether it can be read matters")]
        id: u64,
    }
    for body in ["", "{\"id\"", "{\"id\": \"secret\"}", "<html>secret", "{}", "null"] {
        let failure = answer(200, &[], body).read::<Body>(&call()).unwrap_err();
        assert_eq!(later(&failure), Some(0), "{body}");
        assert!(!failure.to_string().contains("secret"), "{failure}");
    }
    assert!(answer(200, &[], "{\"id\": 1, \"new\": {}}").read::<Body>(&call()).is_ok());
}
