//! Objects with versions, as etcd and the API server keep them. Pure.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// As in a path: `pods`.
    pub(super) plural: String,
    pub(super) namespace: String,
    pub(super) name: String,
}

/// A change of an object: what it was, and what it is now.
#[derive(Clone, Debug)]
struct Change {
    version: u64,
    plural: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// What a watch sends: the type of the event, and the object.
pub(super) type Event = (&'static str, Value);

/// What a list or a watch is about.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    pub(super) plural: String,
    pub(super) namespace: Option<String>,
    /// `spec.nodeName=…`; other fields are refused, as most are by a real server.
    pub(super) node: Option<String>,
    /// `status.phase!=…`.
    pub(super) not_phases: Vec<String>,
}

impl Selection {
    fn takes(&self, object: &Value) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| object["metadata"]["namespace"] == **namespace)
            && self.node.as_ref().is_none_or(|node| object["spec"]["nodeName"] == **node)
            && self.not_phases.iter().all(|phase| object["status"]["phase"] != **phase)
    }
}

/// A version that was asked for is not known any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expired;

/// What came of a deletion.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Deletion {
    /// It is gone.
    Gone,
    /// Its finalizers hold it: the object, and whether it was being deleted already.
    Waits {
        object: Value,
        again: bool,
    },
    NotFound,
    /// Another uid: the one that it has.
    OtherUid(String),
}

#[derive(Debug)]
pub(super) struct Store {
    objects: BTreeMap<Key, Value>,
    version: u64,
    changes: Vec<Change>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
    made: u64,
}

impl Default for Store {
    fn default() -> Self {
        // A version of 0 means "any" in a request.
        Self { objects: BTreeMap::new(), version: 1, changes: Vec::new(), forgotten: 0, made: 0 }
    }
}

impl Store {
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn get(&self, key: &Key) -> Option<&Value> {
        self.objects.get(key)
    }

    /// Makes it, or takes its place. A uid that is missing is made up.
    pub(super) fn put(&mut self, key: Key, mut object: Value) -> &Value {
        self.version += 1;
        self.made += 1;
        let uid = object["metadata"]["uid"]
            .as_str()
            .map_or_else(|| format!("{:08x}-0000-4000-8000-{:012x}", self.made, self.version), str::to_owned);
        let before = self.objects.get(&key).cloned();
        let metadata = &mut object["metadata"];
        metadata["name"] = key.name.clone().into();
        metadata["namespace"] = key.namespace.clone().into();
        metadata["uid"] = uid.into();
        metadata["resourceVersion"] = self.version.to_string().into();
        self.note(&key, before, Some(object.clone()));
        self.objects.entry(key).insert_entry(object).into_mut()
    }

    /// As somebody with every right does it, whatever its finalizers.
    pub(super) fn remove(&mut self, key: &Key) -> bool {
        let Some(mut object) = self.objects.remove(key) else { return false };
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.note(key, Some(object), None);
        true
    }

