//! Events that say why a container ended. After the kill Kubernetes shows exit code 137 and the reason `Error`, and this is
//! the only explanation that somebody with `kubectl describe` gets.

use std::{
    fmt::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Client, api::PostParams, core::Request};
use serde::{Deserialize, Serialize};

use super::{failure::Call, pods::PodFacts, runner::RunnerFacts};
use crate::{remote::Failure, telemetry::escaped};

/// Tells that something happened; [`NoticeAction`] says what was done.
const REASON: &str = "MemoryLivelock";
const CONTROLLER: &str = "memguard.dev/memguard";
/// What the API takes (pkg/apis/core/validation, `ValidateEventCreate`), in bytes.
const NOTE: usize = 1024;
const INSTANCE: usize = 128;
const NAME: usize = 253;

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regarding {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl From<&PodFacts> for Regarding {
    fn from(pod: &PodFacts) -> Self {
        Self {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: pod.namespace.clone(),
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        }
    }
}

impl From<&RunnerFacts> for Regarding {
    fn from(runner: &RunnerFacts) -> Self {
        Self {
            api_version: runner.api.api_version().to_owned(),
            kind: runner.api.kind().to_owned(),
            namespace: runner.namespace.clone(),
            name: runner.name.clone(),
            uid: runner.uid.clone(),
        }
    }
}

/// What was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoticeAction {
    Killed,
    Relieved,
    Observed,
}

impl NoticeAction {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Killed => "Killed",
            Self::Relieved => "Relieved",
            Self::Observed => "Observed",
        }
    }
}

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub regarding: Regarding,
    pub action: NoticeAction,
    /// For people. Escaped, and cut where the API's limit is.
    pub note: String,
    pub incident: String,
    pub node: String,
    pub at: SystemTime,
}

