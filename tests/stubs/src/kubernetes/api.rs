//! What the API server answers. Pure but for the store that it changes.

use serde_json::{Value, json};

use super::store::{Deletion, Key, Selection, Store};

/// Path before the namespace, its group, plural and kind.
const RESOURCES: [(&str, &str, &str, &str); 6] = [
    ("/api/v1", "", "pods", "Pod"),
    ("/api/v1", "", "secrets", "Secret"),
    ("/apis/actions.github.com/v1alpha1", "actions.github.com", "ephemeralrunners", "EphemeralRunner"),
    ("/apis/actions.summerwind.dev/v1alpha1", "actions.summerwind.dev", "runners", "Runner"),
    ("/apis/events.k8s.io/v1", "events.k8s.io", "events", "Event"),
    ("/apis/authorization.k8s.io/v1", "authorization.k8s.io", "selfsubjectaccessreviews", "SelfSubjectAccessReview"),
];

/// What memguard's `ClusterRole` gives, and everybody's right to ask for his rights. Everything else is refused.
const RIGHTS: [(&str, &str); 9] = [
    ("get", "pods"),
    ("list", "pods"),
    ("watch", "pods"),
    ("get", "ephemeralrunners"),
    ("delete", "ephemeralrunners"),
    ("get", "runners"),
    ("delete", "runners"),
    ("create", "events"),
    ("create", "selfsubjectaccessreviews"),
];

/// Rights that differ from those of the role, as verb and plural.
#[derive(Clone, Debug, Default)]
pub(super) struct Differing {
    pub(super) denied: Vec<(String, String)>,
    pub(super) granted: Vec<(String, String)>,
}

impl Differing {
    fn allow(&self, verb: &str, plural: &str) -> bool {
        let is = |rights: &[(String, String)]| rights.iter().any(|(v, p)| v == verb && p == plural);
        (RIGHTS.contains(&(verb, plural)) || is(&self.granted)) && !is(&self.denied)
    }
}

/// A request, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) verb: &'static str,
    group: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespace: Option<String>,
    name: Option<String>,
    query: Vec<(String, String)>,
}

/// What is to be answered.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Object {
        code: u16,
        body: Value,
        /// What it did, in words, if it changed anything.
        effect: Option<String>,
    },
    Watch {
        from: u64,
        selection: Selection,
        timeout_s: Option<u64>,
        bookmarks: bool,
    },
    /// As the server's HTTP layer answers what is none of the API's.
    Text {
        code: u16,
        body: &'static str,
    },
}

/// A failure in the form of the API.
pub(super) fn status(code: u16, message: &str, retry_after_s: Option<u32>) -> Value {
    let reason = match code {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "code": code,
    });
    if let Some(seconds) = retry_after_s {
        status["details"] = json!({"retryAfterSeconds": seconds});
    }
    status
}

fn failed(code: u16, message: &str) -> Answer {
    Answer::Object { code, body: status(code, message, None), effect: None }
}

fn object(code: u16, body: Value, effect: Option<String>) -> Answer {
    Answer::Object { code, body, effect }
}