    /// As the API does it. `now` becomes the deletion timestamp.
    pub(super) fn delete(&mut self, key: &Key, uid: Option<&str>, now: &str) -> Deletion {
        let Some(object) = self.objects.get(key) else { return Deletion::NotFound };
        let has = object["metadata"]["uid"].as_str().unwrap_or_default();
        if uid.is_some_and(|uid| uid != has) {
            return Deletion::OtherUid(has.to_owned());
        }
        if object["metadata"]["deletionTimestamp"].is_string() {
            return Deletion::Waits { object: object.clone(), again: true };
        }
        if object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
            self.remove(key);
            return Deletion::Gone;
        }
        let mut object = object.clone();
        object["metadata"]["deletionTimestamp"] = now.into();
        Deletion::Waits { object: self.put(key.clone(), object).clone(), again: false }
    }

    /// As a controller does it that has cleaned up: what was only waiting for that is gone then.
    pub(super) fn remove_finalizers(&mut self, key: &Key) {
        let Some(object) = self.objects.get(key) else { return };
        let mut object = object.clone();
        object["metadata"]["finalizers"] = json!([]);
        let ends = object["metadata"]["deletionTimestamp"].is_string();
        self.put(key.clone(), object);
        if ends {
            self.remove(key);
        }
    }

    pub(super) fn list(&self, selection: &Selection) -> Vec<Value> {
        let of_kind = self.objects.iter().filter(|(key, _)| key.plural == selection.plural);
        of_kind.map(|(_, object)| object).filter(|object| selection.takes(object)).cloned().collect()
    }

    /// Everything that is there, and is waiting for its finalizers.
    pub(super) fn waiting(&self, plural: &str) -> Vec<Key> {
        let waits = |object: &Value| object["metadata"]["deletionTimestamp"].is_string();
        let all = self.objects.iter().filter(|(key, object)| key.plural == plural && waits(object));
        all.map(|(key, _)| key.clone()).collect()
    }

    /// Events of a watch since a version: their type and object, and the version from which to go on.
    pub(super) fn since(&self, version: u64, selection: &Selection) -> Result<(Vec<Event>, u64), Expired> {
        if version < self.forgotten {
            return Err(Expired);
        }
        let new = self.changes.iter().filter(|change| change.version > version && change.plural == selection.plural);
        let events = new.filter_map(|change| {
            let takes = |object: &Option<Value>| object.as_ref().is_some_and(|object| selection.takes(object));
            let (before, after) = (takes(&change.before), takes(&change.after));
            match (before, after) {
                (false, true) => Some(("ADDED", change.after.clone()?)),
                (true, true) => Some(("MODIFIED", change.after.clone()?)),
                // The object as it was, with the version at which it went.
                (true, false) => {
                    let mut gone = change.before.clone()?;
                    gone["metadata"]["resourceVersion"] = change.version.to_string().into();
                    Some(("DELETED", gone))
                }
                (false, false) => None,
            }
        });
        Ok((events.collect(), self.version))
    }

    /// Forgets all changes up to now, as compaction does: whoever is not up to date has to list again.
    pub(super) fn expire(&mut self) {
        self.version += 1;
        self.forgotten = self.version;
        self.changes.clear();
    }

    fn note(&mut self, key: &Key, before: Option<Value>, after: Option<Value>) {
        self.changes.push(Change { version: self.version, plural: key.plural.clone(), before, after });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { plural: "pods".to_owned(), namespace: "ci".to_owned(), name: name.to_owned() }
    }

    fn of_node(node: &str) -> Selection {
        Selection { plural: "pods".to_owned(), node: Some(node.to_owned()), ..Selection::default() }
    }

    fn kinds(store: &Store, version: u64, selection: &Selection) -> Vec<&'static str> {
        store.since(version, selection).unwrap().0.into_iter().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn a_watch_sees_what_comes_into_its_selection_and_leaves_it() {
        let mut store = Store::default();
        let begin = store.version();
        store.put(key("a"), json!({"spec": {}}));
        assert_eq!(kinds(&store, begin, &of_node("n")), [""; 0]);
        store.put(key("a"), json!({"spec": {"nodeName": "n"}}));
        store.put(key("a"), json!({"spec": {"nodeName": "n"}, "status": {}}));
        store.remove(&key("a"));
        assert_eq!(kinds(&store, begin, &of_node("n")), ["ADDED", "MODIFIED", "DELETED"]);
        assert_eq!(kinds(&store, begin, &of_node("m")), [""; 0]);
        assert_eq!(store.since(store.version(), &of_node("n")), Ok((Vec::new(), store.version())));
    }

    #[test]
    fn a_pod_that_ends_leaves_a_selection_by_phase() {
        let mut store = Store::default();
        let begin = store.version();
        let running = Selection { not_phases: vec!["Failed".to_owned()], ..of_node("n") };
        let pod = |phase| json!({"spec": {"nodeName": "n"}, "status": {"phase": phase}});
        store.put(key("a"), pod("Running"));
        store.put(key("a"), pod("Failed"));
        store.remove(&key("a"));
        assert_eq!(kinds(&store, begin, &running), ["ADDED", "DELETED"]);
        let gone = &store.since(begin, &running).unwrap().0[1].1;
        assert_eq!(gone["status"], pod("Running")["status"], "as it was when it was selected");
        assert_eq!(gone["metadata"]["resourceVersion"], (begin + 2).to_string(), "and when it went");
    }

    #[test]
    fn what_was_forgotten_has_to_be_listed() {
        let mut store = Store::default();
        let before = store.version();
        store.expire();
        assert_eq!(store.since(before, &of_node("n")), Err(Expired));
        assert_eq!(store.since(store.version(), &of_node("n")).unwrap().0, []);
    }

    #[test]
    fn finalizers_hold_an_object_until_they_are_removed() {
        let mut store = Store::default();
        store.put(key("a"), json!({"metadata": {"uid": "u", "finalizers": ["f"]}}));
        assert_eq!(store.delete(&key("a"), Some("v"), "now"), Deletion::OtherUid("u".to_owned()));
        assert!(matches!(store.delete(&key("a"), Some("u"), "now"), Deletion::Waits { again: false, .. }));
        assert!(matches!(store.delete(&key("a"), None, "later"), Deletion::Waits { again: true, .. }));
        assert_eq!(store.get(&key("a")).unwrap()["metadata"]["deletionTimestamp"], "now");
        assert_eq!(store.waiting("pods"), [key("a")]);
        store.remove_finalizers(&key("a"));
        assert_eq!(store.delete(&key("a"), None, "now"), Deletion::NotFound);
        store.put(key("b"), json!({"metadata": {"uid": "u"}}));
        assert_eq!(store.delete(&key("b"), Some("u"), "now"), Deletion::Gone);
    }
}