/// Makes the event. Its name comes from the incident, the action and the object: a repetition is refused by the API as
/// known already, and is success.
pub async fn tell(client: &Client, notice: Notice) -> Result<(), Failure> {
    let namespace = notice.regarding.namespace.clone();
    let of = format!("about {} {namespace}/{}", notice.regarding.kind, notice.regarding.name);
    let call = Call { verb: "create", resource: "events.events.k8s.io", of };
    let event = event(notice);
    let event = serde_json::to_vec(&event).map_err(|error| call.never(&error.to_string()))?;
    let events = Request::new(format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events"));
    match call.send(client, events.create(&PostParams::default(), event)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(call.failed(&error)),
    }
}

fn event(notice: Notice) -> Event {
    let Notice { regarding, action, note, incident, node, at } = notice;
    let microseconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
    let at = i64::try_from(microseconds).ok().and_then(|at| Timestamp::from_microsecond(at).ok());
    Event {
        metadata: ObjectMeta {
            name: Some(name(&incident, action, &regarding.uid)),
            namespace: Some(regarding.namespace.clone()),
            ..ObjectMeta::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(REASON.to_owned()),
        action: Some(action.name().to_owned()),
        note: Some(cut(escaped(&note), NOTE)),
        event_time: Some(MicroTime(at.unwrap_or(Timestamp::UNIX_EPOCH))),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(node, INSTANCE)),
        regarding: Some(ObjectReference {
            api_version: Some(regarding.api_version),
            kind: Some(regarding.kind),
            namespace: Some(regarding.namespace),
            name: Some(regarding.name),
            uid: Some(regarding.uid),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

/// `memguard-killed.<incident>.<uid>`. An object's name has lower-case letters, digits, `-` and `.`: every other character
/// is written as its number, so that two incidents don't become one.
fn name(incident: &str, action: NoticeAction, uid: &str) -> String {
    let mut name = format!("memguard-{}", action.name().to_lowercase());
    for part in [incident, uid] {
        // A label of a name begins and ends with a letter or digit.
        name.push_str(".i");
        for c in part.chars() {
            match c {
                'a'..='z' | '0'..='9' | '-' => name.push(c),
                _ => {
                    let _ = write!(name, "-{:x}-", u32::from(c));
                }
            }
        }
        name.push('i');
    }
    // Only of an id that is not memguard's.
    name.truncate(NAME);
    name.trim_end_matches(['-', '.']).to_owned()
}

fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Method;
    use serde_json::{Value, json};

    use super::*;
    use crate::kubernetes::{
        fixture::{runner_pod, server},
        pods::facts,
    };

    fn notice(note: &str) -> Notice {
        Notice {
            regarding: Regarding::from(&facts(&runner_pod("7fb47c9c-45d8", "runner-1"))),
            action: NoticeAction::Killed,
            note: note.to_owned(),
            incident: "1a2b-3".to_owned(),
            node: "node-1".to_owned(),
            at: UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456),
        }
    }

    async fn told(notice: Notice, answer: u16) -> (Result<(), Failure>, Value) {
        let (client, mut server) = server();
        let serve = async {
            let asked = server.expect(&Method::POST, "/apis/events.k8s.io/v1/namespaces/ci/events").await;
            let body = asked.body.clone();
            if answer == 201 {
                asked.json(201, &body);
            } else {
                asked.refuse(answer, "no");
            }
            body
        };
        tokio::join!(tell(&client, notice), serve)
    }

    #[tokio::test]
    async fn an_event_has_what_the_api_wants() {
        let (result, event) = told(notice("hung for 40 s"), 201).await;
        assert_eq!(result, Ok(()));
        let expected = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": "memguard-killed.i1a2b-3i.i7fb47c9c-45d8i", "namespace": "ci"},
            "type": "Warning", "reason": "MemoryLivelock", "action": "Killed", "note": "hung for 40 s",
            "eventTime": "2023-11-14T22:13:20.123456Z",
            "reportingController": "memguard.dev/memguard", "reportingInstance": "node-1",
            "regarding": {
                "apiVersion": "v1", "kind": "Pod", "namespace": "ci", "name": "runner-1", "uid": "7fb47c9c-45d8",
            },
        });
        assert_eq!(event, expected);
    }

    #[tokio::test]
    async fn a_repetition_has_the_same_name_and_is_success() {
        let (first, event) = told(notice("once"), 201).await;
        let (again, repeated) = told(Notice { at: SystemTime::now(), ..notice("twice") }, 409).await;
        assert_eq!((first, again), (Ok(()), Ok(())));
        assert_eq!(event["metadata"], repeated["metadata"]);
        for other in [
            Notice { incident: "1a2b-4".to_owned(), ..notice("") },
            Notice { action: NoticeAction::Relieved, ..notice("") },
        ] {
            assert_ne!(told(other, 201).await.1["metadata"]["name"], event["metadata"]["name"]);
        }
    }

    #[tokio::test]
    async fn refusals_are_told_apart() {
        assert!(matches!(told(notice(""), 503).await.0, Err(Failure::Later { .. })));
        assert!(matches!(told(notice(""), 422).await.0, Err(Failure::Final { .. })));
        let missing = told(notice(""), 403).await.0.unwrap_err().to_string();
        assert!(missing.contains("\"create\" on events.events.k8s.io"), "{missing}");
    }

    #[tokio::test]
    async fn notes_of_any_kind_fit() {
        let note = told(notice(&format!("a\nb{}", "ü€".repeat(1000))), 201).await.1["note"].clone();
        let note = note.as_str().unwrap();
        assert!(note.starts_with("a\\nbü€") && note.ends_with('…'), "{note}");
        assert!((NOTE - 4..=NOTE).contains(&note.len()), "{}", note.len());
        let long = Notice { node: "n".repeat(253), ..notice("") };
        assert_eq!(told(long, 201).await.1["reportingInstance"].as_str().unwrap().len(), INSTANCE);
    }

    #[test]
    fn odd_incident_ids_still_make_names() {
        for incident in ["", "A/b\n", "..", "-", &"é".repeat(500)] {
            let name = name(incident, NoticeAction::Observed, "7fb4-");
            assert!(name.len() <= NAME, "{name}");
            for label in name.split('.') {
                let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
                assert!(label.starts_with(inner) && label.ends_with(inner), "{name}");
                assert!(label.chars().all(|c| inner(c) || c == '-'), "{name}");
            }
        }
        assert_ne!(name("a/b", NoticeAction::Killed, "u"), name("a.b", NoticeAction::Killed, "u"));
    }
}