impl Asked {
    /// `None` for a path that is none of the API's.
    pub(super) fn parse(method: &str, path_and_query: &str) -> Option<Self> {
        let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
        let query: Vec<(String, String)> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name), decoded(value))
            })
            .collect();
        let (group, plural, kind, rest) = RESOURCES.iter().find_map(|(prefix, group, plural, kind)| {
            let rest = path.strip_prefix(prefix)?.strip_prefix('/')?;
            let parts: Vec<&str> = rest.split('/').collect();
            let at = if parts[0] == "namespaces" { 2 } else { 0 };
            (parts.get(at) == Some(plural)).then_some((*group, *plural, *kind, parts))
        })?;
        let (namespace, name) = match rest.as_slice() {
            ["namespaces", namespace, _, name] => (Some(decoded(namespace)), Some(decoded(name))),
            ["namespaces", namespace, _] => (Some(decoded(namespace)), None),
            [_] => (None, None),
            _ => return None,
        };
        let watches = query.iter().any(|(name, value)| name == "watch" && matches!(value.as_str(), "true" | "1"));
        let verb = match (method, &name) {
            ("GET", Some(_)) => "get",
            ("GET", None) if watches => "watch",
            ("GET", None) => "list",
            ("POST", None) => "create",
            ("DELETE", Some(_)) => "delete",
            ("DELETE", None) => "deletecollection",
            ("PATCH", Some(_)) => "patch",
            ("PUT", Some(_)) => "update",
            _ => return None,
        };
        Some(Self { verb, group, plural, kind, namespace, name, query })
    }

    fn option(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
    }

    fn key(&self) -> Key {
        Key {
            plural: self.plural.to_owned(),
            namespace: self.namespace.clone().unwrap_or_default(),
            name: self.name.clone().unwrap_or_default(),
        }
    }

    fn selection(&self) -> Result<Selection, Answer> {
        let (mut node, mut not_phases) = (None, Vec::new());
        let selector = self.option("fieldSelector").unwrap_or_default();
        for term in selector.split(',').filter(|term| !term.is_empty()) {
            if let Some(phase) = term.strip_prefix("status.phase!=") {
                not_phases.push(phase.to_owned());
            } else if let Some(name) = term.strip_prefix("spec.nodeName=") {
                node = Some(name.trim_start_matches('=').to_owned());
            } else {
                return Err(failed(400, &format!("field label not supported: {term}")));
            }
        }
        Ok(Selection { plural: self.plural.to_owned(), namespace: self.namespace.clone(), node, not_phases })
    }
}

/// `%3D` and the like.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let (byte, length) = hex.filter(|_| *first == b'%').map_or((*first, 0), |byte| (byte, 2));
        bytes.push(byte);
        rest = &after[length..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Does what is asked for. `now` is RFC 3339.
pub(super) fn answer(store: &mut Store, rights: &Differing, asked: Option<&Asked>, body: &Value, now: &str) -> Answer {
    let Some(asked) = asked else { return Answer::Text { code: 404, body: "404 page not found\n" } };
    let allowed = |verb: &str, plural: &str| rights.allow(verb, plural);
    if !allowed(asked.verb, asked.plural) {
        let group = asked.group;
        let who = "User \"system:serviceaccount:memguard:memguard\"";
        let message = format!(
            "{}{}{group} is forbidden: {who} cannot {} resource \"{}\" in API group \"{group}\"",
            asked.plural,
            if group.is_empty() { "" } else { "." },
            asked.verb,
            asked.plural
        );
        return failed(403, &message);
    }
    match asked.verb {
        "get" => store.get(&asked.key()).map_or_else(|| not_found(asked), |found| object(200, found.clone(), None)),
        "list" => match asked.selection() {
            Ok(selection) => list(store, asked, &selection),
            Err(answer) => answer,
        },
        "watch" => match asked.selection() {
            Ok(selection) => watch(store, asked, selection),
            Err(answer) => answer,
        },
        "delete" => delete(store, asked, body, now),
        "create" if asked.plural == "events" => create_event(store, asked, body, now),
        "create" => review(asked, body, allowed),
        _ => failed(405, "the server does not allow this method on the requested resource"),
    }
}

fn not_found(asked: &Asked) -> Answer {
    let name = asked.name.as_deref().unwrap_or_default();
    failed(404, &format!("{} \"{name}\" not found", asked.plural))
}

fn list(store: &Store, asked: &Asked, selection: &Selection) -> Answer {
    // Items of a list don't say of what kind they are: the list does.
    let items = store.list(selection).into_iter().map(|mut item| {
        if let Some(item) = item.as_object_mut() {
            item.remove("apiVersion");
            item.remove("kind");
        }
        item
    });
    let body = json!({
        "kind": format!("{}List", asked.kind), "apiVersion": "v1",
        "metadata": {"resourceVersion": store.version().to_string()}, "items": items.collect::<Vec<_>>(),
    });
    object(200, body, None)
}

fn watch(store: &Store, asked: &Asked, selection: Selection) -> Answer {
    let version = asked.option("resourceVersion").unwrap_or_default();
    let from = match version {
        "" | "0" => store.version(),
        number => match number.parse() {
            Ok(number) => number,
            Err(_) => return failed(400, &format!("Invalid value: \"{number}\": resourceVersion")),
        },
    };
    Answer::Watch {
        from,
        selection,
        timeout_s: asked.option("timeoutSeconds").and_then(|seconds| seconds.parse().ok()),
        bookmarks: asked.option("allowWatchBookmarks") == Some("true"),
    }
}

fn delete(store: &mut Store, asked: &Asked, body: &Value, now: &str) -> Answer {
    let key = asked.key();
    let effect = |uid: &str| Some(format!("deleted {} {}/{} {uid}", key.plural, key.namespace, key.name));
    let had = store.get(&key).and_then(|object| object["metadata"]["uid"].as_str()).unwrap_or_default().to_owned();
    match store.delete(&key, body["preconditions"]["uid"].as_str(), now) {
        Deletion::NotFound => not_found(asked),
        Deletion::OtherUid(has) => {
            let wanted = body["preconditions"]["uid"].as_str().unwrap_or_default();
            let what = format!("{}.{} \"{}\"", asked.plural, asked.group, key.name);
            failed(
                409,
                &format!(
                    "Operation cannot be fulfilled on {what}: Precondition failed: UID in precondition: {wanted}, UID in object meta: {has}"
                ),
            )
        }
        Deletion::Gone => {
            let details = json!({"name": key.name, "group": asked.group, "kind": asked.plural, "uid": had});
            let body =
                json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            object(200, body, effect(&had))
        }
        Deletion::Waits { object: body, again } => object(200, body, if again { None } else { effect(&had) }),
    }
}

/// The checks of pkg/apis/core/validation, `ValidateEventCreate`, that memguard could fail.
fn create_event(store: &mut Store, asked: &Asked, body: &Value, now: &str) -> Answer {
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let namespace = asked.namespace.clone().unwrap_or_default();
    let name = text("/metadata/name").to_owned();
    let wrong = [
        (name.is_empty(), "metadata.name: Required value"),
        (text("/metadata/namespace") != namespace, "the namespace of the object does not match that of the request"),
        (text("/regarding/namespace") != namespace, "involvedObject.namespace: does not match event.namespace"),
        (!matches!(text("/type"), "Normal" | "Warning"), "type: Invalid value"),
        (text("/reason").is_empty() || text("/reason").len() > 128, "reason: must have 1 to 128 characters"),
        (text("/action").is_empty() || text("/action").len() > 128, "action: must have 1 to 128 characters"),
        (text("/note").len() > 1024, "note: can have at most 1024 bytes"),
        (!text("/reportingController").contains('/'), "reportingController: has to be qualified"),
        (text("/reportingInstance").is_empty(), "reportingInstance: Required value"),
        (text("/eventTime").is_empty(), "eventTime: Required value"),
    ];
    if let Some((_, message)) = wrong.iter().find(|(wrong, _)| *wrong) {
        return failed(422, &format!("Event \"{name}\" is invalid: {message}"));
    }
    let key = Key { plural: "events".to_owned(), namespace, name };
    if store.get(&key).is_some() {
        let mut body = status(409, &format!("events.events.k8s.io \"{}\" already exists", key.name), None);
        body["reason"] = "AlreadyExists".into();
        return object(409, body, None);
    }
    let effect = format!("told about {} {}/{}", text("/regarding/kind"), key.namespace, text("/regarding/name"));
    let mut event = body.clone();
    event["metadata"]["creationTimestamp"] = now.into();
    let made = store.put(key, event).clone();
    object(201, made, Some(effect))
}

fn review(asked: &Asked, body: &Value, allowed: impl Fn(&str, &str) -> bool) -> Answer {
    debug_assert_eq!(asked.plural, "selfsubjectaccessreviews");
    let of = |name: &str| body["spec"]["resourceAttributes"][name].as_str().unwrap_or_default();
    let mut review = body.clone();
    let known = RESOURCES.iter().any(|(_, group, plural, _)| (*group, *plural) == (of("group"), of("resource")));
    review["status"] = json!({"allowed": known && allowed(of("verb"), of("resource"))});
    object(201, review, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: &str = "/api/v1/pods?&fieldSelector=spec.nodeName%3Dnode-1&resourceVersion=0";
    const RUNNER: &str = "/apis/actions.github.com/v1alpha1/namespaces/ci/ephemeralrunners/r";

    fn code(store: &mut Store, method: &str, path: &str, body: &Value) -> u16 {
        match answer(store, &Differing::default(), Asked::parse(method, path).as_ref(), body, "now") {
            Answer::Object { code, .. } | Answer::Text { code, .. } => code,
            Answer::Watch { .. } => 200,
        }
    }

    #[test]
    fn requests_are_taken_apart() {
        let asked = Asked::parse("GET", PODS).unwrap();
        assert_eq!((asked.verb, asked.plural, asked.name.as_deref()), ("list", "pods", None));
        assert_eq!(asked.selection().unwrap().node.as_deref(), Some("node-1"));
        let asked = Asked::parse("DELETE", RUNNER).unwrap();
        assert_eq!((asked.verb, asked.namespace.as_deref(), asked.name.as_deref()), ("delete", Some("ci"), Some("r")));
        for path in ["/", "/api/v1", "/api/v1/nodes", "/api/v2/pods", &format!("{RUNNER}/status")] {
            assert_eq!(Asked::parse("GET", path), None, "{path}");
        }
    }

    #[test]
    fn nothing_is_allowed_that_memguards_role_does_not_give() {
        let mut store = Store::default();
        let pod = Key { plural: "pods".to_owned(), namespace: "ci".to_owned(), name: "p".to_owned() };
        store.put(pod, json!({}));
        for (method, path) in [
            ("DELETE", "/api/v1/namespaces/ci/pods/p"),
            ("DELETE", "/api/v1/namespaces/ci/pods"),
            ("PATCH", RUNNER),
            ("PUT", RUNNER),
            ("GET", "/apis/actions.github.com/v1alpha1/ephemeralrunners"),
            ("GET", "/apis/events.k8s.io/v1/events"),
            ("GET", "/api/v1/namespaces/ci/secrets/s"),
            ("GET", "/api/v1/secrets"),
        ] {
            assert_eq!(code(&mut store, method, path, &Value::Null), 403, "{method} {path}");
        }
        assert_eq!(code(&mut store, "GET", "/api/v1/namespaces/ci/pods/p", &Value::Null), 200);
        let granted = vec![("get".to_owned(), "secrets".to_owned())];
        let rights = Differing { granted, ..Differing::default() };
        let asked = Asked::parse("GET", "/api/v1/namespaces/ci/secrets/s");
        let answer = answer(&mut store, &rights, asked.as_ref(), &Value::Null, "now");
        assert!(matches!(answer, Answer::Object { code: 404, .. }), "{answer:?}");
        assert_eq!(code(&mut store, "GET", "/api/v1/pods?fieldSelector=spec.x%3Dy", &Value::Null), 400);
    }

    #[test]
    fn rights_are_told_as_they_are() {
        let mut store = Store::default();
        let mut allowed = |verb: &str, group: &str, resource: &str| {
            let body = json!({"spec": {"resourceAttributes": {"verb": verb, "group": group, "resource": resource}}});
            let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
            let denied = vec![("delete".to_owned(), "runners".to_owned())];
            let rights = Differing { denied, ..Differing::default() };
            match answer(&mut store, &rights, Asked::parse("POST", path).as_ref(), &body, "now") {
                Answer::Object { body, .. } => body["status"]["allowed"] == true,
                other => panic!("{other:?}"),
            }
        };
        assert!(allowed("get", "", "pods"));
        assert!(!allowed("delete", "", "pods"));
        assert!(!allowed("get", "apps", "pods"));
        assert!(!allowed("delete", "actions.summerwind.dev", "runners"));
    }

    #[test]
    fn percent_signs_are_decoded() {
        assert_eq!(decoded("a%3Db%2f%zz%"), "a=b/%zz%");
    }
}
